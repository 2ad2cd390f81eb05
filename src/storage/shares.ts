import { fault } from '#api/errors.ts';
import { ExecError } from '#host/exec.ts';
import { wordsOf } from '#host/mounts.ts';
import { isFault, messageOf } from '#lib/fault.ts';
import { Breaker } from '#storage/breaker.ts';
import type { LocalParts } from '#storage/local.ts';
import type { NfsTarget } from '#storage/nfs.ts';
import type { NfsVersion } from '#storage/options.ts';
import type { MountRow } from '#storage/registry.ts';
import { ShareAnswers } from '#storage/share-answers.ts';
import { Dials } from '#storage/share-dials.ts';
import { ShareMounter } from '#storage/share-mounter.ts';
import { recordedAs } from '#storage/share-names.ts';
import { type Doubt, ShareRemakes } from '#storage/share-remakes.ts';
import { type RequestActs, ShareRequests } from '#storage/share-requests.ts';
import { newRow, nfsWish, smbWish, type Wish } from '#storage/share-wish.ts';
import { type Login, refusesLogin, type SmbTarget } from '#storage/smb.ts';
import type { UsageProbe } from '#storage/usage.ts';

export interface SharesParts extends LocalParts {
  readonly probe: UsageProbe;
}

/** How often the server of a share is asked for a connection, ms: its death shows within 10 s. */
const tendEvery = 3000;

/** Why a share whose server is there is not mounted, in the words of the mount program. */
export interface MountFailure {
  readonly words: string;
  /** Only other credentials can mend it. */
  readonly needsLogin: boolean;
}

/**
 * Shares of file servers: mounted on request, kept in the store, mounted again when they can be.
 *
 * INVARIANTS: a share that could not be mounted the first time leaves no row, no folder, no secret. No code here asks
 * the file system of a mounted share; children with deadlines do, and a plain connection tells whether its server is
 * there.
 */
export class Shares {
  readonly #parts: SharesParts;
  readonly #shareMounter: ShareMounter;
  readonly #breakers = new Map<string, Breaker>();
  /** Shares that are being looked after now: one that hangs is passed over, and keeps nobody else waiting. */
  readonly #tending = new Map<string, Promise<void>>();
  /** Shares whose server did not answer when it was asked last. */
  readonly #away = new Set<string>();
  /** Mounts that do not answer well although their servers take connections. */
  readonly #doubted = new Map<string, Doubt>();
  /** What the last try to mount a share again has failed for. */
  readonly #failures = new Map<string, MountFailure>();
  readonly #remakes: ShareRemakes;
  readonly #requests: ShareRequests;
  readonly #answers: ShareAnswers;
  readonly #stop = new AbortController();
  #loop: Promise<void> = Promise.resolve();
  /** Resolved when there may be a share to look after, or no more time to do so. */
  #wished = Promise.withResolvers<void>();

