import { createHash } from 'node:crypto';
import { dirname } from 'node:path';
import { type KubeConfig, loadKubeConfig } from '#cluster/kube/kubeconfig.ts';
import type { Clock } from '#host/clock.ts';
import type { Files, Watching } from '#host/files.ts';

export interface SourceOptions {
  readonly clock: Clock;
  readonly files: Files;
  /** In the order in which they are tried. */
  readonly paths: readonly string[];
  /** The kubeconfig, or a file that it names, is not what it was when it was last loaded. */
  readonly onChange: () => void;
}

/** Whoever rewrites a file makes several events of it. */
const settleMs = 100;
const resyncMs = 60_000;

/**
 * The kubeconfig on disk and the news of its change, by inotify on the folders in question (or on the nearest folder
 * above that exists), with a slow look as the net.
 */
export class KubeConfigSource {
  readonly #options: SourceOptions;
  readonly #watching = new Map<string, Watching>();
  #mark = '';
  #files: readonly string[] = [];
  #pending = false;

  constructor(options: SourceOptions) {
    this.#options = options;
  }

  /** As {@link loadKubeConfig}, remembering what was read. */
  load = async (): Promise<KubeConfig | undefined> => {
    const { files, paths } = this.#options;
    this.#mark = this.#fingerprint(); // for the case that it cannot be read
    // Only the first reading tells which files count. The mark of these is taken before the one that is used: a change
    // in between is seen as one, not missed.
    this.#files = (await loadKubeConfig(files, paths))?.files ?? [];
    this.#mark = this.#fingerprint();
    const config = await loadKubeConfig(files, paths);
    this.#files = config?.files ?? [];
    return config;
  };

  /** Looks for changes until aborted. */
  async run(signal: AbortSignal): Promise<void> {
    try {
      for (;;) {
        this.#arm(signal);
        this.#look();
        await this.#options.clock.sleep(resyncMs, signal);
      }
    } catch {
      // Aborted: the only way out.
    } finally {
      for (const watching of this.#watching.values()) watching.close();
      this.#watching.clear();
    }
  }

  #arm(signal: AbortSignal): void {
    const { files, paths } = this.#options;
    const wanted = new Set([...paths, ...this.#files].map((path) => nearestFolder(files, dirname(path))));
    for (const [folder, watching] of this.#watching) {
      if (wanted.has(folder)) continue;
      watching.close();
      this.#watching.delete(folder);
    }
    for (const folder of wanted) {
      if (this.#watching.has(folder)) continue;
      const forget = () => this.#watching.delete(folder);
      try {
        this.#watching.set(
          folder,
          files.watchDir(folder, () => this.#stirred(signal), forget),
        );
      } catch {
        // No inotify here (limits): the slow look finds the change.
      }
    }
  }

  #stirred(signal: AbortSignal): void {
    if (this.#pending) return;
    this.#pending = true;
    this.#options.clock.sleep(settleMs, signal).then(
      () => {
        this.#pending = false;
        this.#arm(signal);
        this.#look();
      },
      () => undefined,
    );
  }

  #look(): void {
    if (this.#fingerprint() !== this.#mark) this.#options.onChange();
  }

  /** A hash, so that no secret is kept for the sake of comparing. */
  #fingerprint(): string {
    const hash = createHash('sha256');
    for (const path of new Set([...this.#options.paths, ...this.#files])) {
      hash.update(`${path}\0`);
      try {
        hash.update(this.#options.files.readText(path) ?? '\0absent');
      } catch {
        hash.update('\0unreadable');
      }
    }
    return hash.digest('hex');
  }
}

function nearestFolder(files: Files, folder: string): string {
  for (let at = folder; ; at = dirname(at)) if (at === dirname(at) || files.exists(at)) return at;
}
