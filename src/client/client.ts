import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { StoredEvent } from '#api/events.ts';
import type { DryRun } from '#api/operation.ts';
import { type OperationName, specOf } from '#api/operations.ts';
import { fillPath } from '#api/paths.ts';
import type { Job } from '#api/shapes.ts';
import { ApiError, Unreachable } from '#client/api-error.ts';
import { toAnswer, toRefusal } from '#client/envelope.ts';
import { type StreamItem, type StreamOptions, streamEvents } from '#client/events.ts';
import { keySigner, type SignatureForm } from '#client/key-signer.ts';
import type { SigningKey } from '#client/sign.ts';
import type { Signer } from '#client/signer.ts';
import {
  exchange,
  open,
  type Target,
  targetName,
  targetOrigin,
  type WireRequest,
} from '#client/transport.ts';
import type { CallArguments, CallName, DataOf, FullAnswer, LooseInput, PlannedName } from '#client/types.ts';

export interface ClientOptions {
  /** `http://10.0.0.5:18088`, or `{socketPath}` for the unix socket of this machine. */
  readonly node: string | { readonly socketPath: string };
  /** The key that signs every call but the public ones; not needed on the socket. */
  readonly key?: SigningKey;
  /** The form of the signatures made with `key`. Default `bound`. */
  readonly signatures?: SignatureForm;
  /** In place of `key`: for a key that this process does not hold. */
  readonly signer?: Signer;
  /** A session token: for reading. */
  readonly token?: string;
  /** Ends everything that this client does. */
  readonly signal?: AbortSignal;
  /** ms without a byte after which a call fails. Default 100 s: joining a Wi-Fi may take 90. */
  readonly timeoutMs?: number;
  /** ms without a byte after which the event stream is opened again. Default 60 s; the node sends something every 20. */
  readonly streamIdleMs?: number;
  /** How often a call is sent again when its connection breaks. Default 2. */
  readonly retries?: number;
  readonly sleep?: (ms: number, signal?: AbortSignal) => Promise<void>;
  readonly random?: () => number;
}

/** A client of one node. */
export function createClient(options: ClientOptions): Client {
  return new Client(options);
}

/** Everyone may read these, so no signature is spent on them. */
const unsigned: ReadonlySet<OperationName> = new Set<OperationName>(['system.status', 'system.live']);

const endedStates: ReadonlySet<Job['state']> = new Set<Job['state']>([
  'succeeded',
  'failed',
  'cancelled',
  'interrupted',
]);

/** The job has come to its end, whatever that is. */
export function hasEnded(job: Pick<Job, 'state'>): boolean {
  return endedStates.has(job.state);
}

/** Calls the operations of the contract, typed by it. Made by {@link createClient}. */
export class Client {
  readonly #options: ClientOptions;
  readonly #target: Target;
  readonly #signer: Signer | undefined;
  #nodeId: string | undefined;

  constructor(options: ClientOptions) {
    this.#options = options;
    this.#target = typeof options.node === 'string' ? { url: new URL(options.node) } : options.node;
    const { key, signer, signatures } = options;
    this.#signer = signer ?? (key && keySigner(key, signatures === undefined ? {} : { form: signatures }));
  }

