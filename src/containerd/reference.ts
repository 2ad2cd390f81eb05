import { isIPv6 } from 'node:net';

/**
 * Image references as containerd reads them: the grammar and the defaults of github.com/distribution/reference
 * (docker.io, library/, :latest; a tag beside a digest is dropped).
 */
export interface ImageReference {
  /** Registry, e.g. `docker.io` or `host:5000`. */
  readonly registry: string;
  /** Path below the registry, e.g. `library/nginx`. */
  readonly repository: string;
  readonly tag: string | undefined;
  readonly digest: string | undefined;
}

const component = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const repositoryPattern = new RegExp(`^${component}(?:/${component})*$`);
const tagPattern = /^\w[\w.-]{0,127}$/;
const digestPattern = /^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$/;
const hostPattern =
  /^[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*$/;
/** Longest name (registry and repository) that the grammar allows. */
const maxName = 255;

/** undefined: containerd would not take this text as a reference. */
export function parseReference(text: string): ImageReference | undefined {
  // Longest possible: name, tag and digest; anything beyond is refused before any pattern sees it.
  if (text.length > 1024 || /^[0-9a-f]{64}$/.test(text)) return undefined;
  const at = text.indexOf('@');
  const digest = at < 0 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !digestPattern.test(digest)) return undefined;
  const tagged = at < 0 ? text : text.slice(0, at);
  const colon = tagged.lastIndexOf(':');
  const hasTag = colon > tagged.lastIndexOf('/');
  const tag = hasTag ? tagged.slice(colon + 1) : undefined;
  if (tag !== undefined && !tagPattern.test(tag)) return undefined;
  const name = splitName(hasTag ? tagged.slice(0, colon) : tagged);
  if (name === undefined) return undefined;
  return { ...name, tag: tag ?? (digest === undefined ? 'latest' : undefined), digest };
}

function splitName(name: string): { registry: string; repository: string } | undefined {
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(slash, 0));
  const isHost = /[.:]/.test(first) || first === 'localhost' || first.toLowerCase() !== first;
  const host = slash > 0 && isHost ? first : 'docker.io';
  const registry = host === 'index.docker.io' ? 'docker.io' : host;
  const path = host === first ? name.slice(slash + 1) : name;
  const repository = registry === 'docker.io' && !path.includes('/') ? `library/${path}` : path;
  if (!repositoryPattern.test(repository) || parseHost(registry) === undefined) return undefined;
  return registry.length + repository.length + 1 > maxName ? undefined : { registry, repository };
}

/** The names under which containerd may know what a reference means: by tag, by digest. */
export function canonicalNames(reference: ImageReference): string[] {
  const name = `${reference.registry}/${reference.repository}`;
  const names: string[] = [];
  if (reference.tag !== undefined) names.push(`${name}:${reference.tag}`);
  if (reference.digest !== undefined) names.push(`${name}@${reference.digest}`);
  return names;
}

/**
 * `host[:port]` with an IPv6 literal in brackets; undefined when it is anything else. This is what stands between a
 * request and a folder name below certs.d: no separator, no `..`, no empty name gets through.
 */
export function parseHost(text: string): { host: string; port: number | undefined } | undefined {
  if (text.length > 261) return undefined;
  const match = /^(\[[0-9a-fA-F:.]+\]|[^:[\]/]+)(?::([0-9]{1,5}))?$/.exec(text);
  const host = match?.[1];
  if (host === undefined) return undefined;
  const port = match?.[2] === undefined ? undefined : Number(match[2]);
  if (port !== undefined && (port < 1 || port > 65_535)) return undefined;
  const bracketed = host.startsWith('[');
  if (bracketed ? !isIPv6(host.slice(1, -1)) : !isName(host)) return undefined;
  return { host, port };
}

function isName(host: string): boolean {
  return host.length <= 253 && hostPattern.test(host) && host.split('.').every((label) => label.length <= 63);
}

/** The mirrors of every registry that has none of its own (containerd's `_default`). */
export const defaultRegistry = '_default';

/** A registry as `certs.d` names it, or undefined when the text is none. */
export function registryName(text: string): string | undefined {
  if (text === defaultRegistry) return text;
  if (parseHost(text) === undefined) return undefined;
  const name = text.toLowerCase();
  return name === 'index.docker.io' ? 'docker.io' : name;
}

/** `host[:port]` of an endpoint, as it stands there: a port that goes without saying is part of the name that TLS settings have. */
export function hostOf(endpoint: string): string {
  return /^(?:https?:\/\/)?([^/]*)/.exec(endpoint)?.[1] ?? '';
}
