const secretWord =
  '(?:pass(?:word|wd|phrase)?|secret|token|credential|api[_-]?key|private[_-]?key|authorization)';
// Nothing before the word is matched, and what follows it is bounded: both keep the time linear in the length of a line,
// however it repeats itself. A line of 32 KiB like `a.a.a.…` used to hold up the whole daemon for seconds.
const assigned = new RegExp(
  String.raw`(${secretWord}[\w.-]{0,64}["']?\s*(?:[:=]|\bis\b)\s*)("[^"]*"|'[^']*'|\S.*)`,
  'gi',
);
const bearer = /\b(bearer|basic)\s+[\w.~+/=-]{8,}/gi;
/** Three parts and more with dots between, from the beginning of the first: a run of letters is looked at once. */
const dotted = /(?<![\w-])[\w-]+(?:\.[\w-]*){2,}/g;

/**
 * A line of somebody else's log without what looks like a secret. Errs on the side of taking out too much: whatever
 * follows a word such as "password" goes, to the end of the line when it is not quoted.
 */
export function redact(line: string): string {
  return line
    .replace(assigned, '$1[redacted]')
    .replace(bearer, '$1 [redacted]')
    .replace(dotted, (token) => (looksSigned(token) ? '[redacted]' : token));
}

function looksSigned(token: string): boolean {
  return token.split('.').some((part, index, parts) => index + 2 < parts.length && /eyJ[\w-]/.test(part));
}
