import { fault } from '#api/errors.ts';

/** What is left of these is no name. */
const reserved = new Set(['', '.', '..', 'lost+found']);
const maxBytes = 64;

/** A folder name made of what a label, a model or a share is called; undefined when nothing usable is left. */
export function folderName(text: string): string | undefined {
  const plain = text
    .normalize('NFC')
    .replace(/[^\p{L}\p{N}._ -]/gu, '_')
    .replace(/\s+/g, '_')
    .replace(/^[._-]+|[._-]+$/g, '');
  const name = cutBytes(plain, maxBytes).replace(/[._-]+$/, '');
  return reserved.has(name.toLowerCase()) ? undefined : name;
}

function cutBytes(text: string, limit: number): string {
  let cut = '';
  for (const character of text) {
    if (Buffer.byteLength(cut) + Buffer.byteLength(character) > limit) break;
    cut += character;
  }
  return cut;
}

/** The first of `base`, `base-2`, `base-3` … that `taken` does not know; case is ignored, as vfat and SMB do. */
export function freeName(base: string, taken: (name: string) => boolean): string {
  if (!taken(base)) return base;
  for (let n = 2; ; n++) {
    const name = `${base}-${n}`;
    if (!taken(name)) return name;
  }
}

/** The share root, by the path that the kernel knows and by the configured one, which may lead there by links. */
export interface ShareRoot {
  readonly shareRoot: string;
  readonly shareRootAs: string;
}

/**
 * The name below the share root that a path of a client means; the caller looks it up in the registry, nothing is
 * resolved. `absolute` paths must lie right below the root, relative ones are one name. Throws `invalid_input`.
 */
export function nameOfPath(
  path: string,
  { shareRoot, shareRootAs }: ShareRoot,
  form: 'absolute' | 'relative' | 'either',
): string {
  const refuse = (message: string) => fault('invalid_input', message, { field: 'path' });
  const isAbsolute = path.startsWith('/');
  if (form === 'absolute' && !isAbsolute) throw refuse('The path must be absolute.');
  if (form === 'relative' && isAbsolute) throw refuse('The path must be relative to the share root.');
  const inner = isAbsolute ? (below(path, shareRootAs) ?? below(path, shareRoot)) : path;
  if (inner === undefined) throw refuse(`The path is not below ${shareRootAs}.`);
  const name = inner.replace(/\/+$/, '');
  if (name === '' || name === '.' || name === '..' || name.includes('/') || /\p{Cc}/u.test(name)) {
    throw refuse('The path is not a mount point right below the share root.');
  }
  return name;
}

function below(path: string, root: string): string | undefined {
  const prefix = root.endsWith('/') ? root : `${root}/`;
  return path.startsWith(prefix) ? path.slice(prefix.length) : undefined;
}

/** True when `path` is `root` or lies below it; by whole components, unlike a plain prefix test. */
export function isWithin(path: string, root: string): boolean {
  return path === root || root === '/' || path.startsWith(`${root}/`);
}
