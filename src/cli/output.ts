import type { DryRun } from '#api/operation.ts';
import type { Job } from '#api/shapes.ts';

/** What a person reads. Everything here is pure: data in, text out. */

type Row = Readonly<Record<string, unknown>>;

/** Any `data` of the contract: a list as a table, or as blocks where it is too wide for one; an object as lines. */
export function dataText(data: unknown, width = 160): string {
  if (data === undefined || data === null) return '';
  if (Array.isArray(data)) return listText(data, width);
  if (typeof data === 'object') return linesText(data as Row);
  return `${String(data)}\n`;
}

function listText(list: readonly unknown[], width: number): string {
  if (list.length === 0) return 'none\n';
  const rows = list.filter((each): each is Row => typeof each === 'object' && each !== null);
  if (rows.length < list.length) return `${list.map(cellText).join('\n')}\n`;
  const columns = [...new Set(rows.flatMap(Object.keys))].filter((key) =>
    rows.some((row) => isShort(row[key])),
  );
  const text = table(
    columns,
    rows.map((row) => columns.map((key) => cellText(row[key]))),
  );
  return text.split('\n').some((line) => line.length > width) ? rows.map(linesText).join('\n') : text;
}

function linesText(object: Row): string {
  if (Object.keys(object).length === 0) return 'none\n';
  const width = Math.max(0, ...Object.keys(object).map((key) => key.length));
  return Object.entries(object)
    .map(([key, value]) => `${key.padEnd(width)}  ${cellText(value)}\n`)
    .join('');
}

/** Nested lists of objects make a table unreadable; `--json` has them. */
function isShort(value: unknown): boolean {
  return !Array.isArray(value) || value.every((each) => typeof each !== 'object');
}

function cellText(value: unknown): string {
  if (value === undefined || value === null) return '–';
  if (Array.isArray(value) && value.every((each) => typeof each !== 'object')) return value.join(', ') || '–';
  if (typeof value === 'object') return JSON.stringify(value);
  return String(value) === '' ? '–' : String(value);
}

/** Columns as wide as their widest cell, the last one as it is. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows];
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  return all
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('');
}

/** What a dry run says would happen. */
export function planText(plan: DryRun): string {
  const checks = plan.preconditions.map((each) => [each.ok ? 'ok' : 'NO', each.name, each.reason]);
  const steps = plan.steps.map((step, index) => [
    String(index + 1),
    step.name,
    step.reversible ? 'reversible' : 'CANNOT BE UNDONE',
    step.does,
  ]);
  const verdict = plan.allowed ? 'It would be done.' : 'It would be refused.';
  return [
    checks.length === 0 ? '' : `${table(['', 'precondition', 'reason'], checks)}\n`,
    steps.length === 0 ? '' : `${table(['#', 'step', '', 'does'], steps)}\n`,
    `${verdict} Nothing was changed.\n`,
  ].join('');
}

/** A job with its phases. */
export function jobText(job: Job): string {
  const phases = job.phases.map((phase) =>
    [phase.name, phase.state, percentText(phase.percent), phase.message].map(String),
  );
  const error = job.error === null ? '' : `error      ${job.error.message ?? ''} (${job.error.code})\n`;
  return [
    `job        ${job.id}\n`,
    `operation  ${job.operation}\n`,
    `state      ${job.state} ${percentText(job.percent)}\n`,
    `asked by   ${job.caller}\n`,
    `asked at   ${job.createdAt}\n`,
    error,
    phases.length === 0 ? '' : `\n${table(['phase', 'state', '%', ''], phases)}`,
  ].join('');
}

export function percentText(percent: number | null): string {
  return percent === null ? '' : `${Math.floor(percent)}%`;
}

export function isJob(data: unknown): data is Job {
  return typeof data === 'object' && data !== null && 'phases' in data && 'operation' in data;
}
