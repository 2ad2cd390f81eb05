import { fault } from '#api/errors.ts';
import type { Disk, DiskPolicy, MountedPath } from '#api/storage.ts';
import type { Health } from '#host/disks.ts';
import { isReadOnly } from '#host/mounts.ts';
import type { Watch } from '#host/udev.ts';
import { messageOf } from '#lib/fault.ts';
import { SingleFlight } from '#lib/mutex.ts';
import { known, type Observed, unknown } from '#lib/observed.ts';
import { belowShareRoot, holdsShareRoot, type Seen } from '#storage/automount.ts';
import { contentKnown, contentOf, inUse } from '#storage/blank.ts';
import type { LocalDisk } from '#storage/devices.ts';
import { Ejector } from '#storage/eject.ts';
import { type FstabEntry, parseFstab } from '#storage/fstab.ts';
import { deadMounts, onlyRead } from '#storage/fstab-mounts.ts';
import { LocalMounts } from '#storage/local.ts';
import { Locks } from '#storage/locks.ts';
import { Mounter } from '#storage/mounter.ts';
import { isWithin } from '#storage/names.ts';
import type { Machine, Problem, Settings, Surroundings } from '#storage/ports.ts';
import {
  devicesUnknown,
  diskGone,
  mountDead,
  noEvents,
  notMounted,
  readOnly,
  rootAwaited,
} from '#storage/problems.ts';
import { Provisioner } from '#storage/provision.ts';
import { type MountRow, Registry } from '#storage/registry.ts';
import { Shares, type SharesParts } from '#storage/shares.ts';
import { UsageProbe, usageStat, zeros } from '#storage/usage.ts';
import { diskView, type Listed, listed } from '#storage/views.ts';
import type { Store } from '#store/store.ts';

const resyncEvery = 60_000;
/** The listener for block events is started again after this long, and twice as long each time that it ends soon. */
const listenAgainAfter = 5000;
const listenAgainAtMost = 60_000;

/** What GET /storage/disks learnt by asking a disk, good for as long as the disk stays what it is, and no longer than `until`. */
interface Learnt<T> {
  readonly key: string;
  /** Where in the device tree the disk hangs. */
  readonly place: string;
  readonly answer: T;
  readonly until: number;
}
/** SMART verdicts, and disks that fail when read, are asked for no more often: each try may leave a child that hangs. */
const askAgainAfter = 10 * 60_000;

/** Everything about disks and shares, put together. */
export class Storage {
  readonly registry: Registry;
  readonly mounter: Mounter;
  readonly local: LocalMounts;
  readonly shares: Shares;
  readonly ejector: Ejector;
  readonly provisioner: Provisioner;
  readonly settings: Settings;
  readonly #parts: SharesParts;
  readonly #probe: UsageProbe;
  readonly #swaps: () => readonly string[];
  readonly #proofs = new Map<string, Learnt<readonly string[]>>();
  readonly #verdicts = new Map<string, Learnt<Health | undefined>>();
  readonly #judging = new SingleFlight<Health | undefined>();
  readonly #proving = new SingleFlight<readonly string[]>();
  readonly #stop = new AbortController();
  #watch: Watch | undefined;
  #resync: Promise<void> = Promise.resolve();
  #listenerLost: string | undefined;

