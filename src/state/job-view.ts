import type { JobFacts } from '#state/facts.ts';

/** Job operations that the state looks at; the change-ip job is asked for by `command.changeHost`. */
export const watchedOperations = {
  install: ['command.install'],
  uninstall: ['command.uninstall'],
  changeIp: ['command.changeHost', 'command.changeIp', 'cluster.changeIp'],
  upgrade: ['command.upgrade'],
  provision: ['storage.provision'],
  power: ['command.reboot', 'command.shutdown'],
  collectLogs: ['command.collectLogs'],
} as const satisfies Record<string, readonly string[]>;

type Watched = keyof typeof watchedOperations;

/** The newest job of each kind, and which recorded failures still say something about the node. */
export interface JobView extends Partial<Record<Watched, JobFacts>> {
  /** The newest install failed after it had begun, and nothing has cleared its traces since. */
  readonly installFailed: JobFacts | undefined;
  readonly changeIpFailed: JobFacts | undefined;
  readonly uninstallFailed: JobFacts | undefined;
}

/** Pure; for jobs in any order. */
export function viewOf(jobs: readonly JobFacts[]): JobView {
  const newest: Partial<Record<Watched, JobFacts>> = {};
  for (const kind of Object.keys(watchedOperations) as Watched[]) {
    const operations: readonly string[] = watchedOperations[kind];
    const job = newestOf(jobs.filter(({ operation }) => operations.includes(operation)));
    if (job !== undefined) newest[kind] = job;
  }
  const { install, uninstall, changeIp } = newest;
  return {
    ...newest,
    installFailed: failedSince(install, [uninstall]),
    changeIpFailed: failedSince(changeIp, [uninstall, install]),
    uninstallFailed: failedSince(uninstall, [install]),
  };
}

function newestOf(jobs: readonly JobFacts[]): JobFacts | undefined {
  return jobs.reduce<JobFacts | undefined>(
    (best, job) => (best === undefined || isNewer(job, best) ? job : best),
    undefined,
  );
}

/** A clock that is put right by years does not turn the order around. */
export function isNewer(one: JobFacts, other: JobFacts): boolean {
  if (one.order !== undefined && other.order !== undefined) return one.order > other.order;
  return one.createdAt > other.createdAt;
}

/** A job that never reached its first phase has changed nothing; one that a later success followed is history. */
function failedSince(
  job: JobFacts | undefined,
  clearedBy: readonly (JobFacts | undefined)[],
): JobFacts | undefined {
  if (job === undefined || job.phase === null || !hasFailed(job)) return undefined;
  const cleared = clearedBy.some((other) => other?.state === 'succeeded' && isNewer(other, job));
  return cleared ? undefined : job;
}

/** Ended otherwise than well: a cancelled or interrupted installer leaves a half-done node behind. */
export function hasFailed(job: JobFacts): boolean {
  return job.state === 'failed' || job.state === 'interrupted' || job.state === 'cancelled';
}
