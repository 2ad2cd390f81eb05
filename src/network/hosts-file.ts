import { isIPv4 } from 'node:net';
import { basename, dirname } from 'node:path';
import { type ErrorCode, fault } from '#api/errors.ts';
import type { Clock } from '#host/clock.ts';
import { FileLock, LockBusy } from '#host/file-lock.ts';
import { ChangedMeanwhile, type Files, type Watching } from '#host/files.ts';
import { causeChain, errnoOf, type Fault, isFault, messageOf } from '#lib/fault.ts';
import { Mutex } from '#lib/mutex.ts';
import { isHostName } from '#lib/net.ts';
import { failed, known, type Observed, unknown } from '#lib/observed.ts';
import {
  bindOwnName,
  editableEntries,
  type HostsEntry,
  hiddenByContract,
  isHiddenName,
  keyOf,
  matchesName,
  ownAddresses,
  type Reserved,
  replaceEditable,
} from '#network/hosts-text.ts';
import { notObserved } from '#state/derive.ts';
import type { HostsFacts } from '#state/facts.ts';

export interface HostsFileOptions {
  readonly files: Files;
  readonly clock: Clock;
  /** Absolute path of the hosts file, below the configured root. */
  readonly path: string;
  /** Lock shared by all programs of ours that write the file. */
  readonly lockPath: string;
  /** This host's own name. */
  readonly hostName: () => string;
  /** Names that the platform keeps for itself; default: the contract's. */
  readonly hiddenNames?: readonly string[];
  /** Names that we trust for what they serve (`name`, or `*.domain` for all below it): only the owner may bind them. */
  readonly protectedNames: readonly string[];
  readonly onFacts: (facts: Observed<HostsFacts>) => void;
}

const source = 'hosts-file';
/** Lists of a hundred thousand blocked names are kept in hosts files. */
const longestBytes = 16 * 1024 * 1024;
/** So often an edit is made anew from what another program has just written. */
const mostTries = 5;

/**
 * The hosts file of the machine.
 *
 * INVARIANTS: one writer at a time, over all our processes; a power cut or `kill -9` leaves the old or the new file;
 * lines that an edit does not name keep their bytes.
 */
export class HostsFile {
  readonly #options: HostsFileOptions;
  readonly #mutex = new Mutex();
  readonly #lock: FileLock;
  #watching: Watching | undefined;
  #fact: Observed<HostsFacts>;

  constructor(options: HostsFileOptions) {
    this.#options = options;
    this.#lock = new FileLock(options.lockPath, options.clock);
    this.#fact = unknown(source, options.clock.now(), notObserved);
  }

  /** Removes what a crash left, reads, and watches from then on. */
  start(): void {
    const { files, path } = this.#options;
    try {
      files.sweepTemps(path);
    } catch {
      // A folder that cannot be listed or written has nothing of ours to sweep; reading reports the trouble.
    }
    this.resync();
  }

  stop(): void {
    this.#watching?.close();
    this.#watching = undefined;
  }

  /** Reads again; also puts the watch back when it could not be had before. */
  resync(): void {
    const { files, path, clock } = this.#options;
    try {
      this.#watching ??= files.watchDir(
        dirname(path),
        (name) => name === basename(path) && this.resync(),
        () => this.stop(),
      );
    } catch {
      // No folder to watch, or no watches left: the resync is the net.
    }
    try {
      const addresses = ownAddresses(this.#read(), this.#options.hostName());
      this.#fact = known({ ownAddresses: addresses }, source, clock.now());
    } catch (error) {
      this.#fact = failed(this.#fact, source, clock.now(), messageOf(error));
    }
    this.#options.onFacts(this.#fact);
  }

  /** What a user may edit. Throws `hosts_file_unavailable` when it cannot be read. */
  entries(): HostsEntry[] {
    try {
      return editableEntries(this.#read(), this.#reserved());
    } catch (error) {
      throw unavailable(error);
    }
  }

  /** What replacing the editable set would change. Throws `invalid_input` for an entry that cannot be. */
  plan(items: readonly HostsEntry[]): { readonly added: HostsEntry[]; readonly removed: HostsEntry[] } {
    return this.#planFrom(this.entries(), items);
  }

  #planFrom(before: readonly HostsEntry[], items: readonly HostsEntry[]): ReturnType<HostsFile['plan']> {
    const beforeKeys = new Set(before.map(keyOf));
    this.#validate(items, beforeKeys);
    const keys = new Set(items.map(keyOf));
    return {
      added: items.filter((item) => !beforeKeys.has(keyOf(item))),
      removed: before.filter((item) => !keys.has(keyOf(item))),
    };
  }

