import { type LookupAddress, lookup } from 'node:dns';
import { connect, isIPv6, type LookupFunction } from 'node:net';
import { type Exec, ExecError } from '#host/exec.ts';

type Resolved = (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void;
/** All addresses of a name, as the machine resolves it; may take long, and cannot be given up. */
export type Resolve = (host: string, options: { readonly all: true }, done: Resolved) => void;

/** Asks file servers, by smbclient(1), showmount(8), and a plain connection. */
export class SystemNetworkTools {
  readonly #exec: Exec;
  readonly #resolve: Resolve;
  /** Names being resolved: a thread is busy with each until the resolver gives up, long after who asked has. */
  readonly #resolving = new Map<string, Resolved[]>();

  constructor(exec: Exec, resolve: Resolve = lookup) {
    this.#exec = exec;
    this.#resolve = resolve;
  }

  /** True when something accepts a connection there. Never rejects, never takes longer than `timeoutMs`. */
  answers(host: string, port: number, timeoutMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connect({ host, port, lookup: this.#lookup });
      // A loop that was held up hears of the time first, and of an answer that came in time only afterwards.
      const timer = setTimeout(() => setImmediate(() => end(false)), timeoutMs);
      const end = (answer: boolean) => {
        clearTimeout(timer);
        socket.destroy();
        resolve(answer);
      };
      socket.once('connect', () => end(true));
      socket.once('error', () => end(false));
    });
  }

  /** One resolution a name at a time, whoever asks. */
  readonly #lookup: LookupFunction = (host, { all }, done) => {
    const waiting = this.#resolving.get(host) ?? [];
    waiting.push((error, addresses) => {
      const [first] = addresses;
      if (error !== null || all === true || first === undefined) done(error, addresses);
      else done(null, first.address, first.family);
    });
    if (waiting.length > 1) return;
    this.#resolving.set(host, waiting);
    this.#resolve(host, { all: true }, (error, addresses) => {
      this.#resolving.delete(host);
      for (const tell of waiting) tell(error, addresses);
    });
  };

  /** `smbclient -g -L`; throws ExecError with its words. */
  async smbShares(server: string, port: number | undefined, authFile: string | undefined): Promise<string> {
    const args = ['--grepable', ...reaching(server, port, authFile), `--list=${server}`];
    const { stdout, stderr } = await this.#exec
      .run('smbclient', args, { timeoutMs: 25_000 })
      .catch((error: unknown) => listedAllTheSame(error));
    // Every server has at least IPC$: success without any share is a server that hung up, not an empty list.
    if (!/^\w+\|/m.test(stdout))
      throw new Error(`timed out: smbclient listed nothing ${stderr.trim()}`.trim());
    return stdout;
  }

  /**
   * `smbclient -c exit`: goes into a share, or into the folder of it that `path` names (`share/sub`), and leaves. Throws
   * ExecError with its words, as `tree connect failed: NT_STATUS_ACCESS_DENIED`. With a login it must sign, which a
   * guest cannot: a server that takes a user whom it does not know for a guest (`map to guest = Bad User`) refuses him
   * that way. One that does not ask for signatures signs all the same (seen with Samba 4.17, `server signing =
   * disabled`).
   */
  async smbEnter(
    server: string,
    port: number | undefined,
    path: string,
    authFile: string | undefined,
  ): Promise<void> {
    const [share = '', ...folders] = path.split('/');
    const folder = folders.length === 0 ? [] : [`--directory=${folders.join('/')}`];
    // Not --client-protection=sign, which is the same since 4.15: an older one passes over options that it does not know
    // (main() of its client.c), and would go in unsigned.
    const signed = authFile === undefined ? [] : ['--option=clientsigning=required'];
    const how = [...reaching(server, port, authFile), ...signed, ...folder];
    const args = [...how, '--command=exit', `//${server}/${share}`];
    await this.#exec.run('smbclient', args, { timeoutMs: 25_000 });
  }

  async nfsExports(server: string): Promise<string> {
    const args = ['--no-headers', '--exports', server];
    return (await this.#exec.run('showmount', args, { timeoutMs: 15_000 })).stdout;
  }
}

/** Options of smbclient: as whom, and where. */
function reaching(server: string, port: number | undefined, authFile: string | undefined): string[] {
  const login = authFile === undefined ? ['--no-pass'] : [`--authentication-file=${authFile}`];
  const where = port === undefined ? [] : [`--port=${port}`];
  return [...login, ...where, ...(isIPv6(server) ? [`--ip-address=${server}`] : [])];
}

/** For an IPv6 address smbclient (seen with 4.17) lists the shares, then misses a workgroup to list, and fails for that. */
function listedAllTheSame(error: unknown): { readonly stdout: string; readonly stderr: string } {
  const isAll = error instanceof ExecError && error.reason === 'exit';
  if (isAll && /is an IPv6 address -- no workgroup available/.test(`${error.stdout}${error.stderr}`))
    return error;
  throw error;
}
