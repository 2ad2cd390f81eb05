import type { LogMark } from '#cluster/installer-profile.ts';

/** How far a command of the installer has come, as far as anybody can say. */
export interface Progress {
  /** 0–99, or null before the first sign; 100 is the exit code's to say. */
  readonly percent: number | null;
  /** What it is doing. */
  readonly step: string;
  /** When it began with that, ms on the monotonic clock. */
  readonly since: number;
  /** A progress file speaks; the log is not asked any more. */
  readonly exact: boolean;
}

/** A step that takes longer than this says so. */
export const stallMs = 30_000;
const longestStep = 200;

/** Before the first sign. */
export function begin(step: string, now: number): Progress {
  return { percent: null, step, since: now, exact: false };
}

/** After a line of the log. Marks count from the first to the last, whatever order the log has; no mark, no change. */
export function afterLogLine(
  before: Progress,
  marks: readonly LogMark[],
  line: string,
  now: number,
): Progress {
  if (before.exact) return before;
  let found: LogMark | undefined;
  for (const mark of marks) {
    if (line.includes(mark.text) && (found === undefined || mark.percent > found.percent)) found = mark;
  }
  if (found === undefined || found.percent <= (before.percent ?? -1)) return before;
  return advance(before, found.percent, found.text, now, false);
}

/** After a line of the progress file (`{t, phase, percent, message, level}`). What is not such a line changes nothing. */
export function afterProgressLine(before: Progress, line: string, now: number): Progress {
  const value = objectIn(line);
  if (value === undefined) return before;
  const { percent, message, phase } = value;
  const said = [message, phase].find((each) => typeof each === 'string' && each !== '');
  const step = (typeof said === 'string' ? plain(said) : '') || before.step;
  const figure = typeof percent === 'number' && percent >= 0 ? percent : before.percent;
  return advance(before, figure, step, now, true);
}

function objectIn(line: string): { percent?: unknown; message?: unknown; phase?: unknown } | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function advance(
  before: Progress,
  percent: number | null,
  step: string,
  now: number,
  exact: boolean,
): Progress {
  // The log's guess ends where the file begins to speak: only there may the figure go back.
  const floor = exact && !before.exact ? null : before.percent;
  const next = percent === null ? floor : Math.max(floor ?? 0, Math.min(99, Math.floor(percent)));
  const moved = step !== before.step || next !== before.percent;
  return { percent: next, step, since: moved ? now : before.since, exact };
}

/** What to tell people: the step, and for how long it has been at it once that is worth saying. */
export function describe(progress: Progress, now: number): string {
  const age = now - progress.since;
  return age < stallMs ? progress.step : `\`${progress.step}\` for ${duration(age)}`;
}

/** `45 s`, `3 min 20 s`, `1 h 5 min`; cut to ten seconds, as nobody needs the job to change more often. */
export function duration(ms: number): string {
  const seconds = Math.floor(ms / 10_000) * 10;
  const minutes = Math.floor(seconds / 60);
  if (minutes === 0) return `${seconds} s`;
  if (minutes < 60) return `${minutes} min${seconds % 60 === 0 ? '' : ` ${seconds % 60} s`}`;
  return `${Math.floor(minutes / 60)} h${minutes % 60 === 0 ? '' : ` ${minutes % 60} min`}`;
}

/** One line without control characters. */
export function plain(text: string): string {
  return text
    .replace(/\p{Cc}+/gu, ' ')
    .trim()
    .slice(0, longestStep);
}
