import { isIPv6 } from 'node:net';
import { type ErrorCode, fault } from '#api/errors.ts';
import { type Fault, isFault } from '#lib/fault.ts';
import { isHostName } from '#lib/net.ts';
import { folderName } from '#storage/names.ts';

/** A parsed `//server[:port]/share[/sub]`; no share: the server alone was named. */
export interface SmbTarget {
  readonly server: string;
  readonly port: number | undefined;
  readonly share: string | undefined;
  /** Share with the folders below it, `share/sub`. */
  readonly path: string;
}

export interface Login {
  readonly user: string;
  readonly password: string;
}

const refuse = (field: string, message: string) => fault('invalid_input', message, { field });

/**
 * Takes the path apart, and refuses all that could mean something else further down: option separators, quotes,
 * control characters, dots that climb. Windows' spelling with backslashes is taken too.
 */
export function parseSmbPath(text: string): SmbTarget {
  const path = text.replaceAll('\\', '/');
  const match = /^\/\/(\[[0-9a-fA-F:.]+\]|[^/:[\]]+)(?::(\d{1,5}))?(?:\/(.*))?$/.exec(path);
  if (!match?.[1]) throw refuse('smbPath', 'The path must be //server[:port]/share.');
  const server = checkServer(match[1].replace(/^\[|\]$/g, ''), 'smbPath');
  const port = match[2] === undefined ? undefined : Number(match[2]);
  if (port !== undefined && (port < 1 || port > 65_535)) throw refuse('smbPath', 'The port is not 1–65535.');
  const parts = (match[3] ?? '').replace(/\/+$/, '').split('/');
  const [share] = parts;
  if (share === undefined || (share === '' && parts.length === 1)) {
    return { server, port, share: undefined, path: '' };
  }
  for (const part of parts) checkPart(part);
  return { server, port, share, path: parts.join('/') };
}

/**
 * A host name or an address; nothing that a command line or an option list could read as more. Names of Windows
 * machines may have underscores, which RFC 1123 does not know. Of the spellings of an address it gives the one of
 * RFC 5952, with the zone, which is the name of an interface, as it came.
 */
export function checkServer(server: string, field: string): string {
  if (isIPv6(server)) return plainIPv6(server);
  if (isHostName(server.replaceAll('_', 'x'))) return server.toLowerCase();
  throw refuse(field, 'The server must be a host name or an IP address.');
}

function plainIPv6(server: string): string {
  const [address = '', ...zone] = server.split('%');
  const plain = new URL(`http://[${address}]`).hostname.slice(1, -1);
  return [plain, ...zone].join('%');
}

