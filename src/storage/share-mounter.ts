import { fault } from '#api/errors.ts';
import { ExecError } from '#host/exec.ts';
import { wordsOf } from '#host/mounts.ts';
import { messageOf } from '#lib/fault.ts';
import type { LocalParts } from '#storage/local.ts';
import { type NfsVersion, nfsOptions, smbOptions } from '#storage/options.ts';
import type { MountRow } from '#storage/registry.ts';
import { enterShare } from '#storage/share-lists.ts';
import type { Wish } from '#storage/share-wish.ts';
import { credentialsFile, mountFault } from '#storage/smb.ts';

const mountTimeout = 25_000;
/** So long a mount may wait, ms, for a connection that the kernel had before. */
const soon = 3000;

/** Mounts shares with the login that is kept for them. Callers hold the lock of the row's identity. */
export class ShareMounter {
  readonly #parts: LocalParts;

  constructor(parts: LocalParts) {
    this.#parts = parts;
  }

  seal(wish: Wish): Promise<string | undefined> {
    const { login, identity } = wish;
    if (login === undefined) return Promise.resolve(undefined);
    return this.#parts.machine.secrets.seal(identity, credentialsFile(login));
  }

  /**
   * Of a share that is mounted already: a login that differs from the kept one is kept from now on, once it has
   * opened the share. The mount that stands proves nothing of it, and is made with it the next time.
   */
  async renew(row: MountRow, wish: Wish): Promise<void> {
    const { secrets } = this.#parts.machine;
    if (wish.login === undefined) return;
    const kept = row.sealed === undefined ? undefined : secrets.open(row.identity, row.sealed);
    if ((await kept?.catch(() => undefined)) === credentialsFile(wish.login)) return;
    await enterShare(this.#parts.machine, wish, wish.login);
    this.#parts.registry.update(row.identity, { sealed: await this.seal(wish) });
  }

  /**
   * Mounts; a failure is the refusal for the client, with the mount program's own words. NFS is mounted in this version,
   * else in the one that it had last: a server that starts lets nobody open a file until all clients that it knew are
   * back, or 90 s have passed (RFC 8881 §8.4.2), and to it the same machine is another client in another version.
   */
  async mount(row: MountRow, sealed: string | undefined, version?: NfsVersion): Promise<MountRow> {
    this.#parts.mounter.refuseAwaited(row); // before its login is opened
    return await refusing(async () => {
      if (row.kind === 'nfs') return await this.#mountNfs(row, version, mountTimeout);
      if (sealed === undefined) return await this.#attempt(row, this.#smbOptions(row, undefined));
      const login = await this.#open(row, sealed);
      return await this.#parts.machine.secrets.withFile(login, (file) =>
        this.#attempt(row, this.#smbOptions(row, file)),
      );
    });
  }

  /** The same for NFS in the version that it had last; undefined: it takes long, and nothing is mounted. */
  async mountSoon(row: MountRow): Promise<MountRow | undefined> {
    return await refusing(async () => {
      try {
        return await this.#mountNfs(row, undefined, soon);
      } catch (error) {
        if (error instanceof ExecError && error.reason === 'timeout') return undefined;
        throw error;
      }
    });
  }

  async #open(row: MountRow, sealed: string): Promise<string> {
    try {
      return await this.#parts.machine.secrets.open(row.identity, sealed);
    } catch (error) {
      const words = `its credentials are kept, but cannot be opened: ${messageOf(error)}`;
      throw fault('mount_failed', `${row.source}: ${words}`, { field: 'password', cause: error });
    }
  }

  async #mountNfs(row: MountRow, asked: NfsVersion | undefined, timeoutMs: number): Promise<MountRow> {
    const { registry } = this.#parts;
    const nfsVersion = asked ?? row.extra.nfsVersion;
    try {
      const mounted = await this.#attempt(row, nfsOptions(nfsVersion), timeoutMs);
      return registry.put({ ...mounted, extra: { ...mounted.extra, nfsVersion } });
    } catch (error) {
      // A server need not speak the version that is, or was, the way around a connection that hangs.
      const words = error instanceof ExecError ? wordsOf(error) : '';
      if (nfsVersion === undefined || !/not supported/i.test(words)) throw error;
      const known = registry.get(row.identity) ?? row;
      const free = { ...known, extra: { ...known.extra, nfsVersion: undefined } };
      return await this.#mountNfs(free, undefined, timeoutMs);
    }
  }

  #smbOptions(row: MountRow, credentials: string | undefined): string[] {
    return smbOptions(this.#parts.settings.owner, { port: row.extra.port, credentials });
  }

  #attempt(row: MountRow, options: readonly string[], timeoutMs = mountTimeout): Promise<MountRow> {
    return this.#parts.mounter.mount(row, { type: row.fstype, options, timeoutMs });
  }
}

/** What the mount program said, as a refusal for the client. */
async function refusing<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ExecError) throw mountFault(wordsOf(error), error.reason === 'timeout');
    throw error;
  }
}
