import { CommanderError } from 'commander';
import { UsageError } from '#cli/terminal.ts';
import { ApiError, Unreachable } from '#client/api-error.ts';
import { causeChain, errnoOf, isFault } from '#lib/fault.ts';

/** 0 done, 1 refused or a failed job, 2 wrong command line, 3 cannot reach the node, 130 Ctrl-C. */
export type ExitCode = 0 | 1 | 2 | 3 | 130;

export interface Failure {
  readonly exitCode: ExitCode;
  /** Lines for standard error; '' when everything has been said. */
  readonly text: string;
}

/** Whatever went wrong, in words that say what to do next. */
export function explainFailure(error: unknown, signal: AbortSignal): Failure {
  if (signal.aborted) return { exitCode: 130, text: 'stopped; what the node has begun goes on\n' };
  if (error instanceof CommanderError) return { exitCode: error.exitCode === 0 ? 0 : 2, text: '' };
  if (error instanceof UsageError) return { exitCode: 2, text: lines(error.message, error.remedy) };
  if (error instanceof Unreachable) {
    return { exitCode: 3, text: lines(causeChain(error), unreachableRemedy(error)) };
  }
  if (error instanceof ApiError)
    return { exitCode: error.code === 'invalid_answer' ? 3 : 1, text: refusalText(error) };
  return { exitCode: 1, text: lines(causeChain(error), isFault(error) ? error.details.remedy : undefined) };
}

function unreachableRemedy(error: Unreachable): string {
  const overSocket = error.message.includes('/') && !error.message.includes('://');
  switch (errnoOf(error.cause)) {
    case 'EACCES':
      return 'The socket is for root: use sudo, or --node URL with a key.';
    case 'ENOENT':
    case 'ECONNREFUSED':
      return overSocket
        ? 'Is beosd running? (systemctl status beosd) Another socket: --socket PATH; another node: --node URL.'
        : 'Is beosd running there, and is the port right? (default 18088)';
    default:
      return 'Check the address and the network.';
  }
}

function refusalText(error: ApiError): string {
  const { allowedIn, field, jobId, retryAfter, serverTime, remedy } = error.details;
  const facts = [
    field === undefined ? '' : `field: ${field}`,
    allowedIn === undefined ? '' : `allowed while: ${allowedIn.join(', ')}`,
    jobId === undefined ? '' : `job: ${jobId}`,
    retryAfter === undefined ? '' : `again in: ${retryAfter} s`,
    serverTime === undefined ? '' : `time of the node: ${serverTime}`,
    error.data === undefined ? '' : `data: ${JSON.stringify(error.data)}`,
  ].filter(Boolean);
  return lines(`${error.message} (${error.code})`, remedy, facts);
}

function lines(message: string, remedy: string | undefined, facts: readonly string[] = []): string {
  const all = [`beosctl: ${message}`, ...facts.map((fact) => `  ${fact}`)];
  if (remedy !== undefined) all.push(`  ${remedy}`);
  return `${all.join('\n')}\n`;
}
