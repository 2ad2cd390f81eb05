import type { Exec } from '#host/exec.ts';

/** The service manager that started us, if one did (sd_notify(3)). */
export interface ServiceManager {
  /** READY=1 and friends; a manager that does not listen is no error. */
  notify(state: string): Promise<void>;
  /** How often the manager wants to hear from us, ms; undefined: it does not watch. */
  readonly watchdogMs: number | undefined;
}

type SdNotify = (unsetEnvironment: number, state: string) => number;

/**
 * `NOTIFY_SOCKET` is a datagram socket, which Node cannot open: libsystemd is called through node:ffi where this Node
 * has it, else systemd-notify(1) is run for each message.
 */
export function serviceManager(
  env: NodeJS.ProcessEnv,
  exec: Pick<Exec, 'run'>,
  load: () => SdNotify | undefined = loadSdNotify,
): ServiceManager {
  if (env['NOTIFY_SOCKET'] === undefined) return { notify: async () => undefined, watchdogMs: undefined };
  const direct = load();
  const micros = Number(env['WATCHDOG_USEC']);
  const forUs = env['WATCHDOG_PID'] === undefined || env['WATCHDOG_PID'] === String(process.pid);
  return {
    notify: async (state) => {
      if (direct !== undefined) {
        direct(0, state);
        return;
      }
      const socket = { NOTIFY_SOCKET: env['NOTIFY_SOCKET'] ?? '' };
      const args = [`--pid=${process.pid}`, state];
      // A machine so busy that it cannot start a child is no reason to end: the watchdog hears from us the next time.
      await exec.run('systemd-notify', args, { env: socket, timeoutMs: 5000 }).catch(() => undefined);
    },
    watchdogMs: forUs && micros > 0 ? micros / 1000 : undefined,
  };
}

function loadSdNotify(): SdNotify | undefined {
  // Loading prints an ExperimentalWarning, which is meant for developers, not for the journal of every node.
  const warnings = process.listeners('warning');
  process.removeAllListeners('warning');
  try {
    const ffi = process.getBuiltinModule('node:ffi' as 'node:os') as unknown as
      | { dlopen(file: string, symbols: object): { functions: Record<string, SdNotify> } }
      | undefined;
    // Both spellings: the keys were renamed between releases, and a wrong one is ignored in silence.
    const signature = {
      arguments: ['i32', 'string'],
      return: 'i32',
      parameters: ['i32', 'string'],
      result: 'i32',
    };
    return ffi?.dlopen('libsystemd.so.0', { sd_notify: signature }).functions['sd_notify'];
  } catch {
    return undefined;
  } finally {
    setImmediate(() => {
      for (const listener of warnings) process.on('warning', listener);
    });
  }
}
