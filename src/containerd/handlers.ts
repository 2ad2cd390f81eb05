import type { Caller } from '#api/caller.ts';
import { fault } from '#api/errors.ts';
import type { Call } from '#api/operation.ts';
import type { Handlers } from '#api/operations.ts';
import { checkCa, endpointUrl } from '#containerd/endpoint.ts';
import type { ImageManager } from '#containerd/images.ts';
import type { Mirror, MirrorStore } from '#containerd/mirrors.ts';
import { asPlan, deletePlan, imagePlan, prunePlan, setPlan } from '#containerd/plans.ts';
import type { Probe } from '#containerd/probe.ts';
import { registryName } from '#containerd/reference.ts';
import { hasEndpoints, imageToWire, mergeRegistries, pruneTotals, toWire } from '#containerd/wire.ts';

type ContainerdOperations = Extract<keyof Handlers, `containerd.${string}`>;

export interface ContainerdHandlerDeps {
  readonly images: ImageManager;
  /** Loaded when first asked for: the parsers behind it are heavy. */
  readonly mirrors: () => Promise<MirrorStore>;
  readonly probe: Probe;
  /** Asked when the turn of a change has come: throws when the node's state does not allow it any more. */
  readonly admit: (operation: ContainerdOperations) => void;
  /** Tells the readers of /events what has changed. */
  readonly publish: (data: Readonly<Record<string, unknown>>) => void;
}

/** The routes of contract §2 `/containerd`. */
export function containerdHandlers(deps: ContainerdHandlerDeps): Pick<Handlers, ContainerdOperations> {
  return { ...mirrorHandlers(deps), ...imageHandlers(deps) };
}

type MirrorOperations = Extract<ContainerdOperations, `containerd.${string}irror${string}`>;

function mirrorHandlers({
  mirrors,
  probe,
  admit,
  publish,
}: ContainerdHandlerDeps): Pick<Handlers, MirrorOperations> {
  return {
    'containerd.mirrors': async () => {
      const all = await (await mirrors()).list();
      return {
        data: Object.fromEntries(all.filter(hasEndpoints).map((each) => [each.registry, toWire(each)])),
      };
    },
    'containerd.mirror': async ({ params }) => {
      const registry = registryOf(params.registry);
      const mirror = await (await mirrors()).get(registry);
      if (mirror === undefined || !hasEndpoints(mirror)) {
        throw fault('not_found', `${registry} has no mirrors.`);
      }
      return { data: toWire(mirror) };
    },
    'containerd.setMirror': async ({ params, query, body }, call) => {
      const registry = registryOf(params.registry);
      const required = query.requireReachable === true;
      const store = await mirrors();
      if (call.dryRun) {
        const plan = async () => {
          const { change, probes } = await examine(store, probe, registry, body, call);
          return await setPlan(store, registry, change.endpoints, probes, required);
        };
        return { plan: await asPlan(plan) };
      }
      const { change, probes } = await examine(store, probe, registry, body, call);
      const warnings = probes
        .filter(({ reachable }) => !reachable)
        .map((each) => `${each.endpoint}: ${each.reason}`);
      if (required && warnings.length > 0) {
        throw fault('mirror_unreachable', warnings.join('; '), { field: 'endpoint', data: { probes } });
      }
      // The probes took a while: what the owner has trusted, and the node's state, may have changed since.
      const mirror = await store.put(registry, change, (before) => {
        admit('containerd.setMirror');
        checkTrust(body, change.endpoints, before, call.caller);
      });
      publish({ registry, change: 'mirror-set' });
      return { data: { ...toWire(mirror), probes, warnings } };
    },
    'containerd.deleteMirror': async ({ params }, { dryRun }) => {
      const registry = registryOf(params.registry);
      const store = await mirrors();
      if (dryRun) return { plan: await asPlan(() => deletePlan(store, registry)) };
      await store.delete(registry, () => admit('containerd.deleteMirror'));
      publish({ registry, change: 'mirror-deleted' });
      return { data: undefined };
    },
  };
}