  /** Entries of a change that only the owner may make; `more` names are trusted now, beside those that always are. */
  protectedOf(entries: readonly HostsEntry[], more: readonly string[]): HostsEntry[] {
    const names = [...this.#options.protectedNames, ...more];
    return entries.filter(({ host }) => names.some((name) => matchesName(name, host)));
  }

  /**
   * Replaces the editable set. `trusted`: names that are protected now beside those that always are; undefined: who asks may
   * change all of them. Throws `invalid_input`, `forbidden` when a protected name would change, `hosts_file_unavailable`
   * when the file cannot be read or written.
   */
  replace(items: readonly HostsEntry[], trusted: readonly string[] | undefined): Promise<HostsEntry[]> {
    return this.#write((text) => {
      const { added, removed } = this.#planFrom(editableEntries(text, this.#reserved()), items);
      const [first] = trusted === undefined ? [] : this.protectedOf([...added, ...removed], trusted);
      if (first !== undefined) throw protectedName(first);
      return replaceEditable(text, items, this.#reserved());
    });
  }

  /** Binds this host's own name to the address, and to no other. */
  async bind(ip: string): Promise<void> {
    const own = this.#options.hostName();
    if (!isHostName(own))
      throw unavailable(new Error(`this host has no name to bind (${JSON.stringify(own)})`));
    await this.#write((text) => bindOwnName(text, own, ip));
  }

  async #write(edit: (text: string) => string): Promise<HostsEntry[]> {
    try {
      return await this.#mutex.run(() => this.#lock.run(() => this.#editLocked(edit)));
    } catch (error) {
      throw isFault(error) ? error : unavailable(error);
    } finally {
      this.resync();
    }
  }

  /** Others who write the file know nothing of our lock: what they have written meanwhile is what is edited. */
  #editLocked(edit: (text: string) => string, triesLeft = mostTries): HostsEntry[] {
    const { files, path } = this.#options;
    const before = this.#read();
    const after = edit(before);
    const bytes = (text: string) => Buffer.from(text, 'latin1');
    try {
      if (after !== before) files.replace(path, bytes(after), { expected: bytes(before) });
    } catch (error) {
      if (!(error instanceof ChangedMeanwhile) || triesLeft <= 1) throw error;
      return this.#editLocked(edit, triesLeft - 1);
    }
    return editableEntries(after, this.#reserved());
  }

  /** Bytes as characters: comments may be in any encoding and come back as they were. */
  #read(): string {
    return this.#options.files.readBytes(this.#options.path, longestBytes)?.toString('latin1') ?? '';
  }

  #reserved(): Reserved {
    return { own: this.#options.hostName(), hidden: this.#options.hiddenNames ?? hiddenByContract };
  }

  /** What is there already may stay, whatever it is called: the resolver takes names that no standard allows. */
  #validate(items: readonly HostsEntry[], present: ReadonlySet<string>): void {
    const seen = new Set<string>();
    items.forEach((item, index) => {
      const refuse = (field: string, why: string, remedy?: string): never => {
        throw fault('invalid_input', why, {
          field: `items[${index}].${field}`,
          ...(remedy === undefined ? {} : { remedy }),
        });
      };
      if (!isIPv4(item.ip)) refuse('ip', `${item.ip} is not an IPv4 address.`);
      const isNew = !present.has(keyOf(item));
      if (isNew && !isHostName(item.host)) refuse('host', `${item.host} is not a host name (RFC 1123).`);
      if (isNew && isIPv4(item.host)) refuse('host', `${item.host} is an address, not a host name.`);
      if (isHiddenName(item.host, this.#reserved())) {
        refuse(
          'host',
          `${item.host} belongs to the node itself and is not edited here.`,
          'Use POST /command/change-host for the address of the node.',
        );
      }
      if (seen.has(keyOf(item))) refuse('host', `${item.host} is there twice with the same address.`);
      seen.add(keyOf(item));
    });
  }
}

/** The refusal of a protected name by anybody but the owner. */
export function protectedName(entry: HostsEntry): Fault<ErrorCode> {
  return fault(
    'forbidden',
    `${entry.host} is a name that the node trusts; only the owner may change where it leads.`,
  );
}

function unavailable(cause: unknown): Fault<ErrorCode> {
  const why =
    cause instanceof LockBusy
      ? 'another program is writing it'
      : errnoOf(cause) === 'EBUSY'
        ? 'it is a mount of its own (as in a container) and cannot be replaced safely'
        : causeChain(cause);
  return fault('hosts_file_unavailable', `The hosts file cannot be read or written: ${why}.`, { cause });
}
