import { join } from 'node:path';
import { fault } from '#api/errors.ts';
import { makeLogFolder, nodeValues, runInstaller, versionFolder } from '#cluster/installer-run.ts';
import type { InstallerOptions } from '#cluster/ports.ts';
import type { Check, JobDefinition, Phase, PhaseContext } from '#jobs/definition.ts';
import { errnoOf, messageOf } from '#lib/fault.ts';

/** What the journal keeps of an installation: never the password, only the name of the file that holds it. */
export interface InstallInput {
  readonly username: string;
  readonly email: string;
  readonly domain: string;
  /** Name of the password in the secrets folder; in a dry run there is none. */
  readonly secret: string;
}

/** The job behind POST /command/install. */
export function installDefinition(options: InstallerOptions): JobDefinition<InstallInput> {
  return {
    operation: 'command.install',
    preconditions: () => installChecks(options),
    phases: () => [prepare(options), install(options), verify(options)],
    finished: ({ secret }, { jobId, state }) => {
      options.secrets.remove(secret);
      if (state === 'succeeded') options.claim.confirm();
      // A claim outlives an installation that went wrong half-way: somebody must be able to uninstall what it left.
      else if (state === 'cancelled' && options.longRun.find(jobId).kind === 'none') options.claim.lapse();
      // The run is not forgotten here: until the journal has the end of the job, a crash asks for its result again.
    },
  };
}

function prepare(options: InstallerOptions): Phase<InstallInput> {
  return {
    name: 'prepare',
    does: `makes ${versionFolder(options)} and checks that the password is at hand`,
    reversible: true,
    weight: 1,
    cancellable: true,
    afterCrash: 'repeat',
    run: ({ input, progress }) => {
      progress(null, 'making folders');
      makeLogFolder(options);
      passwordOf(options, input);
      return Promise.resolve();
    },
  };
}

function install(options: InstallerOptions): Phase<InstallInput> {
  const run = (context: PhaseContext<InstallInput>) => {
    const { input } = context;
    // After a crash the installer has had it already; the file may be gone with a reboot.
    const password = options.secrets.read(input.secret);
    const { way, variable } = options.profile.password;
    return runInstaller(options, context, {
      command: options.profile.install,
      values: { ...nodeValues(options), username: input.username, email: input.email, domain: input.domain },
      ...(way === 'file' ? { env: { [variable]: options.secrets.path(input.secret) } } : {}),
      ...(way === 'environment' ? { secretEnv: { [variable]: password ?? '' } } : {}),
      redact: (text) => (password ? text.replaceAll(password, '[password]') : text),
      firstStep: 'waiting for the installer',
    });
  };
  return {
    name: 'install',
    does: `runs ${options.program} ${options.profile.install.argv[0]}`,
    reversible: false,
    weight: 97,
    cancellable: true,
    afterCrash: 'resume',
    run,
    resume: run,
  };
}

function verify(options: InstallerOptions): Phase<InstallInput> {
  return {
    name: 'verify',
    does: 'checks that the installer has left its mark',
    reversible: true,
    weight: 2,
    cancellable: false,
    afterCrash: 'repeat',
    run: ({ progress }) => {
      progress(null, 'checking the result');
      const mark = join(options.baseDir, options.installedFile);
      if (!options.files.exists(mark)) {
        throw fault('installer_failed', `${options.program} ended well, but there is no ${mark}.`);
      }
      return Promise.resolve();
    },
  };
}

function passwordOf(options: InstallerOptions, input: InstallInput): string {
  const password = options.secrets.read(input.secret);
  if (password !== undefined) return password;
  throw fault(
    'impossible',
    'The password is gone: the machine was restarted before the installer began. Ask for the installation again.',
  );
}

/** Everything that can be known before the installer runs. */
export function installChecks(options: InstallerOptions): Check[] {
  const { profile, baseDir, files, disk } = options;
  const mark = join(baseDir, options.installedFile);
  return [
    ...programChecks(options),
    check('version', options.version !== '', 'the version is known', 'INSTALLED_VERSION is not set'),
    check(
      'not-installed',
      !files.exists(mark),
      'nothing is installed',
      `${mark} says that the node is installed`,
    ),
    idleCheck(options),
    ...[profile.install, profile.uninstall].map(({ pidFile }) => foreignCheck(options, pidFile)),
    clockCheck(options),
    writableCheck(options),
    spaceCheck(disk, baseDir, profile.disk.baseDirBytes, 'space-base-dir'),
    spaceCheck(disk, files.systemPath('/var/lib'), profile.disk.rootBytes, 'space-system'),
  ];
}