function imageHandlers(
  deps: ContainerdHandlerDeps,
): Omit<Pick<Handlers, ContainerdOperations>, MirrorOperations> {
  const { images, admit, publish } = deps;
  return {
    'containerd.registries': async () => {
      const [all, list] = await Promise.all([(await deps.mirrors()).list(), images.list()]);
      return { data: mergeRegistries(all, list) };
    },
    'containerd.images': async ({ query }) => {
      const registry = query.registry === undefined || query.registry === '' ? undefined : query.registry;
      return { data: (await images.list(registry && registryOf(registry))).map(imageToWire) };
    },
    'containerd.deleteImage': async ({ params }, { dryRun }) => {
      if (dryRun) return { plan: await asPlan(() => imagePlan(images, params.image)) };
      const image = await images.remove(params.image, () => admit('containerd.deleteImage'));
      publish({ image: image.id, change: 'removed' });
      return { data: imageToWire(image) };
    },
    'containerd.prune': async ({ query }, { dryRun }) => {
      if (dryRun) {
        const plan = await asPlan(() => prunePlan(images, query.freeBytes));
        return { plan: { ...pruneTotals([]), kept: [], ...plan } };
      }
      const { removed, failed } = await images.prune(query.freeBytes, () => admit('containerd.prune'));
      for (const image of removed) publish({ image: image.id, change: 'removed' });
      return { data: { ...pruneTotals(removed), ...(failed.length > 0 ? { failed: [...failed] } : {}) } };
    },
  };
}

function registryOf(text: string): string {
  const name = registryName(text);
  if (name === undefined) {
    throw fault('invalid_input', 'registry must be host[:port], docker.io or _default.', {
      field: 'registry',
    });
  }
  return name;
}

interface WantedMirror {
  readonly endpoint: readonly string[];
  readonly skipVerify?: boolean;
  readonly override_path?: boolean;
  readonly ca?: string;
}

/** The request checked, and its endpoints asked. */
async function examine(
  store: MirrorStore,
  probe: Probe,
  registry: string,
  body: WantedMirror,
  { caller, signal }: Call,
) {
  const before = await store.inForce(registry);
  const change = checkedChange(body, before, caller);
  const probes = await Promise.all(
    change.endpoints.map((url) => probe(url, { ...probeSettings(store, before, url, change), signal })),
  );
  return { change, probes };
}

/** What a request may ask for: only the owner makes a node trust what TLS does not vouch for. */
function checkedChange(body: WantedMirror, before: Mirror | undefined, caller: Caller) {
  const endpoints = body.endpoint.map((text, index) => {
    const url = endpointUrl(text);
    if (url === undefined) {
      throw fault('invalid_input', `endpoint ${index + 1} is not an http or https URL of a registry.`, {
        field: `endpoint.${index}`,
      });
    }
    return url;
  });
  if (new Set(endpoints).size < endpoints.length) {
    throw fault('invalid_input', 'An endpoint is listed twice.', { field: 'endpoint' });
  }
  checkCa(body.ca ?? '');
  checkTrust(body, endpoints, before, caller);
  return {
    endpoints,
    ...(body.skipVerify === undefined ? {} : { skipVerify: body.skipVerify }),
    ...(body.override_path === undefined ? {} : { overridePath: body.override_path }),
    ...(body.ca === undefined ? {} : { ca: body.ca }),
  };
}

/** Throws `forbidden` when somebody but the owner asks for more trust than `before` has. */
function checkTrust(
  body: WantedMirror,
  endpoints: readonly string[],
  before: Mirror | undefined,
  caller: Caller,
): void {
  const mayTrust = caller.class === 'owner' || caller.class === 'root';
  const known = new Set(before?.file.endpoints.map(({ url }) => url.replace(/\/+$/, '')));
  const plain = endpoints.find((url) => url.startsWith('http:') && !known.has(url));
  if (!mayTrust && (plain !== undefined || body.skipVerify === true || body.ca !== undefined)) {
    const what = plain ?? (body.skipVerify === true ? 'skipVerify' : 'a CA of its own');
    throw fault('forbidden', `Only the owner may set ${what}: it decides whom the node trusts.`);
  }
}

/** The probe asks as containerd will: with what the request says, else with what the endpoint has already. */
function probeSettings(
  store: MirrorStore,
  before: Mirror | undefined,
  url: string,
  change: { readonly skipVerify?: boolean; readonly overridePath?: boolean; readonly ca?: string },
) {
  const known = before?.file.endpoints.find((each) => each.url.replace(/\/+$/, '') === url)?.settings ?? {};
  const ca = change.ca ?? store.caOf(before, known['ca']);
  return {
    skipVerify: change.skipVerify ?? known['skip_verify'] === true,
    overridePath: change.overridePath ?? known['override_path'] === true,
    ca: ca === '' ? undefined : ca,
  };
}
