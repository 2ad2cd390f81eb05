import type { Caller } from '#api/caller.ts';
import { type ErrorCode, fault } from '#api/errors.ts';
import { type OperationName, specOf } from '#api/operations.ts';
import type { NodeState } from '#api/states.ts';
import type { Fault } from '#lib/fault.ts';
import { allowedIn, isAllowed } from '#state/gate.ts';
import { ruleOf } from '#state/policy.ts';

/** What stands between a caller and an operation; undefined: nothing. Pure: the same question at the door and under the lane's lock. */
export function refusal(
  operation: OperationName,
  caller: Caller,
  state: NodeState,
): Fault<ErrorCode> | undefined {
  return refusalByCaller(operation, caller) ?? refusalByState(operation, state);
}

/** Whether this class, with this proof, may do it at all. */
export function refusalByCaller(operation: OperationName, caller: Caller): Fault<ErrorCode> | undefined {
  const rule = ruleOf(operation);
  if (!rule.who.includes(caller.class)) return refusedCaller(operation, caller);
  if (caller.proof === 'session' && (rule.noSession || specOf(operation).method !== 'GET')) {
    return fault('forbidden', 'A session token is only good for reading.', { remedy: 'Sign this request.' });
  }
  if (rule.boundForm && caller.class !== 'root' && caller.proof !== 'signature-bound') {
    return fault('bound_form_required', 'This operation needs a signature in the bound form.');
  }
  return undefined;
}

const bySignature =
  'Sign the request (X-Signature) with the key of the owner, as beosctl does, or ask as root on the node.';
const byPod =
  'A pod sends its ServiceAccount token (audience beosd) or, where its address is proof, the request without what it ' +
  'was forwarded with (Forwarded, X-Forwarded-*, Via).';

function waysToProve(operation: OperationName): string {
  return ruleOf(operation).who.includes('workload') ? `${bySignature} ${byPod}` : bySignature;
}

function refusedCaller(operation: OperationName, caller: Caller): Fault<ErrorCode> {
  if (caller.proof === 'none') {
    return fault('unproven', `${operation} needs a proof of identity.`, { remedy: waysToProve(operation) });
  }
  if (caller.name !== undefined && caller.class === 'public') {
    return fault('not_owner', `${caller.name} is not the owner of this node.`);
  }
  const who = ruleOf(operation).who.join(', ');
  return fault('forbidden', `${operation} is for ${who}; the caller is ${caller.class}.`);
}

/** Whether the state of the node lets it happen now. */
export function refusalByState(operation: OperationName, state: NodeState): Fault<ErrorCode> | undefined {
  const action = ruleOf(operation).when;
  if (action === undefined || isAllowed(action, state)) return undefined;
  const states = allowedIn(action);
  return fault('state_forbids', `${operation} is not done while the node is ${state}.`, {
    state,
    allowedIn: states,
  });
}
