import { MessageBusPort, systemBusAddress } from '#host/bus.ts';
import { systemClock } from '#host/clock.ts';
import { Files } from '#host/files.ts';
import { SystemLongRun } from '#host/longrun.ts';
import { DetachedLauncher } from '#host/longrun-detached.ts';
import { SystemdLauncher } from '#host/longrun-systemd.ts';
import { SecretFiles } from '#host/secrets.ts';

/**
 * A daemon reduced to one run: starts it, or finds it again, waits, prints how it ended. Made to be killed.
 * Arguments: launcher, folder of the runs, folder for secrets, id, log file, then the command.
 */
const [, , kind, runsDir = '', secretsDir = '', id = '', logFile = '', ...argv] = process.argv;
const files = new Files();
const bus = new MessageBusPort(systemBusAddress(process.env), systemClock);
const launcher =
  kind === 'systemd' ? new SystemdLauncher(bus, new SecretFiles(secretsDir, files)) : new DetachedLauncher();
const runs = new SystemLongRun({ runsDir, launcher, files, clock: systemClock, checkMs: 500 });
const alive = setInterval(() => undefined, 1000); // the daemon's listener would keep the process
await runs.start({ id, argv, env: { PATH: '/usr/bin:/bin' }, cwd: '/', logFile });
process.stdout.write('started\n');
const end = await runs.wait(id, new AbortController().signal);
process.stdout.write(`${JSON.stringify(end)}\n`);
clearInterval(alive);
await bus.close();
