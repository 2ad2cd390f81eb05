import { Agent, request } from 'node:https';

export interface ApiAnswer {
  readonly status: number;
  readonly body: { readonly [key: string]: unknown };
}

/** Requests to an API server with a static token, on connections of its own: the hand of a test that writes. */
export class KubeClient {
  readonly #url: string;
  readonly #ca: string;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 64 });

  constructor(url: string, ca: string) {
    this.#url = url;
    this.#ca = ca;
  }

  call(
    method: string,
    path: string,
    body?: unknown,
    contentType = 'application/json',
    token = 'admin-token',
  ): Promise<ApiAnswer> {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const { promise, resolve, reject } = Promise.withResolvers<ApiAnswer>();
    const sent = request(
      `${this.#url}${path}`,
      {
        method,
        agent: this.#agent,
        ca: this.#ca,
        headers: {
          authorization: `Bearer ${token}`,
          ...(text ? { 'content-type': contentType, 'content-length': Buffer.byteLength(text) } : {}),
        },
      },
      (response) => {
        let received = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          received += chunk;
        });
        response.on('end', () => {
          const status = response.statusCode ?? 0;
          resolve({ status, body: received.startsWith('{') ? JSON.parse(received) : { text: received } });
        });
      },
    );
    sent.on('error', reject);
    sent.end(text);
    return promise;
  }

  /** As {@link call}; anything but 2xx fails the test. */
  async must(method: string, path: string, body?: unknown, contentType?: string): Promise<ApiAnswer['body']> {
    const answer = await this.call(method, path, body, contentType);
    if (answer.status >= 300) {
      throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body).slice(0, 400)}`);
    }
    return answer.body;
  }

  close(): void {
    this.#agent.destroy();
  }
}
