import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { messageOf } from '#lib/fault.ts';

/** How an endpoint answered `GET /v2/`. */
export interface ProbeResult {
  readonly endpoint: string;
  readonly reachable: boolean;
  /** What was seen, in words; also when it is reachable. */
  readonly reason: string;
}

export interface ProbeOptions {
  readonly skipVerify: boolean;
  /** The endpoint's own path is the root of its API. */
  readonly overridePath: boolean;
  /** PEM; trusted beside the system's authorities, as it is by containerd. */
  readonly ca: string | undefined;
  readonly signal?: AbortSignal;
}

export type Probe = (endpoint: string, options: ProbeOptions) => Promise<ProbeResult>;

const timeoutMs = 5000;

/**
 * Asks an endpoint whether it is a registry (distribution spec, end-1). TLS is verified; 200 and the challenge 401
 * count as reachable. Never throws, never takes more than 5 s, reads no body, follows no redirect.
 */
export const probeEndpoint: Probe = async (endpoint, options) => {
  const deadline = AbortSignal.timeout(timeoutMs);
  const signal = options.signal ? AbortSignal.any([deadline, options.signal]) : deadline;
  try {
    const answer = await ask(apiRoot(endpoint, options.overridePath), options, signal);
    const status = answer.statusCode ?? 0;
    const reachable = status === 200 || status === 401;
    return { endpoint, reachable, reason: describe(status) };
  } catch (error) {
    const reason = deadline.aborted ? `no answer within ${timeoutMs / 1000} s` : messageOf(error);
    return { endpoint, reachable: false, reason };
  }
};

function describe(status: number): string {
  if (status === 200) return 'answers';
  if (status === 401) return 'answers and asks for credentials';
  return `answers with HTTP status ${status}, which a registry does not`;
}

/** Where containerd will look: it adds /v2 to the endpoint's path unless that ends so, or the path is overridden. */
export function apiRoot(endpoint: string, overridePath: boolean): URL {
  const url = new URL(endpoint);
  const path = url.pathname.replace(/\/+$/, '');
  url.pathname = overridePath || path.endsWith('/v2') ? `${path}/` : `${path}/v2/`;
  return url;
}

/** Node knows authorities only in place of the system's: an endpoint that its own ones do not vouch for is asked again. */
async function ask(url: URL, options: ProbeOptions, signal: AbortSignal): Promise<IncomingMessage> {
  if (options.ca === undefined) return await head(url, options, signal);
  return await head(url, options, signal).catch(
    async () => await head(url, { ...options, ca: undefined }, signal),
  );
}

function head(url: URL, options: ProbeOptions, signal: AbortSignal): Promise<IncomingMessage> {
  const common: RequestOptions = { method: 'GET', signal, agent: false, headers: { accept: '*/*' } };
  return new Promise((resolve, reject) => {
    const onAnswer = (answer: IncomingMessage) => {
      answer.destroy(); // the status is all we came for
      resolve(answer);
    };
    const sent =
      url.protocol === 'https:'
        ? httpsRequest(
            url,
            {
              ...common,
              rejectUnauthorized: !options.skipVerify,
              ...(options.ca === undefined ? {} : { ca: options.ca }),
            },
            onAnswer,
          )
        : httpRequest(url, common, onAnswer);
    sent.on('error', reject);
    sent.end();
  });
}
