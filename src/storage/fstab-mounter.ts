import { fault } from '#api/errors.ts';
import { isReadOnly, topmostAt } from '#host/mounts.ts';
import { appearance, type Seen } from '#storage/automount.ts';
import { placesOf } from '#storage/devices.ts';
import {
  type FstabMount,
  type FstabStep,
  isThere,
  madeByFstab,
  mayDetach,
  servedNow,
  sourceOf,
} from '#storage/fstab-mounts.ts';
import type { LocalParts } from '#storage/local.ts';
import { isWithin } from '#storage/names.ts';

/**
 * Mounts what lines of fstab name, by mount(8) and with their options.
 *
 * INVARIANTS: what is detached is the very mount that was made here, by id, number, kind and source, and only with
 * nothing mounted within it. What was made is known for the life of the daemon only: a later one leaves it to systemd.
 */
export class FstabMounter {
  readonly #parts: Pick<LocalParts, 'machine' | 'around'>;
  #served: ReadonlyMap<string, ReadonlySet<string>> = new Map();
  #made: readonly FstabMount[] = [];

  constructor(parts: Pick<LocalParts, 'machine' | 'around'>) {
    this.#parts = parts;
  }

  /** Targets whose line has been carried out, with the appearances of the disks that are still there. */
  get served(): ReadonlyMap<string, ReadonlySet<string>> {
    return this.#served;
  }

  get made(): readonly FstabMount[] {
    return this.#made;
  }

  /** Learns from what is seen which lines are carried out, and which mounts are gone. */
  note(seen: Seen): void {
    const present = new Set(placesOf(seen).map(({ volume }) => appearance(volume, seen.bootId)));
    const before = [...this.#served].flatMap(([target, all]) =>
      [...all].map((each) => [target, each] as const),
    );
    const now = servedNow(seen).map(([{ target }, each]) => [target, each] as const);
    const pairs = [...before, ...now].filter(([, each]) => present.has(each));
    const byTarget = Map.groupBy(pairs, ([target]) => target);
    this.#served = new Map(
      [...byTarget].map(([target, all]) => [target, new Set(all.map(([, each]) => each))]),
    );
    this.#made = this.#made.filter((mount) => isThere(mount, seen.entries));
  }

  async mount(step: Extract<FstabStep, { do: 'fstab' }>, timeoutMs: number): Promise<void> {
    const { machine, around } = this.#parts;
    const { kind, options, place } = step;
    const { target } = step.entry;
    await this.#refuseLink(target);
    const before = machine.mounts.list();
    // Judged once more: somebody may have mounted there since the line was looked at.
    const there = before.find((entry) => isWithin(entry.target, target));
    if (there !== undefined) throw fault('mount_failed', `${there.source} is mounted at ${there.target}.`);
    await machine.mounts.mountFstab({ source: sourceOf(place), target, options, timeoutMs });
    const after = machine.mounts.list();
    const made = madeByFstab(step, before, after);
    if (made !== undefined) this.#made = [...this.#made, made];
    const entry = topmostAt(after, target);
    const readOnly = entry !== undefined && isReadOnly(entry);
    around.emit({ action: 'mounted', kind, path: target, readOnly });
    around.log('mounted by fstab', { path: target, readOnly });
  }

  /** Everything is judged by the paths that the kernel names: what a link leads to may be mounted, or hold the system. */
  async #refuseLink(target: string): Promise<void> {
    const real = await this.#parts.machine.mounts.leadsTo(target, 10_000);
    if (real === target) return;
    throw fault(
      'mount_failed',
      `${target} leads to ${real}; name that in /etc/fstab, or \`mount ${target}\`.`,
    );
  }

  /** The device is gone. systemd does the same for mounts that it knows: whoever is second finds nothing to do. */
  async detach(mount: FstabMount): Promise<void> {
    const { machine, around } = this.#parts;
    const { target, kind } = mount;
    if (!mayDetach(mount, machine.mounts.list(), machine.devices.list())) return;
    try {
      await machine.mounts.umount(target, { lazy: true, timeoutMs: 20_000 });
    } catch (error) {
      if (isThere(mount, machine.mounts.list())) throw error;
    }
    around.emit({ action: 'unplugged', kind, path: target });
    around.log('the device is gone; its mount was detached', { path: target });
  }
}
