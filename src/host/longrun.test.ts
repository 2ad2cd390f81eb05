import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { Files } from '#host/files.ts';
import { DetachedLauncher } from '#host/longrun-detached.ts';
import { SecretFiles } from '#host/secrets.ts';
import { longRunContract } from '../../tests/support/longrun-contract.ts';

longRunContract({
  scratch: tmpdir(),
  launcher: () => new DetachedLauncher(),
  secrets: (dir) => new SecretFiles(dir, new Files()),
  kills: Number(process.env['KILLS'] ?? 20),
  driver: fileURLToPath(new URL('../../tests/support/longrun-driver.ts', import.meta.url)),
});
