import { isIPv6 } from 'node:net';
import { fault } from '#api/errors.ts';
import { folderName, nameOfPath, type ShareRoot } from '#storage/names.ts';
import { checkServer } from '#storage/smb.ts';

export interface NfsTarget {
  readonly server: string;
  readonly path: string;
}

/**
 * Server and exported path, checked: absolute, no dots that climb, nothing that ends an option or a line. Slashes that
 * mean nothing are dropped, so that one export has one name.
 */
export function parseNfs(server: string, path: string): NfsTarget {
  const plain = path.replace(/\/+/g, '/').replace(/(.)\/$/, '$1');
  const bad = plain.split('/').some((part) => part === '..' || part === '.');
  if (!plain.startsWith('/') || bad || /[,"'`\\\p{Cc}]/u.test(plain)) {
    throw fault('invalid_input', 'The shared path must be an absolute path.', { field: 'sharedPath' });
  }
  return { server: checkServer(server, 'server'), path: plain };
}

export function nfsSource(target: NfsTarget): string {
  return `${isIPv6(target.server) ? `[${target.server}]` : target.server}:${target.path}`;
}

export function nfsIdentity(target: NfsTarget): string {
  return `nfs://${target.server}${target.path}`;
}

/** The folder that was asked for, else the last part of the export, else the server. */
export function nfsFolder(
  target: NfsTarget,
  wish: string | undefined,
  place: ShareRoot & { readonly protectedNames: readonly string[] },
): string {
  const asked = wish === undefined || wish === '' ? undefined : nameAsked(wish, place);
  if (asked !== undefined) return asked;
  const name = folderName(target.path.split('/').at(-1) ?? '') ?? folderName(target.server);
  if (name === undefined || place.protectedNames.includes(name.toLowerCase())) {
    throw fault('invalid_input', 'Name a folder for this export.', { field: 'mountPath' });
  }
  return name;
}

function nameAsked(wish: string, place: ShareRoot & { readonly protectedNames: readonly string[] }): string {
  try {
    const name = nameOfPath(wish, place, 'either');
    if (folderName(name) === name && !place.protectedNames.includes(name.toLowerCase())) return name;
  } catch {
    // The same refusal, under the name of the field that was sent.
  }
  throw fault('invalid_input', 'The mount path must be one plain name right below the share root.', {
    field: 'mountPath',
  });
}

/** Output of `showmount --no-headers --exports`: a path and who may mount it. */
export function parseExports(output: string): { path: string; acl: string }[] {
  return output
    .split('\n')
    .map((line) => /^(\/.*?)\s+(\S+)\s*$/.exec(line))
    .filter((match) => match !== null)
    .map((match) => ({ path: match[1] ?? '', acl: match[2] ?? '' }));
}