  /** Where this client calls, for messages. */
  get target(): string {
    return targetName(this.#target);
  }

  /** The `data` of the answer. Throws {@link ApiError} when the node refuses, {@link Unreachable} when none answers. */
  async call<Name extends CallName>(name: Name, ...[input]: CallArguments<Name>): Promise<DataOf<Name>> {
    const answer = await this.request(name, input as LooseInput | undefined);
    return answer.data as DataOf<Name>;
  }

  /** What the operation would do; nothing changes. */
  async plan<Name extends PlannedName>(name: Name, ...[input]: CallArguments<Name>): Promise<DryRun> {
    const answer = await this.request(name, { ...(input as LooseInput | undefined), dryRun: true });
    return answer.data as DryRun;
  }

  /** The whole answer of an operation whose name is only known at run time. */
  async request(name: OperationName, input: LooseInput = {}): Promise<FullAnswer> {
    const spec = specOf(name);
    const wire = {
      method: spec.method,
      path: requestTarget(name, input),
      body: input.body === undefined ? '' : JSON.stringify(input.body),
      ...(spec.method === 'GET' || input.dryRun ? {} : { key: input.idempotencyKey ?? randomUUID() }),
    };
    const signal = this.#signal(input.signal);
    for (let attempt = 0; ; attempt++) {
      try {
        const headers = await this.#headers(name, wire, signal);
        if (input.claimCode !== undefined) headers['x-claim-code'] = input.claimCode;
        const response = await exchange(this.#target, { ...this.#wire(wire, headers), ...signalOf(signal) });
        return toAnswer(response, spec.raw !== undefined);
      } catch (error) {
        if (!(error instanceof Unreachable) || !error.sent || attempt >= (this.#options.retries ?? 2))
          throw error;
        await this.#sleep(200 * 2 ** attempt * (0.5 + this.#random() / 2), signal);
      }
    }
  }

  /**
   * Events as they happen, over reconnections and restarts of the daemon, none twice and none left out. A `reset`
   * carries a snapshot: the node no longer has what follows `lastEventId`. Throws when refused, or by the signal.
   */
  async *events(options: StreamOptions = {}): AsyncGenerator<StoredEvent> {
    for await (const item of this.#stream(options)) {
      if (item.kind === 'event') yield item.event;
    }
  }

  /**
   * The job each time that it has changed, up to its end, also across a restart of the daemon or the machine. Throws
   * {@link ApiError} when there is no such job or the caller may not see it.
   */
  async *followJob(id: string, options: Omit<StreamOptions, 'lastEventId'> = {}): AsyncGenerator<Job> {
    let last: Job | undefined;
    for await (const item of this.#stream(options)) {
      if (item.kind === 'event' && !concerns(item.event, id)) continue;
      // The job is read after the stream stands: what changes from then on comes as an event.
      const told = item.kind === 'event' ? jobIn(item.event, last) : undefined;
      const job = told ?? (await this.#jobOrLater(id, last, options.signal));
      if (job === undefined || isDeepStrictEqual(job, last) || isOlder(job, last)) continue;
      last = job;
      yield job;
      if (hasEnded(job)) return;
    }
  }

  /**
   * The job; undefined while the node cannot answer, which the next connection mends. A caller who could see the job
   * and no longer can (his claim of the node has lapsed with it) learns the rest from the public events.
   */
  async #jobOrLater(id: string, last: Job | undefined, signal?: AbortSignal): Promise<Job | undefined> {
    try {
      return await this.call('jobs.get', { params: { id }, ...signalOf(signal) });
    } catch (error) {
      const refused = error instanceof ApiError && (error.status === 401 || error.status === 403);
      if (error instanceof Unreachable || (refused && last !== undefined)) return undefined;
      if (error instanceof ApiError && error.status >= 500) return undefined;
      throw error;
    }
  }

  #stream(options: StreamOptions): AsyncGenerator<StreamItem> {
    const signal = this.#signal(options.signal);
    return streamEvents(
      {
        connect: (lastEventId, each) => this.#openStream(lastEventId, each),
        sleep: (ms, each) => this.#sleep(ms, each),
        random: () => this.#random(),
      },
      { ...options, ...signalOf(signal) },
    );
  }

  async #openStream(lastEventId: number | undefined, signal: AbortSignal): Promise<IncomingMessage> {
    const wire = { method: 'GET', path: specOf('events.stream').path, body: '' };
    const headers = await this.#headers('events.stream', wire, signal);
    const resume = lastEventId === undefined ? {} : { 'last-event-id': String(lastEventId) };
    const response = await open(this.#target, {
      ...this.#wire(wire, { ...headers, ...resume, accept: 'text/event-stream' }),
      idleMs: this.#options.streamIdleMs ?? 60_000,
      signal,
    });
    if (response.statusCode === 200) return response;
    let text = '';
    for await (const chunk of response) text += chunk;
    throw toRefusal({ status: response.statusCode ?? 0, headers: response.headers, text });
  }

  #wire(wire: Pick<WireRequest, 'method' | 'path'> & { body: string }, headers: Record<string, string>) {
    const { method, path, body } = wire;
    return { method, path, headers, body, idleMs: this.#options.timeoutMs ?? 100_000 };
  }

  async #headers(
    name: OperationName,
    wire: { method: string; path: string; body: string; key?: string },
    signal: AbortSignal | undefined,
  ): Promise<Record<string, string>> {
    const { token } = this.#options;
    const signer = this.#signer;
    const headers: Record<string, string> = { accept: 'application/json' };
    if (wire.body !== '') headers['content-type'] = 'application/json';
    if (wire.key !== undefined) headers['idempotency-key'] = wire.key;
    if (token !== undefined) headers['authorization'] = `Bearer ${token}`;
    if (signer !== undefined && !unsigned.has(name)) {
      const nodeId = await this.#knownNodeId(signal);
      const { method, path, body } = wire;
      headers['x-signature'] = await signer.sign({
        method,
        path,
        body,
        nodeId,
        domain: targetOrigin(this.#target),
        signedKeys: specOf(name).signedKeys ?? [],
      });
    }
    return headers;
  }

  async #knownNodeId(signal: AbortSignal | undefined): Promise<string> {
    this.#nodeId ??= (await this.call('system.status', { ...signalOf(signal) })).nodeId;
    return this.#nodeId;
  }

  #signal(signal: AbortSignal | undefined): AbortSignal | undefined {
    const all = [signal, this.#options.signal].filter((each) => each !== undefined);
    return all.length > 1 ? AbortSignal.any(all) : all[0];
  }

  #sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
    return this.#options.sleep?.(ms, signal) ?? delay(ms, undefined, { ...signalOf(signal) });
  }

  #random(): number {
    return (this.#options.random ?? Math.random)();
  }
}

function signalOf(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}

/** The raw request target: what is sent and what a bound signature covers. */
function requestTarget(name: OperationName, input: LooseInput): string {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(input.query ?? {})) {
    if (value !== undefined) query.set(key, String(value));
  }
  if (input.dryRun) query.set('dryRun', 'true');
  const path = fillPath(specOf(name), input.params ?? {});
  return query.size === 0 ? path : `${path}?${query}`;
}

/** Whether an event can have changed the job. */
function concerns(event: StoredEvent, jobId: string): boolean {
  return event.type === 'reset' || (event.type === 'job' && event.data['id'] === jobId);
}

/** An event from before the answer that was read meanwhile: the progress of a job never falls. */
function isOlder(job: Job, last: Job | undefined): boolean {
  return !hasEnded(job) && (job.percent ?? 100) < (last?.percent ?? 0);
}

/** The job as an event tells it: all of it, or the public part over what was known before. */
function jobIn({ type, data }: StoredEvent, last: Job | undefined): Job | undefined {
  if (type !== 'job') return undefined;
  const { at: _at, ...job } = data;
  if ('phases' in job) return job as unknown as Job;
  return last === undefined ? undefined : { ...last, ...job };
}
