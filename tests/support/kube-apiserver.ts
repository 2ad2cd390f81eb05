import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { buildKube, findKube, type KubeBinaries } from './kube-build.ts';
import { type ApiAnswer, KubeClient } from './kube-client.ts';
import { onProcessor } from './processors.ts';
import { quietPorts } from './quiet-port.ts';

/** The reason for which the tests with a real server are skipped; false: it is here, built now if need be. */
export async function whyNoKube(): Promise<string | false> {
  if (findKube() !== undefined) return false;
  try {
    await buildKube((line) => process.stderr.write(`kube-apiserver: ${line}\n`));
    return false;
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n')[0] : String(error);
    return `no kube-apiserver and etcd in KUBEBUILDER_ASSETS or PATH, and they could not be built: ${reason}`;
  }
}

/** A real kube-apiserver with its etcd, on loopback, that can be stopped, frozen and put back. */
export class KubeApiServer {
  readonly dir: string;
  readonly port: number;
  readonly #etcdPort: number;
  readonly #binaries: KubeBinaries;
  readonly #processor: number | undefined;
  #etcd: ChildProcess | undefined;
  #api: ChildProcess | undefined;
  #client: KubeClient | undefined;
  #clientCertificates = false;

  private constructor(
    binaries: KubeBinaries,
    dir: string,
    port: number,
    etcdPort: number,
    processor: number | undefined,
  ) {
    this.#processor = processor;
    this.#binaries = binaries;
    this.dir = dir;
    this.port = port;
    this.#etcdPort = etcdPort;
  }

  /**
   * Fails where there are no binaries: ask {@link whyNoKube} first. `processor`: the only one that the server and its
   * etcd may use, so that what is measured beside them is not their hunger.
   */
  static async start(processor?: number): Promise<KubeApiServer> {
    const binaries = findKube();
    if (binaries === undefined) throw new Error('no kube-apiserver');
    const dir = mkdtempSync(join(tmpdir(), 'beosd-kube-'));
    const [port = 0, etcdPort = 0] = await quietPorts(2);
    const server = new KubeApiServer(binaries, dir, port, etcdPort, processor);
    server.#writeKeys();
    await server.startEtcd();
    await server.startApi();
    return server;
  }

  get url(): string {
    return `https://127.0.0.1:${this.port}`;
  }

  get caFile(): string {
    return join(this.dir, 'certs/apiserver.crt');
  }

  get ca(): string {
    return readFileSync(this.caFile, 'utf8');
  }

  /** A kubeconfig for one of the static tokens. */
  kubeconfig(token = 'admin-token'): string {
    return this.#kubeconfig({ token });
  }

