import type { Runtime, RuntimeContainer, RuntimeImage } from '#containerd/runtime.ts';
import type { Clock } from '#host/clock.ts';
import { causeChain, isFault } from '#lib/fault.ts';
import type { ReportedCondition } from '#state/facts.ts';

export interface SpaceUsage {
  readonly totalBytes: number;
  /** What is left without the reserve of root: by that kubelet evicts and collects. */
  readonly availableBytes: number;
}

export interface RuntimeWatchDeps {
  readonly runtime: Runtime;
  readonly clock: Clock;
  /** Space on the filesystem of a path. */
  readonly usage: (path: string) => Promise<SpaceUsage>;
  /** Whether a runtime ought to be there: given explicitly, its socket exists, or the node is installed. */
  readonly expected: () => boolean;
  readonly report: (conditions: readonly ReportedCondition[]) => void;
  readonly noteUse: (used: readonly string[], present: readonly string[], now: number) => void;
}

/** Free space in percent below which images are a problem; kubelet begins its own collection at 15. */
const warnBelow = 15;
const errorBelow = 8;
const firstLookMs = 1500;
const resyncMs = 60_000;
/** The order of removal needs no finer memory than this; each note is a write to the disk, ms. */
const noteEveryMs = 600_000;

const fixedBy = ['POST /containerd/images/prune'];

/** Looks after the runtime once a minute: does it answer, is there space for images, which images are in use. */
export class RuntimeWatch {
  readonly #deps: RuntimeWatchDeps;
  #notedAt = Number.NEGATIVE_INFINITY;
  #trouble: string | undefined;

  constructor(deps: RuntimeWatchDeps) {
    this.#deps = deps;
  }

  /** Why the node cannot take work, as /readyz tells it; undefined: no reason here. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** Runs until the signal; never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    // The first look loads heavy modules: a daemon that has just started answers its first callers first.
    await this.#pause(firstLookMs, signal);
    while (!signal.aborted) {
      await this.look();
      await this.#pause(resyncMs, signal);
    }
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    await this.#deps.clock.sleep(ms, signal).catch(() => undefined); // aborted: the loop ends
  }

  /** One look; reports what it found. */
  async look(): Promise<void> {
    const { runtime, expected, report } = this.#deps;
    if (!expected()) {
      this.#trouble = undefined;
      report([]);
      return;
    }
    try {
      await runtime.version();
      const conditions = await this.#space();
      await this.#note();
      this.#trouble = undefined;
      report(conditions);
    } catch (error) {
      this.#trouble = `the container runtime does not answer at ${runtime.address()}`;
      report([runtimeDown(runtime.address(), error)]);
    }
  }

  async #space(): Promise<ReportedCondition[]> {
    const conditions: ReportedCondition[] = [];
    for (const { mountpoint, usedBytes } of await this.#deps.runtime.imageFilesystems()) {
      const condition = await this.#deps.usage(mountpoint).then(
        (usage) => imageSpace(mountpoint, usedBytes, usage),
        (error: unknown) => spaceUnknown(mountpoint, causeChain(error)),
      );
      if (condition !== undefined) conditions.push(condition);
    }
    return conditions;
  }

  async #note(): Promise<void> {
    const { runtime, clock, noteUse } = this.#deps;
    if (clock.monotonic() - this.#notedAt < noteEveryMs) return;
    const [images, containers] = await Promise.all([runtime.images(), runtime.containers()]);
    noteUse(
      imagesInUse(images, containers),
      images.map(({ id }) => id),
      clock.now(),
    );
    this.#notedAt = clock.monotonic();
  }
}

function imagesInUse(images: readonly RuntimeImage[], containers: readonly RuntimeContainer[]): string[] {
  const named = new Set(containers.flatMap((container) => container.images));
  const isUsed = (image: RuntimeImage) =>
    [image.id, ...image.tags, ...image.digests].some((name) => named.has(name));
  return images.filter(isUsed).map(({ id }) => id);
}

/** The condition of an image filesystem; undefined: there is enough space. Pure. */
export function imageSpace(
  mountpoint: string,
  usedBytes: number,
  { totalBytes, availableBytes }: SpaceUsage,
): ReportedCondition | undefined {
  if (totalBytes <= 0) return undefined;
  const percent = (availableBytes / totalBytes) * 100;
  if (percent >= warnBelow) return undefined;
  return {
    code: 'image_space',
    severity: percent < errorBelow ? 'error' : 'warning',
    message: `Only ${Math.floor(percent)} % (${gib(availableBytes)}) is free where images are kept (${mountpoint}); images use ${gib(usedBytes)}.`,
    remedy: 'Remove images that nothing needs (beosctl containerd prune; with --dry-run it explains each).',
    fixedBy,
  };
}

/** That space could not be measured is neither enough space nor a runtime that is down. */
function spaceUnknown(mountpoint: string, reason: string): ReportedCondition {
  return {
    code: 'image_space',
    severity: 'warning',
    message: `How much space is left where images are kept (${mountpoint}) cannot be told: ${reason}`,
    remedy: 'Look at this file system; the runtime names it as the place of its images.',
    fixedBy: [],
  };
}

function gib(bytes: number): string {
  return `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
}

function runtimeDown(address: string, error: unknown): ReportedCondition {
  const told = isFault(error) ? error : undefined;
  return {
    code: 'runtime_unavailable',
    severity: 'error',
    message: told?.message ?? `The container runtime does not answer at ${address}: ${causeChain(error)}`,
    remedy: told?.details.remedy ?? 'See `systemctl status containerd` (or k3s) and its log.',
    fixedBy: ['POST /command/reboot'],
  };
}
