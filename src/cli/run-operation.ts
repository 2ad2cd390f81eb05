import type { DryRun } from '#api/operation.ts';
import { type OperationName, specOf } from '#api/operations.ts';
import { type ConnectionOptions, connect } from '#cli/connect.ts';
import type { ExitCode } from '#cli/failure.ts';
import { inputFrom } from '#cli/input.ts';
import { readSecret } from '#cli/local-files.ts';
import { dataText, isJob, jobText, planText } from '#cli/output.ts';
import { JobProgress } from '#cli/progress.ts';
import type { Terminal } from '#cli/terminal.ts';
import { ApiError } from '#client/api-error.ts';
import { type Client, hasEnded } from '#client/client.ts';
import type { FullAnswer } from '#client/types.ts';
import { messageOf } from '#lib/fault.ts';

export interface OperationOptions extends ConnectionOptions {
  readonly json?: boolean;
  readonly dryRun?: boolean;
  /** Commander's `--no-wait`. */
  readonly wait?: boolean;
  readonly follow?: boolean;
  readonly claimCodeFile?: string;
}

/** Calls one operation, prints its answer, and follows the job that it has made. */
export async function runOperation(
  name: OperationName,
  positional: readonly string[],
  options: OperationOptions,
  terminal: Terminal,
): Promise<ExitCode> {
  const input = await inputFrom(specOf(name), positional, { ...options }, terminal);
  const { claimCodeFile } = options;
  const code = claimCodeFile && (await readSecret(terminal, claimCodeFile, 'claim code'));
  const client = connect(options, terminal);
  const dryRun = options.dryRun === true;
  const answer = await client.request(name, { ...input, dryRun, ...(code ? { claimCode: code } : {}) });
  print(name, answer, options, terminal);
  if (options.dryRun) return (answer.data as DryRun).allowed ? 0 : 1;
  const jobId = jobToFollow(name, answer.data, options);
  return jobId === undefined ? 0 : await follow(client, jobId, options, terminal);
}

function print(name: OperationName, answer: FullAnswer, options: OperationOptions, terminal: Terminal): void {
  if (specOf(name).raw !== undefined) terminal.out(String(answer.data));
  else if (options.json) terminal.out(`${JSON.stringify(answer.data ?? null)}\n`);
  else if (options.dryRun) terminal.out(planText(answer.data as DryRun));
  else {
    terminal.out(isJob(answer.data) ? jobText(answer.data) : dataText(answer.data, widthOf(terminal)));
    if (specOf(name).method !== 'GET') terminal.err(`${answer.message}\n`);
    if (answer.beside['next'] !== undefined)
      terminal.err(`more: --before ${String(answer.beside['next'])}\n`);
  }
}

function jobToFollow(name: OperationName, data: unknown, options: OperationOptions): string | undefined {
  if (name === 'jobs.get') return options.follow && isJob(data) && !hasEnded(data) ? data.id : undefined;
  if (options.wait === false || specOf(name).method === 'GET') return undefined;
  const id = typeof data === 'object' && data !== null && 'jobId' in data ? data.jobId : undefined;
  return typeof id === 'string' ? id : undefined;
}

async function follow(
  client: Client,
  jobId: string,
  options: OperationOptions,
  terminal: Terminal,
): Promise<ExitCode> {
  const progress = new JobProgress(terminal);
  try {
    const onInterrupted = (error: unknown, ms: number) => progress.interrupted(messageOf(error), ms);
    for await (const job of client.followJob(jobId, { onInterrupted })) {
      progress.show(job);
      if (!hasEnded(job)) continue;
      progress.done();
      if (options.json) terminal.out(`${JSON.stringify(job)}\n`);
      if (job.state === 'succeeded') return 0;
      const { message, remedy, code } = job.error ?? { code: job.state };
      terminal.err(`beosctl: the job ${job.state}: ${message ?? code}\n${remedy ? `  ${remedy}\n` : ''}`);
      return 1;
    }
  } catch (error) {
    if (!(error instanceof ApiError) || (error.status !== 401 && error.status !== 403)) throw error;
    // Who signs on a node without an owner may start this, but not read jobs.
    terminal.err(`The job ${jobId} has begun; this caller may not watch it.\n`);
  } finally {
    progress.done();
  }
  return 0;
}

/** A pipe has no width: tables there may be wider than a screen, but not without end. */
function widthOf(terminal: Terminal): number {
  return terminal.outIsTty ? terminal.columns : 160;
}
