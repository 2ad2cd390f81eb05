import type { Files } from '#host/files.ts';

/** The end of a log: at most `maxBytes`, nothing before `from` (the offset at which this run began), whole lines. */
export function tailOf(
  files: Files,
  path: string,
  from: number,
  maxBytes: number,
): { readonly text: string; readonly truncated: boolean } {
  const size = files.size(path) ?? 0;
  // A log that was truncated after the run began is all ours.
  const begin = size < from ? 0 : from;
  const start = Math.max(begin, size - maxBytes);
  const text = files.readRange(path, start, size - start).toString('utf8');
  const cut = start > begin;
  return { text: cut ? text.slice(text.indexOf('\n') + 1) : text, truncated: cut };
}
