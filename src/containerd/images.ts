import { fault } from '#api/errors.ts';
import type { RegistryConfig } from '#containerd/config-toml.ts';
import { Protection, type PruneFacts, type PrunePlan, planPrune } from '#containerd/prune.ts';
import { canonicalNames, parseReference, registryName } from '#containerd/reference.ts';
import type { ImageRecord, Runtime, RuntimeImage } from '#containerd/runtime.ts';
import type { Clock } from '#host/clock.ts';
import { causeChain } from '#lib/fault.ts';
import { Mutex } from '#lib/mutex.ts';
import type { Observed } from '#lib/observed.ts';

export interface ImageManagerDeps {
  readonly runtime: Runtime;
  readonly clock: Clock;
  /** The runtime's configuration; throws when it cannot be read. */
  readonly config: () => Promise<Pick<RegistryConfig, 'sandboxImage'>>;
  /** Images that the pods of this node and a recorded upgrade name. Unknown, or not current: nothing is removed. */
  readonly protectedReferences: () => Observed<readonly string[]>;
  /** When images were last seen in use, by id, ms. */
  readonly lastUsed: () => ReadonlyMap<string, number>;
  /** How long an image that nobody uses yet is left alone, ms. */
  readonly graceMs: number;
}

export interface Pruned {
  readonly removed: readonly RuntimeImage[];
  readonly failed: readonly { readonly id: string; readonly reason: string }[];
}

/**
 * The images of the runtime.
 *
 * INVARIANTS: nothing is removed while it is unknown what is needed; what is needed is asked again before each single
 * removal, because pods start while we work.
 */
export class ImageManager {
  readonly #deps: ImageManagerDeps;
  readonly #lock = new Mutex();

  constructor(deps: ImageManagerDeps) {
    this.#deps = deps;
  }

  async list(registry?: string): Promise<readonly RuntimeImage[]> {
    const images = await this.#deps.runtime.images();
    return registry === undefined ? images : images.filter((image) => registriesOf(image).has(registry));
  }

