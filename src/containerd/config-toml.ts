import { isDeepStrictEqual } from 'node:util';
import { parse as parseForPatch, patch } from '@decimalturn/toml-patch';
import { parse } from 'smol-toml';
import { keepsEveryOtherLine, withConfigPath, withoutInlineMirrors } from '#containerd/config-lines.ts';
import { type HostSettings, type HostsFile, isTable } from '#containerd/hosts-toml.ts';
import { hostOf } from '#containerd/reference.ts';
import { isLoopback } from '#lib/net.ts';
import { syntaxProblem } from '#lib/syntax-place.ts';

/** What beosd reads in containerd's configuration. */
export interface RegistryConfig {
  /** Folders of mirrors, in the order in which containerd looks; [] while none is configured. */
  readonly roots: readonly string[];
  /** Mirrors in the configuration itself, as `hosts.toml` would say them. */
  readonly inline: ReadonlyMap<string, HostsFile>;
  /** The image of pod sandboxes, where the configuration names one. */
  readonly sandboxImage: string | undefined;
  /** The Kubernetes interface is switched off, as Docker's package of containerd has it: nothing reads mirrors. */
  readonly withoutCri: boolean;
}

/** The configuration cannot be edited safely; nothing was changed. */
export class ConfigRefused extends Error {
  override readonly name = 'ConfigRefused';
}

type Table = Record<string, unknown>;

/** Where a version of the format keeps what concerns registries. */
const layouts = {
  2: { plugin: 'io.containerd.grpc.v1.cri', sandbox: ['sandbox_image'] },
  3: { plugin: 'io.containerd.cri.v1.images', sandbox: ['pinned_images', 'sandbox'] },
} as const;

/** What containerd 2.4 writes; it moved nothing of what concerns registries and images. */
const likeVersion3 = 4;

/** Version of the format; a file that does not say is of the first. */
export function versionOf(config: Table): number {
  return Number(config['version'] ?? 1);
}

function layoutOf(config: Table): (typeof layouts)[2 | 3] {
  const version = versionOf(config);
  if (version === likeVersion3) return layouts[3];
  if (version === 2 || version === 3) return layouts[version];
  throw new ConfigRefused(
    `configuration version ${version} is not supported; \`containerd config migrate\` brings it up to date`,
  );
}

/** Throws {@link ConfigRefused} when the text is no TOML or of a version other than 2 to 4. */
export function readRegistryConfig(text: string): RegistryConfig {
  const config = parseConfig(text);
  const { plugin, sandbox } = layoutOf(config);
  const section = at(config, ['plugins', plugin]);
  const registry = at(section, ['registry']) ?? {};
  const path = registry['config_path'];
  const image = at(section, sandbox.slice(0, -1))?.[sandbox.at(-1) ?? ''];
  const disabled = Array.isArray(config['disabled_plugins']) ? config['disabled_plugins'] : [];
  return {
    roots: typeof path === 'string' ? path.split(':').filter((root) => root !== '') : [],
    inline: inlineMirrors(registry),
    sandboxImage: typeof image === 'string' && image !== '' ? image : undefined,
    withoutCri: ['cri', 'io.containerd.grpc.v1.cri', plugin].some((name) => disabled.includes(name)),
  };
}

/**
 * The text with `config_path` set and the inline mirrors taken out (containerd refuses to have both), every other byte
 * kept. Throws {@link ConfigRefused} when the result is not exactly what was intended.
 *
 * The lines that it takes are edited one by one. Only where these things have no lines of their own (inline tables, dotted
 * keys) a TOML editor does it, which now and then puts a space where a tab was: its work counts when it left all else alone.
 */
export function switchToCertsDir(text: string, certsDir: string): string {
  const before = parseConfig(text);
  const { plugin } = layoutOf(before);
  const wanted = intended(before, certsDir);
  const isIntended = (candidate: string) => {
    try {
      return sameSwitch(parseConfig(candidate), wanted);
    } catch {
      return false; // no TOML any more: a line was taken for what it is not
    }
  };
  const cut = readRegistryConfig(text).inline.size === 0 ? text : withoutInlineMirrors(text, plugin);
  const edited = withConfigPath(cut, plugin, certsDir);
  if (isIntended(edited)) return edited;
  const patchedText = patched(text, plugin, certsDir);
  if (!isIntended(patchedText)) {
    throw new ConfigRefused('the edited configuration does not mean what it should; it was not written');
  }
  if (!keepsEveryOtherLine(text, patchedText)) {
    throw new ConfigRefused('the edit would touch lines that it has no business with; it was not written');
  }
  return patchedText;
}

/** The configuration as it should be after the switch; pure, also used on what the real binary says. */
export function intended(config: Table, certsDir: string): Table {
  const { plugin } = layoutOf(config);
  const result = copyOf(config);
  const registry = ensure(ensure(ensure(result, 'plugins'), plugin), 'registry');
  applySwitch(registry, certsDir);
  return result;
}

