/** What beosd asks of the container runtime. Implemented by client.ts; tests have one in memory. */
export interface Runtime {
  /** The socket that is, or would be, used. */
  address(): string;
  version(): Promise<RuntimeVersion>;
  status(): Promise<RuntimeStatus>;
  images(): Promise<readonly RuntimeImage[]>;
  /** The records behind the images, with their times; CRI does not tell those. */
  imageRecords(): Promise<readonly ImageRecord[]>;
  /** Every container of the Kubernetes namespace, stopped ones and those not made through CRI included. */
  containers(): Promise<readonly RuntimeContainer[]>;
  imageFilesystems(): Promise<readonly ImageFilesystem[]>;
  /** Removes an image with all its references. An absent one is fine. */
  removeImage(id: string): Promise<void>;
}

export interface RuntimeVersion {
  readonly name: string;
  readonly version: string;
}

export interface RuntimeStatus {
  readonly ready: boolean;
  /** The sandbox image of the running configuration, where the runtime tells it (containerd 1.x does). */
  readonly sandboxImage: string | undefined;
}

export interface RuntimeImage {
  /** Digest of the image's configuration, `sha256:…`. */
  readonly id: string;
  readonly tags: readonly string[];
  readonly digests: readonly string[];
  /** Bytes, as the runtime counts them (compressed layers, configuration and manifest). */
  readonly size: number;
  readonly uid: number | undefined;
  readonly username: string;
  readonly spec:
    | { readonly image: string; readonly annotations: Readonly<Record<string, string>> }
    | undefined;
  readonly pinned: boolean;
}

export interface ImageRecord {
  /** A tag, a digest reference or an image id. */
  readonly name: string;
  /** Digest of what it points at: the manifest, or an index of manifests. */
  readonly digest: string;
  /** ms since the epoch: when it came, or was last changed. */
  readonly changedAt: number;
}

export interface RuntimeContainer {
  readonly id: string;
  /** Everything that this container says about its image: id, tag, digest reference. */
  readonly images: readonly string[];
  /** `pod NAMESPACE/NAME`, or `container ID` outside of a pod. */
  readonly label: string;
}

export interface ImageFilesystem {
  readonly mountpoint: string;
  readonly usedBytes: number;
}
