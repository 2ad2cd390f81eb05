import { bootIdentity } from '#host/boot.ts';
import { MessageBusPort, systemBusAddress } from '#host/bus.ts';
import { systemClock } from '#host/clock.ts';
import { SystemExec } from '#host/exec.ts';
import { Files } from '#host/files.ts';
import type { PhaseContext } from '#jobs/definition.ts';
import { messageOf } from '#lib/fault.ts';
import { type PowerInput, rebootDefinition, shutdownDefinition } from '#system/power.ts';

// Runs inside a machine whose PID 1 is systemd: does what the job of the named operation does after its pause.
const bus = new MessageBusPort(systemBusAddress(process.env), systemClock);
const options = {
  bus,
  exec: new SystemExec(),
  files: new Files(),
  clock: systemClock,
  bootIdentity,
  sandboxed: false,
};
const definition = process.argv[2] === 'reboot' ? rebootDefinition(options) : shutdownDefinition(options);
const issue = definition.phases({}).find(({ name }) => name === 'issue');
const context: PhaseContext<PowerInput> = {
  jobId: 'lab',
  input: {},
  signal: new AbortController().signal,
  checkpoint: {},
  remember: () => undefined,
  progress: () => undefined,
};
try {
  await issue?.run(context);
  process.stdout.write('accepted\n');
} catch (error) {
  process.stdout.write(`${messageOf(error)}\n`);
}
await bus.close();
