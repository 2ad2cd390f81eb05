import { messageOf } from '#lib/fault.ts';
import { SingleFlight } from '#lib/mutex.ts';
import type { LocalParts } from '#storage/local.ts';
import { type NfsVersion, nfsConnection, otherNfsVersion } from '#storage/options.ts';
import type { MountRow } from '#storage/registry.ts';
import type { Said, UsageProbe } from '#storage/usage.ts';

/** So long a mount may fail, or not find back to a server that was away, ms, before it is made anew. */
const mendsItself = 5000;
/** The same for an NFS mount that hangs after its server was away: the kernel connects again by now, or in up to 45 s. */
const nfsMendsItself = 3000;
/** So long a mount may hang of a server that takes connections all the time, ms. */
const hangsFor = 60_000;

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

export interface RemakeParts extends LocalParts {
  readonly probe: UsageProbe;
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
  readonly #parts: RemakeParts;
  readonly #doubts: ReadonlyMap<string, Doubt>;
  readonly #acts: RemakeActs;
  readonly #flights = new SingleFlight<void>();
  /** Mounts that go on by themselves. */
  readonly #mounting = new Set<Promise<void>>();

  constructor(parts: RemakeParts, doubts: ReadonlyMap<string, Doubt>, acts: RemakeActs) {
    this.#parts = parts;
    this.#doubts = doubts;
    this.#acts = acts;
  }

  /** The doubt has lasted for as long as the mount is left to the kernel. */
  async isDue({ kind }: MountRow, doubt: Doubt): Promise<boolean> {
    const said = await doubt.said;
    if (said !== 'hangs' && said !== 'fails') return false;
    const afterReturn = kind === 'nfs' ? nfsMendsItself : mendsItself;
    const whenItHangs = doubt.returned ? afterReturn : hangsFor;
    const patience = said === 'hangs' ? whenItHangs : mendsItself;
    return this.#parts.machine.clock.monotonic() - doubt.since >= patience;
  }

  /** Resolves when nothing is being mounted any more. */
  async idle(): Promise<void> {
    await Promise.all(this.#mounting);
  }

  /**
   * Makes a mount anew whose doubt is due, unless it is another mount by now; nothing if it cannot be detached. What
   * takes long goes on under the share's lock when this has resolved.
   */
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
      // What could not be mounted again is not detached: it may still come back by itself.
      const mayReturn = row?.wanted === true && mounter.awaited(row) === undefined;
      if (mayReturn && (await this.#isStillDead(row, doubt)) && !this.#acts.stops()) {
        const at = mounter.standing(row);
        const otherwise = at.kind === 'ours' ? otherNfsVersion(at.entry.superOptions) : undefined;
        // Lazily, with what the kernel has mounted within (own.ts tells by whom it is). A plain umount would take only
        // that along, but is refused while a program has a file open, as those have who wait for this share, and can
        // hang in writing to the server what it did not take.
        await mounter.umount(row, { lazy: true, timeoutMs: 5000 });
        // Who still asks what was there hears of the folder that is left, and that is nothing to tell of the share.
        this.#parts.probe.renewed(identity);
        return { identity, otherwise, release };
      }
    } catch (error) {
      this.#acts.failed(identity);
      around.log('a dead share could not be detached', { identity, error: messageOf(error) });
    }
    release();
    return undefined;
  }

  /** The lock was waited for: it may answer by now, and a mount that was made meanwhile has no doubt, or another. */
  async #isStillDead(row: MountRow, doubt: Doubt): Promise<boolean> {
    const isDue = await this.isDue(row, doubt);
    return isDue && this.#doubts.get(row.identity) === doubt && this.#parts.probe.isInvalid(row.identity);
  }

  async #mountAll(detached: readonly Detached[]): Promise<void> {
    const scout = detached.find((each) => each.otherwise !== undefined);
    const isLate = scout !== undefined && (await this.#acts.mountSoon(scout.identity)) === 'late';
    if (!isLate) scout?.release();
    // Each for itself: one whose disk is dying keeps nobody else waiting.
    for (const each of detached) if (isLate || each !== scout) this.#mount(each, isLate);
  }

  #mount({ identity, otherwise, release }: Detached, isLate: boolean): void {
    const mount = async () => {
      try {
        if (!this.#acts.stops()) await this.#acts.mount(identity, isLate ? otherwise : undefined);
      } finally {
        release();
        this.#mounting.delete(mounting);
      }
    };
    const mounting = Promise.resolve().then(mount);
    this.#mounting.add(mounting);
  }
}
