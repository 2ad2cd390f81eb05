import type { KubeRequest } from '#cluster/kube/connection.ts';
import type { Clock } from '#host/clock.ts';
import { messageOf } from '#lib/fault.ts';

/** What the daemon says about itself on its node object. */
export interface NodeMarks {
  readonly version: string;
  /** Whether every mount that should be there is there; undefined: not known yet, then nothing is said of it. */
  readonly mountsReady: boolean | undefined;
  /** For people: which mounts, and what is wrong with them. */
  readonly mounts: string | undefined;
}

/** Labels and annotations of ours that the node object has now. */
export interface NodeMarksSeen {
  readonly node: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface LabelOptions {
  readonly clock: Clock;
  readonly prefix: string;
  readonly request: (request: KubeRequest) => Promise<unknown>;
  readonly seen: () => NodeMarksSeen | undefined;
  readonly wanted: () => NodeMarks;
  readonly onError: (message: string) => void;
}

/** Whoever fights over a label with us gets at most one answer in this time. */
const restMs = 30_000;

/**
 * Keeps our labels and annotations on the node object, by server-side apply under our own name: nothing of others is
 * touched, and what we no longer say goes away by itself. Writes only when the node says something else.
 */
export class NodeLabels {
  readonly #options: LabelOptions;
  #stirred = Promise.withResolvers<void>();

  constructor(options: LabelOptions) {
    this.#options = options;
  }

  /** The node object, the version or the mounts may have changed. */
  stir(): void {
    this.#stirred.resolve();
  }

  /** Runs until aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const aborted = new Promise<void>((resolve) =>
      signal.addEventListener('abort', () => resolve(), { once: true }),
    );
    while (!signal.aborted) {
      await Promise.race([this.#stirred.promise, aborted]);
      this.#stirred = Promise.withResolvers();
      if (signal.aborted || !(await this.apply())) continue;
      await this.#options.clock.sleep(restMs, signal).catch(() => undefined);
      this.stir();
    }
  }

  /** Writes what differs. True when it wrote, or tried to. */
  async apply(): Promise<boolean> {
    const { seen, wanted, prefix, request, onError } = this.#options;
    const now = seen();
    if (now === undefined) return false;
    const { labels, annotations } = marksOf(wanted(), prefix);
    if (isSame(labels, now.labels) && isSame(annotations, now.annotations)) return false;
    try {
      await request({
        method: 'PATCH',
        path: `/api/v1/nodes/${now.node}?fieldManager=beosd&force=true`,
        contentType: 'application/apply-patch+yaml',
        body: { apiVersion: 'v1', kind: 'Node', metadata: { name: now.node, labels, annotations } },
      });
    } catch (error) {
      onError(`the labels of node ${now.node} could not be written: ${messageOf(error)}`);
    }
    return true;
  }
}

/** Pure: marks as labels and annotations. */
export function marksOf(
  marks: NodeMarks,
  prefix: string,
): { labels: Record<string, string>; annotations: Record<string, string> } {
  return {
    labels: {
      [`${prefix}/version`]: labelValue(marks.version),
      ...(marks.mountsReady === undefined ? {} : { [`${prefix}/mounts-ready`]: String(marks.mountsReady) }),
    },
    annotations: marks.mounts === undefined ? {} : { [`${prefix}/mounts`]: marks.mounts },
  };
}

/** Label values are at most 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends. */
export function labelValue(text: string): string {
  return text
    .replace(/[^A-Za-z0-9._-]/g, '_')
    .slice(0, 63)
    .replace(/^[^A-Za-z0-9]+|[^A-Za-z0-9]+$/g, '');
}

function isSame(one: Readonly<Record<string, string>>, other: Readonly<Record<string, string>>): boolean {
  const keys = Object.keys(one);
  return keys.length === Object.keys(other).length && keys.every((key) => one[key] === other[key]);
}
