import { randomUUID } from 'node:crypto';
import { fault } from '#api/errors.ts';
import type { Layout } from '#host/disks.ts';
import { wordsOf } from '#host/mounts.ts';
import type { Check, JobDefinition, Phase, PhaseContext } from '#jobs/definition.ts';
import { messageOf } from '#lib/fault.ts';
import { policyOf, type Seen, whyNot } from '#storage/automount.ts';
import { claimed, contentClaimed, contentKnown, contentOf, foundOn, inUse } from '#storage/blank.ts';
import { kindOf, type LocalDisk, type Volume } from '#storage/devices.ts';
import type { LocalMounts, LocalParts } from '#storage/local.ts';
import { freeName } from '#storage/names.ts';
import { knowsOwners } from '#storage/options.ts';
import { checksOf, type ProvisionInput } from '#storage/provision-checks.ts';
import { changed, describe, interrupted, toldPlainly } from '#storage/provision-faults.ts';
import {
  type Checked,
  checkedOf,
  type Found,
  findChecked,
  isSame,
  named,
  sameUuid,
  theOne,
} from '#storage/provision-target.ts';

type Context = PhaseContext<ProvisionInput>;

const comesWithin = 120_000;

/**
 * Makes a blank disk a file system that is mounted for good.
 *
 * INVARIANTS: nothing is written before every check has been made again under the lane's lock, on the device itself,
 * with the device claimed; it is kept so while it is erased. sfdisk and mkfs come after that, for they claim by themselves.
 * From then on the store knows the UUIDs of what is being made: after a crash only a disk
 * that is blank, or that holds exactly our own half-done work, is touched again.
 */
export class Provisioner {
  readonly #parts: LocalParts;
  readonly #local: LocalMounts;
  readonly #swaps: () => readonly string[];
  /** Of each job, how to let go of its disk. */
  readonly #reservations = new Map<string, () => void>();

  constructor(parts: LocalParts, local: LocalMounts, swaps: () => readonly string[]) {
    this.#parts = parts;
    this.#local = local;
    this.#swaps = swaps;
  }

  definition(): JobDefinition<ProvisionInput> {
    return {
      operation: 'storage.provision',
      preconditions: (input) => this.preconditions(input),
      phases: (input) => this.#phases(input),
      finished: (_, { jobId }) => this.#release(jobId),
    };
  }

  /** What stands in the way; each with what was found. Reads the disk, writes nothing. */
  async preconditions(input: ProvisionInput): Promise<Check[]> {
    return this.#lookedAt(input, this.#find(input.disk));
  }

  #lookedAt(input: ProvisionInput, disk: LocalDisk): Promise<Check[]> {
    return checksOf(input, disk, this.#parts.machine.disks, this.#local.see().entries, this.#swaps());
  }