function checkPart(part: string): void {
  if (part === '' || part === '.' || part === '..') {
    throw refuse('smbPath', `${JSON.stringify(part)} is not the name of a share or folder.`);
  }
  if (/[,"'`;|<>*?\p{Cc}]/u.test(part) || part.length > 255) {
    throw refuse('smbPath', 'The share holds a character that a share name cannot have.');
  }
}

/** Credentials travel in files of lines: what would end a line, or start another key, is refused by name. */
export function checkLogin(user: string | undefined, password: string | undefined): Login | undefined {
  if (user === undefined || user === '') {
    if (password) throw refuse('user', 'A password needs a user.');
    return undefined;
  }
  // One backslash parts domain and user, and neither of them is empty.
  if (/[\p{Cc},%/\\]/u.test(user.replace(/(?<=.)\\(?=.)/s, ''))) {
    throw refuse('user', 'The user holds a character that a user name cannot have.');
  }
  if (password !== undefined && /\p{Cc}/u.test(password)) {
    throw refuse('password', 'The password holds a control character, such as a new line.');
  }
  return { user, password: password ?? '' };
}

/** The file for mount.cifs (`credentials=`). */
export function credentialsFile(login: Login): string {
  const { user, domain } = parted(login);
  return `username=${user}\npassword=${login.password}\n${domain}`;
}

/**
 * The file for smbclient (`-A`), which reads the same lines, but drops blanks at the start of a value; not those behind
 * the `%` in `user%password` (cli_credentials_parse_file).
 */
export function smbclientFile(login: Login): string {
  if (!login.password.startsWith(' ')) return credentialsFile(login);
  const { user, domain } = parted(login);
  return `username=${user}%${login.password}\n${domain}`;
}

function parted({ user }: Login): { readonly user: string; readonly domain: string } {
  const slash = user.indexOf('\\');
  if (slash < 0) return { user, domain: '' };
  return { user: user.slice(slash + 1), domain: `domain=${user.slice(0, slash)}\n` };
}

/** The path of a share as a client names it, so that it can be sent back as it is. */
export function smbPathOf({ server, port }: SmbTarget, share: string): string {
  const host = isIPv6(server) ? `[${server}]` : server;
  return `//${host}${port === undefined ? '' : `:${port}`}/${share}`;
}

export function smbSource(target: SmbTarget): string {
  return `//${target.server}/${target.path}`;
}

export function smbIdentity(target: SmbTarget): string {
  return `smb://${target.server}:${target.port ?? 445}/${target.path.toLowerCase()}`;
}

/** Folder of a share: its last part, as clients know it. */
export function smbFolder(target: SmbTarget, protectedNames: readonly string[]): string {
  const last = target.path.split('/').at(-1) ?? '';
  const name = folderName(last);
  if (name === undefined || protectedNames.includes(name.toLowerCase()))
    throw refuse('smbPath', `A share called ${JSON.stringify(last)} cannot be mounted.`);
  return name;
}

/** The disk shares in the output of `smbclient -g -L`: `Disk|name|comment`. */
export function parseSmbShares(output: string): string[] {
  return output
    .split('\n')
    .map((line) => line.split('|'))
    .filter(([type, name]) => type === 'Disk' && name !== undefined && name !== '' && !name.endsWith('$'))
    .map(([, name]) => name ?? '');
}

/** mount.cifs and mount.nfs both end with 32; what happened stands in their words, which go to the client as they are. */
export function mountFault(words: string, timedOut: boolean): Fault<ErrorCode> {
  if (timedOut) {
    return fault('server_unreachable', `${words.trim()} (the server did not answer in time)`.trim());
  }
  const code = Number(/mount error\s?\((\d+)\)/.exec(words)?.[1] ?? Number.NaN);
  if (unreachable.has(code) || unreachableWords.test(words)) return fault('server_unreachable', words);
  if (lacking.has(code) || (lackingWords.test(words) && code !== 2)) return fault('mount_failed', words);
  return fault('mount_refused', words);
}

/** ENOMEM, ENODEV, ELIBACC (no table for `iocharset`): it is this machine that cannot. */
const lacking = new Set([12, 19, 79]);
const lackingWords =
  /unknown filesystem type|wrong fs type|No such device$|not found|bad option|statd is not running/im;
/** EHOSTDOWN, EHOSTUNREACH, EINPROGRESS, ETIMEDOUT, ECONNREFUSED, ENETUNREACH, ECONNABORTED, ECONNRESET, EAGAIN. */
const unreachable = new Set([11, 101, 103, 104, 110, 111, 112, 113, 115]);
const unreachableWords =
  /Program not registered|could not connect|could not resolve|timed out|Connection refused|No route to host|unreachable|Host is down|NT_STATUS_(CONNECTION_(REFUSED|RESET|DISCONNECTED)|HOST_UNREACHABLE|IO_TIMEOUT|NETWORK_UNREACHABLE|UNSUCCESSFUL|BAD_NETWORK_PATH)|failed to resolve|clnt_create/i;

/** What smbclient said, on either of its outputs, when it had to sign and was taken for a guest, who cannot. */
export function isTakenForGuest(said: string): boolean {
  return /signature/i.test(said) && /session setup failed: NT_STATUS_ACCESS_DENIED/.test(said);
}

/** What smbclient said, as a refusal. Its exit code is 1 for a wrong password and for a dead server alike. */
export function listFault(words: string): Fault<ErrorCode> {
  if (/NT_STATUS_(LOGON_FAILURE|ACCESS_DENIED|ACCOUNT|PASSWORD|WRONG_PASSWORD)/.test(words)) {
    return fault('mount_refused', `mount error(13): Permission denied (${words.trim()})`);
  }
  if (
    /NT_STATUS_(BAD_NETWORK_NAME|OBJECT_NAME_INVALID|OBJECT_(NAME|PATH)_NOT_FOUND|NOT_A_DIRECTORY)/.test(
      words,
    )
  ) {
    return fault('mount_refused', `mount error(2): No such file or directory (${words.trim()})`);
  }
  if (unreachableWords.test(words)) {
    return fault('server_unreachable', `mount error(113): could not connect (${words.trim()})`);
  }
  return fault('mount_failed', words.trim() || 'smbclient ended without a word');
}

/**
 * EACCES, or what the kernel makes of an account that is expired or disabled (ENOKEY, EKEYEXPIRED, EKEYREVOKED,
 * EKEYREJECTED). All else that a server says may be over in a moment: one that starts knows its shares later than its
 * port.
 */
export function refusesLogin(error: unknown): boolean {
  const words = isFault(error) && error.code === 'mount_refused' ? error.message : '';
  return /mount error\s?\((13|12[6-9])\)/.test(words);
}
