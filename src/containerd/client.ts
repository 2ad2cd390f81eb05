import { fault } from '#api/errors.ts';
import type { Rpc } from '#containerd/rpc.ts';
import type {
  ImageFilesystem,
  ImageRecord,
  Runtime,
  RuntimeContainer,
  RuntimeImage,
  RuntimeStatus,
  RuntimeVersion,
} from '#containerd/runtime.ts';

type RpcModule = typeof import('#containerd/rpc.ts');
type CriImage = Awaited<ReturnType<Rpc['images']['listImages']>>['images'][number];
type CriContainer = Awaited<ReturnType<Rpc['runtime']['listContainers']>>['containers'][number];

/** Listing and asking; containerd answers these in milliseconds unless its disk is in trouble. */
const callTimeoutMs = 10_000;
/** Removing waits for containerd's garbage collection. */
const removeTimeoutMs = 120_000;

export interface RuntimeOptions {
  /** Tells which socket to use now; asked before each call, so that a runtime installed later is found. */
  readonly address: () => string;
  /** How long a question may take, ms. Default 10,000. */
  readonly timeoutMs?: number;
}

/** A container runtime behind its CRI socket. A broken connection is opened again by the next call. */
export class CriRuntime implements Runtime {
  readonly #options: RuntimeOptions;
  #module: RpcModule | undefined;
  #rpc: { readonly address: string; readonly clients: Rpc } | undefined;

  constructor(options: RuntimeOptions) {
    this.#options = options;
  }

  address(): string {
    return this.#options.address();
  }

  async version(): Promise<RuntimeVersion> {
    const answer = await this.#call((rpc) => rpc.runtime.version({}));
    return { name: answer.runtimeName, version: answer.runtimeVersion };
  }

  async status(): Promise<RuntimeStatus> {
    const { status, info } = await this.#call((rpc) => rpc.runtime.status({ verbose: true }));
    const ready = status?.conditions.find((condition) => condition.type === 'RuntimeReady')?.status ?? false;
    return { ready, sandboxImage: sandboxImageOf(info['config']) };
  }

  async images(): Promise<RuntimeImage[]> {
    const { images } = await this.#call((rpc) => rpc.images.listImages({}));
    return images.map(toImage);
  }

  async imageRecords(): Promise<ImageRecord[]> {
    const { kubernetesNamespace, timestampToMs } = await this.#load();
    const { images } = await this.#call((rpc) => rpc.imageStore.list({}, kubernetesNamespace));
    return images.map((image) => ({
      name: image.name,
      digest: image.target?.digest ?? '',
      changedAt: Math.max(
        image.createdAt ? timestampToMs(image.createdAt) : 0,
        image.updatedAt ? timestampToMs(image.updatedAt) : 0,
      ),
    }));
  }

  async containers(): Promise<RuntimeContainer[]> {
    const { kubernetesNamespace } = await this.#load();
    const [cri, sandboxes, stored] = await Promise.all([
      this.#call((rpc) => rpc.runtime.listContainers({})),
      this.#call((rpc) => rpc.runtime.listPodSandbox({})),
      this.#call((rpc) => rpc.containerStore.list({}, kubernetesNamespace)),
    ]);
    const pods = new Map(
      sandboxes.items.map((pod) => [pod.id, `pod ${pod.metadata?.namespace}/${pod.metadata?.name}`]),
    );
    const known = new Map(cri.containers.map((container) => [container.id, container]));
    // A container can be in one list only while it is being made or removed: both count.
    const others = cri.containers.filter(({ id }) => !stored.containers.some((each) => each.id === id));
    return [
      ...stored.containers.map((each) => describe(each.id, each.image, known.get(each.id), pods)),
      ...others.map((each) => describe(each.id, '', each, pods)),
    ];
  }

  async imageFilesystems(): Promise<ImageFilesystem[]> {
    const { imageFilesystems } = await this.#call((rpc) => rpc.images.imageFsInfo({}));
    return imageFilesystems.map((each) => ({
      mountpoint: each.fsId?.mountpoint ?? '',
      usedBytes: Number(each.usedBytes?.value ?? 0n),
    }));
  }

  async removeImage(id: string): Promise<void> {
    await this.#call((rpc) =>
      rpc.images.removeImage({ image: { image: id } }, { timeoutMs: removeTimeoutMs }),
    );
  }

  /** Ends the connection; the next call opens a new one. */
  close(): void {
    this.#rpc?.clients.close();
    this.#rpc = undefined;
  }

  async #load(): Promise<RpcModule> {
    this.#module ??= await import('#containerd/rpc.ts');
    return this.#module;
  }

  async #call<T>(work: (rpc: Rpc) => Promise<T>): Promise<T> {
    const module = await this.#load();
    const address = this.address();
    if (this.#rpc?.address !== address) {
      this.close();
      this.#rpc = { address, clients: module.openRpc(address, this.#options.timeoutMs ?? callTimeoutMs) };
    }
    try {
      return await work(this.#rpc.clients);
    } catch (error) {
      const { what, reason, ...more } = module.explain(error);
      // No cause: it says the same once more, and who shows the whole chain would repeat it.
      throw fault('runtime_unavailable', `The container runtime ${what} at ${address}: ${reason}`, more);
    }
  }
}

function toImage(image: CriImage): RuntimeImage {
  return {
    id: image.id,
    tags: image.repoTags,
    digests: image.repoDigests,
    size: Number(image.size),
    uid: image.uid === undefined ? undefined : Number(image.uid.value),
    username: image.username,
    spec: image.spec && { image: image.spec.image, annotations: image.spec.annotations },
    pinned: image.pinned,
  };
}

function describe(
  id: string,
  storedImage: string,
  cri: CriContainer | undefined,
  pods: ReadonlyMap<string, string>,
): RuntimeContainer {
  const images = [storedImage, cri?.imageRef, cri?.imageId, cri?.image?.image];
  const pod = pods.get(id) ?? (cri && pods.get(cri.podSandboxId));
  return {
    id,
    images: [...new Set(images.filter((image): image is string => image !== undefined && image !== ''))],
    label: pod ?? `container ${id.slice(0, 12)}`,
  };
}

/** The verbose status of containerd 1.x carries its whole CRI configuration as JSON; 2.x leaves this part out. */
function sandboxImageOf(config: string | undefined): string | undefined {
  if (config === undefined) return undefined;
  try {
    const parsed: unknown = JSON.parse(config);
    if (typeof parsed !== 'object' || parsed === null || !('sandboxImage' in parsed)) return undefined;
    return typeof parsed.sandboxImage === 'string' && parsed.sandboxImage !== ''
      ? parsed.sandboxImage
      : undefined;
  } catch {
    return undefined; // not JSON: as good as not told, and the caller treats that as unknown
  }
}