  /** A kubeconfig with a client certificate; undefined where none could be made. */
  certificateKubeconfig(): string | undefined {
    if (!this.#clientCertificates) return undefined;
    return this.#kubeconfig({
      'client-certificate': join(this.dir, 'client.crt'),
      'client-key-data': readFileSync(join(this.dir, 'client.key')).toString('base64'),
    });
  }

  #kubeconfig(user: Readonly<Record<string, string>>): string {
    return JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'lab',
      contexts: [{ name: 'lab', context: { cluster: 'lab', user: 'lab' } }],
      clusters: [
        {
          name: 'lab',
          cluster: {
            server: this.url,
            'certificate-authority-data': Buffer.from(this.ca).toString('base64'),
          },
        },
      ],
      users: [{ name: 'lab', user }],
    });
  }

  #writeKeys(): void {
    this.#clientCertificates = this.#writeClientCertificate();
    mkdirSync(join(this.dir, 'certs'));
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    writeFileSync(join(this.dir, 'sa.key'), privateKey.export({ type: 'pkcs8', format: 'pem' }), {
      mode: 0o600,
    });
    writeFileSync(
      join(this.dir, 'tokens.csv'),
      'admin-token,admin,1,"system:masters"\nsecond-token,second,2,"system:masters"\n',
      { mode: 0o600 },
    );
  }

  /** Makes a CA for client certificates and one for an administrator; false where there is no openssl. */
  #writeClientCertificate(): boolean {
    const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: this.dir, stdio: 'ignore' });
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    try {
      openssl(
        'req',
        '-x509',
        ...key,
        '-keyout',
        'ca.key',
        '-out',
        'ca.crt',
        '-days',
        '2',
        '-subj',
        '/CN=clients',
      );
      openssl(
        'req',
        ...key,
        '-keyout',
        'client.key',
        '-out',
        'client.csr',
        '-subj',
        '/O=system:masters/CN=lab',
      );
      const signed = [
        '-CA',
        'ca.crt',
        '-CAkey',
        'ca.key',
        '-CAcreateserial',
        '-days',
        '2',
        '-out',
        'client.crt',
      ];
      openssl('x509', '-req', '-in', 'client.csr', ...signed);
      return true;
    } catch {
      return false;
    }
  }

  async startEtcd(): Promise<void> {
    const client = `http://127.0.0.1:${this.#etcdPort}`;
    this.#etcd = this.#spawn(this.#binaries.etcd, 'etcd', [
      `--data-dir=${join(this.dir, 'etcd')}`,
      `--listen-client-urls=${client}`,
      `--advertise-client-urls=${client}`,
      '--listen-peer-urls=http://127.0.0.1:0',
      '--unsafe-no-fsync',
      '--logger=zap',
    ]);
    await until('etcd', async () => (await fetch(`${client}/health`)).ok);
  }

  async startApi(): Promise<void> {
    this.#api = this.#spawn(this.#binaries.apiserver, 'apiserver', [
      `--etcd-servers=http://127.0.0.1:${this.#etcdPort}`,
      `--secure-port=${this.port}`,
      '--bind-address=127.0.0.1',
      `--cert-dir=${join(this.dir, 'certs')}`,
      `--token-auth-file=${join(this.dir, 'tokens.csv')}`,
      ...(this.#clientCertificates ? [`--client-ca-file=${join(this.dir, 'ca.crt')}`] : []),
      '--authorization-mode=RBAC',
      `--service-account-key-file=${join(this.dir, 'sa.key')}`,
      `--service-account-signing-key-file=${join(this.dir, 'sa.key')}`,
      '--service-account-issuer=https://kubernetes.default.svc',
      '--api-audiences=https://kubernetes.default.svc,beosd',
      '--service-cluster-ip-range=10.96.0.0/24',
      '--disable-admission-plugins=ServiceAccount,TaintNodesByCondition',
      '--allow-privileged=true',
      '--max-requests-inflight=2000',
      '--max-mutating-requests-inflight=1000',
    ]);
    await until('kube-apiserver', async () => (await this.call('GET', '/readyz')).status === 200, 120_000);
    // It says that it is ready, and answers "server is starting" for defined resources some seconds longer.
    for (const path of await this.#definedPaths()) {
      await until(path, async () => (await this.call('GET', path)).status === 200, 60_000);
    }
  }

  async #definedPaths(): Promise<string[]> {
    const { body } = await this.call('GET', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions');
    const { items = [] } = body as { items?: readonly Definition[] };
    return items.map(
      ({ spec }) => `/apis/${spec.group}/${spec.versions[0]?.name}/${spec.names.plural}?limit=1`,
    );
  }

  /** Ends with SIGKILL, as a power cut would. */
  async stopApi(): Promise<void> {
    await end(this.#api, 'SIGKILL');
    this.#client?.close();
    this.#client = undefined;
  }

  async stopEtcd(): Promise<void> {
    await end(this.#etcd, 'SIGKILL');
  }

  freeze(): void {
    this.#api?.kill('SIGSTOP');
  }

  thaw(): void {
    this.#api?.kill('SIGCONT');
  }

  /** etcd forgets its history up to now. */
  async compact(): Promise<void> {
    const post = async (path: string, body: unknown) => {
      const response = await fetch(`http://127.0.0.1:${this.#etcdPort}/v3/${path}`, {
        method: 'POST',
        body: JSON.stringify(body),
      });
      return (await response.json()) as { header: { revision: string } };
    };
    const { header } = await post('kv/range', { key: Buffer.from('x').toString('base64') });
    await post('kv/compaction', { revision: header.revision, physical: true });
  }

  /** A copy of etcd's data; only while etcd is stopped. */
  etcdDir(): string {
    return join(this.dir, 'etcd');
  }

  /** A request as administrator, on connections of its own. */
  call(
    method: string,
    path: string,
    body?: unknown,
    contentType?: string,
    token?: string,
  ): Promise<ApiAnswer> {
    this.#client ??= new KubeClient(this.url, this.ca);
    return this.#client.call(method, path, body, contentType, token);
  }

  /** As {@link call}; anything but 2xx fails the test. */
  must(method: string, path: string, body?: unknown, contentType?: string): Promise<ApiAnswer['body']> {
    this.#client ??= new KubeClient(this.url, this.ca);
    return this.#client.must(method, path, body, contentType);
  }

  async stop(): Promise<void> {
    this.thaw();
    await this.stopApi();
    await this.stopEtcd();
    rmSync(this.dir, { recursive: true, force: true });
  }

  #spawn(file: string, name: string, args: readonly string[]): ChildProcess {
    const log = createWriteStream(join(this.dir, `${name}.log`), { flags: 'a' });
    const child = spawn(...onProcessor(this.#processor, file, args), {
      cwd: this.dir,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout?.pipe(log, { end: false });
    child.stderr?.pipe(log, { end: false });
    const kill = () => child.kill('SIGKILL');
    process.once('exit', kill);
    child.once('exit', () => process.off('exit', kill));
    child.once('close', () => log.end()); // at 'exit' the last words are still to be written
    return child;
  }
}

async function end(child: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  await once(child, 'exit');
}

interface Definition {
  readonly spec: {
    readonly group: string;
    readonly names: { readonly plural: string };
    readonly versions: readonly { readonly name: string }[];
  };
}

/** Waits for a process to serve: polling is all there is for somebody else's start. */
async function until(what: string, ready: () => Promise<boolean>, withinMs = 30_000): Promise<void> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    if (await ready().catch(() => false)) return;
    if (performance.now() > deadline) throw new Error(`${what} was not ready within ${withinMs} ms`);
    await delay(50);
  }
}
