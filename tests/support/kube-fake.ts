import { once } from 'node:events';
import { createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { ApiAnswer } from './kube-client.ts';
import { selector } from './kube-selector.ts';
import { listenOnQuietPort } from './quiet-port.ts';

type Json = { [key: string]: unknown };

interface Stored {
  readonly collection: string;
  readonly key: string;
  readonly object: Json;
}

interface HistoryEntry {
  readonly revision: number;
  readonly collection: string;
  readonly before: Json | undefined;
  readonly after: Json | undefined;
}

interface Watcher {
  readonly stream: ServerHttp2Stream;
  readonly collection: string;
  readonly namespace: string | undefined;
  readonly matches: (object: Json) => boolean;
}

/** What a test lets the server do wrong. Asked for each request; undefined: nothing. */
export type Misbehaviour = (request: { path: string; watch: boolean }) => undefined | FaultyAnswer;
export type FaultyAnswer =
  | { readonly kind: 'status'; readonly status: number; readonly retryAfter?: number }
  | { readonly kind: 'gone' }
  | { readonly kind: 'half-line' }
  | { readonly kind: 'garbage' }
  | { readonly kind: 'silence' };

/**
 * The wire of an API server without one behind it, for tests that must be fast: lists in pages, watches with bookmarks,
 * field selectors, 410, TokenReview, CRDs. The real server runs the same tables (`*.real.test.ts`) and keeps it honest.
 */
export class KubeFake {
  #server: Http2Server = createServer();
  readonly #sessions = new Set<ServerHttp2Session>();
  readonly #objects = new Map<string, Stored>();
  readonly #watchers = new Set<Watcher>();
  #history: HistoryEntry[] = [];
  #revision = 1;
  #compacted = 0;
  /** Every request, `GET /path?query`. */
  readonly requests: string[] = [];
  /** What a TokenReview of this token says. */
  readonly tokens = new Map<string, Json>();
  misbehave: Misbehaviour = () => undefined;
  port = 0;

  static async start(): Promise<KubeFake> {
    const fake = new KubeFake();
    fake.#prepare();
    fake.port = await listenOnQuietPort(fake.#server);
    await fake.must('POST', '/api/v1/namespaces', { metadata: { name: 'kube-system' } });
    return fake;
  }

  #prepare(): void {
    this.#server.on('session', (session) => {
      this.#sessions.add(session);
      session.on('close', () => this.#sessions.delete(session));
      session.on('error', () => undefined);
    });
    this.#server.on('stream', (stream: ServerHttp2Stream, headers) => {
      stream.on('error', () => undefined);
      void this.#serve(stream, String(headers[':method']), String(headers[':path']));
    });
  }

  kubeconfig(token = 'admin-token'): string {
    return JSON.stringify({
      'current-context': 'lab',
      contexts: [{ name: 'lab', context: { cluster: 'lab', user: 'lab' } }],
      clusters: [{ name: 'lab', cluster: { server: `http://127.0.0.1:${this.port}` } }],
      users: [{ name: 'lab', user: { token } }],
    });
  }

  async stop(): Promise<void> {
    for (const session of this.#sessions) session.destroy();
    this.#server.close();
    if (this.#server.listening) await once(this.#server, 'close');
  }

  /** After {@link stop}: the same objects on the same port. */
  async relisten(): Promise<void> {
    this.#server = createServer();
    this.#prepare();
    this.#server.listen(this.port, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  /** The server ends its watches of a collection in good order, as it does every half hour. */
  endWatches(plural: string): void {
    for (const { stream, collection } of this.#watchers) if (collection.endsWith(`/${plural}`)) stream.end();
  }

  /** A backup of the store, for {@link restore}: revisions go back with it. */
  save(): unknown {
    return { objects: structuredClone([...this.#objects]), revision: this.#revision };
  }

  restore(backup: unknown): void {
    const { objects, revision } = backup as { objects: [string, Stored][]; revision: number };
    this.#objects.clear();
    for (const [id, stored] of structuredClone(objects)) this.#objects.set(id, stored);
    this.#revision = revision;
    this.#history = [];
    this.#compacted = 0;
  }

  /** Forgets all but the last `kept` changes. */
  compactBelow(kept: number): void {
    this.#compacted = this.#revision - kept;
    this.#history = this.#history.filter(({ revision }) => revision > this.#compacted);
  }

  /** Connections end, the server stays. */
  cut(): void {
    for (const session of this.#sessions) session.destroy();
  }

  /** The history up to now is forgotten. */
  compact(): void {
    this.#compacted = this.#revision;
    this.#history = [];
  }

  bookmark(): void {
    for (const watcher of this.#watchers) {
      this.#send(watcher, 'BOOKMARK', { metadata: { resourceVersion: String(this.#revision) } });
    }
  }

  /** As the real one's: a request as administrator, without the wire. */
  async call(method: string, path: string, body?: unknown): Promise<ApiAnswer> {
    const url = new URL(path, 'http://fake');
    return this.#change(method, url.pathname, (body ?? {}) as Json);
  }

  async must(
    method: string,
    path: string,
    body?: unknown,
    _contentType?: string,
  ): Promise<ApiAnswer['body']> {
    const answer = await this.call(method, path, body);
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status}`);
    return answer.body;
  }

  async #serve(stream: ServerHttp2Stream, method: string, path: string): Promise<void> {
    this.requests.push(`${method} ${path}`);
    const url = new URL(path, 'http://fake');
    const watch = url.searchParams.get('watch') === 'true';
    const fault = this.misbehave({ path, watch });
    if (fault) return this.#fail(stream, fault);
    if (watch) return this.#watch(stream, url);
    let text = '';
    for await (const chunk of stream) text += String(chunk);
    const body = text === '' ? {} : (JSON.parse(text) as Json);
    const answer = method === 'GET' ? this.#get(url) : await this.#change(method, url.pathname, body);
    respond(stream, answer.status, answer.body);
  }

  #fail(stream: ServerHttp2Stream, fault: FaultyAnswer): void {
    if (fault.kind === 'silence') return;
    if (fault.kind === 'status') {
      const headers = fault.retryAfter === undefined ? {} : { 'retry-after': String(fault.retryAfter) };
      respond(
        stream,
        fault.status,
        { kind: 'Status', code: fault.status, message: 'as the test wants it' },
        headers,
      );
      return;
    }
    stream.respond({ ':status': 200, 'content-type': 'application/json' });
    if (fault.kind === 'gone') {
      const status = { kind: 'Status', code: 410, reason: 'Expired', message: 'too old resource version' };
      stream.end(`${JSON.stringify({ type: 'ERROR', object: status })}\n`);
    } else if (fault.kind === 'half-line') {
      stream.end('{"type":"MODIFIED","object":{"kind":"Pod","metadata":{"na');
    } else {
      stream.end('<html>502 Bad Gateway</html>\n');
    }
  }

  #get(url: URL): ApiAnswer {
    const { collection, namespace, name } = parsePath(url.pathname);
    if (!this.#isDefined(collection)) return notFound(url.pathname);
    if (name !== undefined) {
      const found = this.#objects.get(`${collection}|${keyOf(namespace, name)}`);
      return found ? { status: 200, body: found.object } : notFound(url.pathname);
    }
    return this.#list(url, collection, namespace);
  }

  #list(url: URL, collection: string, namespace: string | undefined): ApiAnswer {
    const matches = selector(url.searchParams.get('fieldSelector'));
    const limit = Number(url.searchParams.get('limit') ?? Number.POSITIVE_INFINITY);
    const from = Number(url.searchParams.get('continue') ?? 0);
    const all = [...this.#objects.values()].filter(
      (each) => each.collection === collection && inNamespace(each.object, namespace) && matches(each.object),
    );
    const more = from + limit < all.length ? { continue: String(from + limit) } : {};
    const items = all.slice(from, from + limit).map((each) => each.object);
    return {
      status: 200,
      body: {
        kind: 'List',
        apiVersion: 'v1',
        metadata: { resourceVersion: String(this.#revision), ...more },
        items,
      },
    };
  }

  #watch(stream: ServerHttp2Stream, url: URL): void {
    const { collection, namespace } = parsePath(url.pathname);
    if (!this.#isDefined(collection)) {
      respond(stream, 404, notFound(url.pathname).body);
      return;
    }
    const matches = selector(url.searchParams.get('fieldSelector'));
    const watcher: Watcher = { stream, collection, namespace, matches };
    const since = url.searchParams.get('resourceVersion') ?? '';
    if (since !== '' && Number(since) < this.#compacted) {
      this.#fail(stream, { kind: 'gone' });
      return;
    }
    stream.respond({ ':status': 200, 'content-type': 'application/json' });
    const past =
      since === ''
        ? [...this.#objects.values()].map(({ collection, object }) => ({
            revision: 0,
            collection,
            before: undefined,
            after: object,
          }))
        : this.#history.filter((entry) => entry.revision > Number(since));
    for (const entry of past) this.#tell(watcher, entry);
    this.#watchers.add(watcher);
    stream.on('close', () => this.#watchers.delete(watcher));
  }

  #tell(watcher: Watcher, entry: HistoryEntry): void {
    if (entry.collection !== watcher.collection) return;
    const was =
      entry.before !== undefined &&
      inNamespace(entry.before, watcher.namespace) &&
      watcher.matches(entry.before);
    const is =
      entry.after !== undefined &&
      inNamespace(entry.after, watcher.namespace) &&
      watcher.matches(entry.after);
    if (is) this.#send(watcher, was ? 'MODIFIED' : 'ADDED', entry.after);
    else if (was) {
      // The real server sends the last state with the revision of the removal.
      const object = structuredClone(entry.before ?? {});
      (object['metadata'] as Json)['resourceVersion'] = String(entry.revision);
      this.#send(watcher, 'DELETED', object);
    }
  }

  #send(watcher: Watcher, type: string, object: unknown): void {
    if (!watcher.stream.destroyed) watcher.stream.write(`${JSON.stringify({ type, object })}\n`);
  }

  #isDefined(collection: string): boolean {
    const [, group, , plural] = collection.split('/');
    if (!collection.startsWith('apis/') || !group?.includes('.') || group.endsWith('.k8s.io')) return true;
    return this.#objects.has(`${definitions}|${plural}.${group}`);
  }

  async #change(method: string, path: string, body: Json): Promise<ApiAnswer> {
    const { collection, namespace, name, sub } = parsePath(path);
    if (collection.endsWith('/tokenreviews')) return this.#reviewToken(body);
    if (method === 'GET') return this.#get(new URL(path, 'http://fake'));
    const metadata = { ...((body['metadata'] as Json | undefined) ?? {}) };
    const id = keyOf(namespace, name ?? String(metadata['name']));
    const before = this.#objects.get(`${collection}|${id}`)?.object;
    if (method === 'POST' && before) return { status: 409, body: { code: 409, reason: 'AlreadyExists' } };
    if (method !== 'POST' && method !== 'PATCH' && !before) return notFound(path);
    if (method === 'DELETE') this.#commit(collection, id, undefined);
    else this.#commit(collection, id, merge(before, body, sub, namespace, method));
    return {
      status: method === 'POST' ? 201 : 200,
      body: this.#objects.get(`${collection}|${id}`)?.object ?? {},
    };
  }

  #reviewToken(body: Json): ApiAnswer {
    const token = String((body['spec'] as Json)['token']);
    return {
      status: 201,
      body: { kind: 'TokenReview', status: this.tokens.get(token) ?? { authenticated: false } },
    };
  }

  #commit(collection: string, key: string, object: Json | undefined): void {
    const id = `${collection}|${key}`;
    const revision = ++this.#revision;
    const before = this.#objects.get(id)?.object;
    if (object === undefined) this.#objects.delete(id);
    else {
      const metadata = object['metadata'] as Json;
      metadata['resourceVersion'] = String(revision);
      metadata['uid'] ??= `uid-${revision}`;
      metadata['creationTimestamp'] ??= new Date().toISOString();
      this.#objects.set(id, { collection, key, object });
    }
    const entry = { revision, collection, before, after: object };
    this.#history.push(entry);
    if (this.#history.length > 5000) this.#history.shift();
    for (const watcher of this.#watchers) this.#tell(watcher, entry);
  }
}

const definitions = 'apis/apiextensions.k8s.io/v1/customresourcedefinitions';

function parsePath(path: string): { collection: string; namespace?: string; name?: string; sub?: string } {
  const parts = path.split('/').filter(Boolean);
  const base = parts.splice(0, parts[0] === 'api' ? 2 : 3);
  const namespace = parts[0] === 'namespaces' && parts.length > 2 ? parts.splice(0, 2)[1] : undefined;
  const [plural = '', name, sub] = parts;
  return {
    collection: [...base, plural].join('/'),
    ...(namespace === undefined ? {} : { namespace }),
    ...(name === undefined ? {} : { name }),
    ...(sub === undefined ? {} : { sub }),
  };
}

function merge(
  before: Json | undefined,
  body: Json,
  sub: string | undefined,
  namespace: string | undefined,
  method: string,
): Json {
  const copy = structuredClone(body);
  if (sub === 'status') return { ...structuredClone(before ?? {}), status: copy['status'] };
  const old = (before?.['metadata'] as Json | undefined) ?? {};
  const given = (copy['metadata'] as Json | undefined) ?? {};
  const labels = { ...(method === 'PATCH' ? (old['labels'] as Json) : {}), ...(given['labels'] as Json) };
  const metadata = {
    ...structuredClone(old),
    ...given,
    labels,
    ...(namespace === undefined ? {} : { namespace }),
  };
  const base = method === 'PATCH' ? structuredClone(before ?? {}) : {};
  const status = before?.['status'] ?? copy['status'];
  const all = {
    ...base,
    ...copy,
    metadata,
    ...(status === undefined ? {} : { status: structuredClone(status) }),
  };
  const established = { conditions: [{ type: 'Established', status: 'True' }] };
  return copy['kind'] === 'CustomResourceDefinition' ? { ...all, status: established } : all;
}

function inNamespace(object: Json, namespace: string | undefined): boolean {
  return namespace === undefined || (object['metadata'] as Json)['namespace'] === namespace;
}

function keyOf(namespace: string | undefined, name: string): string {
  return namespace === undefined ? name : `${namespace}/${name}`;
}

function notFound(path: string): ApiAnswer {
  return {
    status: 404,
    body: { kind: 'Status', code: 404, reason: 'NotFound', message: `${path} not found` },
  };
}

function respond(
  stream: ServerHttp2Stream,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
): void {
  if (stream.destroyed) return;
  stream.respond({ ':status': status, 'content-type': 'application/json', ...headers });
  stream.end(JSON.stringify(body));
}