  constructor(parts: SharesParts) {
    this.#parts = parts;
    this.#shareMounter = new ShareMounter(parts);
    this.#requests = new ShareRequests(parts.locks);
    this.#answers = new ShareAnswers(parts);
    this.#remakes = new ShareRemakes(parts, this.#doubted, {
      mount: (identity, version) => this.#mountAgain(identity, version),
      mountSoon: (identity) => this.#mountAgain(identity, 'soon'),
      failed: (identity) => this.#breakerOf(identity).failed(parts.machine.clock.monotonic()),
      stops: () => this.#stop.signal.aborted,
    });
  }

  /** Records what a crash or a reboot changed, and begins to look after the shares; resolves when each was tried once. */
  async start(): Promise<void> {
    this.#settleAll();
    if (!this.#parts.settings.mayAct) return;
    const first = this.#tendOnce();
    this.#loop = this.#tendForever();
    await first;
  }

  /** The store can be read again, and holds shares that nobody knew of: they are looked after as after a start. */
  recovered(): void {
    if (this.#stop.signal.aborted) return;
    this.#settleAll();
    this.#wished.resolve();
    if (this.#parts.settings.mayAct) void this.#tendOnce();
  }

  #settleAll(): void {
    try {
      for (const row of this.rows()) if (row.phase !== 'none' || row.folder !== undefined) this.#settle(row);
    } catch (error) {
      this.#parts.around.log('cannot read which shares there are', { error: messageOf(error) });
    }
  }

  /** What is wrong with one share (a folder that cannot be removed, say) keeps the others from nothing. */
  #settle(row: MountRow): void {
    const { locks, mounter } = this.#parts;
    // Who holds its lock is at it.
    if (locks.busy(row.identity)) return;
    try {
      mounter.settle(row.identity);
    } catch (error) {
      this.#parts.around.log('cannot settle a share', { path: row.name, error: messageOf(error) });
    }
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#wished.resolve();
    await this.#loop;
    await Promise.all(this.#tending.values());
    await this.#remakes.idle();
  }

  failureOf(identity: string): MountFailure | undefined {
    return this.#failures.get(identity);
  }

  rows(): MountRow[] {
    return this.#parts.registry.all().filter((row) => row.kind === 'smb' || row.kind === 'nfs');
  }

  /** Mounts an SMB share for good and returns its path; nothing is begun once `signal` is aborted. */
  mountSmb(target: SmbTarget, login: Login | undefined, signal?: AbortSignal): Promise<string> {
    const { settings } = this.#parts;
    return this.#request(smbWish(target, login, settings), signal);
  }

  mountNfs(target: NfsTarget, name: string | undefined, signal?: AbortSignal): Promise<string> {
    const { settings } = this.#parts;
    return this.#request(nfsWish(target, name, settings), signal);
  }

  /**
   * Which row is meant shows only under the lock: while it was waited for, that row may have been forgotten, or the store
   * have come back with one of another spelling. Then it is asked for under that identity, with its own lock.
   */
  async #request(plain: Wish, signal: AbortSignal | undefined): Promise<string> {
    const identityNow = () => recordedAs(plain.identity, this.rows());
    let path: string | undefined;
    while (path === undefined) {
      const wish = { ...plain, identity: identityNow() };
      const acts: RequestActs = {
        before: (given) => this.#answers.ask(wish.identity, given),
        mount: async () => (identityNow() === wish.identity ? await this.#mountNew(wish) : undefined),
      };
      path = await this.#requests.run(wish, acts, signal);
    }
    return path;
  }

  /**
   * Unmounts a share and forgets it. A share that is dead is detached without asking it. By force it goes before all who
   * wait, and who waits to mount it does so no more; one mount that is under way is waited for, as the kernel may
   * bring it about after its program was killed.
   */
  async umount(row: MountRow, force: boolean): Promise<void> {
    const { mounter, registry, locks, around } = this.#parts;
    if (force) this.#requests.overtake(row.identity);
    const unmount = async () => {
      const current = registry.get(row.identity);
      if (current === undefined) return;
      registry.put({ ...current, wanted: false });
      try {
        const lazy = force || this.#parts.probe.isInvalid(current.identity);
        this.#forget(await mounter.umount({ ...current, wanted: false }, umountHow(lazy)));
      } catch (error) {
        registry.update(current.identity, { wanted: current.wanted });
        throw error;
      }
      for (const memory of [this.#breakers, this.#away, this.#doubted, this.#failures])
        memory.delete(current.identity);
    };
    await locks.run(row.identity, unmount, { first: force });
    around.emit({ action: 'unmounted', kind: row.kind, path: mounter.pathOf(row) });
  }

  /** Looks after every share once that is not being looked after already; the loop does it all the time. */
  async tend(): Promise<void> {
    const dials = new Dials(this.#parts.machine.network);
    for (const row of this.rows().filter((each) => this.#isToTend(each))) {
      const work = row.wanted ? this.#tendOne(row, dials) : this.#finishUmount(row.identity);
      const logged = work.catch((error: unknown) =>
        this.#parts.around.log('cannot look after a share', { path: row.name, error: messageOf(error) }),
      );
      this.#tending.set(
        row.identity,
        logged.finally(() => this.#tending.delete(row.identity)),
      );
    }
    await Promise.all(this.#tending.values());
  }

  /** Who holds its lock is at it; but a dead one is not to stay dead for the sake of who always asks for it. */
  #isToTend({ identity, wanted }: MountRow): boolean {
    const { locks, probe } = this.#parts;
    const isLeft = locks.busy(identity) && !(wanted && probe.isInvalid(identity));
    return !isLeft && !this.#tending.has(identity);
  }

  async #tendForever(): Promise<void> {
    const { clock } = this.#parts.machine;
    while (!this.#stop.signal.aborted) {
      // A node without shares is silent.
      if (this.#hasNone()) await this.#wished.promise;
      this.#wished = Promise.withResolvers();
      await clock.sleep(tendEvery, this.#stop.signal).catch(() => undefined);
      // Nobody waits for it: a share that hangs is passed over by the next round.
      if (!this.#stop.signal.aborted) void this.#tendOnce();
    }
  }

  /** A store that cannot be read now may be readable the next time. */
  #hasNone(): boolean {
    try {
      return this.rows().length === 0;
    } catch {
      return false;
    }
  }

  async #tendOnce(): Promise<void> {
    await this.tend().catch((error: unknown) =>
      this.#parts.around.log('cannot look after the shares', { error: messageOf(error) }),
    );
  }

  /** Its lock is held. */
  async #mountNew(wish: Wish): Promise<string> {
    const { mounter, registry, around, probe } = this.#parts;
    await this.#clearUnwanted(wish.identity);
    const known = registry.get(wish.identity);
    if (known !== undefined && mounter.standing(known).kind === 'ours') {
      this.#answers.refuseDead(known);
      await this.#shareMounter.renew(known, wish);
      return mounter.pathOf(known);
    }
    mounter.refuseAwaited({ name: known?.name ?? wish.folder });
    const sealed = await this.#shareMounter.seal(wish);
    // At once in the store: its name is taken from now on.
    const row = known ?? registry.put(newRow(wish, this.#parts));
    this.#wished.resolve();
    try {
      // New credentials replace those that are known to be good only when they are known to be good themselves.
      const mounted = await this.#shareMounter.mount(row, sealed);
      registry.put({ ...mounted, sealed, wanted: true });
    } catch (error) {
      if (known === undefined) this.#forget(registry.get(wish.identity) ?? row);
      throw error;
    }
    for (const memory of [this.#breakers, this.#doubted, this.#failures]) memory.delete(wish.identity);
    probe.mounted(wish.identity, mounter.pathOf(row));
    around.emit({ action: 'mounted', kind: wish.kind, path: mounter.pathOf(row), readOnly: false });
    return mounter.pathOf(row);
  }

  async #tendOne(row: MountRow, dials: Dials): Promise<void> {
    const { mounter, machine, locks } = this.#parts;
    const breaker = this.#breakerOf(row.identity);
    const at = mounter.standing(row);
    if (at.kind === 'foreign') {
      const words = `${at.entry.source} is mounted there by somebody else`;
      this.#failures.set(row.identity, { words, needsLogin: false });
      return;
    }
    const answers = await dials.answers(row, at);
    // What went wrong while the server was away says nothing about it now.
    if (answers && this.#away.delete(row.identity)) {
      breaker.returned();
      this.#doubted.set(row.identity, { since: machine.clock.monotonic(), returned: true });
    }
    if (!answers) {
      this.#away.add(row.identity);
      this.#failures.delete(row.identity);
    }
    if (at.kind !== 'absent') return this.#checkMounted(row, answers, breaker);
    const mayTry = () => this.#breakerOf(row.identity).mayTry(machine.clock.monotonic());
    if (!answers || !mayTry()) return;
    // Who had the lock may have tried in vain: an account is locked by repetition.
    await locks.run(row.identity, async () => mayTry() && (await this.#mountAgain(row.identity)));
  }

  async #checkMounted(row: MountRow, answers: boolean, breaker: Breaker): Promise<void> {
    const { probe, mounter, machine } = this.#parts;
    const path = mounter.pathOf(row);
    if (!answers) {
      this.#doubted.delete(row.identity);
      probe.markInvalid(row.identity, path, `${row.extra.server ?? 'the server'} does not answer`);
      return;
    }
    if (!probe.isInvalid(row.identity)) {
      this.#doubted.delete(row.identity);
      return;
    }
    const begun: Doubt = { since: machine.clock.monotonic(), returned: false };
    const doubt = this.#doubted.get(row.identity) ?? begun;
    this.#doubted.set(row.identity, doubt);
    doubt.said = probe.check(row.identity, path);
    if ((await doubt.said) === 'answers') {
      this.#doubted.delete(row.identity);
      breaker.succeeded();
      return;
    }
    // The server is there, but this mount of it is not. After a loss the kernel may wait long before it connects anew:
    // what does not answer soon is made anew. Disks that spin up only answer late: who has files open keeps them.
    const isDue = await this.#remakes.isDue(row, doubt);
    if (isDue && breaker.mayTry(machine.clock.monotonic())) await this.#remakes.remake(row, doubt);
  }

  /** Mounts a share that is not mounted; never rejects. Late: it was to be soon, and nothing is mounted. */
  async #mountAgain(identity: string, how?: NfsVersion | 'soon'): Promise<'mounted' | 'late' | 'failed'> {
    const { registry, machine, around, mounter, probe } = this.#parts;
    const breaker = this.#breakerOf(identity);
    let path = identity;
    try {
      const known = registry.get(identity);
      if (known === undefined || !known.wanted) return 'failed';
      path = mounter.pathOf(known);
      // Taken away by somebody else, or by the kernel: a pod that removes the folder in its own namespace does that.
      const row = known.phase === 'none' ? known : mounter.settle(identity);
      if (row.phase !== 'none') return 'failed';
      const made =
        how === 'soon'
          ? await this.#shareMounter.mountSoon(row)
          : await this.#shareMounter.mount(row, row.sealed, how);
      if (made === undefined) return 'late';
      this.#failures.delete(identity);
      // What was doubted was the mount before.
      this.#doubted.delete(identity);
      probe.renewed(identity);
      // One that mounts and then answers nothing is not made anew all the time.
      if ((await probe.check(identity, path)) === 'answers') breaker.succeeded();
      else breaker.failed(machine.clock.monotonic());
      around.emit({ action: 'mounted', kind: row.kind, path, readOnly: false });
      return 'mounted';
    } catch (error) {
      const now = machine.clock.monotonic();
      const [words, before] = [messageOf(error), this.#failures.get(identity)?.words];
      breaker.failed(now);
      if (refusesLogin(error)) breaker.refused(now);
      this.#failures.set(identity, { words, needsLogin: needsLogin(error) });
      // Once, not every eight seconds.
      if (words !== before) around.log('a share could not be mounted again', { path, error: words });
      return 'failed';
    }
  }

  #breakerOf(identity: string): Breaker {
    let breaker = this.#breakers.get(identity);
    if (breaker === undefined) {
      breaker = new Breaker(1000, 8000);
      this.#breakers.set(identity, breaker);
    }
    return breaker;
  }

  /** A folder of ours on which somebody else has mounted meanwhile is kept in mind until it can go. */
  #forget({ identity, folder, folderToken }: MountRow): void {
    if (folder === undefined && folderToken === undefined) this.#parts.registry.forget(identity);
  }

  async #finishUmount(identity: string): Promise<void> {
    const { registry, locks, around } = this.#parts;
    await locks.run(identity, async () => {
      try {
        await this.#clearUnwanted(identity);
      } catch (error) {
        const path = registry.get(identity)?.name;
        around.log('a share that is not wanted is still in use', { path, error: messageOf(error) });
      }
    });
  }

  /** What a crash left: a first mount that nobody was promised, or an umount that was asked for. Either way it goes. */
  async #clearUnwanted(identity: string): Promise<void> {
    const { registry, mounter, probe } = this.#parts;
    const row = registry.get(identity);
    if (row === undefined || row.wanted) return;
    try {
      this.#forget(await mounter.umount(row, umountHow(probe.isInvalid(identity))));
    } catch (error) {
      if (!(error instanceof ExecError)) throw error;
      const words = `${mounter.pathOf(row)} is still to be unmounted: ${wordsOf(error)}`;
      throw fault('mount_busy', words, { cause: error });
    }
  }
}

/** What is detached leaves the tree at once; a server that is away is not waited for long. */
const umountHow = (lazy: boolean) => ({ lazy, timeoutMs: lazy ? 10_000 : 15_000 });

/** Its server refuses the login, or the login that is kept cannot be opened. */
function needsLogin(error: unknown): boolean {
  return refusesLogin(error) || (isFault(error) && error.details.field === 'password');
}
