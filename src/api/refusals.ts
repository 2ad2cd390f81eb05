import { type ErrorCode, errorCatalogue } from '#api/errors.ts';
import type { OperationSpec } from '#api/operation.ts';

/** What the policy says about an operation, as far as it decides which refusals are possible. */
export interface RefusalFacts {
  readonly who: readonly string[];
  readonly when?: string;
  readonly lane?: string;
  readonly boundForm?: true;
}

/** Refused before routing, on any route. */
const anywhere: readonly ErrorCode[] = ['origin_refused', 'host_not_ours', 'too_many_requests', 'internal'];
const ofBody: readonly ErrorCode[] = ['malformed_body', 'body_too_large', 'not_json'];
const ofSignature: readonly ErrorCode[] = [
  'signature_expired',
  'signature_reused',
  'signature_mismatch',
  'replay_window',
  'not_owner',
];
const ofMutation: readonly ErrorCode[] = ['idempotency_mismatch', 'sandbox', 'store_unavailable'];
const ofClaim: readonly ErrorCode[] = ['not_on_link', 'claim_code_required'];

/** Codes that a rule below places; all others belong to the operations that name their status. */
const placed: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  ...anywhere,
  ...ofBody,
  ...ofSignature,
  ...ofMutation,
  ...ofClaim,
  'invalid_input',
  'unknown_field',
  'duplicate_field',
  'unproven',
  'forbidden',
  'bound_form_required',
  'state_forbids',
]);

/** Every error code that an operation can answer with, sorted: what its schemas, its policy and its statuses imply. */
export function refusalsOf(spec: OperationSpec, rule: RefusalFacts): ErrorCode[] {
  const codes = new Set<ErrorCode>(anywhere);
  const add = (when: boolean, ...more: readonly ErrorCode[]) => {
    if (when) for (const code of more) codes.add(code);
  };
  add(spec.body !== undefined || spec.query !== undefined || spec.params !== undefined, 'invalid_input');
  add(spec.body !== undefined, ...ofBody);
  add(spec.body !== undefined && spec.origin === 'added', 'unknown_field');
  add(spec.body !== undefined && spec.origin === 'specified', 'duplicate_field');
  add(!rule.who.includes('public'), 'unproven', 'forbidden');
  add(!rule.who.includes('public') && rule.who.includes('owner'), ...ofSignature);
  add(rule.who.includes('signer') && rule.when === 'install', ...ofClaim);
  add(rule.boundForm === true, 'bound_form_required');
  add(rule.when !== undefined, 'state_forbids');
  add(rule.lane !== undefined, 'conflict');
  add(spec.method !== 'GET', ...ofMutation);
  for (const [code, row] of Object.entries(errorCatalogue) as [ErrorCode, { status: number }][]) {
    add(!placed.has(code) && (spec.statuses ?? []).includes(row.status), code);
  }
  return [...codes].sort();
}

/** The HTTP status of a code on this route: a missing or bad proof is 403 where the ancestor has the route (contract §1). */
export function statusOf(code: ErrorCode, spec: Pick<OperationSpec, 'origin'>): number {
  const { status } = errorCatalogue[code];
  return status === 401 && spec.origin === 'specified' ? 403 : status;
}
