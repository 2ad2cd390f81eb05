import { type ErrorCode, fault } from '#api/errors.ts';
import { type Bus, BusError } from '#host/bus.ts';
import type { Clock } from '#host/clock.ts';
import { type Exec, ExecError } from '#host/exec.ts';
import type { Files } from '#host/files.ts';
import type { JobDefinition, Phase, PhaseContext } from '#jobs/definition.ts';
import { Interrupted } from '#jobs/outcome.ts';
import { type Fault, messageOf } from '#lib/fault.ts';

export type PowerInput = Readonly<Record<string, never>>;

export interface PowerOptions {
  readonly bus: Bus;
  readonly exec: Exec;
  readonly files: Files;
  readonly clock: Clock;
  /** Identity of this start of the machine (host/boot.ts). */
  readonly bootIdentity: () => string;
  /** The daemon runs without --system: the machine is not ours to switch off. */
  readonly sandboxed: boolean;
}

interface Way {
  readonly operation: 'command.reboot' | 'command.shutdown';
  /** Method of logind (org.freedesktop.login1(5)). */
  readonly method: 'Reboot' | 'PowerOff';
  /** Verb of systemctl where there is no bus. */
  readonly verb: 'reboot' | 'poweroff';
  readonly doing: string;
}

const login = {
  service: 'org.freedesktop.login1',
  path: '/org/freedesktop/login1',
  interface: 'org.freedesktop.login1.Manager',
} as const;

/** The answer has left by then, and a slip of the finger can still be called back. */
const waitMs = 2_000;

/** The job behind POST /command/reboot. */
export function rebootDefinition(options: PowerOptions): JobDefinition<PowerInput> {
  return definition(options, {
    operation: 'command.reboot',
    method: 'Reboot',
    verb: 'reboot',
    doing: 'restarting the machine',
  });
}

/** The job behind POST /command/shutdown. */
export function shutdownDefinition(options: PowerOptions): JobDefinition<PowerInput> {
  return definition(options, {
    operation: 'command.shutdown',
    method: 'PowerOff',
    verb: 'poweroff',
    doing: 'switching the machine off',
  });
}

function definition(options: PowerOptions, way: Way): JobDefinition<PowerInput> {
  return {
    operation: way.operation,
    preconditions: () => [
      {
        name: 'sandbox',
        ok: !options.sandboxed,
        reason: options.sandboxed
          ? 'without --system the machine is left as it is'
          : 'may act on this machine',
        code: 'sandbox',
      },
    ],
    phases: () => [wait(options, way), issue(options, way)],
  };
}

function wait({ clock }: PowerOptions, way: Way): Phase<PowerInput> {
  return {
    name: 'wait',
    does: `waits ${waitMs / 1000} s, during which it can be cancelled`,
    reversible: true,
    weight: 50,
    cancellable: true,
    afterCrash: 'fail', // nobody expects a machine to go down because its daemon was started
    run: async ({ progress, signal }) => {
      progress(0, `${way.doing} in ${waitMs / 1000} s`);
      await clock.sleep(waitMs, signal);
    },
  };
}

function issue(options: PowerOptions, way: Way): Phase<PowerInput> {
  return {
    name: 'issue',
    does: `asks logind: ${way.method}`,
    reversible: false,
    weight: 50,
    cancellable: false,
    afterCrash: 'resume',
    run: async ({ remember, progress }) => {
      progress(null, way.doing);
      remember({ boot: options.bootIdentity() });
      await ask(options, way);
    },
    resume: (context) => findOut(options, context),
  };
}

/** After a crash: another boot is the proof; in the same one only what systemd itself says about a shutdown counts. */
async function findOut(options: PowerOptions, { checkpoint }: PhaseContext<PowerInput>): Promise<void> {
  const before = checkpoint['boot'];
  if (typeof before === 'string' && before !== options.bootIdentity()) return;
  if (typeof before === 'string' && (await goingDown(options))) return;
  throw new Interrupted('The daemon ended before it could ask for it; the machine has stayed up.');
}

async function goingDown({ bus, files }: PowerOptions): Promise<boolean> {
  return files.exists(files.systemPath('/run/systemd/shutdown/scheduled')) || (await isPreparing(bus));
}

/** It goes down at this moment; one that is planned for later is no answer to who asked for it now. */
async function isPreparing(bus: Bus): Promise<boolean> {
  const { service, path, interface: iface } = login;
  return (await bus.property(service, path, iface, 'PreparingForShutdown').catch(() => false)) === true;
}

async function ask(options: PowerOptions, way: Way): Promise<void> {
  try {
    const holders = await inhibitors(options.bus);
    // logind lets root pass over them; who asks from afar cannot know what is being held, so we do not.
    if (holders.length > 0) throw refused(way, holders.join('; '));
    await options.bus.call({ ...login, member: way.method, signature: 'b', args: [false] });
  } catch (error) {
    if (!(error instanceof BusError)) throw error;
    if (leavesOpen(error) && (await isPreparing(options.bus))) return;
    if (isAbsent(error)) await askSystemctl(options.exec, way);
    else throw refused(way, await whyRefused(options.bus, error));
  }
}

/** Whoever was to answer may have gone with the machine: the request can have been heard all the same. */
function leavesOpen({ reason, dbusName }: BusError): boolean {
  return reason !== 'refused' || dbusName === 'org.freedesktop.DBus.Error.NoReply';
}

/** Nobody answers to that name: no bus, or no logind on it. Anything else is an answer. */
function isAbsent(error: BusError): boolean {
  const nobody = ['org.freedesktop.DBus.Error.ServiceUnknown', 'org.freedesktop.DBus.Error.NameHasNoOwner'];
  return error.reason === 'unavailable' || (error.dbusName !== undefined && nobody.includes(error.dbusName));
}

async function askSystemctl(exec: Exec, { verb, doing }: Way): Promise<void> {
  try {
    await exec.run('systemctl', [verb], { timeoutMs: 30_000 });
  } catch (error) {
    if (!(error instanceof ExecError)) throw error;
    throw fault(
      'systemd_unavailable',
      `${doing}: neither logind nor systemctl could do it: ${error.message}`,
      {
        cause: error,
      },
    );
  }
}

async function whyRefused(bus: Bus, error: BusError): Promise<string> {
  const holders = await inhibitors(bus).catch(() => []);
  return [messageOf(error), ...holders].join('; ');
}

/** Who holds the shutdown back, in words (ListInhibitors: what, who, why, mode, uid, pid). */
async function inhibitors(bus: Bus): Promise<string[]> {
  const [list] = await bus.call({ ...login, member: 'ListInhibitors' });
  if (!Array.isArray(list)) return [];
  return list
    .filter(([what, , , mode]) => mode === 'block' && String(what).split(':').includes('shutdown'))
    .map(([, who, why, , , pid]) => `${who} (process ${pid}) holds it back: ${why}`);
}

function refused(way: Way, why: string): Fault<ErrorCode> {
  return fault('power_refused', `${way.doing}: refused. ${why}`);
}
