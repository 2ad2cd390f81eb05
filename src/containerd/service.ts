import type { Handlers, OperationName } from '#api/operations.ts';
import { type RuntimePlace, runtimePlace } from '#containerd/address.ts';
import { CriRuntime } from '#containerd/client.ts';
import type { ConfigSwitch, RuntimeUnit, SwitchJournal } from '#containerd/config-switch.ts';
import { containerdHandlers } from '#containerd/handlers.ts';
import { ImageManager } from '#containerd/images.ts';
import type { MirrorStore } from '#containerd/mirrors.ts';
import { type Probe, probeEndpoint } from '#containerd/probe.ts';
import { RuntimeWatch, type SpaceUsage } from '#containerd/watch.ts';
import type { Clock } from '#host/clock.ts';
import type { Exec } from '#host/exec.ts';
import type { Files } from '#host/files.ts';
import { isLoopback } from '#lib/net.ts';
import type { Observed } from '#lib/observed.ts';
import type { ReportedCondition } from '#state/facts.ts';
import type { ImageUse } from '#store/image-use.ts';

export interface ContainerdOptions {
  readonly files: Files;
  readonly exec: Exec;
  readonly clock: Clock;
  readonly imageUse: Pick<ImageUse, 'lastUsed' | 'note'>;
  readonly journal: SwitchJournal;
  /** Restarts the runtime; in the sandbox one that refuses. */
  readonly unit: RuntimeUnit;
  /** `CONTAINERD_ADDRESS`, when given. */
  readonly address: string | undefined;
  /** false: only loopback endpoints are asked (the sandbox makes no outside look-ups). */
  readonly outside: boolean;
  /** Images that this node's pods and a recorded upgrade name; see {@link ImageManager}. */
  readonly protectedReferences: () => Observed<readonly string[]>;
  readonly usage: (path: string) => Promise<SpaceUsage>;
  /** The node is installed, so a runtime ought to answer even when its socket is gone. */
  readonly installed: () => boolean;
  /** Throws when the node's state does not allow a change now. */
  readonly admit: (operation: OperationName) => void;
  readonly publish: (data: Readonly<Record<string, unknown>>) => void;
  readonly report: (conditions: readonly ReportedCondition[]) => void;
  /** How long an image that nobody uses yet is left alone by prune, ms. Default 10 minutes. */
  readonly graceMs?: number;
  /** Program that explains the runtime's configuration. Default `containerd`. */
  readonly binary?: string;
  /** Where the runtime's files are; default: by the socket. */
  readonly place?: () => RuntimePlace;
}

/** The container runtime of this node: its routes, its condition, and what a crash has left of a change. */
export class ContainerdService {
  readonly handlers: Pick<Handlers, Extract<keyof Handlers, `containerd.${string}`>>;
  readonly runtime: CriRuntime;
  readonly images: ImageManager;
  readonly watch: RuntimeWatch;
  readonly #options: ContainerdOptions;
  #mirrors: Promise<MirrorStore> | undefined;
  #config: Promise<ConfigSwitch> | undefined;

  constructor(options: ContainerdOptions) {
    const { clock, imageUse, files, protectedReferences, usage, report, publish } = options;
    this.#options = options;
    this.runtime = new CriRuntime({ address: () => this.place().socket });
    this.images = new ImageManager({
      runtime: this.runtime,
      clock,
      protectedReferences,
      config: async () => await (await this.#configSwitch()).read(),
      lastUsed: () => imageUse.lastUsed(),
      graceMs: options.graceMs ?? 600_000,
    });
    this.watch = new RuntimeWatch({
      runtime: this.runtime,
      clock,
      usage,
      report,
      expected: () =>
        options.address !== undefined || options.installed() || files.exists(this.place().socket),
      noteUse: (used, present, now) => imageUse.note(used, present, now),
    });
    this.handlers = containerdHandlers({
      images: this.images,
      mirrors: () => this.mirrors(),
      probe: options.outside ? probeEndpoint : loopbackOnly,
      admit: options.admit,
      publish,
    });
  }

  place(): RuntimePlace {
    return this.#options.place?.() ?? runtimePlace(this.#options.files, this.#options.address);
  }

  async mirrors(): Promise<MirrorStore> {
    this.#mirrors ??= this.#openMirrors();
    return await this.#mirrors;
  }

  /**
   * Hosts of the endpoints that images are pulled from, ports left out.
   *
   * @throws Fault when the runtime's configuration cannot be read
   */
  async mirrorHosts(): Promise<string[]> {
    const all = await (await this.mirrors()).list();
    const urls = all.flatMap(({ file }) => file.endpoints.map(({ url }) => URL.parse(url)));
    return [...new Set(urls.flatMap((url) => (url === null ? [] : [url.hostname])))];
  }

  /** Finishes what a crash interrupted. Cheap when nothing was: the parsers are not even loaded. */
  async recover(): Promise<void> {
    if (this.#options.journal.get() !== undefined) await (await this.mirrors()).recover();
  }

  /** Ends the connection to the runtime. */
  close(): void {
    this.runtime.close();
  }

  async #openMirrors(): Promise<MirrorStore> {
    const { MirrorStore } = await import('#containerd/mirrors.ts');
    const config = await this.#configSwitch();
    return new MirrorStore({ files: this.#options.files, place: () => this.place(), config });
  }

  async #configSwitch(): Promise<ConfigSwitch> {
    this.#config ??= this.#openConfig();
    return await this.#config;
  }

  async #openConfig(): Promise<ConfigSwitch> {
    const { ConfigSwitch } = await import('#containerd/config-switch.ts');
    const { files, exec, clock, unit, journal, binary } = this.#options;
    return new ConfigSwitch({
      files,
      exec,
      clock,
      unit,
      journal,
      runtime: this.runtime,
      place: () => this.place(),
      ...(binary === undefined ? {} : { binary }),
    });
  }
}

const loopbackOnly: Probe = async (endpoint, options) => {
  const host = new URL(endpoint).hostname.replace(/^\[|\]$/g, '');
  if (host === 'localhost' || isLoopback(host)) return await probeEndpoint(endpoint, options);
  return { endpoint, reachable: false, reason: 'not asked: without --system nothing outside is contacted' };
};
