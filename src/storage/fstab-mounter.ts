import type { Seen } from '#storage/automount.ts';
import { type FstabMount, type FstabStep, isThere, madeByFstab, servedNow } from '#storage/fstab-mounts.ts';
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
  readonly #served = new Map<string, string>();
  #made: readonly FstabMount[] = [];

  constructor(parts: Pick<LocalParts, 'machine' | 'around'>) {
    this.#parts = parts;
  }

  /** Targets whose line has been carried out, with the appearance of the disk. */
  get served(): ReadonlyMap<string, string> {
    return this.#served;
  }

  get made(): readonly FstabMount[] {
    return this.#made;
  }

  /** Learns from what is seen which lines are carried out, and which mounts are gone. */
  note(seen: Seen): void {
    for (const [target, appearance] of servedNow(seen)) this.#served.set(target, appearance);
    this.#made = this.#made.filter((mount) => isThere(mount, seen.entries));
  }

  async mount(step: Extract<FstabStep, { do: 'fstab' }>, timeoutMs: number): Promise<void> {
    const { machine, around } = this.#parts;
    const { entry, kind, readOnly } = step;
    const before = machine.mounts.list();
    await machine.mounts.mountFstab(entry.target, { readOnly, timeoutMs });
    const made = madeByFstab(step, before, machine.mounts.list());
    if (made !== undefined) this.#made = [...this.#made, made];
    around.emit({ action: 'mounted', kind, path: entry.target, readOnly });
    around.log('mounted by fstab', { path: entry.target, readOnly });
  }

  /** The device is gone. systemd does the same for mounts that it knows: whoever is second finds nothing to do. */
  async detach(mount: FstabMount): Promise<void> {
    const { machine, around } = this.#parts;
    const { target, kind } = mount;
    const entries = machine.mounts.list();
    if (!isThere(mount, entries)) return;
    const inside = entries.find((entry) => entry.target !== target && isWithin(entry.target, target));
    if (inside !== undefined) throw new Error(`${inside.source} is mounted at ${inside.target}, within it`);
    try {
      await machine.mounts.umount(target, { lazy: true, timeoutMs: 20_000 });
    } catch (error) {
      if (isThere(mount, machine.mounts.list())) throw error;
    }
    around.emit({ action: 'unplugged', kind, path: target });
    around.log('the device is gone; its mount was detached', { path: target });
  }
}
