import type { Caller } from '#api/caller.ts';
import { fault } from '#api/errors.ts';
import type { Answer, Call, DryRun, OperationSpec, PlanAnswer, RawAnswer } from '#api/operation.ts';
import { type Handlers, type OperationName, specOf } from '#api/operations.ts';
import type { NodeState } from '#api/states.ts';
import { type Envelope, errorEnvelope } from '#http/envelope.ts';
import { fromText, knownKeys, parseBody, Validators } from '#http/input.ts';
import type { FirstAnswer, Once } from '#jobs/once.ts';
import { isFault } from '#lib/fault.ts';
import { refusalByCaller, refusalByState } from '#state/admit.ts';

/** A request as it came, with nothing believed yet. */
export interface IncomingCall {
  readonly operation: OperationName;
  readonly transport: 'socket' | 'tcp';
  readonly remoteAddress: string;
  readonly localAddress: string;
  readonly method: string;
  /** The raw request target with its query. */
  readonly target: string;
  readonly header: (name: string) => string | undefined;
  /** Names of all headers that came, lower case. */
  readonly headerNames: readonly string[];
  readonly rawBody: Uint8Array;
  readonly params: Readonly<Record<string, unknown>>;
  readonly query: Readonly<Record<string, unknown>>;
  readonly signal: AbortSignal;
  readonly requestId: string;
}

/** What the authenticator is asked: the request with its body parsed, keys as they were sent. */
export interface ProofRequest extends IncomingCall {
  readonly body: Readonly<Record<string, unknown>> | undefined;
}

export interface AuditLine {
  readonly caller: Caller;
  readonly operation: OperationName;
  readonly outcome: string;
  readonly jobId: string | undefined;
  readonly detail: string | undefined;
}

export interface PipelineOptions {
  readonly handlers: Handlers;
  /** Who calls; throws the refusal of a proof that does not hold. */
  readonly classify: (request: ProofRequest) => Promise<Caller>;
  readonly state: () => NodeState;
  readonly once: Once;
  readonly audit: (line: AuditLine) => void;
  /** A fault of ours, with the whole chain of causes, once. */
  readonly logInternal: (requestId: string, operation: string, error: unknown) => void;
}

export type Outgoing =
  | { readonly kind: 'json'; readonly answer: FirstAnswer }
  | { readonly kind: 'raw'; readonly raw: RawAnswer };

/** The way of a request from bytes to answer: proof, admission, input, handler (design "The way of a request"). */
export class Pipeline {
  readonly #options: PipelineOptions;
  readonly #validators = new Validators();

  constructor(options: PipelineOptions) {
    this.#options = options;
  }

  /** Never throws: a failure is an answer too. */
  async handle(request: IncomingCall): Promise<Outgoing> {
    const spec = specOf(request.operation);
    let caller: Caller | undefined;
    try {
      const body = parseBody(request.rawBody, request.header('content-type'));
      caller = await this.#options.classify({ ...request, body });
      const refused = refusalByCaller(request.operation, caller);
      if (refused !== undefined) throw refused;
      return await this.#admitted(request, spec, body, caller);
    } catch (error) {
      const envelope = errorEnvelope(error, spec.origin);
      if (envelope.code === 500) this.#options.logInternal(request.requestId, request.operation, error);
      this.#audit(request, spec, caller ?? stranger(request), isFault(error) ? error.code : 'internal');
      return { kind: 'json', answer: serialise(envelope) };
    }
  }

