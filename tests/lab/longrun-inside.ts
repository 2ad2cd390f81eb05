import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { MessageBusPort, systemBusAddress } from '#host/bus.ts';
import { systemClock } from '#host/clock.ts';
import { Files } from '#host/files.ts';
import { SystemdLauncher } from '#host/longrun-systemd.ts';
import { SecretFiles } from '#host/secrets.ts';
import { longRunContract } from '../support/longrun-contract.ts';

// Runs inside a machine whose PID 1 is systemd, started there by longrun.lab.test.ts.
const bus = new MessageBusPort(systemBusAddress(process.env), systemClock);
const secrets = (dir: string) => new SecretFiles(dir, new Files());

longRunContract({
  scratch: tmpdir(),
  launcher: (shelf) => new SystemdLauncher(bus, shelf ?? secrets(tmpdir())),
  secrets,
  kills: Number(process.env['KILLS'] ?? 20),
  driver: fileURLToPath(new URL('../support/longrun-driver.ts', import.meta.url)),
  done: () => bus.close(),
});
