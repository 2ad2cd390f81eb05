import { parse, stringify } from 'smol-toml';
import { syntaxProblem } from '#lib/syntax-place.ts';

/** Everything that a `hosts.toml` says about one endpoint (or about the server), in containerd's own keys. */
export type HostSettings = Readonly<Record<string, unknown>>;

/** One `certs.d/<registry>/hosts.toml`. Format: containerd docs/hosts.md; unknown keys are kept as they are. */
export interface HostsFile {
  /** Keys above the first table: `server` and what holds for it. */
  readonly server: HostSettings;
  /** In the order in which containerd tries them. */
  readonly endpoints: readonly MirrorEndpoint[];
}

export interface MirrorEndpoint {
  readonly url: string;
  readonly settings: HostSettings;
}

export const emptyHostsFile: HostsFile = { server: {}, endpoints: [] };

const note =
  '# Written by beosd: PUT /containerd/registry/mirrors. The first endpoint is tried first, the registry itself last.\n';

/** Throws an error with line and column, and nothing of the text (headers may be credentials), when it is no TOML. */
export function parseHostsFile(text: string): HostsFile {
  const { host, ...server } = parsed(text);
  const endpoints = isTable(host)
    ? Object.entries(host).map(([url, settings]) => ({ url, settings: isTable(settings) ? settings : {} }))
    : [];
  return { server, endpoints };
}

function parsed(text: string): Record<string, unknown> {
  try {
    return parse(text, { integersAsBigInt: true });
  } catch (error) {
    throw new Error(syntaxProblem(error, 'TOML'));
  }
}

/**
 * The table of hosts is there even when it is empty: without one containerd 1.x takes nothing of the file, what it says
 * of the registry itself included (getSortedHosts, remotes/docker/config/hosts.go of 1.6 and 1.7).
 */
export function renderHostsFile(file: HostsFile): string {
  const host = Object.fromEntries(file.endpoints.map(({ url, settings }) => [url, settings]));
  return note + stringify({ ...file.server, host });
}

/** What a PUT says about all of its endpoints; what it leaves out stays as it was on endpoints that were there. */
export interface EndpointOptions {
  readonly skipVerify?: boolean;
  readonly overridePath?: boolean;
  /** Name of a file beside hosts.toml; '' takes the CA away. */
  readonly ca?: string;
}

/** The file with exactly these endpoints, in this order. */
export function withEndpoints(
  registry: string,
  before: HostsFile,
  urls: readonly string[],
  options: EndpointOptions,
): HostsFile {
  const endpoints = urls.map((url) => {
    const known = before.endpoints.find((each) => sameEndpoint(each.url, url));
    return { url, settings: applyOptions(known?.settings ?? {}, options) };
  });
  return { server: serverOf(registry, before.server), endpoints };
}

/** `https://m/` and `https://m` are one endpoint. */
export function sameEndpoint(a: string, b: string): boolean {
  return a.replace(/\/+$/, '') === b.replace(/\/+$/, '');
}

function applyOptions(before: HostSettings, options: EndpointOptions): HostSettings {
  const { capabilities, skip_verify, override_path, ca, ...others } = before;
  const skip = options.skipVerify ?? skip_verify;
  const override = options.overridePath ?? override_path;
  const authority = options.ca ?? ca;
  return {
    // A mirror is never pushed to, and answers what a tag means as well as what a digest holds.
    capabilities: capabilities ?? ['pull', 'resolve'],
    ...(skip === true ? { skip_verify: true } : {}),
    ...(override === true ? { override_path: true } : {}),
    ...(authority === undefined || authority === '' ? {} : { ca: authority }),
    ...others,
  };
}

/** Docker Hub is served under another name than it is referred to by; containerd derives every other server itself. */
function serverOf(registry: string, before: HostSettings): HostSettings {
  if (registry !== 'docker.io' || before['server'] !== undefined) return before;
  return { server: 'https://registry-1.docker.io', ...before };
}

export function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date);
}