  #phases(input: ProvisionInput): Phase<ProvisionInput>[] {
    const [disk] = named(this.#local.see().disks, input.disk);
    const what = disk === undefined ? input.disk : `${describe(disk)}, ${disk.device.node}`;
    const content = (disk === undefined ? [] : contentKnown(disk)).join('; ') || 'what is on it';
    return [
      {
        name: 'check',
        does: `check ${what} once more, and that nobody else has claimed it`,
        reversible: true,
        weight: 1,
        cancellable: true,
        afterCrash: 'repeat',
        run: (context) => this.#check(context),
      },
      {
        name: 'partition',
        does: `with ${what} claimed, erase both ends of it; then write a GPT with one partition${input.wipe ? `; lost is ${content}` : ''}`,
        reversible: false,
        weight: 1,
        cancellable: false,
        afterCrash: 'resume',
        run: (context) => toldPlainly(() => this.#partition(context)),
        resume: (context) => toldPlainly(() => this.#resumePartition(context)),
      },
      {
        name: 'format',
        does: `make a file system ${input.filesystem} called ${input.label}`,
        reversible: false,
        weight: 6,
        cancellable: false,
        afterCrash: 'resume',
        run: (context) => toldPlainly(() => this.#format(context)),
        resume: (context) => toldPlainly(() => this.#resumeFormat(context)),
      },
      {
        name: 'mount',
        does: 'mount it by its UUID, now and after every start; a policy `ignore` was for what is erased and ends',
        reversible: true,
        weight: 1,
        cancellable: false,
        afterCrash: 'repeat',
        run: (context) => this.#mount(context),
      },
    ];
  }

  /**
   * A job may be found again before its disk is: at boot, USB disks come seconds after the daemon. Unless the disk is to be
   * `mounted`, it is reserved as soon as it is seen, before anybody has looked what could be mounted.
   */
  async #present(context: Context, how: { readonly mounted: boolean }): Promise<void> {
    const found = ({ disks }: Seen) => this.#among(disks, context, false);
    const isTold = (seen: Seen) => {
      const now = found(seen);
      if (now.disk === undefined) return now.final;
      if (!how.mounted && !this.#local.isReserved(now.disk.device)) this.#reserve(context, now.disk);
      return now.disk.ready;
    };
    if (await this.#local.until(isTold, comesWithin, context.signal)) return;
    const now = found(this.#local.see());
    throw changed(now.disk === undefined ? now.why : 'udev has not finished with the disk.');
  }

  async #check(context: Context): Promise<void> {
    const { input, remember } = context;
    const isThere = ({ disks }: Seen) => named(disks, input.disk).some((each) => each.ready);
    await this.#local.until(isThere, comesWithin, context.signal);
    const disk = this.#find(input.disk);
    this.#reserve(context, disk);
    const failed = (await this.#lookedAt(input, disk)).find((each) => !each.ok);
    if (failed !== undefined) throw fault(failed.code ?? 'impossible', failed.reason);
    const layout: Layout = {
      filesystem: input.filesystem,
      label: input.label,
      tableUuid: randomUUID(),
      partUuid: randomUUID(),
      fsUuid: randomUUID(),
    };
    remember({ layout, ...checkedOf(disk, this.#parts.settings.bootId) });
  }

  /** Until the job ends, between its steps too, nobody mounts the disk or stops the USB device that it hangs on. */
  #reserve({ jobId }: Context, disk: LocalDisk): void {
    this.#release(jobId);
    if (this.#local.isReserved(disk.device)) {
      throw fault('disk_in_use', `${describe(disk)} is just being stopped, or provisioned by another job.`);
    }
    this.#reservations.set(jobId, this.#local.reserve(disk.device));
  }

  #release(jobId: string): void {
    this.#reservations.get(jobId)?.();
    this.#reservations.delete(jobId);
  }

  async #partition(context: Context): Promise<void> {
    await this.#held(context, { sameAppearance: true, idle: true }, async (disk) => {
      const { disks } = this.#parts.machine;
      await this.#alone(disk, () => this.#erase(context, disk));
      for (const volume of disk.volumes) this.#forget(volume);
      await disks.partition(disk.device.node, layoutOf(context));
      await disks.settle();
    });
  }

  async #erase(context: Context, disk: LocalDisk): Promise<void> {
    const { disks } = this.#parts.machine;
    const { node, size } = disk.device;
    const content = await contentClaimed(disks, disk);
    if (content.length > 0 && !context.input.wipe) {
      throw fault('disk_changed', `${describe(disk)} is not blank any more: ${content.join('; ')}.`);
    }
    await this.#quiet();
    if (disk.volumes.some(({ device }) => device.kind === 'partition')) {
      // What lies far behind the table is not erased; without partitions nobody can mount it when the claim has ended.
      await disks.settle();
      await disks.forgetPartitions(node).catch((error: unknown) => {
        throw fault('disk_in_use', `${describe(disk)}: a partition of it is open (${wordsOf(error)}).`);
      });
    }
    context.progress(null, `writing to ${node}`);
    try {
      await disks.wipe(node, size);
    } catch (error) {
      await disks.recallPartitions(node); // of a table that is still there
      throw error;
    }
  }

  /** What an earlier daemon has started may still write to a disk. */
  async #quiet(): Promise<void> {
    await this.#parts.machine.disks.quiet().catch((error: unknown) => {
      throw fault('disk_in_use', `${messageOf(error)}; try again when it has ended.`, { cause: error });
    });
  }

