import { messageOf } from '#lib/fault.ts';
import { SingleFlight } from '#lib/mutex.ts';
import type { LocalParts } from '#storage/local.ts';
import { type NfsVersion, nfsConnection, otherNfsVersion } from '#storage/options.ts';
import type { MountRow } from '#storage/registry.ts';

/** So long a mount may fail, or not find back to a server that was away, ms, before it is made anew. */
const mendsItself = 5000;
/** The same for NFS after its server was away: a mount that hung when the server was back waits for the kernel, up to 45 s. */
const nfsMendsItself = 2000;
/** So long a mount may hang of a server that takes connections all the time, ms. */
const hangsFor = 60_000;

/** What came of asking a mount: it answers, it answers with an error, or it does not answer in time. */
export type Said = 'answers' | 'fails' | 'hangs';

/** A mount does not answer well although its server takes connections. */
export interface Doubt {
  /** By the monotonic clock, ms. */
  readonly since: number;
  /** The server was away before. */
  readonly returned: boolean;
  /** What came, or will come, of asking it last. */
  said?: Promise<Said>;
}

interface Suspect {
  readonly identity: string;
  readonly doubt: Doubt;
}

/** A share that was detached, and whose lock is held. */
interface Detached {
  readonly identity: string;
  readonly otherwise: NfsVersion | undefined;
  readonly release: () => void;
}

/** What is done for a share whose lock is held; nothing rejects. */
export interface RemakeActs {
  /** Mounts it in this version, else in the one that it had. */
  mount(identity: string, version: NfsVersion | undefined): Promise<unknown>;
  /** Mounts it in the version that it had, if that can be done soon. */
  mountSoon(identity: string): Promise<'mounted' | 'late' | 'failed'>;
  /** It could not be detached. */
  failed(identity: string): void;
  /** The daemon ends: nothing is begun any more. */
  stops(): boolean;
}

/**
 * Makes dead mounts anew, all those together that the kernel keeps on one connection.
 *
 * INVARIANT: only what was asked itself, and did not answer for as long as its kind is given, is detached.
 */
export class ShareRemakes {
  readonly #parts: LocalParts;
  readonly #doubts: ReadonlyMap<string, Doubt>;
  readonly #acts: RemakeActs;
  readonly #flights = new SingleFlight<void>();

  constructor(parts: LocalParts, doubts: ReadonlyMap<string, Doubt>, acts: RemakeActs) {
    this.#parts = parts;
    this.#doubts = doubts;
    this.#acts = acts;
  }

  /** The doubt has lasted for as long as the mount is left to the kernel. */
  async isDue({ kind }: MountRow, doubt: Doubt): Promise<boolean> {
    const said = await doubt.said;
    if (said === undefined || said === 'answers') return false;
    const afterReturn = kind === 'nfs' ? nfsMendsItself : mendsItself;
    const always = said === 'hangs' ? hangsFor : mendsItself;
    const patience = doubt.returned ? afterReturn : always;
    return this.#parts.machine.clock.monotonic() - doubt.since >= patience;
  }

  /** Makes a mount anew whose doubt is due, unless it is another mount by now; nothing if it cannot be detached. */
  remake(row: MountRow, doubt: Doubt): Promise<void> {
    const connection = this.#connectionOf(row);
    return this.#flights.run(connection ?? row.identity, () =>
      this.#remakeAll({ identity: row.identity, doubt }, connection),
    );
  }

  #connectionOf(row: MountRow): string | undefined {
    const at = row.kind === 'nfs' ? this.#parts.mounter.standing(row) : undefined;
    return at?.kind === 'ours' ? nfsConnection(at.entry.superOptions) : undefined;
  }

  /**
   * All are detached before the first is mounted: while one is left, the kernel lets a new mount wait on the old
   * connection, for up to half a lease. The first one tries whether it still holds on to that.
   */
  async #remakeAll(first: Suspect, connection: string | undefined): Promise<void> {
    const { locks } = this.#parts;
    const others = await this.#alsoDue(first, connection);
    const release = await locks.acquire(first.identity);
    const free = others.filter(({ identity }) => !locks.busy(identity));
    const held = free.map(async (suspect) => this.#detach(suspect, await locks.acquire(suspect.identity)));
    const detached = await Promise.all([this.#detach(first, release), ...held]);
    await this.#mountAll(detached.filter((each) => each !== undefined));
  }

  async #alsoDue(first: Suspect, connection: string | undefined): Promise<Suspect[]> {
    if (connection === undefined) return [];
    const found = this.#parts.registry.all().map(async (row): Promise<Suspect[]> => {
      const { identity } = row;
      const doubt = identity === first.identity ? undefined : this.#doubts.get(identity);
      if (doubt === undefined || this.#connectionOf(row) !== connection) return [];
      return (await this.isDue(row, doubt)) ? [{ identity, doubt }] : [];
    });
    return (await Promise.all(found)).flat();
  }

  /** Undefined: it was not detached, and its lock is given back. */
  async #detach({ identity, doubt }: Suspect, release: () => void): Promise<Detached | undefined> {
    const { registry, mounter, around } = this.#parts;
    try {
      const row = registry.get(identity);
      // The doubt is of the mount that was asked: one that was made meanwhile has none.
      if (row?.wanted === true && this.#doubts.get(identity) === doubt && !this.#acts.stops()) {
        const at = mounter.standing(row);
        const otherwise = at.kind === 'ours' ? otherNfsVersion(at.entry.superOptions) : undefined;
        await mounter.umount(row, { lazy: true, timeoutMs: 5000 });
        return { identity, otherwise, release };
      }
    } catch (error) {
      this.#acts.failed(identity);
      around.log('a dead share could not be detached', { identity, error: messageOf(error) });
    }
    release();
    return undefined;
  }

  async #mountAll([scout, ...others]: readonly Detached[]): Promise<void> {
    if (scout === undefined) return;
    const isAlone = scout.otherwise === undefined;
    const isLate = !isAlone && (await this.#acts.mountSoon(scout.identity)) === 'late';
    if (!isAlone && !isLate) scout.release();
    const left = isAlone || isLate ? [scout, ...others] : others;
    // Each for itself: one whose disk is dying keeps nobody else waiting.
    const mounts = left.map(async ({ identity, otherwise, release }) => {
      if (!this.#acts.stops()) await this.#acts.mount(identity, isLate ? otherwise : undefined);
      release();
    });
    await Promise.all(mounts);
  }
}
