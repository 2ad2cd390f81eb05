import type { Files } from '#host/files.ts';

/**
 * The end of what one run wrote into a log: at most `maxBytes`, nothing before `from` (where the log ended when the run began),
 * nothing after `to` (where it ended with the run; undefined: it goes on). Whole lines.
 */
export function tailOf(
  files: Files,
  path: string,
  { from, to }: { readonly from: number; readonly to: number | undefined },
  maxBytes: number,
): { readonly text: string; readonly truncated: boolean } {
  const size = files.size(path) ?? 0;
  // A later run has cut it.
  if (to !== undefined && size < to) return { text: '', truncated: true };
  const end = to ?? size;
  // A log that was truncated after the run began is all ours.
  const begin = end < from ? 0 : from;
  const start = Math.max(begin, end - maxBytes);
  const text = files.readRange(path, start, end - start).toString('utf8');
  const cut = start > begin;
  return { text: cut ? text.slice(text.indexOf('\n') + 1) : text, truncated: cut };
}
