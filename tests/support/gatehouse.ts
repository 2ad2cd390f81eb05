import type { OperationName } from '#api/operations.ts';
import { specOf } from '#api/operations.ts';
import { Authenticator, type AuthenticatorOptions, type ProofRequest } from '#auth/authenticator.ts';
import { DidGate, gateUrl } from '#auth/did-gate.ts';
import { type AuthHandlerOptions, authHandlers } from '#auth/handlers.ts';
import { OwnerFile, type OwnerOptions } from '#auth/owner.ts';
import { ReplayGuard } from '#auth/replay.ts';
import { Sessions } from '#auth/sessions.ts';
import { Signatures } from '#auth/signatures.ts';
import { noWorkloads } from '#auth/workloads.ts';
import type { FakeClock } from '#host/fake/clock.ts';
import { Files } from '#host/files.ts';
import { GapNote } from '#host/gap-note.ts';
import { known } from '#lib/observed.ts';
import { Store } from '#store/store.ts';

export const nodeId = '0123456789abcdef0123456789abcdef';
export const ownAddress = '192.168.1.10';

export interface GatehouseOptions {
  readonly dataDir: string;
  readonly clock: FakeClock;
  readonly gate?: string;
  readonly gatePerMinute?: number;
  readonly keep?: number;
  readonly owner?: Partial<OwnerOptions>;
  readonly authenticator?: Partial<AuthenticatorOptions>;
}

/** Everything that proves callers, over a real store and real files in `dataDir`: what compose.ts wires, for tests. */
export function gatehouse(options: GatehouseOptions) {
  const { dataDir, clock } = options;
  const store = new Store(dataDir, () => clock.now());
  const gate = new DidGate({
    store,
    clock,
    url: options.gate === undefined ? undefined : gateUrl(options.gate),
    perMinute: options.gatePerMinute ?? 30,
  });
  const owners = new OwnerFile({
    dataDir,
    files: new Files(),
    clock,
    releaseName: () => known(undefined, 'release', clock.now()),
    claimIsOpen: () => true,
    ...options.owner,
  });
  const sessions = new Sessions({ store, clock });
  const signatures = new Signatures(gate);
  const shared: AuthHandlerOptions = { clock, owners, sessions, signatures, gate, nodeId };
  const authenticator = new Authenticator({
    ...shared,
    replay: new ReplayGuard({
      ...{ store, clock, gap: new GapNote(dataDir) },
      ...(options.keep === undefined ? {} : { keep: options.keep }),
    }),
    workloads: noWorkloads,
    legacySignatures: true,
    claimCode: undefined,
    isOwnAddress: (address) => address === ownAddress,
    isOnLink: (address) => address.startsWith('192.168.1.'),
    ...options.authenticator,
  });
  return { ...shared, store, authenticator, handlers: authHandlers(shared), close: () => store.close() };
}

export interface SentRequest {
  readonly signature?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Readonly<Record<string, unknown>>;
  readonly rawBody?: string;
  readonly target?: string;
  readonly from?: string;
  readonly transport?: 'socket' | 'tcp';
}

/** A request for an operation as the edge hands it over. */
export function request(operation: OperationName, sent: SentRequest = {}): ProofRequest {
  const headers: Readonly<Record<string, string>> = {
    ...(sent.signature === undefined ? {} : { 'x-signature': sent.signature }),
    ...sent.headers,
  };
  const text = sent.rawBody ?? (sent.body === undefined ? '' : JSON.stringify(sent.body));
  return {
    transport: sent.transport ?? 'tcp',
    remoteAddress: sent.from ?? '192.168.1.77',
    method: specOf(operation).method,
    target: sent.target ?? specOf(operation).path,
    header: (name) => headers[name],
    headerNames: Object.keys(headers),
    rawBody: Buffer.from(text),
    body: sent.body,
    operation,
  };
}
