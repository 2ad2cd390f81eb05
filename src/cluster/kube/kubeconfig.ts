import { dirname, isAbsolute, join } from 'node:path';
import type { Files } from '#host/files.ts';
import { Fault } from '#lib/fault.ts';
import { isLoopback } from '#lib/net.ts';
import { syntaxProblem } from '#lib/syntax-place.ts';

/** Where the API server is and how to prove ourselves: what a kubeconfig says, with files read in. */
export interface KubeConfig {
  /** `https://host:port`, no path. Plain http only to loopback. */
  readonly server: string;
  readonly path: string;
  readonly serverName?: string;
  /** PEM. */
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly token?: string;
  /** Every file that it was read from; a change of one makes the configuration old. */
  readonly files: readonly string[];
}

/** Why a kubeconfig cannot be used: names the file and the key. */
export class KubeConfigFault extends Fault<'kubeconfig'> {
  constructor(file: string, message: string, cause?: unknown) {
    super('kubeconfig', `${file}: ${message}`, { cause });
  }
}

type Section = Readonly<Record<string, unknown>>;

/**
 * Reads the first of `paths` that exists; undefined when there is none. Understood: token, token file, client
 * certificate, CA (as data or as files). Refused by name: what would switch verification off, and plugins that would
 * run programs as root. Throws {@link KubeConfigFault}. Source: kubernetes.io, "kubeconfig (v1)".
 */
export async function loadKubeConfig(
  files: Files,
  paths: readonly string[],
): Promise<KubeConfig | undefined> {
  for (const path of paths) {
    const text = files.readText(path);
    if (text !== undefined) return parseKubeConfig(files, path, text);
  }
  return undefined;
}

async function parseKubeConfig(files: Files, path: string, text: string): Promise<KubeConfig> {
  const document = await parseYaml(path, text);
  const context = named(path, document, 'contexts', 'context', document['current-context']);
  const cluster = named(path, document, 'clusters', 'cluster', context['cluster']);
  const user = named(path, document, 'users', 'user', context['user']);
  refuse(path, cluster, user);
  const read = new Material(files, path);
  const { server, prefix } = serverOf(path, cluster);
  const config = {
    serverName: textOf(cluster, 'tls-server-name'),
    ca: read.pem(cluster, 'certificate-authority'),
    cert: read.pem(user, 'client-certificate'),
    key: read.pem(user, 'client-key'),
    token: textOf(user, 'token') ?? read.file(user, 'tokenFile')?.trim(),
  };
  const present = Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));
  return { server, path: prefix, ...present, files: read.read };
}

async function parseYaml(path: string, text: string): Promise<Section> {
  // Loaded when first needed: a node without a cluster never pays for it.
  const { parse } = await import('yaml');
  try {
    // Its warnings quote the text, and would go to the log of the process.
    const document: unknown = parse(text, { logLevel: 'error' });
    if (isSection(document)) return document;
  } catch (cause) {
    throw new KubeConfigFault(path, syntaxProblem(cause, 'YAML'));
  }
  throw new KubeConfigFault(path, 'not a kubeconfig');
}

function named(path: string, document: Section, list: string, key: string, name: unknown): Section {
  const entries = document[list];
  const entry: unknown = Array.isArray(entries)
    ? entries.find((each: unknown) => isSection(each) && each['name'] === name)
    : undefined;
  const body = isSection(entry) ? entry[key] : undefined;
  if (!isSection(body)) throw new KubeConfigFault(path, `no entry ${JSON.stringify(name ?? '')} in ${list}`);
  return body;
}

function refuse(path: string, cluster: Section, user: Section): void {
  if (cluster['insecure-skip-tls-verify'] === true) {
    throw new KubeConfigFault(path, 'insecure-skip-tls-verify is refused; name the certificate-authority');
  }
  for (const key of ['exec', 'auth-provider', 'username']) {
    if (user[key] !== undefined) {
      throw new KubeConfigFault(path, `${key} is not supported; use a token or a client certificate`);
    }
  }
}

function serverOf(path: string, cluster: Section): { server: string; prefix: string } {
  const text = textOf(cluster, 'server') ?? '';
  if (!URL.canParse(text)) throw new KubeConfigFault(path, 'server is not a URL');
  const url = new URL(text);
  const host = url.hostname.replace(/^\[|\]$/g, '');
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback(host))) {
    throw new KubeConfigFault(path, 'server must be https (plain http only to loopback)');
  }
  return { server: url.origin, prefix: url.pathname.replace(/\/+$/, '') };
}

/** The parts of a kubeconfig that may stand in it or in a file beside it. */
class Material {
  readonly #files: Files;
  readonly #path: string;
  readonly read: string[];

  constructor(files: Files, path: string) {
    this.#files = files;
    this.#path = path;
    this.read = [path];
  }

  pem(section: Section, key: string): string | undefined {
    const data = textOf(section, `${key}-data`);
    if (data !== undefined) return Buffer.from(data, 'base64').toString('utf8');
    return this.file(section, key);
  }

  file(section: Section, key: string): string | undefined {
    const name = textOf(section, key);
    if (name === undefined) return undefined;
    const path = isAbsolute(name) ? name : join(dirname(this.#path), name);
    const text = this.#files.readText(path);
    if (text === undefined)
      throw new KubeConfigFault(this.#path, `${key} names ${path}, which does not exist`);
    this.read.push(path);
    return text;
  }
}

function isSection(value: unknown): value is Section {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function textOf(section: Section, key: string): string | undefined {
  const value = section[key];
  return typeof value === 'string' && value !== '' ? value : undefined;
}