  async #admitted(
    request: IncomingCall,
    spec: OperationSpec,
    body: ProofRequest['body'],
    caller: Caller,
  ): Promise<Outgoing> {
    const input = this.#input(spec, request, body);
    const dryRun = wantsDryRun(spec, request.query);
    const lastEventId = request.header('last-event-id');
    const call: Call = {
      caller,
      signal: request.signal,
      requestId: request.requestId,
      dryRun,
      ...(lastEventId === undefined ? {} : { lastEventId }),
    };
    const key = request.header('idempotency-key');
    if (key === undefined || dryRun || spec.method === 'GET') {
      const { sent, raw } = await this.#gated(request, spec, input, call);
      return raw === undefined ? { kind: 'json', answer: sent } : { kind: 'raw', raw };
    }
    const { method, operation, rawBody } = request;
    const once = { key, caller, operation, method, path: request.target, rawBody };
    return {
      kind: 'json',
      answer: await this.#options.once.run(once, () => this.#gated(request, spec, input, call)),
    };
  }

  #input(spec: OperationSpec, request: IncomingCall, body: ProofRequest['body']) {
    const params = fromText(spec.params, request.params);
    const query = fromText(spec.query, request.query);
    const known = knownKeys(spec, body);
    if (spec.params !== undefined) this.#validators.check(spec.params, params);
    if (spec.query !== undefined) this.#validators.check(spec.query, query);
    if (spec.body !== undefined) this.#validators.check(spec.body, known);
    return { params, query, body: known };
  }

  /** A retry under its Idempotency-Key gets its first answer whatever the state is by now; an act has to pass the gate. */
  async #gated(request: IncomingCall, spec: OperationSpec, input: unknown, call: Call) {
    const refused = refusalByState(request.operation, this.#options.state());
    if (refused !== undefined && !call.dryRun) throw refused;
    return await this.#answer(request, spec, input, call, refused);
  }

  async #answer(
    request: IncomingCall,
    spec: OperationSpec,
    input: unknown,
    call: Call,
    forbidden: Error | undefined,
  ): Promise<{ sent: FirstAnswer; kept: FirstAnswer; raw?: RawAnswer }> {
    const handler = this.#options.handlers[request.operation] as (input: unknown, call: Call) => unknown;
    const reply = (await handler(input, call)) as Answer<unknown> | PlanAnswer | RawAnswer;
    if ('raw' in reply) return { sent: noAnswer, kept: noAnswer, raw: reply };
    if ('plan' in reply) {
      const plan = withGate(reply.plan, forbidden);
      const sent = serialise({ code: 200, message: 'nothing was changed', data: plan });
      return { sent, kept: sent };
    }
    if (!call.dryRun) this.#audit(request, spec, call.caller, 'done', jobIdOf(reply.data));
    const sent = serialise(successEnvelope(spec, reply, reply.data));
    return {
      sent,
      kept: reply.kept === undefined ? sent : serialise(successEnvelope(spec, reply, reply.kept)),
    };
  }

  #audit(request: IncomingCall, spec: OperationSpec, caller: Caller, outcome: string, jobId?: string): void {
    if (spec.method === 'GET' || request.operation === 'system.checkJws') return;
    this.#options.audit({ caller, operation: request.operation, outcome, jobId, detail: undefined });
  }
}

/** A dry run does not stop at the gate: that the state forbids it is a verdict like the others. */
function withGate(plan: DryRun, forbidden: Error | undefined): DryRun {
  const reason = forbidden?.message ?? 'the state of the node allows it';
  const gate = { name: 'state', ok: forbidden === undefined, reason };
  return { ...plan, allowed: plan.allowed && gate.ok, preconditions: [gate, ...plan.preconditions] };
}

const noAnswer: FirstAnswer = { status: 200, body: '' };

function stranger(request: IncomingCall): Caller {
  return { class: 'public', proof: 'none', address: request.remoteAddress };
}

function successEnvelope(
  spec: OperationSpec,
  reply: Answer<unknown>,
  data: unknown,
): Envelope & Record<string, unknown> {
  return {
    code: reply.status ?? 200,
    message: reply.message ?? spec.message ?? 'success',
    ...(data === undefined ? {} : { data }),
    ...reply.beside,
  };
}

function serialise(envelope: Envelope): FirstAnswer {
  return { status: envelope.code, body: JSON.stringify(envelope) };
}

function jobIdOf(data: unknown): string | undefined {
  const id = typeof data === 'object' && data !== null && 'jobId' in data ? data.jobId : undefined;
  return typeof id === 'string' ? id : undefined;
}

/** Who asks for a dry run where there is none must not get the act instead. */
function wantsDryRun(spec: OperationSpec, query: Readonly<Record<string, unknown>>): boolean {
  // In any spelling: who meant a dry run must not get the act for a capital letter or a hyphen.
  const isMeant = (key: string) => key.toLowerCase().replace(/[-_]/g, '') === 'dryrun';
  const [value, other] = new Set(
    Object.keys(query)
      .filter(isMeant)
      .map((key) => query[key]),
  );
  if (other === undefined && (value === undefined || value === 'false')) return false;
  if (other !== undefined || value !== 'true')
    throw fault('invalid_input', 'dryRun is true or false.', { field: 'dryRun' });
  if (spec.method !== 'GET' && spec.dryRun !== true) {
    throw fault('invalid_input', 'This operation has no dry run; nothing was done.', { field: 'dryRun' });
  }
  return spec.dryRun === true;
}
