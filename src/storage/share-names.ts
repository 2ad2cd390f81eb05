import { isFault } from '#lib/fault.ts';
import { nfsIdentity, parseNfs } from '#storage/nfs.ts';
import type { MountRow } from '#storage/registry.ts';
import { checkServer } from '#storage/smb.ts';

/**
 * The identity under which a share is in the store. Rows from before spellings were made one (`//export//a`,
 * `0:0:0:0:0:0:0:1`) keep theirs, which stands for the lock, the secret and the folder too: who asks for such a share
 * means that row.
 */
export function recordedAs(identity: string, rows: readonly Pick<MountRow, 'identity'>[]): string {
  if (rows.some((row) => row.identity === identity)) return identity;
  const plain = plainIdentity(identity);
  return rows.find((row) => plainIdentity(row.identity) === plain)?.identity ?? identity;
}

function plainIdentity(identity: string): string {
  try {
    const nfs = /^nfs:\/\/([^/]+)(\/.*)$/.exec(identity);
    if (nfs?.[1] && nfs[2]) return nfsIdentity(parseNfs(nfs[1], nfs[2]));
    const smb = /^smb:\/\/([^/]+)(:\d+\/.*)$/.exec(identity);
    if (smb?.[1] && smb[2]) return `smb://${checkServer(smb[1], 'server')}${smb[2]}`;
  } catch (error) {
    if (!isFault(error)) throw error; // what no request could name is nobody's other spelling
  }
  return identity;
}
