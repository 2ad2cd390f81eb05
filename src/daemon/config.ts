import { isIP } from 'node:net';
import { isAbsolute, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { type ProfileName, profileNames } from '#daemon/profiles.ts';
import { errnoOf } from '#lib/fault.ts';
import { isHostName, isLoopback } from '#lib/net.ts';

/** What `/etc/beosd/config.json` may hold; every key is optional. */
const FileShape = Type.Object(
  {
    hostNames: Type.Optional(
      Type.Array(Type.String(), { description: 'more names that a Host header may carry' }),
    ),
    auth: Type.Optional(
      Type.Object(
        {
          legacySignatures: Type.Optional(
            Type.Boolean({ description: 'accept signatures that are not bound to a request' }),
          ),
          claimCode: Type.Optional(
            Type.String({ minLength: 4, maxLength: 64, description: 'asked for when the node is claimed' }),
          ),
        },
        { additionalProperties: false },
      ),
    ),
    access: Type.Optional(
      Type.Object(
        {
          podAddress: Type.Optional(
            Type.Enum(['on', 'off'] as const, { description: 'off: pods need a token everywhere' }),
          ),
          trustedNamespaces: Type.Optional(Type.Array(Type.String())),
        },
        { additionalProperties: false },
      ),
    ),
    externalIp: Type.Optional(
      Type.Boolean({ description: 'ask once an hour which address the internet sees' }),
    ),
    logLevel: Type.Optional(Type.Enum(['error', 'warn', 'info', 'debug'] as const)),
  },
  { additionalProperties: false },
);
export type FileConfig = Static<typeof FileShape>;

/** The whole configuration, checked. Paths are absolute. */
export interface Config {
  readonly sandbox: boolean;
  readonly port: number;
  /** Addresses to listen on. */
  readonly listen: readonly string[];
  /** Unix socket; undefined: none. */
  readonly socket: string;
  readonly dataDir: string;
  readonly root: string;
  readonly profile: ProfileName;
  /** Given explicitly: not prefixed by the root. */
  readonly baseDir: string | undefined;
  readonly installedVersion: string | undefined;
  readonly kubeType: string;
  readonly kubeconfig: string | undefined;
  readonly containerdAddress: string | undefined;
  readonly didGateUrl: string | undefined;
  readonly installer: string | undefined;
  readonly nodeName: string | undefined;
  readonly frpServer: string;
  readonly frpEnable: string;
  readonly containerMode: string | undefined;
  readonly file: FileConfig;
}

export type Command =
  | { readonly kind: 'run'; readonly config: Config }
  | { readonly kind: 'check' | 'version' | 'vendor' | 'help' };

/** A setting that is not what it can be: names the setting, the value, and what is allowed. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

const options = {
  system: { type: 'boolean' },
  port: { type: 'string' },
  listen: { type: 'string', multiple: true },
  socket: { type: 'string' },
  'data-dir': { type: 'string' },
  root: { type: 'string' },
  profile: { type: 'string' },
  version: { type: 'boolean' },
  vendor: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  'check-config': { type: 'boolean' },
} as const;

export const helpText = `beosd: the system daemon of a beOS node

  --system            act on this machine; without it everything stays in .beosd/ (safe to try)
  --port N            port of the API (18088; BEOSD_PORT)
  --listen ADDRESS    address to listen on, may come twice (0.0.0.0 and ::; BEOSD_LISTEN, comma separated)
  --socket PATH       unix socket for root (/run/beosd/beosd.sock; BEOSD_SOCKET)
  --data-dir DIR      the daemon's own state (/var/lib/beosd; BEOSD_DATA_DIR)
  --root DIR          prefix of the system's files that it configures (/; BEOSD_ROOT)
  --profile NAME      ${profileNames.join(' or ')} (beos; BEOSD_PROFILE)
  --check-config      check the configuration and end
  --version, --vendor, --help

Exit codes: 0 stopped, 2 bad configuration, 3 port taken, 1 anything else.
`;

/** Flags before environment before defaults. Throws {@link ConfigError}. `readFile` gives undefined for an absent file. */
export function readConfig(
  argv: readonly string[],
  env: NodeJS.ProcessEnv,
  cwd: string,
  readFile: (path: string) => string | undefined,
): Command {
  const flags = parseFlags(argv);
  if (flags.help) return { kind: 'help' };
  if (flags.version) return { kind: 'version' };
  if (flags.vendor) return { kind: 'vendor' };
  const sandbox = flags.system !== true;
  const home = join(cwd, '.beosd');
  const pick = (flag: string | undefined, variable: string) => flag ?? emptyIsAbsent(env[variable]);
  const path = (name: string, given: string | undefined, otherwise: string) =>
    given === undefined ? otherwise : absolute(name, given, cwd);
  const dataDir = path(
    '--data-dir',
    pick(flags['data-dir'], 'BEOSD_DATA_DIR'),
    sandbox ? home : '/var/lib/beosd',
  );
  const root = path('--root', pick(flags.root, 'BEOSD_ROOT'), sandbox ? join(dataDir, 'root') : '/');
  const below = (built: string) => (root === '/' ? built : join(root, built));
  const explicitPath = (variable: string) => {
    const value = emptyIsAbsent(env[variable]);
    return value === undefined ? undefined : absolute(variable, value, cwd);
  };
  const config: Config = {
    sandbox,
    port: portOf(pick(flags.port, 'BEOSD_PORT') ?? '18088'),
    listen: listenOf(flags.listen ?? emptyIsAbsent(env['BEOSD_LISTEN'])?.split(','), sandbox),
    socket: path(
      '--socket',
      pick(flags.socket, 'BEOSD_SOCKET'),
      sandbox ? join(dataDir, 'beosd.sock') : '/run/beosd/beosd.sock',
    ),
    dataDir,
    root,
    profile: profileOf(pick(flags.profile, 'BEOSD_PROFILE') ?? 'beos'),
    baseDir: explicitPath('BASE_DIR') ?? (sandbox ? join(dataDir, 'base') : undefined),
    installedVersion: versionOf(emptyIsAbsent(env['INSTALLED_VERSION'])),
    kubeType: kubeTypeOf(emptyIsAbsent(env['KUBE_TYPE']) ?? 'k3s'),
    kubeconfig: explicitPath('KUBECONFIG'),
    containerdAddress: socketOf(emptyIsAbsent(env['CONTAINERD_ADDRESS']), cwd),
    didGateUrl: gateOf(emptyIsAbsent(env['DID_GATE_URL'])),
    installer: explicitPath('BEOS_CLI'),
    nodeName: emptyIsAbsent(env['NODE_NAME']),
    frpServer: env['FRP_SERVER'] ?? '',
    frpEnable: env['FRP_ENABLE'] ?? '',
    containerMode: emptyIsAbsent(env['CONTAINER_MODE']),
    file: fileOf(below('/etc/beosd/config.json'), readFile),
  };
  return flags['check-config'] ? { kind: 'check' } : { kind: 'run', config };
}

function parseFlags(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw new ConfigError(error instanceof Error ? error.message : String(error), { cause: error });
  }
}