  /** After a crash: blank, or our own table with nothing in it, is gone on with; nothing else. */
  async #resumePartition(context: Context): Promise<void> {
    await this.#present(context, { mounted: false });
    await this.#quiet();
    await this.#held(context, { sameAppearance: false, idle: true }, async (disk) => {
      const layout = layoutOf(context);
      const { disks } = this.#parts.machine;
      await this.#alone(disk, async () => {
        const content = await contentClaimed(disks, disk);
        if (content.length > 0 && !(await this.#isOurTable(disk, layout))) {
          await disks.recallPartitions(disk.device.node); // which the last daemon may have let the kernel forget
          throw interrupted(disk, content);
        }
        for (const { device } of disk.volumes) {
          const inside = device.kind === 'partition' ? await foundOn(disks, device.node) : [];
          if (inside.length > 0) throw interrupted(disk, inside);
        }
      });
      context.remember({ ...checkedOf(disk, this.#parts.settings.bootId) });
      await disks.partition(disk.device.node, layout);
      await disks.settle();
    });
  }

  /** The table that we wrote is still there: in between, the disk may have been exchanged for one without a serial too. */
  async #format(context: Context): Promise<void> {
    await this.#held(context, { sameAppearance: true, idle: true }, async (disk) => {
      if (!(await this.#isOurTable(disk, layoutOf(context)))) {
        throw fault('disk_changed', `${describe(disk)} does not hold the table that was written to it.`);
      }
      await this.#makeFileSystem(context, disk);
    });
  }

  async #makeFileSystem(context: Context, disk: LocalDisk): Promise<void> {
    const volume = this.#ourVolume(disk);
    context.progress(null, `formatting ${volume.device.node}`);
    await this.#parts.machine.disks.format(volume.device.node, layoutOf(context));
    await this.#parts.machine.disks.settle();
  }

  /** A file system with our UUID is finished, for its tools write that last. Anything else on it is not ours. */
  async #resumeFormat(context: Context): Promise<void> {
    await this.#present(context, { mounted: false });
    await this.#quiet();
    await this.#held(context, { sameAppearance: false, idle: false }, async (disk) => {
      const layout = layoutOf(context);
      if (!(await this.#isOurTable(disk, layout)))
        throw interrupted(disk, await contentOf(this.#parts.machine.disks, disk));
      const { node } = this.#ourVolume(disk).device;
      if (isOurFs(await this.#parts.machine.disks.probe(node), layout)) return;
      if (!isSame(this.#same(context, { sameAppearance: false, idle: true }), disk)) throw changed();
      await this.#alone(disk, async () => {
        const inside = await foundOn(this.#parts.machine.disks, node);
        if (inside.length > 0) throw interrupted(disk, inside);
      });
      await this.#makeFileSystem(context, disk);
    });
  }

  async #mount(context: Context): Promise<void> {
    const { registry, settings, machine, mounter } = this.#parts;
    await this.#present(context, { mounted: true });
    const disk = this.#same(context, { sameAppearance: false, idle: false });
    // A twin in its port is blank, or somebody's: what is mounted, and given away, is what was made here.
    if (!(await this.#isOurTable(disk, layoutOf(context)))) throw changed();
    const volume = this.#ourVolume(disk);
    if (registry.get(volume.identity) === undefined) {
      const rows = registry.all().map((row) => row.name);
      const there = [...settings.protectedNames, ...machine.folders.list(settings.shareRoot), ...rows];
      const taken = new Set(there.map((name) => name.toLowerCase()));
      registry.put({
        identity: volume.identity,
        kind: kindOf([disk]),
        name: freeName(context.input.label, (name) => taken.has(name.toLowerCase())),
        disk: disk.id,
        source: volume.device.node,
        fstype: volume.fstype,
        wanted: true,
        phase: 'none',
        dev: undefined,
        mountId: undefined,
        bootId: undefined,
        folder: undefined,
        folderToken: undefined,
        heldOff: undefined,
        sealed: undefined,
        extra: {},
      });
    }
    // What was there before may have been ejected from this very device; this has not.
    for (const { identity, source, heldOff } of registry.all())
      if (source === volume.device.node && heldOff) registry.update(identity, { heldOff: undefined });
    if (policyOf(disk, registry.policies()) === 'ignore') registry.setPolicy(disk.id, 'auto');
    this.#local.forgetFailure(volume.identity);
    this.#release(context.jobId);
    await this.#local.settled();
    const row = registry.get(volume.identity);
    if (row?.phase === 'mounted') {
      if (knowsOwners(row.fstype) && row.extra.readOnly !== true)
        await machine.disks.give(mounter.pathOf(row), settings.owner);
      context.progress(100, `mounted at ${mounter.pathOf(row)}`);
      return;
    }
    const why = this.#local.failureOf(volume.identity) ?? whyNot(disk, volume, this.#local.see());
    throw fault('mount_failed', `The disk is formatted, but is not mounted: ${why ?? 'it is not there'}`);
  }

  /** What was erased never comes again, and its name is free. */
  #forget({ identity }: Volume): void {
    const row = this.#parts.registry.get(identity);
    if (row?.phase !== 'none' || row.folder !== undefined || row.folderToken !== undefined) return;
    this.#parts.registry.forget(identity);
  }

  #find(id: string): LocalDisk {
    return theOne(this.#local.see().disks, id);
  }

  #among(disks: readonly LocalDisk[], { input, checkpoint }: Context, strict: boolean): Found {
    const layout = checkpoint['layout'] as Partial<Layout> | undefined;
    const how = { boot: this.#parts.settings.bootId, strict, tableUuid: layout?.tableUuid };
    return findChecked(disks, input.disk, checkpoint as Partial<Checked>, how);
  }

  /** The disk that was checked, whatever it is called by now; within one run, never unplugged since. */
  #same(context: Context, how: { readonly sameAppearance: boolean; readonly idle: boolean }): LocalDisk {
    const found = this.#among(this.#local.see().disks, context, how.sameAppearance);
    if (found.disk === undefined) throw changed(found.why);
    const { disk } = found;
    const used = how.idle ? inUse(disk, this.#local.see().entries, this.#swaps()) : [];
    if (used.length > 0) throw fault('disk_in_use', `${describe(disk)}: ${used.join('; ')}.`);
    return disk;
  }

  /** Looks once more with the disk held, so that between that look and the last write its name means no other disk. */
  async #held(
    context: Context,
    how: { readonly sameAppearance: boolean; readonly idle: boolean },
    work: (disk: LocalDisk) => Promise<void>,
  ): Promise<void> {
    if (!this.#parts.settings.mayAct) {
      throw fault('sandbox', 'Started without --system, beosd writes to no disk.');
    }
    const found = this.#same(context, how);
    if (!this.#reservations.has(context.jobId)) this.#reserve(context, found); // a daemon before us had reserved it
    const { node } = found.device;
    const hold = await this.#parts.machine.disks.hold(node);
    try {
      const disk = this.#same(context, how);
      if (!isSame(disk, found)) throw changed();
      await work(disk);
    } finally {
      await hold.release();
    }
  }

  /** Works with the disk claimed: nobody mounts a partition of it meanwhile, nor opens it for himself. */
  async #alone(disk: LocalDisk, work: () => Promise<void>): Promise<void> {
    const claim = await claimed(this.#parts.machine.disks, disk);
    if (typeof claim === 'string') throw fault('disk_in_use', `${describe(disk)}: ${claim}.`);
    try {
      await work();
    } finally {
      await claim.release();
    }
  }

  /** The one partition that was made on a disk; the kernel may know it only since a moment ago. */
  #ourVolume(before: LocalDisk): Volume {
    const disk = this.#local.see().disks.find((each) => isSame(each, before));
    if (disk === undefined) throw changed();
    const [volume, ...more] = disk.volumes;
    const isOurs = volume?.device.kind === 'partition' && more.length === 0;
    if (!isOurs)
      throw fault('disk_changed', `${describe(disk)} does not have the one partition that was made.`);
    return volume;
  }

  async #isOurTable(disk: LocalDisk, layout: Layout): Promise<boolean> {
    const probed = await this.#parts.machine.disks.probe(disk.device.node);
    return sameUuid(probed['ID_PART_TABLE_UUID'], layout.tableUuid);
  }
}

function layoutOf(context: Context): Layout {
  return context.checkpoint['layout'] as Layout;
}

function isOurFs(probed: Readonly<Record<string, string>>, layout: Layout): boolean {
  if (layout.filesystem !== 'exfat') return sameUuid(probed['ID_FS_UUID'], layout.fsUuid);
  return probed['ID_FS_TYPE'] === 'exfat' && probed['ID_FS_LABEL'] === layout.label;
}
