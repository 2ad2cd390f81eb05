import { fault } from '#api/errors.ts';
import { ExecError } from '#host/exec.ts';
import { wordsOf } from '#host/mounts.ts';
import { messageOf } from '#lib/fault.ts';
import type { LocalParts } from '#storage/local.ts';
import { type NfsVersion, nfsOptions, smbOptions } from '#storage/options.ts';
import type { MountRow } from '#storage/registry.ts';
import { askForShares } from '#storage/share-lists.ts';
import type { Wish } from '#storage/share-wish.ts';
import { credentialsFile, mountFault } from '#storage/smb.ts';

const mountTimeout = 25_000;

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
   * Of a share that is mounted already: a login that differs from the kept one is kept from now on, once the server
   * takes it. The mount that stands proves nothing of it, and is made with it the next time.
   */
  async renew(row: MountRow, wish: Wish): Promise<void> {
    const { secrets } = this.#parts.machine;
    if (wish.login === undefined) return;
    const kept = row.sealed === undefined ? undefined : secrets.open(row.identity, row.sealed);
    if ((await kept?.catch(() => undefined)) === credentialsFile(wish.login)) return;
    await askForShares(this.#parts.machine, wish, wish.login);
    this.#parts.registry.update(row.identity, { sealed: await this.seal(wish) });
  }

  /** Mounts; a failure is the refusal for the client, with the mount program's own words. */
  async mount(row: MountRow, sealed: string | undefined, version?: NfsVersion): Promise<MountRow> {
    if (row.kind === 'nfs') return this.#mountNfs(row, version ?? row.extra.nfsVersion);
    if (sealed === undefined) return this.#attempt(row, this.#smbOptions(row, undefined));
    const login = await this.#open(row, sealed);
    return this.#parts.machine.secrets.withFile(login, (file) =>
      this.#attempt(row, this.#smbOptions(row, file)),
    );
  }

  async #open(row: MountRow, sealed: string): Promise<string> {
    try {
      return await this.#parts.machine.secrets.open(row.identity, sealed);
    } catch (error) {
      const words = `its credentials are kept, but cannot be opened: ${messageOf(error)}`;
      throw fault('mount_failed', `${row.source}: ${words}`, { field: 'password', cause: error });
    }
  }

  /** In the version that it had last: a server that starts waits for all the clients that it knew (RFC 8881 §8.4.2). */
  async #mountNfs(row: MountRow, nfsVersion: NfsVersion | undefined): Promise<MountRow> {
    const { registry } = this.#parts;
    try {
      const mounted = await this.#attempt(row, nfsOptions(nfsVersion));
      return registry.put({ ...mounted, extra: { ...mounted.extra, nfsVersion } });
    } catch (error) {
      // A server need not speak the version that was to be the way around a connection that hangs.
      if (nfsVersion === undefined || !/not supported/i.test(messageOf(error))) throw error;
      return this.#mountNfs(registry.get(row.identity) ?? row, undefined);
    }
  }

  #smbOptions(row: MountRow, credentials: string | undefined): string[] {
    return smbOptions(this.#parts.settings.owner, { port: row.extra.port, credentials });
  }

  async #attempt(row: MountRow, options: readonly string[]): Promise<MountRow> {
    try {
      return await this.#parts.mounter.mount(row, { type: row.fstype, options, timeoutMs: mountTimeout });
    } catch (error) {
      if (error instanceof ExecError) throw mountFault(wordsOf(error), error.reason === 'timeout');
      throw error;
    }
  }
}