const emptyIsAbsent = (value: string | undefined) =>
  value === undefined || value === '' ? undefined : value;

function absolute(name: string, value: string, cwd: string): string {
  if (value === '') throw new ConfigError(`${name} is ""; allowed: a path`);
  if (value.includes('\0')) throw new ConfigError(`${name}: a path has no NUL character`);
  return isAbsolute(value) ? value : resolve(cwd, value);
}

function portOf(value: string): number {
  const port = /^\d{1,5}$/.test(value) ? Number(value) : Number.NaN;
  if (!(port >= 0 && port <= 65_535))
    throw new ConfigError(`--port (BEOSD_PORT) is "${value}"; allowed: 0 to 65535`);
  return port;
}

function listenOf(given: readonly string[] | undefined, sandbox: boolean): readonly string[] {
  const addresses = given?.map((each) => each.trim()).filter((each) => each !== '');
  if (addresses === undefined || addresses.length === 0)
    return sandbox ? ['127.0.0.1', '::1'] : ['0.0.0.0', '::'];
  const foreign = sandbox ? addresses.find((each) => !isLoopback(each)) : undefined;
  if (foreign !== undefined) {
    throw new ConfigError(
      `--listen (BEOSD_LISTEN) is "${foreign}"; without --system only loopback addresses are allowed`,
    );
  }
  const other = addresses.find((each) => isIP(each) === 0);
  if (other !== undefined)
    throw new ConfigError(`--listen (BEOSD_LISTEN) is "${other}"; allowed: IPv4 and IPv6 addresses`);
  return addresses;
}

function profileOf(value: string): ProfileName {
  const found = profileNames.find((name) => name === value);
  if (found === undefined)
    throw new ConfigError(`--profile (BEOSD_PROFILE) is "${value}"; allowed: ${profileNames.join(', ')}`);
  return found;
}

function versionOf(value: string | undefined): string | undefined {
  if (value === undefined || /^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$/.test(value)) return value;
  throw new ConfigError(
    `INSTALLED_VERSION is "${value}"; allowed: a version such as 1.12.1 or 1.12.1-20260101`,
  );
}

function kubeTypeOf(value: string): string {
  if (value === 'k3s' || value === 'k8s') return value;
  throw new ConfigError(`KUBE_TYPE is "${value}"; allowed: k3s, k8s`);
}

function socketOf(value: string | undefined, cwd: string): string | undefined {
  return value === undefined
    ? undefined
    : absolute('CONTAINERD_ADDRESS', value.replace(/^unix:\/\//, ''), cwd);
}

/** Who names the gate decides who owns nodes: plain http is for tests on this machine only. */
function gateOf(value: string | undefined): string | undefined {
  if (value === undefined) return undefined;
  const url = URL.parse(value);
  const local =
    url !== null && (url.hostname === 'localhost' || isLoopback(url.hostname.replace(/^\[|\]$/g, '')));
  if (url === null || !(url.protocol === 'https:' || (url.protocol === 'http:' && local))) {
    throw new ConfigError(
      `DID_GATE_URL is "${value}"; allowed: an https URL (plain http only to this machine)`,
    );
  }
  return value;
}

function fileOf(path: string, readFile: (path: string) => string | undefined): FileConfig {
  const text = textOf(path, readFile);
  if (text === undefined) return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new ConfigError(`${path} is not JSON`, { cause });
  }
  const validator = Compile(FileShape);
  if (!validator.Check(value)) {
    const [first] = validator.Errors(value);
    const extra =
      first !== undefined && 'additionalProperties' in first.params ? first.params.additionalProperties : [];
    throw new ConfigError(`${path}: ${first?.instancePath || '/'} ${first?.message} ${extra ?? ''}`.trim());
  }
  const badName = value.hostNames?.find((name) => !isHostName(name));
  if (badName !== undefined)
    throw new ConfigError(`${path}: hostNames has "${badName}", which is no host name`);
  return value;
}

/** A folder in its place, or gigabytes, will not be a configuration at the next start either. */
function textOf(path: string, readFile: (path: string) => string | undefined): string | undefined {
  try {
    return readFile(path);
  } catch (cause) {
    if (errnoOf(cause) !== 'EISDIR' && !(cause instanceof RangeError)) throw cause;
    throw new ConfigError(`${path} is not a JSON file of 1 MiB at most`, { cause });
  }
}
