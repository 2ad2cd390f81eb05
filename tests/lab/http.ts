import { request } from 'node:http';

export interface HttpCall {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON unless it is a string or bytes. */
  readonly body?: unknown;
  /** Default 30 s, for the whole exchange. */
  readonly timeoutMs?: number;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly text: string;
  /** The body as JSON; throws when it is none. */
  json(): unknown;
}

/** One HTTP exchange over a unix socket, through which the lab reaches a server inside a machine of its own. */
export function httpOver(socketPath: string, path: string, call: HttpCall = {}): Promise<HttpAnswer> {
  const raw = typeof call.body === 'string' || call.body instanceof Uint8Array;
  const body = call.body === undefined || raw ? call.body : JSON.stringify(call.body);
  const headers: Record<string, string> = { host: '127.0.0.1:18088', connection: 'close', ...call.headers };
  if (call.body !== undefined && !raw) headers['content-type'] ??= 'application/json';
  const timeoutMs = call.timeoutMs ?? 30_000;
  return new Promise((resolve, reject) => {
    const sent = request(
      { socketPath, path, method: call.method ?? 'GET', headers, signal: AbortSignal.timeout(timeoutMs) },
      (answer) => {
        const parts: Buffer[] = [];
        answer.on('data', (part: Buffer) => parts.push(part));
        answer.once('error', reject);
        answer.once('end', () => {
          const text = Buffer.concat(parts).toString('utf8');
          const json = (): unknown => JSON.parse(text);
          resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text, json });
        });
      },
    );
    sent.once('error', reject);
    sent.end(body);
  });
}
