import { canonicalNames, parseReference } from '#containerd/reference.ts';
import type { ImageRecord, RuntimeContainer, RuntimeImage } from '#containerd/runtime.ts';

/** Everything that the choice depends on, as values. */
export interface PruneFacts {
  readonly images: readonly RuntimeImage[];
  readonly records: readonly ImageRecord[];
  readonly containers: readonly RuntimeContainer[];
  /** References that pods of this node, or an upgrade to come, name. */
  readonly references: readonly string[];
  readonly sandboxImages: readonly string[];
  /** When we last saw an image in use, by image id, ms. */
  readonly lastUsed: ReadonlyMap<string, number>;
  /** ms since the epoch. */
  readonly now: number;
}

export interface PruneWish {
  /** An image that came later than this many ms ago stays: somebody may be about to use it. */
  readonly graceMs: number;
  /** Stop when this many bytes are gone; undefined: everything that may go. */
  readonly freeBytes: number | undefined;
}

export interface Kept {
  readonly image: RuntimeImage;
  readonly reasons: readonly string[];
}

export interface Removal {
  readonly image: RuntimeImage;
  /** ms since the epoch: in use, or come, whichever is later. */
  readonly lastUsedAt: number;
}

export interface PrunePlan {
  readonly keep: readonly Kept[];
  /** In the order of removal: least recently used first. */
  readonly remove: readonly Removal[];
}

/** What may go and why the rest stays. Pure: the dry run and the run are the same value. */
export function planPrune(facts: PruneFacts, wish: PruneWish): PrunePlan {
  const protection = new Protection(facts);
  const keep: Kept[] = [];
  const candidates: Removal[] = [];
  for (const image of facts.images) {
    const reasons = [
      ...protection.reasons(image),
      ...graceReason(protection.cameAt(image), facts.now, wish.graceMs),
    ];
    if (reasons.length > 0) keep.push({ image, reasons });
    else candidates.push({ image, lastUsedAt: protection.lastUsedAt(image) });
  }
  candidates.sort((a, b) => a.lastUsedAt - b.lastUsedAt || (a.image.id < b.image.id ? -1 : 1));
  const count = countToFree(candidates, wish.freeBytes);
  const spared = candidates.slice(count).map(({ image }) => ({
    image,
    reasons: ['enough space is freed by images that were used less recently'],
  }));
  return { keep: [...keep, ...spared], remove: candidates.slice(0, count) };
}

function countToFree(candidates: readonly Removal[], freeBytes: number | undefined): number {
  if (freeBytes === undefined) return candidates.length;
  let freed = 0;
  let count = 0;
  while (freed < freeBytes && count < candidates.length) freed += candidates[count++]?.image.size ?? 0;
  return count;
}

function graceReason(cameAt: number | undefined, now: number, graceMs: number): string[] {
  if (cameAt === undefined) return ['the runtime does not say when it came'];
  // A clock that was set back makes an image come from the future: that one is young too.
  if (now - cameAt >= graceMs) return [];
  return [`it came less than ${Math.round(graceMs / 60_000)} minutes ago`];
}

/** Why an image must stay whatever its age: the same question for one image (DELETE) and for all (prune). */
export class Protection {
  readonly #facts: Pick<PruneFacts, 'records' | 'lastUsed'>;
  readonly #containers: ReadonlyMap<string, string>;
  readonly #references: ReadonlySet<string>;
  readonly #sandboxes: ReadonlySet<string>;
  readonly #cameAt: ReadonlyMap<string, number>;

  constructor(facts: Omit<PruneFacts, 'images' | 'now'>) {
    this.#facts = facts;
    this.#containers = new Map(
      facts.containers.flatMap(({ images, label }) => images.flatMap(allNames).map((name) => [name, label])),
    );
    this.#references = new Set(facts.references.flatMap(allNames));
    this.#sandboxes = new Set(facts.sandboxImages.flatMap(allNames));
    this.#cameAt = new Map(facts.records.map(({ name, changedAt }) => [name, changedAt]));
  }

  /** [] when nothing keeps it. */
  reasons(image: RuntimeImage): string[] {
    const names = namesOf(image);
    const user = names.map((name) => this.#containers.get(name)).find((label) => label !== undefined);
    const reasons: string[] = [];
    if (image.pinned) reasons.push('it is pinned in the runtime');
    if (names.some((name) => this.#sandboxes.has(name)) || names.some(isPause)) {
      reasons.push('it is the sandbox image, which every pod needs');
    }
    if (user !== undefined) reasons.push(`it is used by ${user}`);
    const reference = names.find((name) => this.#references.has(name));
    if (reference !== undefined) reasons.push(`a pod of this node or an upgrade names ${reference}`);
    return reasons;
  }

  /** When the newest of its references came; undefined: the runtime knows none of them. */
  cameAt(image: RuntimeImage): number | undefined {
    const times = namesOf(image).flatMap((name) => this.#cameAt.get(name) ?? []);
    return times.length === 0 ? undefined : Math.max(...times);
  }

  lastUsedAt(image: RuntimeImage): number {
    return Math.max(this.#facts.lastUsed.get(image.id) ?? 0, this.cameAt(image) ?? 0);
  }
}

function namesOf(image: RuntimeImage): string[] {
  return [image.id, ...image.tags, ...image.digests];
}

/** A text as the runtime may list it: as it stands, and as a normalised tag or digest. */
function allNames(text: string): string[] {
  const reference = parseReference(text);
  return reference === undefined ? [text] : [text, ...canonicalNames(reference)];
}

/** `registry.k8s.io/pause`, `rancher/mirrored-pause`: sandbox images by custom, whatever the configuration says. */
function isPause(name: string): boolean {
  return /(^|[/-])pause$/.test(parseReference(name)?.repository ?? '');
}
