import { type Bus, BusError } from '#host/bus.ts';
import type { Launcher, LongRunSpec } from '#host/longrun.ts';
import { signalSession } from '#host/longrun-detached.ts';
import type { SecretFiles } from '#host/secrets.ts';

const manager = {
  service: 'org.freedesktop.systemd1',
  path: '/org/freedesktop/systemd1',
  interface: 'org.freedesktop.systemd1.Manager',
} as const;

/** The transient unit of a run. */
export function unitName(id: string): string {
  return `beosd-${id}.service`;
}

/**
 * Runs in a transient unit of its own (org.freedesktop.systemd1(5), StartTransientUnit), so that stopping or restarting
 * the daemon's unit, which ends everything in its control group, leaves the run alone.
 */
export class SystemdLauncher implements Launcher {
  readonly name = 'systemd';
  readonly #bus: Bus;
  readonly #secrets: SecretFiles;

  constructor(bus: Bus, secrets: SecretFiles) {
    this.#bus = bus;
    this.#secrets = secrets;
  }

  async launch(spec: LongRunSpec, argv: readonly string[]): Promise<void> {
    const secretFile = this.#putSecrets(spec);
    try {
      await this.#bus.call({
        ...manager,
        member: 'StartTransientUnit',
        signature: 'ssa(sv)a(sa(sv))',
        args: [unitName(spec.id), 'fail', properties(spec, argv, secretFile), []],
        timeoutMs: 30_000,
      });
    } catch (error) {
      // Asked for before a crash: that unit's runner has the claim, or will find it taken.
      if (!isBusError(error, 'org.freedesktop.systemd1.UnitExists')) throw error;
    }
  }

  async signal(id: string, pid: number, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    try {
      await this.#bus.call(
        signal === 'SIGTERM'
          ? { ...manager, member: 'StopUnit', signature: 'ss', args: [unitName(id), 'replace'] }
          : { ...manager, member: 'KillUnit', signature: 'ssi', args: [unitName(id), 'all', 9] },
      );
    } catch (error) {
      if (!(error instanceof BusError)) throw error;
      signalSession(pid, signal); // no bus any more, or a run that the other launcher began
    }
  }

  cleanUp(id: string): void {
    this.#secrets.remove(secretName(id));
  }

  #putSecrets(spec: LongRunSpec): string | undefined {
    if (spec.secretEnv === undefined || Object.keys(spec.secretEnv).length === 0) return undefined;
    this.#secrets.remove(secretName(spec.id));
    return this.#secrets.put(secretName(spec.id), environmentFile(spec.secretEnv));
  }
}

function secretName(id: string): string {
  return `${id}.env`;
}

type Property = readonly [name: string, value: readonly [signature: string, value: unknown]];

function properties(spec: LongRunSpec, argv: readonly string[], secretFile: string | undefined): Property[] {
  const environment = Object.entries(spec.env).map(([name, value]) => `${name}=${value}`);
  return [
    ['Description', ['s', `beosd: ${spec.argv.slice(0, 2).join(' ')}`]],
    ['Type', ['s', 'exec']],
    // Without expansion: systemd would otherwise replace $… in the runner's text and in the arguments.
    ['ExecStartEx', ['a(sasas)', [[argv[0], [...argv], ['no-env-expand']]]]],
    ['WorkingDirectory', ['s', spec.cwd]],
    ['Environment', ['as', environment]],
    ...(secretFile === undefined
      ? []
      : [['EnvironmentFiles', ['a(sb)', [[secretFile, false]]]] satisfies Property]),
    ['StandardInput', ['s', 'null']],
    ['StandardOutput', ['s', 'null']],
    ['StandardError', ['s', 'null']],
    ['KillMode', ['s', 'mixed']], // TERM to the runner, which passes it on; KILL to all that is left
    ['TimeoutStopUSec', ['t', 20_000_000n]],
    ['TasksMax', ['t', 18446744073709551615n]], // infinity, as for a shell of root
    ['OOMPolicy', ['s', 'continue']],
    ['CollectMode', ['s', 'inactive-or-failed']],
  ];
}

/** The format of systemd.exec(5) EnvironmentFile=: in double quotes only `"`, `\`, `$` and the backtick are special. */
export function environmentFile(values: Readonly<Record<string, string>>): string {
  return Object.entries(values)
    .map(([name, value]) => {
      if (/[\n\r\0]/.test(value)) throw new Error(`${name} must be one line`);
      return `${name}="${value.replace(/["\\$`]/g, '\\$&')}"\n`;
    })
    .join('');
}

function isBusError(error: unknown, dbusName: string): boolean {
  return error instanceof BusError && error.dbusName === dbusName;
}