export function parseConfig(text: string): Table {
  try {
    return parse(text, { integersAsBigInt: true });
  } catch (error) {
    // No cause: the parser's error quotes the lines around, and credentials may stand there.
    throw new ConfigRefused(`the configuration is ${syntaxProblem(error, 'TOML')}`);
  }
}

/** Equal as TOML, but for tables of hosts that hold nothing any more. */
export function sameSwitch(a: Table, b: Table): boolean {
  return isDeepStrictEqual(canonical(withoutEmptyHosts(a)), canonical(withoutEmptyHosts(b)));
}

function withoutEmptyHosts(config: Table): Table {
  const result = copyOf(config);
  const registry = at(result, ['plugins', layoutOf(config).plugin, 'registry']);
  if (registry === undefined) return result;
  const configs = at(registry, ['configs']) ?? {};
  for (const [host, settings] of Object.entries(configs)) {
    if (isEmptyTable(settings)) delete configs[host];
  }
  for (const key of ['mirrors', 'configs']) {
    if (isEmptyTable(registry[key])) delete registry[key];
  }
  return result;
}

function isEmptyTable(value: unknown): boolean {
  return isTable(value) && Object.keys(value).length === 0;
}

/** In whatever order the keys stand, and whichever prototypes a parser gives its tables. */
function canonical(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(canonical);
  if (value instanceof Date) return { date: value.toISOString() };
  if (!isTable(value)) return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort()
      .map((key) => [key, canonical(value[key])]),
  );
}

function copyOf(table: Table): Table {
  return Object.fromEntries(
    Object.entries(table).map(([key, value]) => [key, isTable(value) ? copyOf(value) : value]),
  );
}

function patched(text: string, plugin: string, certsDir: string): string {
  try {
    const target: unknown = parseForPatch(text);
    if (!isTable(target)) throw new ConfigRefused('the configuration is not a table');
    applySwitch(ensure(ensure(ensure(target, 'plugins'), plugin), 'registry'), certsDir);
    return patch(text, target);
  } catch (error) {
    if (error instanceof ConfigRefused) throw error;
    throw new ConfigRefused('the configuration cannot be edited without rewriting it');
  }
}

function applySwitch(registry: Table, certsDir: string): void {
  registry['config_path'] = certsDir;
  // An empty table says nothing, and `containerd config default` has one: it stays as it is.
  if (!isEmptyTable(registry['mirrors'])) delete registry['mirrors'];
  for (const config of Object.values(at(registry, ['configs']) ?? {})) {
    if (isTable(config)) delete config['tls'];
  }
}

function ensure(parent: Table, key: string): Table {
  const child = parent[key];
  if (isTable(child)) return child;
  if (child !== undefined) throw new ConfigRefused(`\`${key}\` is not a table`);
  const made: Table = {};
  parent[key] = made;
  return made;
}

function at(table: Table | undefined, path: readonly string[]): Table | undefined {
  let here: unknown = table;
  for (const key of path) here = isTable(here) ? here[key] : undefined;
  return isTable(here) ? here : undefined;
}

function inlineMirrors(registry: Table): Map<string, HostsFile> {
  const configs = at(registry, ['configs']) ?? {};
  const found = new Map<string, HostsFile>();
  for (const [name, mirror] of Object.entries(at(registry, ['mirrors']) ?? {})) {
    const urls = isTable(mirror) && Array.isArray(mirror['endpoint']) ? mirror['endpoint'] : [];
    const endpoints = urls
      .filter((url) => typeof url === 'string')
      .map((url) => ({ url: asRead(url), settings: tlsSettings(configs, hostOf(url)) }));
    found.set(name === '*' ? '_default' : name, { server: tlsSettings(configs, name), endpoints });
  }
  for (const host of Object.keys(configs)) {
    const server = tlsSettings(configs, host);
    if (Object.keys(server).length > 0 && !found.has(host)) found.set(host, { server, endpoints: [] });
  }
  return found;
}

/** An endpoint without a scheme, as the CRI plugin takes it: https, but http on this machine itself (defaultScheme). */
export function asRead(endpoint: string): string {
  if (/^https?:\/\//.test(endpoint)) return endpoint;
  const name = hostOf(endpoint).replace(/:\d+$/, '');
  const isHere = name === 'localhost' || isLoopback(name.replace(/^\[|\]$/g, ''));
  return `${isHere ? 'http' : 'https'}://${endpoint}`;
}

/** `configs."host".tls` of old, in the keys of `hosts.toml`. */
function tlsSettings(configs: Table, host: string): HostSettings {
  const tls = at(configs, [host, 'tls']);
  if (tls === undefined) return {};
  const { insecure_skip_verify: skip, ca_file: ca, cert_file: cert, key_file: key } = tls;
  return {
    ...(skip === true ? { skip_verify: true } : {}),
    ...(typeof ca === 'string' && ca !== '' ? { ca } : {}),
    ...(typeof cert === 'string' && cert !== '' && typeof key === 'string' ? { client: [[cert, key]] } : {}),
  };
}
