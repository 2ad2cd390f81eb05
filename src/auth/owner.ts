import { join } from 'node:path';
import type { Caller, SignerKey } from '#api/caller.ts';
import { type ErrorCode, fault } from '#api/errors.ts';
import type { Clock } from '#host/clock.ts';
import { rfc3339 } from '#host/clock.ts';
import { type Files, syncDir } from '#host/files.ts';
import { publicJwkOf } from '#lib/did-key.ts';
import { causeChain, type Fault, isFault } from '#lib/fault.ts';
import type { Observed } from '#lib/observed.ts';

/** How somebody became the owner. */
type OwnerVia = 'claim' | 'release-file' | 'transfer';

export interface Owner extends SignerKey {
  readonly name: string;
  /** RFC 3339. */
  readonly since: string;
  /** Until the install that made the claim has succeeded. */
  readonly provisional: boolean;
  readonly via: OwnerVia;
}

/** Whose node this is. `named`: the release file of an installed node says who, but no key has been pinned yet. */
export type Ownership =
  | { readonly kind: 'pinned'; readonly owner: Owner }
  | { readonly kind: 'named'; readonly name: string }
  | { readonly kind: 'none' }
  | { readonly kind: 'unknown'; readonly reason: string };

export interface OwnerOptions {
  readonly dataDir: string;
  readonly files: Files;
  readonly clock: Clock;
  /** The name that the release file gives (ancestor §4.3); unknown while that file cannot be read. */
  readonly releaseName: () => Observed<string | undefined>;
  /** Whether another signer may take the place of a provisional claim: nothing is installed, and no install runs. */
  readonly claimIsOpen: () => boolean;
  /** Told of every change, for the audit. */
  readonly changed?: (change: OwnerChange) => void;
}

export interface OwnerChange {
  readonly what: 'claimed' | 'confirmed' | 'lapsed' | 'released' | 'transferred' | 'pinned';
  readonly name: string;
  readonly before: string | undefined;
}

/** What `owner.json` holds: the owner, and the name in the release file that root has released the node from. */
interface Content {
  readonly owner?: Owner;
  readonly releasedFrom?: string;
}

const nothing: Content = {};

type Loaded =
  | { readonly kind: 'content'; readonly content: Content }
  | { readonly kind: 'unknown'; readonly reason: string };

/**
 * Who owns the node, in one small file beside the database and not in it: a damaged database never makes the node
 * ownerless (docs/adr/2026-11-23-owner-file.md).
 *
 * INVARIANTS: what cannot be read is unknown, never "none"; a change is on disk before it counts.
 */
export class OwnerFile {
  readonly #options: OwnerOptions;
  readonly #path: string;
  #loaded: Loaded | undefined;
  #isClaiming = false;

