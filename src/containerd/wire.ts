import { registriesOf } from '#containerd/images.ts';
import type { Mirror } from '#containerd/mirrors.ts';
import { hostOf } from '#containerd/reference.ts';
import type { RuntimeImage } from '#containerd/runtime.ts';

/** Settings alone do not make a mirror; a file that cannot be read is told. */
export function hasEndpoints(mirror: Mirror): boolean {
  return mirror.file.endpoints.length > 0 || mirror.problem !== undefined;
}

/** In the keys of the ancestor, which took those of containerd. */
export function toWire(mirror: Mirror): { endpoint: string[]; problem?: string } {
  const endpoint = mirror.file.endpoints.map(({ url }) => url);
  return mirror.problem === undefined ? { endpoint } : { endpoint, problem: mirror.problem };
}

/** CRI's image in the JSON that Go makes of it. */
export function imageToWire(image: RuntimeImage) {
  return {
    id: image.id,
    repo_tags: [...image.tags],
    repo_digests: [...image.digests],
    size: image.size,
    ...(image.uid === undefined ? {} : { uid: { value: image.uid } }),
    username: image.username,
    ...(image.spec === undefined
      ? {}
      : { spec: { image: image.spec.image, annotations: { ...image.spec.annotations } } }),
    pinned: image.pinned,
  };
}

/**
 * Registries by name. Left out is a host that is there only as a mirror of another one: it has no images here and nothing
 * but settings, or none but itself to ask.
 */
export function mergeRegistries(mirrors: readonly Mirror[], images: readonly RuntimeImage[]) {
  const merged = new Map(
    mirrors
      .filter(hasEndpoints)
      .map((mirror) => [
        mirror.registry,
        { name: mirror.registry, endpoints: toWire(mirror).endpoint, image_count: 0, image_size: 0 },
      ]),
  );
  for (const image of images) {
    for (const name of registriesOf(image)) {
      const entry = merged.get(name) ?? { name, endpoints: [], image_count: 0, image_size: 0 };
      entry.image_count++;
      entry.image_size += image.size;
      merged.set(name, entry);
    }
  }
  for (const name of onlyMirrors(mirrors)) if (merged.get(name)?.image_count === 0) merged.delete(name);
  return [...merged.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Hosts that mirror another registry and are asked under their own name by themselves. */
function onlyMirrors(mirrors: readonly Mirror[]): string[] {
  const asked = mirrors.map(({ registry, file }) => ({
    registry,
    hosts: new Set(file.endpoints.map(({ url }) => hostOf(url).toLowerCase())),
  }));
  const names = asked.filter(({ registry, hosts }) => hosts.size === 1 && hosts.has(registry));
  return names
    .map(({ registry }) => registry)
    .filter((name) => asked.some(({ registry, hosts }) => registry !== name && hosts.has(name)));
}

/** What a prune has removed, or would. */
export function pruneTotals(images: readonly RuntimeImage[]) {
  return {
    images: images.map(imageToWire),
    count: images.length,
    size: images.reduce((sum, image) => sum + image.size, 0),
  };
}
