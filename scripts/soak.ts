import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Long counts that are too slow for every run: the same tests with `BEOSD_SOAK=1`, which they read to run their full
 * count. The result is committed as evidence.
 */
const soaks: Readonly<Record<string, readonly string[]>> = {
  containerd: [
    'src/containerd/prune.test.ts',
    'src/containerd/config-edit.test.ts',
    'src/containerd/config-switch.test.ts',
  ],
  fuzz: ['tests/scenarios/fuzz.test.ts'],
  'hosts-file': ['src/network/hosts-file.test.ts'],
  kube: [
    'tests/scenarios/kube-situations.real.test.ts',
    'tests/scenarios/kube-faults.real.test.ts',
    'tests/scenarios/kube-callers.real.test.ts',
    'tests/scenarios/kube-scale.timing.test.ts',
    'tests/scenarios/kube-scale.real.test.ts',
  ],
  shares: ['tests/lab/storage-shares.lab.test.ts'],
  storage: ['src/storage/model.test.ts', 'tests/host/storage-model.real.test.ts'],
  'storage-lab': ['tests/lab/storage-kills.lab.test.ts', 'tests/lab/storage-provision.lab.test.ts'],
};

export async function runSoak(root: string, name: string): Promise<number> {
  const files = soaks[name];
  if (files === undefined) {
    process.stderr.write(
      `There is no soak "${name}"; there are: ${Object.keys(soaks).join(', ') || 'none'}\n`,
    );
    return 2;
  }
  const seed = process.env['BEOSD_SEED'] ?? String(Date.now() % 2 ** 31);
  const commit = spawnSync('git', ['rev-parse', 'HEAD'], { cwd: root, encoding: 'utf8' }).stdout.trim();
  const started = Date.now();
  const result = spawnSync(process.execPath, ['--test', '--test-reporter=tap', ...files], {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, BEOSD_SOAK: '1', BEOSD_SEED: seed },
    maxBuffer: 64 * 1024 * 1024,
  });
  const kept = result.stdout
    .split('\n')
    .filter((line) => /^\s*(ok|not ok|# (?!Subtest|duration))/.test(line))
    .map((line) => line.replaceAll(root, '.'));
  const seconds = Math.round((Date.now() - started) / 1000);
  mkdirSync(join(root, 'docs/evidence'), { recursive: true });
  const text = `# Soak: ${name}\n\nSeed ${seed}, commit ${commit}, ${seconds} s, exit ${result.status}.\n\n\`\`\`\n${kept.join('\n')}\n\`\`\`\n`;
  writeFileSync(join(root, `docs/evidence/${name}.md`), text);
  process.stdout.write(text);
  // What is kept says that it failed, and not of what.
  if (result.status !== 0) process.stderr.write(result.stdout + result.stderr);
  return result.status ?? 1;
}
