const secretWord =
  '(?:pass(?:word|wd|phrase)?|secret|token|credential|api[_-]?key|private[_-]?key|authorization)';
const assigned = new RegExp(
  String.raw`(\b[\w.-]*${secretWord}[\w.-]*["']?\s*(?:[:=]|\bis\b)\s*)("[^"]*"|'[^']*'|\S.*)`,
  'gi',
);
const bearer = /\b(bearer|basic)\s+[\w.~+/=-]{8,}/gi;
const jws = /\beyJ[\w-]+\.[\w-]+\.[\w-]*/g;

/**
 * A line of somebody else's log without what looks like a secret. Errs on the side of taking out too much: whatever
 * follows a word such as "password" goes, to the end of the line when it is not quoted.
 */
export function redact(line: string): string {
  return line.replace(assigned, '$1[redacted]').replace(bearer, '$1 [redacted]').replace(jws, '[redacted]');
}
