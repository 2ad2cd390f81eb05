import { X509Certificate } from 'node:crypto';
import { fault } from '#api/errors.ts';
import { parseHost } from '#containerd/reference.ts';
import { causeChain } from '#lib/fault.ts';

/**
 * An endpoint as containerd takes it: http or https, `host[:port]`, a path; no credentials, query or fragment. The
 * slash at the end goes, because containerd would make `//v2` of it. undefined: it is not one.
 */
export function endpointUrl(text: string): string | undefined {
  if (text.length > 2048 || !/^https?:\/\/[A-Za-z0-9.:[\]-]+(\/[\w.~!$&'()*+,;=:@%/-]*)?$/.test(text)) {
    return undefined;
  }
  const url = URL.parse(text);
  if (url === null || url.username !== '' || parseHost(url.host) === undefined) return undefined;
  return text.replace(/\/+$/, '');
}

/** Throws `invalid_input` when the text holds no certificate. */
export function checkCa(pem: string): void {
  if (pem === '') return;
  try {
    new X509Certificate(pem);
  } catch (error) {
    throw fault('invalid_input', `ca is not a PEM certificate: ${causeChain(error)}`, {
      field: 'ca',
      cause: error,
    });
  }
}
