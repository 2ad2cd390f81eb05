import { isIPv4 } from 'node:net';

/** One editable mapping of the hosts file. */
export interface HostsEntry {
  readonly ip: string;
  readonly host: string;
}

/**
 * Text of a hosts file (hosts(5)), edited without touching what is not meant: every line that an edit does not name
 * keeps its bytes (spacing, comment, line ending), and the file ends with a newline only if it did before.
 */
interface Line {
  readonly text: string;
  /** `\n`, `\r\n`, or nothing at the end of the file. */
  readonly eol: string;
  /** Present on lines that map an IPv4 address. */
  readonly mapping?: { readonly ip: string; readonly names: readonly string[] };
}

/** Names that no user edits. */
export interface Reserved {
  /** This host's own name. */
  readonly own: string;
  /** What the platform keeps for itself: `name`, or `*.domain` for all below it. */
  readonly hidden: readonly string[];
}

/** What the contract hides (§2). */
export const hiddenByContract: readonly string[] = [
  'localhost',
  '*.cluster.local',
  'lb.kubesphere.local',
  'dockerhub.kubekey.local',
];

/** Whether `host` is the pattern's name, or for `*.domain` lies below it. Names compare without case (RFC 4343). */
export function matchesName(pattern: string, host: string): boolean {
  const name = host.toLowerCase();
  const wanted = pattern.toLowerCase();
  return wanted.startsWith('*.') ? name.endsWith(wanted.slice(1)) : name === wanted;
}

export function isHiddenName(host: string, { own, hidden }: Reserved): boolean {
  return isOwnName(host, own) || hidden.some((pattern) => matchesName(pattern, host));
}

function isOwnName(host: string, ownName: string): boolean {
  const name = host.toLowerCase();
  const own = ownName.toLowerCase();
  return own !== '' && (name === own || name === own.split('.')[0]);
}

/** The entries that a user may edit, in file order, each pair once. */
export function editableEntries(text: string, reserved: Reserved): HostsEntry[] {
  const seen = new Set<string>();
  return parse(text).flatMap(({ mapping }) =>
    (mapping?.names ?? []).flatMap((host) => {
      const entry = { ip: mapping?.ip ?? '', host };
      if (isHiddenName(host, reserved) || seen.has(keyOf(entry))) return [];
      seen.add(keyOf(entry));
      return [entry];
    }),
  );
}

/** Same pair: same address, same name in any case. */
export function keyOf(entry: HostsEntry): string {
  return `${entry.ip} ${entry.host.toLowerCase()}`;
}

/** IPv4 addresses that the file gives to our own name, in file order. */
export function ownAddresses(text: string, ownName: string): string[] {
  const own = ownName.toLowerCase();
  // Asked once a minute, of what may be a list of blocked names: only lines with the name in them are worth parsing.
  const lines = text.split('\n').filter((line) => line.toLowerCase().includes(own));
  const found = parse(lines.join('\n')).flatMap(({ mapping }) =>
    mapping?.names.some((name) => name.toLowerCase() === own) ? [mapping.ip] : [],
  );
  return [...new Set(found)];
}

/**
 * The text with exactly `items` as its editable set. Entries that are there already stay where they are; dropped ones
 * leave their line (a comment on it stays); new ones come last.
 */
export function replaceEditable(text: string, items: readonly HostsEntry[], reserved: Reserved): string {
  const wanted = new Set(items.map(keyOf));
  const found = new Set<string>();
  const lines = parse(text).flatMap((line): Line[] => {
    const { mapping } = line;
    if (mapping === undefined) return [line];
    const dropped = mapping.names.filter((host) => {
      if (isHiddenName(host, reserved)) return false;
      const key = keyOf({ ip: mapping.ip, host });
      if (!wanted.has(key)) return true;
      found.add(key);
      return false;
    });
    return dropped.length === 0 ? [line] : withoutNames(line, dropped);
  });
  const added = items.filter((item) => !found.has(keyOf(item)));
  const eol = dominantEol(text);
  return print(text, [...lines, ...added.map(({ ip, host }) => ({ text: `${ip}\t${host}`, eol }))]);
}

