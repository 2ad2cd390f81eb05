import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { InstallerOptions } from '#cluster/ports.ts';
import { failureMarks, profiles } from '#daemon/profiles.ts';
import { bootIdentity } from '#host/boot.ts';
import { systemClock } from '#host/clock.ts';
import { Disk } from '#host/disk.ts';
import { Files } from '#host/files.ts';
import { SystemLongRun } from '#host/longrun.ts';
import { DetachedLauncher } from '#host/longrun-detached.ts';
import { SecretFiles } from '#host/secrets.ts';
import {
  type Checkpoint,
  type JobDefinition,
  type JobOutcome,
  type PhaseContext,
  Stopping,
} from '#jobs/definition.ts';
import { known } from '#lib/observed.ts';

const recorded = fileURLToPath(new URL('recorded-installer.sh', import.meta.url));

export interface InstallerBench {
  readonly dir: string;
  readonly baseDir: string;
  readonly options: InstallerOptions;
  /** What the claim was told, in order. */
  readonly claim: string[];
  mode(words: string): void;
  /** Lines of a file that the installer leaves beside itself (`starts`, `seen`); [] when there is none. */
  left(name: string): string[];
  log(name: string): string;
}

/** A folder with the recorded installer in it, and everything that install and uninstall need, on real files. */
export function installerBench(
  profile: 'beos' | 'olares' = 'beos',
  more: Partial<InstallerOptions> = {},
  dir = mkdtempSync(join(tmpdir(), 'beosd-install-')),
): InstallerBench {
  const baseDir = join(dir, 'base');
  const program = join(dir, 'cli', 'node-cli');
  mkdirSync(join(dir, 'cli'), { recursive: true });
  if (!existsSync(program)) copyFileSync(recorded, program);
  chmodSync(program, 0o755);
  const files = new Files();
  const claim: string[] = [];
  const left = (name: string) => {
    const path = join(dir, 'cli', name);
    return existsSync(path) ? readFileSync(path, 'utf8').trimEnd().split('\n') : [];
  };
  const options: InstallerOptions = {
    profile: { ...profiles[profile].installer, disk: { baseDirBytes: 1, rootBytes: 1 } },
    program,
    sandboxed: false,
    baseDir,
    version: '1.12.1',
    kube: 'k3s',
    installedFile: '.installed',
    failureMarks: failureMarks(profiles[profile]),
    files,
    disk: new Disk(),
    longRun: new SystemLongRun({
      runsDir: join(dir, 'runs'),
      launcher: new DetachedLauncher(),
      files,
      clock: systemClock,
      checkMs: 200,
      graceMs: 1_000,
    }),
    secrets: new SecretFiles(join(dir, 'secrets'), files),
    clock: systemClock,
    claim: {
      confirm: () => claim.push('confirm'),
      lapse: () => claim.push('lapse'),
      release: () => claim.push('release'),
    },
    clockSynchronised: () => known({ synchronised: true }, 'test', 0),
    bootIdentity,
    passedOn: {},
    ...more,
  };
  return {
    dir,
    baseDir,
    options,
    claim,
    mode: (words) => writeFileSync(join(dir, 'cli', 'mode'), words),
    left,
    log: (name) => readFileSync(join(baseDir, 'versions', 'v1.12.1', 'logs', name), 'utf8'),
  };
}

export interface PhaseRun {
  readonly outcome: JobOutcome['state'];
  readonly error: unknown;
  readonly percents: readonly number[];
  readonly messages: readonly string[];
  /** What the journal would hold. */
  readonly checkpoint: Checkpoint;
}

/** Runs the phases of a job one after the other, as the job runner does, without a journal; `interrupted`: it was let go of. */
export async function runPhases<I>(
  definition: JobDefinition<I>,
  input: I,
  how: {
    signal?: AbortSignal;
    jobId?: string;
    checkpoint?: Checkpoint;
    /** The phase to begin with: those before it are over. */
    from?: string;
    onProgress?: (message: string) => void;
  } = {},
): Promise<PhaseRun> {
  const percents: number[] = [];
  const messages: string[] = [];
  let checkpoint: Checkpoint = how.checkpoint ?? {};
  const context: PhaseContext<I> = {
    jobId: how.jobId ?? 'job-1',
    input,
    signal: how.signal ?? new AbortController().signal,
    get checkpoint() {
      return checkpoint;
    },
    remember: (patch) => {
      checkpoint = { ...checkpoint, ...patch };
    },
    progress: (percent, message) => {
      if (percent !== null) percents.push(percent);
      messages.push(message);
      how.onProgress?.(message);
    },
  };
  let outcome: JobOutcome['state'] = 'succeeded';
  let error: unknown;
  try {
    const phases = definition.phases(input);
    for (const phase of phases.slice(
      Math.max(
        0,
        phases.findIndex(({ name }) => name === how.from),
      ),
    )) {
      context.signal.throwIfAborted();
      await phase.run(context);
    }
  } catch (thrown) {
    error = thrown;
    if (thrown instanceof Stopping) return { outcome: 'interrupted', error, percents, messages, checkpoint };
    outcome = context.signal.aborted ? 'cancelled' : 'failed';
  }
  await definition.finished?.(input, { jobId: context.jobId, state: outcome });
  return { outcome, error, percents, messages, checkpoint };
}
