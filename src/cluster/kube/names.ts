/** A custom resource of the platform. */
export interface ResourceName {
  readonly group: string;
  readonly version: string;
  readonly plural: string;
}

/** Every name of the platform that the cluster capability needs; a profile gives them as data. */
export interface KubeNames {
  /** Namespaces whose pods may call as workload; a trailing `*` matches any rest. */
  readonly trustedNamespaces: readonly string[];
  /** Namespaces whose pods must all run before the node counts as running. */
  readonly keyNamespaces: readonly string[];
  /** Never key and never trusted: the API server does not even send their pods (field selectors know no prefixes). */
  readonly foreignNamespaces: readonly string[];
  readonly users: ResourceName & {
    readonly ownerRoleAnnotation: string;
    readonly wizardStatusAnnotation: string;
    /** `alice@example.com`. */
    readonly nameAnnotation: string;
  };
  /** The one object that says which release the cluster runs. */
  readonly system: ResourceName & { readonly name: string };
  readonly certificates: {
    /** Name of the config map, in `<namespacePrefix><user>`. */
    readonly configMap: string;
    readonly namespacePrefix: string;
    /** Key that holds the end of the certificate, RFC 3339. */
    readonly expiryKey: string;
    /** What renews it: an image pinned by digest or exact tag, and its argv. */
    readonly renewal: { readonly name: string; readonly image: string; readonly command: readonly string[] };
  };
  /** Prefix of the labels that the daemon puts on its node object: `beosd.example.com`. */
  readonly nodeLabelPrefix: string;
}

/** `user-space-*` matches `user-space-alice`; a name without a star matches itself only. */
export function matchesAny(name: string, patterns: readonly string[]): boolean {
  return patterns.some((pattern) =>
    pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern,
  );
}
