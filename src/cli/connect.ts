import { join } from 'node:path';
import { defaultKeyFile, fileExists, readKey } from '#cli/local-files.ts';
import { type Terminal, UsageError } from '#cli/terminal.ts';
import { type Client, type ClientOptions, createClient } from '#client/client.ts';

/** The options that say which node is meant, and who asks. */
export interface ConnectionOptions {
  readonly node?: string;
  readonly key?: string;
  readonly socket?: string;
  readonly legacy?: boolean;
}

const systemSocket = '/run/beosd/beosd.sock';
const defaultPort = '18088';

/** A client of the node that is meant: `--node`, the node of this machine for `--key`, else the unix socket. */
export function connect(options: ConnectionOptions, terminal: Terminal): Client {
  const { env, signal } = terminal;
  const token = env['BEOSCTL_TOKEN'];
  const keyFile = options.key ?? env['BEOSCTL_KEY'];
  const local = keyFile === undefined ? undefined : `127.0.0.1:${env['BEOSD_PORT'] ?? defaultPort}`;
  const node = options.node ?? env['BEOSCTL_NODE'] ?? (options.socket === undefined ? local : undefined);
  if (node === undefined) return createClient({ node: { socketPath: socketOf(options, terminal) }, signal });
  return createClient({
    node: nodeUrl(node),
    signal,
    ...(token === undefined ? {} : { token }),
    ...keyOf(keyFile, options, terminal),
  });
}

function keyOf(
  named: string | undefined,
  options: ConnectionOptions,
  terminal: Terminal,
): Pick<ClientOptions, 'key' | 'signatures'> {
  const path = named ?? defaultKeyFile(terminal);
  if (named === undefined && !fileExists(path)) return {};
  return { key: readKey(path), signatures: options.legacy ? 'legacy' : 'bound' };
}

function socketOf(options: ConnectionOptions, terminal: Terminal): string {
  const named = options.socket ?? terminal.env['BEOSD_SOCKET'];
  if (named !== undefined) return named;
  const sandbox = join(terminal.cwd, '.beosd', 'beosd.sock');
  return !fileExists(systemSocket) && fileExists(sandbox) ? sandbox : systemSocket;
}

/** `10.0.0.5`, `node.local:8080` and full URLs all name a node. */
export function nodeUrl(text: string): string {
  const withScheme = /^https?:\/\//.test(text) ? text : `http://${text}`;
  if (!URL.canParse(withScheme)) throw new UsageError(`--node ${text} is no address of a node`);
  const url = new URL(withScheme);
  // URL drops the usual port of a scheme: `http://node:80/` names one nevertheless.
  const namesPort = /:\d+$/.test(withScheme.split('/')[2] ?? '');
  if (!namesPort && url.protocol === 'http:') url.port = defaultPort;
  return url.origin;
}