/**
 * The text with our own name bound to `ip` and to nothing else. A line that only names this host gets the new
 * address in place; one that it shares with others keeps them.
 */
export function bindOwnName(text: string, ownName: string, ip: string): string {
  const eol = dominantEol(text);
  const bound: Line = { text: `${ip}\t${ownName}`, eol };
  let isBound = false;
  const lines = parse(text).flatMap((line): Line[] => {
    const { mapping } = line;
    const own = mapping?.names.filter((name) => name.toLowerCase() === ownName.toLowerCase()) ?? [];
    if (mapping === undefined || own.length === 0) return [line];
    if (isBound) return mapping.ip === ip ? [line] : withoutNames(line, own);
    isBound = true;
    if (mapping.ip === ip) return [line];
    if (mapping.names.every((name) => belongsTo(name, ownName))) {
      return [{ text: line.text.replace(mapping.ip, ip), eol: line.eol }];
    }
    return [...withoutNames(line, own), bound];
  });
  return print(text, isBound ? lines : [...lines, bound]);
}

/** Our name, or our name with a domain: `node1`, `node1.lan`, `node1.cluster.local`. */
function belongsTo(host: string, ownName: string): boolean {
  return isOwnName(host, ownName) || host.toLowerCase().startsWith(`${ownName.toLowerCase()}.`);
}

function parse(text: string): Line[] {
  const lines = text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
  return lines.map((raw) => {
    const eol = /\r?\n$/.exec(raw)?.[0] ?? '';
    return parseLine(raw.slice(0, raw.length - eol.length), eol);
  });
}

/** What separates fields for the resolver: isspace(3) in the C locale, without a non-breaking space or half a character. */
const blanks = /[ \t\r\v\f]+/;
const blanksOrWord = /[ \t\r\v\f]+|[^ \t\r\v\f]+/g;

function parseLine(text: string, eol: string): Line {
  const [ip, ...names] = contentOf(text).split(blanks).filter(Boolean);
  if (ip === undefined || names.length === 0 || !isIPv4(ip)) return { text, eol };
  return { text, eol, mapping: { ip, names } };
}

function contentOf(text: string): string {
  const comment = text.indexOf('#');
  return comment < 0 ? text : text.slice(0, comment);
}

/** Takes names out of a mapping line; what is left of it is [] , a comment of its own, or the shorter line. */
function withoutNames(line: Line, dropped: readonly string[]): Line[] {
  const content = contentOf(line.text);
  const comment = line.text.slice(content.length);
  const parts = content.match(blanksOrWord) ?? [];
  const kept: string[] = [];
  let names = 0;
  let sawAddress = false;
  for (const part of parts) {
    const isBlank = blanks.test(part);
    if (isBlank || !sawAddress) {
      if (!isBlank) sawAddress = true;
      kept.push(part);
    } else if (dropped.includes(part)) {
      kept.pop(); // the space before it
    } else {
      kept.push(part);
      names++;
    }
  }
  if (names > 0) return [parseLine(kept.join('') + comment, line.eol)];
  return comment === '' ? [] : [{ text: comment, eol: line.eol }];
}

function dominantEol(text: string): string {
  const crlf = text.match(/\r\n/g)?.length ?? 0;
  const all = text.match(/\n/g)?.length ?? 0;
  return crlf * 2 > all ? '\r\n' : '\n';
}

/** Joins the lines; only the last one may lack a line ending, and does exactly when the original's last one did. */
function print(original: string, lines: readonly Line[]): string {
  const endsOpen = original !== '' && !original.endsWith('\n');
  const eol = dominantEol(original);
  const last = lines.length - 1;
  return lines
    .map((line, index) => line.text + (index === last && endsOpen ? '' : line.eol === '' ? eol : line.eol))
    .join('');
}
