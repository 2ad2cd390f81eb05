/**
 * Makes the messages of the container runtime from their .proto files: `scripts/node scripts/generate-cri.ts`. Works
 * offline (buf and protoc-gen-es are npm packages); the output is committed, so nobody needs this to build or test.
 */
import { execFileSync } from 'node:child_process';
import { dirname, join } from 'node:path';

const root = dirname(import.meta.dirname);
const bin = join(root, 'node_modules', '.bin');

for (const folder of ['src/containerd', 'tests/support']) {
  const template = {
    version: 'v2',
    clean: true,
    plugins: [
      {
        // Through this very Node: the plugin's own #! line would ask for any Node on the PATH.
        local: [process.execPath, join(bin, 'protoc-gen-es')],
        out: join(root, folder, 'generated'),
        opt: ['target=ts', 'import_extension=ts'],
      },
    ],
  };
  execFileSync(
    process.execPath,
    [join(bin, 'buf'), 'generate', `${folder}/proto`, '--template', JSON.stringify(template)],
    { cwd: root, stdio: 'inherit' },
  );
}
