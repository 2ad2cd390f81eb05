import { type SigningKey, signBound, signLegacy } from '#client/sign.ts';
import type { RequestToSign, Signer } from '#client/signer.ts';

export type SignatureForm = 'bound' | 'legacy';

export interface KeySignerOptions {
  /** `bound` (default) is good for exactly one request; `legacy` is what the phone app makes. */
  readonly form?: SignatureForm;
  /** ms since the epoch. Default: the clock of this machine. */
  readonly now?: () => number;
}

/** Signs with a key that this process holds. */
export function keySigner(key: SigningKey, options: KeySignerOptions = {}): Signer {
  const clock = options.now ?? Date.now;
  let last = 0;
  // Two legacy signatures of one millisecond would be the same, and the second one a replay.
  const now = () => {
    last = Math.max(clock(), last + 1);
    return last;
  };
  if (options.form === 'legacy') {
    return {
      sign: (request) =>
        signLegacy(key, { now: now(), domain: request.domain, body: legacyBody(key, request) }),
    };
  }
  return {
    sign: ({ method, path, body, nodeId, domain }) =>
      signBound(key, { now: now(), domain, method, path, nodeId, rawBody: body }),
  };
}

/** The body, and the name where the route wants it signed although the request has no body (uninstall, reboot). */
function legacyBody(key: SigningKey, request: RequestToSign): Record<string, unknown> {
  const body = request.body === '' ? {} : (JSON.parse(request.body) as Record<string, unknown>);
  const needsName = request.signedKeys.includes('username') && !('username' in body);
  return needsName ? { username: key.name.split('@')[0], ...body } : body;
}