  constructor(options: OwnerOptions) {
    this.#options = options;
    this.#path = join(options.dataDir, 'owner.json');
    try {
      options.files.sweepTemps(this.#path);
    } catch {
      // A read-only disk, a folder of that name: what lies beside the file does not matter to it.
    }
  }

  current(): Ownership {
    const loaded = this.#load();
    if (loaded.kind === 'unknown') return loaded;
    const { content } = loaded;
    if (content.owner !== undefined) return { kind: 'pinned', owner: content.owner };
    const release = this.#options.releaseName();
    if (!release.known) return { kind: 'unknown', reason: release.reason };
    if (release.value === undefined || release.value === content.releasedFrom) return { kind: 'none' };
    return { kind: 'named', name: release.value };
  }

  /** Whether `name` may claim the node now, or is its owner already. */
  mayClaim(name: string): boolean {
    const now = this.current();
    if (now.kind === 'none') return true;
    if (now.kind === 'named') return now.name === name;
    if (now.kind === 'unknown') return false;
    return now.owner.name === name || (now.owner.provisional && this.#options.claimIsOpen());
  }

  /**
   * Makes the signer of an install the owner, provisionally until {@link confirm}. The owner himself keeps what he has.
   *
   * @throws Fault `not_owner` when somebody else owns the node, `store_unavailable` when it cannot be written
   */
  claim(caller: Caller): Owner {
    const { name, key } = caller;
    if (name === undefined || key === undefined) throw fault('unproven', 'A claim needs a signature.');
    const before = this.current();
    if (before.kind === 'pinned' && before.owner.name === name) return before.owner;
    if (!this.mayClaim(name)) throw this.#notFree(before, name);
    return this.#pin({ ...key, name, provisional: true, via: 'claim' }, 'claimed');
  }

  /**
   * Claims the node for an install and keeps the claim only when that has begun; otherwise it is as before. Meanwhile nobody
   * else claims: two installs at once would undo each other's claim, and leave one running for nobody.
   *
   * @throws Fault as {@link claim}, `conflict` while another one is being started, and whatever `begin` throws
   */
  async claimFor<T>(caller: Caller, begin: () => Promise<T>): Promise<T> {
    if (this.#isClaiming) throw fault('conflict', 'Another install is being started just now.');
    this.#load();
    const before = this.#content();
    this.claim(caller);
    const claimed = this.#content();
    this.#isClaiming = true;
    try {
      return await begin();
    } catch (error) {
      if (claimed !== before && this.#content() === claimed) this.#undo(before, caller.name ?? '');
      throw error;
    } finally {
      this.#isClaiming = false;
    }
  }

  /** Pins the key of the owner whom the release file names, at his first valid signature. */
  pinNamed(name: string, key: SignerKey): void {
    const before = this.current();
    if (before.kind !== 'named' || before.name !== name) return;
    this.#pin({ ...key, name, provisional: false, via: 'release-file' }, 'pinned');
  }

  /** The install has succeeded. Safe to repeat. */
  confirm(): void {
    const now = this.current();
    if (now.kind !== 'pinned' || !now.owner.provisional) return;
    const owner = { ...now.owner, provisional: false };
    this.#write({ ...this.#content(), owner });
    this.#tell({ what: 'confirmed', name: owner.name, before: owner.name });
  }

  /** A claim that came to nothing is given up; a confirmed owner stays. Safe to repeat. */
  lapse(): void {
    const now = this.current();
    if (now.kind !== 'pinned' || !now.owner.provisional) return;
    const { owner: _lapsed, ...rest } = this.#content();
    this.#write(rest);
    this.#tell({ what: 'lapsed', name: now.owner.name, before: now.owner.name });
  }

  /** Forgets the owner, readable or not, and the name in the release file. Returns the name that was released. */
  release(): string | undefined {
    const before = this.current();
    const release = this.#options.releaseName();
    this.#write(release.known && release.value !== undefined ? { releasedFrom: release.value } : {});
    const name = nameOf(before);
    this.#tell({ what: 'released', name: name ?? 'unknown', before: name });
    return name;
  }

  /** Hands the node to the holder of another key. */
  transfer(name: string, key: SignerKey): Owner {
    return this.#pin({ ...key, name, provisional: false, via: 'transfer' }, 'transferred');
  }

  #pin(next: Omit<Owner, 'since'>, what: OwnerChange['what']): Owner {
    const before = nameOf(this.current());
    const { did, keyId, jwk, name, provisional, via } = next;
    const since = rfc3339(this.#options.clock.now());
    const owner: Owner = {
      name,
      did,
      ...(keyId === undefined ? {} : { keyId }),
      jwk,
      since,
      provisional,
      via,
    };
    this.#write({ ...this.#content(), owner });
    this.#tell({ what, name, before });
    return owner;
  }

  #write(content: Content): void {
    try {
      if (Object.keys(content).length > 0) {
        this.#options.files.replace(this.#path, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600 });
      } else if (this.#options.files.exists(this.#path)) {
        this.#options.files.remove(this.#path);
        syncDir(this.#options.dataDir);
      }
    } catch (error) {
      throw fault('store_unavailable', 'The owner of the node cannot be recorded.', { cause: error });
    }
    this.#loaded = { kind: 'content', content };
  }

  #undo(before: Content, name: string): void {
    try {
      this.#write(before);
    } catch (error) {
      // The disk has gone since: the claim stays, provisional, and another install may take its place.
      if (!isFault(error)) throw error;
      return;
    }
    this.#tell({ what: 'lapsed', name, before: name });
  }

  #content(): Content {
    return this.#loaded?.kind === 'content' ? this.#loaded.content : nothing;
  }

  #tell(change: OwnerChange): void {
    this.#options.changed?.(change);
  }

  #notFree(before: Ownership, name: string): Fault<ErrorCode> {
    if (before.kind === 'unknown') return ownerUnknown(before.reason);
    return fault('not_owner', `${name} is not the owner of this node.`);
  }

  /** Read once; while it cannot be read, again each time that somebody asks. */
  #load(): Loaded {
    if (this.#loaded?.kind === 'content') return this.#loaded;
    try {
      const text = this.#options.files.readText(this.#path, 64 * 1024);
      this.#loaded = { kind: 'content', content: text === undefined ? nothing : parseContent(text) };
    } catch (error) {
      this.#loaded = { kind: 'unknown', reason: `${this.#path}: ${causeChain(error)}` };
    }
    return this.#loaded;
  }
}

/** The refusal while nobody can say whose node this is. */
export function ownerUnknown(reason: string): Fault<ErrorCode> {
  return fault('store_unavailable', `The owner of this node cannot be read (${reason}).`, {
    remedy: 'Mend the file, or use `beosctl owner release` on the machine itself.',
  });
}

/** The owner's name; undefined when there is none, or nobody can say. */
export function nameOf(ownership: Ownership): string | undefined {
  if (ownership.kind === 'pinned') return ownership.owner.name;
  return ownership.kind === 'named' ? ownership.name : undefined;
}

function parseContent(text: string): Content {
  const content = record(JSON.parse(text));
  const { owner, releasedFrom } = content;
  if (owner === undefined && typeof releasedFrom !== 'string') throw new Error('it names no owner');
  return {
    ...(owner === undefined ? {} : { owner: parseOwner(record(owner)) }),
    ...(typeof releasedFrom === 'string' ? { releasedFrom } : {}),
  };
}

function parseOwner({
  name,
  did,
  keyId,
  jwk,
  since,
  provisional,
  via,
}: Readonly<Record<string, unknown>>): Owner {
  const key = publicJwkOf(jwk);
  if (typeof name !== 'string' || typeof did !== 'string' || typeof since !== 'string' || key === undefined) {
    throw new Error('it does not hold an owner with a key');
  }
  if (typeof provisional !== 'boolean' || !isVia(via)) throw new Error('it does not say how the owner came');
  const id = typeof keyId === 'string' ? { keyId } : {};
  return { name, did, ...id, jwk: key, since, provisional, via };
}

function record(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null) throw new Error('it is not a JSON object');
  return value as Readonly<Record<string, unknown>>;
}

function isVia(value: unknown): value is OwnerVia {
  return value === 'claim' || value === 'release-file' || value === 'transfer';
}
