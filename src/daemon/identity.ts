import { createHmac, randomBytes } from 'node:crypto';
import type { Files } from '#host/files.ts';
import type { KeyValues } from '#store/kv.ts';

/** Version of this beosd; the release process changes it here and in package.json, a test compares them. */
export const version = '0.1.0';

/**
 * 32 hex that name this node to signers (contract §10): derived from machine-id without giving it away, as
 * machine-id(5) asks; random, and kept, in the sandbox and where there is no machine-id to be read.
 */
export function nodeIdOf(files: Files, kv: KeyValues, sandbox: boolean): string {
  const machineId = sandbox ? undefined : machineIdIn(files);
  if (machineId !== undefined && /^[0-9a-f]{32}$/.test(machineId)) {
    return createHmac('sha256', machineId).update('beosd node id').digest('hex').slice(0, 32);
  }
  const kept = kv.get('node-id');
  if (kept !== undefined) return kept;
  const made = randomBytes(16).toString('hex');
  kv.set('node-id', made);
  return made;
}

/** A container engine makes a folder of a file that it is told to pass on and that is not there. */
function machineIdIn(files: Files): string | undefined {
  try {
    return files.readText(files.systemPath('/etc/machine-id'), 4096)?.trim();
  } catch {
    return undefined;
  }
}

/** A secret of this node, made once: keys the hashes of request bodies. */
export function nodeSecret(kv: KeyValues, name: string): Buffer {
  const kept = kv.get(name);
  if (kept !== undefined) return Buffer.from(kept, 'base64url');
  const made = randomBytes(32);
  kv.set(name, made.toString('base64url'));
  return made;
}