  constructor(init: {
    readonly machine: Machine;
    readonly settings: Settings;
    readonly around: Surroundings;
    readonly store: Pick<Store, 'read' | 'commit'>;
    /** Devices that are swapped to. */
    readonly swaps: () => readonly string[];
  }) {
    const { machine, settings } = init;
    const around: Surroundings = {
      ...init.around,
      emit: (data) => {
        init.around.emit(data);
        this.#report();
      },
    };
    this.settings = settings;
    this.registry = new Registry(init.store, () => machine.clock.now());
    this.mounter = new Mounter({
      mounts: machine.mounts,
      folders: machine.folders,
      registry: this.registry,
      shareRoot: settings.shareRoot,
      bootId: settings.bootId,
      awaited: (without) => {
        // Hardly any machine has such a line, and then there is nothing to look at.
        const isAwaited = this.#lines().some((each) => holdsShareRoot(each, settings.shareRoot));
        return isAwaited ? belowShareRoot(this.#glance(), without)?.target : undefined;
      },
    });
    const changed = (path: string, invalid: boolean, reason: string) => {
      around.emit({ action: invalid ? 'unreachable' : 'reachable', path, reason });
    };
    this.#probe = new UsageProbe(machine.mounts, machine.clock, changed);
    const { registry, mounter } = this;
    const parts = { machine, settings, around, registry, mounter, locks: new Locks(), probe: this.#probe };
    this.#parts = parts;
    this.local = new LocalMounts(parts, () => this.#report());
    this.shares = new Shares(parts);
    this.ejector = new Ejector(parts, this.local);
    this.#swaps = init.swaps;
    this.provisioner = new Provisioner(parts, this.local, init.swaps);
  }

  /** Puts right what a crash or a reboot left, mounts what is there, and goes on looking. Resolves when every disk and share has been tried. */
  async start(): Promise<void> {
    this.#listen();
    this.#resync = this.#resyncForever();
    await Promise.all([this.#startShares(), this.local.settled()]);
    this.#report();
    this.#parts.around.mountsReady();
  }

  async #startShares(): Promise<void> {
    try {
      await this.shares.start();
    } catch (error) {
      this.#parts.around.log('cannot look after the shares', { error: messageOf(error) });
    }
  }

  /** The store can be read and written again: what it holds may be other than what was known until now. */
  recovered(): void {
    this.shares.recovered();
    this.local.poke();
    this.#report();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#watch?.close();
    await Promise.all([this.#resync, this.local.close(), this.shares.close()]);
  }

  /** What is seen now, or why nothing is. */
  see(): Observed<Seen> {
    try {
      return known(this.local.see(), 'storage', this.#parts.machine.clock.now());
    } catch (error) {
      return unknown('storage', this.#parts.machine.clock.now(), messageOf(error));
    }
  }

  seen(): Seen {
    const seen = this.see();
    if (seen.known) return seen.value;
    throw unreadable(seen.reason);
  }

  #lines(): FstabEntry[] {
    try {
      return parseFstab(this.#parts.machine.fstab() ?? '');
    } catch (error) {
      throw unreadable(messageOf(error));
    }
  }

  #glance(): Seen {
    try {
      return this.local.glance();
    } catch (error) {
      throw unreadable(messageOf(error));
    }
  }

  /** All mounts for users with their numbers; never waits for one that is dead. */
  async mounted(wanted: (row: Listed) => boolean): Promise<MountedPath[]> {
    const rows = listed(this.#glance());
    this.#probe.keep(
      new Set([...rows.map((row) => row.key), ...this.shares.rows().map((row) => row.identity)]),
    );
    return Promise.all(rows.filter(wanted).map((row) => this.#measured(row)));
  }

  async disks(): Promise<Disk[]> {
    const seen = this.seen();
    const views = seen.disks.map(async (disk) => {
      const found = await this.#found(disk, seen);
      const health = await this.#health(disk);
      return diskView(disk, seen, {
        blank: found.length === 0,
        found: found.join('; '),
        health: health ?? null,
        failureOf: (identity) => this.local.failureOf(identity),
      });
    });
    return Promise.all(views);
  }

  diskById(id: string): LocalDisk {
    const disk = this.seen().disks.find((each) => each.id === id);
    if (disk === undefined) throw fault('not_found', `There is no disk ${id}.`);
    return disk;
  }

  setPolicy(disk: LocalDisk, policy: DiskPolicy): void {
    this.registry.setPolicy(disk.id, policy);
    for (const volume of disk.volumes) this.local.forgetFailure(volume.identity);
    this.local.poke();
  }

  /** What is wrong now; also what the conditions show. */
  problems(): Problem[] {
    const problems: Problem[] = [];
    const seen = this.see();
    if (!seen.known) problems.push(devicesUnknown(seen.reason));
    else problems.push(...this.#problemsOf(seen.value));
    if (this.#listenerLost !== undefined && this.settings.mayAct) problems.push(noEvents(this.#listenerLost));
    return problems;
  }

  async #measured(row: Listed): Promise<MountedPath> {
    const { usage, invalid } = row.mounted
      ? await this.#probe.usage(row.key, row.path, row.fstype)
      : { usage: usageStat(row.path, row.fstype, zeros), invalid: true };
    return {
      ...usage,
      invalid,
      device: row.device,
      type: row.type,
      id_serial: row.idSerial,
      id_serial_short: row.idSerialShort,
      partition_uuid: row.partitionUuid,
      read_only: row.readOnly,
    };
  }

  /** Why a disk is not blank. What the database does not know is read from the disk once per plugging-in. */
  async #found(disk: LocalDisk, seen: Seen): Promise<readonly string[]> {
    const facts = [...inUse(disk, seen.entries, this.#swaps()), ...contentKnown(disk)];
    if (facts.length > 0) return facts;
    const key = keyOf(disk);
    const now = this.#parts.machine.clock.monotonic();
    const proof = this.#proofs.get(disk.id);
    if (proof?.key === key && now < proof.until) return proof.answer;
    let until = Number.POSITIVE_INFINITY;
    const answer = await this.#proving
      .run(disk.id, () => contentOf(this.#parts.machine.disks, disk))
      .catch((error: unknown) => {
        until = now + askAgainAfter;
        return [`it could not be read: ${messageOf(error)}`];
      });
    this.#proofs.set(disk.id, { key, place: disk.device.sysPath, answer, until });
    return answer;
  }

  /** SMART verdict; undefined: nobody can tell. */
  async #health(disk: LocalDisk): Promise<Health | undefined> {
    const { clock, disks } = this.#parts.machine;
    const key = keyOf(disk);
    const verdict = this.#verdicts.get(disk.id);
    if (verdict?.key === key && clock.monotonic() < verdict.until) return verdict.answer;
    const answer = await this.#judging.run(disk.id, () =>
      disks.health(disk.device.node).catch(() => undefined),
    );
    const until = clock.monotonic() + askAgainAfter;
    this.#verdicts.set(disk.id, { key, place: disk.device.sysPath, answer, until });
    return answer;
  }

  #listen(pause = listenAgainAfter): void {
    if (this.#stop.signal.aborted) return;
    const { clock, devices } = this.#parts.machine;
    const began = clock.monotonic();
    const lost = (reason: string) => {
      this.#listenerLost = reason;
      this.#report();
      const wait = clock.monotonic() - began > listenAgainAtMost ? listenAgainAfter : pause;
      clock.sleep(wait, this.#stop.signal).then(
        () => {
          this.#listen(Math.min(wait * 2, listenAgainAtMost));
          this.#heard(); // what happened while nobody listened
        },
        () => undefined,
      );
    };
    this.#watch = devices.watch((place) => this.#heard(place), lost);
  }

  #heard(place?: string): void {
    this.#listenerLost = undefined;
    this.#forgetProofs(place);
    this.local.poke();
  }

  /** Who has written to a disk is told by an event of it or its partition: no other disk is read, or woken, again. */
  #forgetProofs(place: string | undefined): void {
    for (const [id, proof] of this.#proofs)
      if (place === undefined || isWithin(place, proof.place)) this.#proofs.delete(id);
  }

  async #resyncForever(): Promise<void> {
    const { clock } = this.#parts.machine;
    while (!this.#stop.signal.aborted) {
      await clock.sleep(resyncEvery, this.#stop.signal).catch(() => undefined);
      await this.local.look();
      this.#report();
    }
  }

  #report(): void {
    this.#parts.around.report(this.problems());
  }

  #problemsOf(seen: Seen): Problem[] {
    const problems: Problem[] = [];
    for (const row of listed(seen)) {
      const failure = row.mounted ? undefined : this.shares.failureOf(row.key);
      if (!row.mounted || this.#probe.isInvalid(row.key)) problems.push(mountDead(row, failure));
    }
    for (const row of seen.rows) {
      const because = row.phase === 'mounted' ? whyReadOnly(row, seen) : undefined;
      if (because !== undefined) problems.push(readOnly(this.mounter.pathOf(row), because));
      const failure = this.local.failureOf(row.identity);
      if (failure !== undefined && row.phase === 'none') problems.push(notMounted(row.name, failure));
    }
    const awaited = belowShareRoot(seen);
    if (awaited !== undefined) problems.push(rootAwaited(awaited.target));
    for (const { target, words } of this.local.fstabFailures()) problems.push(notMounted(target, words));
    for (const entry of deadMounts(seen)) {
      const inside = seen.entries.find(
        ({ target }) => target !== entry.target && isWithin(target, entry.target),
      );
      problems.push(diskGone(entry, inside?.target));
    }
    for (const [path, because] of onlyRead(seen)) problems.push(readOnly(path, because));
    return problems;
  }
}

/** Why a mount that is to be written to is not; undefined: it can be, or nobody wants it to be. */
function whyReadOnly({ dev, mountId, extra }: MountRow, { entries }: Seen): string | undefined {
  const entry = entries.find((each) => each.id === mountId && each.dev === dev);
  // errors=remount-ro: the kernel does so by itself, long after it was mounted.
  const isTurned = extra.readOnly === false && entry !== undefined && isReadOnly(entry);
  return isTurned ? 'the kernel has stopped writing to it after an error' : extra.readOnlyBecause;
}

function unreadable(reason: string) {
  return fault('devices_unknown', `The disks of this machine cannot be read: ${reason}.`);
}

/** This appearance of a disk. */
function keyOf({ device }: LocalDisk): string {
  return `${device.sequence}/${device.dev}/${device.size}`;
}