/** We may run the program, and it is there. */
export function programChecks({ program, disk, sandboxed }: InstallerOptions): Check[] {
  const there = disk.isExecutable(program);
  const allowed = check(
    'sandbox',
    !sandboxed,
    'may act on this machine',
    'without --system or BEOS_CLI nothing is installed',
  );
  const found = check('installer', there, `${program} is there`, `${program} is not there or not executable`);
  return [
    { ...allowed, code: 'sandbox' },
    { ...found, code: 'installer_unavailable' },
  ];
}

/**
 * No run of ours goes on, whoever began it. The lane is asked for jobs; a run outlives its job when the journal was lost,
 * or when nothing could end it.
 */
export function idleCheck({ longRun }: Pick<InstallerOptions, 'longRun'>): Check {
  const running = longRun.ids().flatMap((id) => {
    const state = longRun.find(id);
    return state.kind === 'running' ? [state.pid] : [];
  });
  const reason = `an earlier run of the installer goes on (process ${running.join(', ')}); an uninstall stops it`;
  return { ...check('no-run', running.length === 0, 'no run of ours goes on', reason), code: 'conflict' };
}

/** Nobody else, a person at the console say, runs the installer. */
export function foreignCheck(
  { files, disk, baseDir, longRun, program }: InstallerOptions,
  pidFile: string,
): Check {
  const path = join(baseDir, pidFile);
  const name = `no-${pidFile}`;
  const pid = pidIn(files, path);
  if (typeof pid !== 'number')
    return check(name, false, '', `${path} cannot be read: ${messageOf(pid.error)}`);
  const ours = longRun.ids().some((id) => {
    const state = longRun.find(id);
    return state.kind === 'running' && state.pid === pid;
  });
  const foreign = pid > 1 && !ours && disk.isMeant(pid, path, program);
  return {
    ...check(name, !foreign, `no foreign ${pidFile}`, `process ${pid} of ${path} is running`),
    code: 'conflict',
  };
}

/** 0: no process is named, also by what is no pid file (a folder, gigabytes). Unreadable is not that. */
function pidIn(files: InstallerOptions['files'], path: string): number | { readonly error: unknown } {
  try {
    const text = files.readText(path, 4096)?.trim() ?? '';
    return /^\d{1,10}$/.test(text) ? Number(text) : 0;
  } catch (error) {
    return errnoOf(error) === 'EISDIR' || error instanceof RangeError ? 0 : { error };
  }
}

function clockCheck({ clockSynchronised }: InstallerOptions): Check {
  const fact = clockSynchronised();
  // Certificates with a date in the future stop an activation half-way; unknown must not stop an offline node.
  const wrong = fact.known && !fact.value.synchronised;
  const reason = fact.known ? 'the clock is synchronised' : `not known: ${fact.reason}`;
  return check(
    'clock',
    !wrong,
    reason,
    'the clock is not synchronised with a time server; wait, or set up NTP',
  );
}

function writableCheck({ disk, baseDir }: InstallerOptions): Check {
  try {
    return check(
      'base-dir',
      !disk.usage(baseDir).readOnly,
      `${baseDir} can be written`,
      `${baseDir} cannot be written`,
    );
  } catch (error) {
    return check('base-dir', false, '', `${baseDir}: ${messageOf(error)}`);
  }
}

function spaceCheck(disk: InstallerOptions['disk'], path: string, needed: number, name: string): Check {
  const free = disk.usage(path).freeBytes;
  const figures = `${gibibytes(free)} free at ${path}, ${gibibytes(needed)} needed`;
  return check(name, free >= needed, figures, figures);
}

function check(name: string, ok: boolean, good: string, bad: string): Check {
  return { name, ok, reason: ok ? good : bad };
}

function gibibytes(bytes: number): string {
  return `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
}