  /** What prune would do now, with the reason for every image. Throws `images_not_judged`. */
  async plan(freeBytes: number | undefined): Promise<PrunePlan> {
    return planPrune(await this.#facts(), { graceMs: this.#deps.graceMs, freeBytes });
  }

  /**
   * Removes what the plan says. An image that has come into use, or got another name or pin, since then stays; one that
   * cannot be removed is told and keeps no other. Throws when nothing could be removed. What `check` throws, asked
   * before each, ends it.
   */
  async prune(freeBytes: number | undefined, check: () => void = () => undefined): Promise<Pruned> {
    return await this.#lock.run(async () => {
      const { remove } = await this.plan(freeBytes);
      const ids = remove.map(({ image }) => image.id);
      const removed: RuntimeImage[] = [];
      const failures: { id: string; error: unknown }[] = [];
      for (const [at, id] of ids.entries()) {
        const image = await this.#stillToGo(id, check).catch((error: unknown) => {
          // What is needed is not known any more, or the node's state forbids it: that ends it for all that are left.
          failures.push(...ids.slice(at).map((each) => ({ id: each, error })));
          return 'unknown' as const;
        });
        if (image === 'unknown') break;
        if (image === undefined) continue;
        try {
          await this.#deps.runtime.removeImage(id);
          removed.push(image);
        } catch (error) {
          failures.push({ id, error });
        }
      }
      if (removed.length === 0 && failures[0] !== undefined) throw failures[0].error;
      return { removed, failed: failures.map(({ id, error }) => ({ id, reason: causeChain(error) })) };
    });
  }

  /** The image that a text means. Throws `invalid_input` before anything is asked, `not_found`. */
  async find(text: string): Promise<RuntimeImage> {
    const wanted = parseWanted(text);
    const { runtime } = this.#deps;
    const [images, records] = await Promise.all([runtime.images(), runtime.imageRecords()]);
    return findImage(images, records, wanted);
  }

  /** Why an image may not be removed; [] when it may. Throws `images_not_judged`. */
  async obstacles(image: RuntimeImage): Promise<string[]> {
    return (await this.#protection()).reasons(image);
  }

  /** Removes one image with all its references. Throws `image_in_use`, `not_found`, `images_not_judged`, what `check` does. */
  async remove(text: string, check: () => void = () => undefined): Promise<RuntimeImage> {
    return await this.#lock.run(async () => {
      const image = await this.find(text);
      const reasons = await this.obstacles(image);
      if (reasons.length > 0) {
        throw fault('image_in_use', `${labelOf(image)} stays: ${reasons.join('; ')}.`, { data: { reasons } });
      }
      check();
      await this.#deps.runtime.removeImage(image.id);
      return image;
    });
  }

  /** The image as it is now, when a plan made now would remove it. */
  async #stillToGo(id: string, check: () => void): Promise<RuntimeImage | undefined> {
    const facts = await this.#facts();
    check();
    const images = facts.images.filter((each) => each.id === id);
    const { remove } = planPrune({ ...facts, images }, { graceMs: this.#deps.graceMs, freeBytes: undefined });
    return remove[0]?.image;
  }

  async #facts(): Promise<PruneFacts> {
    const { runtime, clock, lastUsed } = this.#deps;
    const [images, records, containers, sandboxImages] = await Promise.all([
      runtime.images(),
      runtime.imageRecords(),
      runtime.containers(),
      this.#sandboxImages(),
    ]);
    const references = this.#references();
    return {
      images,
      records,
      containers,
      references,
      sandboxImages,
      lastUsed: lastUsed(),
      now: clock.now(),
    };
  }

  async #protection(): Promise<Protection> {
    const [containers, sandboxImages] = await Promise.all([
      this.#deps.runtime.containers(),
      this.#sandboxImages(),
    ]);
    return new Protection({
      containers,
      sandboxImages,
      references: this.#references(),
      records: [],
      lastUsed: new Map(),
    });
  }

  #references(): readonly string[] {
    const fact = this.#deps.protectedReferences();
    if (fact.known && fact.stale === undefined) return fact.value;
    const reason = fact.known ? fact.stale?.reason : fact.reason;
    throw fault('images_not_judged', `Which images the pods of this node need is not known: ${reason}.`);
  }

  /**
   * containerd 1.x tells its sandbox image in its status; 2.x pins it itself, and its configuration names it. Where
   * neither can be read on a 1.x, any image could be the one that every pod needs.
   */
  async #sandboxImages(): Promise<string[]> {
    const told = (await this.#deps.runtime.status()).sandboxImage;
    if (told !== undefined) return [told];
    try {
      const configured = (await this.#deps.config()).sandboxImage;
      if (configured !== undefined) return [configured];
    } catch (error) {
      if (!(await this.#pinsItself())) {
        throw fault('images_not_judged', `The sandbox image is not known: ${causeChain(error)}.`, {
          cause: error,
        });
      }
    }
    if (await this.#pinsItself()) return [];
    throw fault('images_not_judged', 'Neither the runtime nor its configuration names the sandbox image.');
  }

  async #pinsItself(): Promise<boolean> {
    const { name, version } = await this.#deps.runtime.version();
    return name === 'containerd' && Number.parseInt(version.replace(/^v/, ''), 10) >= 2;
  }
}

/** Registries of all references that an image has. */
export function registriesOf(image: RuntimeImage): Set<string> {
  const references = [...image.tags, ...image.digests].map(parseReference);
  // A registry is asked for, and has its mirrors, under its name in small letters.
  return new Set(references.flatMap((reference) => registryName(reference?.registry ?? '') ?? []));
}

/** How a person knows the image. */
export function labelOf(image: RuntimeImage): string {
  return image.tags[0] ?? image.digests[0] ?? image.id;
}

/** What a text may mean: the first digits of an id or a digest, a reference, or either. */
interface WantedImage {
  readonly text: string;
  readonly hex: string | undefined;
  readonly name: string | undefined;
}

function parseWanted(text: string): WantedImage {
  const hex = /^(?:sha256:)?([0-9a-f]{6,64})$/.exec(text)?.[1];
  const reference = parseReference(text);
  if (hex === undefined && reference === undefined) {
    throw fault('invalid_input', 'image is neither an image id, a digest nor a reference.', {
      field: 'image',
    });
  }
  // A digest says more than a tag beside it, which containerd ignores then.
  return { text, hex, name: reference && canonicalNames(reference).at(-1) };
}

/** By id (whole, or its first digits), digest of its manifest, or reference. Throws `invalid_input`, `not_found`. Pure. */
function findImage(
  images: readonly RuntimeImage[],
  records: readonly ImageRecord[],
  { text, hex, name }: WantedImage,
): RuntimeImage {
  const pointing = records.filter(({ digest }) => digest === `sha256:${hex}`).map((record) => record.name);
  const found = images.filter((image) => {
    const names = [image.id, ...image.tags, ...image.digests];
    if (name !== undefined && names.includes(name)) return true;
    if (hex === undefined) return false;
    return image.id.startsWith(`sha256:${hex}`) || names.some((each) => pointing.includes(each));
  });
  const [first, ...others] = found;
  if (first === undefined) throw fault('not_found', `There is no image ${text} here.`);
  if (others.length > 0) {
    throw fault('invalid_input', `${text} is the beginning of more than one image id.`, { field: 'image' });
  }
  return first;
}
