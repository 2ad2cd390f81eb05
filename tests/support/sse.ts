import { type ClientRequest, request } from 'node:http';
import { createParser } from 'eventsource-parser';

export interface SseEvent {
  readonly id: number;
  readonly event: string;
  readonly data: Record<string, unknown>;
}

/** A reader of GET /events that keeps all it gets; its connection can be cut at any moment. */
export class SseReader {
  readonly events: SseEvent[] = [];
  readonly #request: ClientRequest;
  readonly #watchers = new Set<() => void>();
  /** Settles when the stream has ended, whatever the reason. */
  readonly closed: Promise<void>;

  constructor(to: number | string, lastEventId?: number) {
    const parser = createParser({
      onEvent: ({ id, event, data }) => {
        this.events.push({
          id: Number(id),
          event: event ?? '',
          data: JSON.parse(data) as Record<string, unknown>,
        });
        for (const watch of this.#watchers) watch();
      },
    });
    const target = typeof to === 'number' ? { host: '127.0.0.1', port: to } : { socketPath: to };
    const headers = lastEventId === undefined ? {} : { 'last-event-id': String(lastEventId) };
    this.#request = request({ ...target, path: '/events', headers, agent: false });
    this.closed = new Promise((resolve) => {
      this.#request.on('error', () => resolve());
      this.#request.on('close', () => resolve());
      this.#request.on('response', (response) => {
        response.setEncoding('utf8').on('data', (chunk: string) => parser.feed(chunk));
        response.on('error', () => resolve());
        response.on('close', () => resolve());
      });
    });
    this.#request.end();
  }

  cut(): void {
    this.#request.destroy();
  }

  /** The first event that fits, already here or still to come. */
  until(fits: (event: SseEvent) => boolean, withinMs = 20_000): Promise<SseEvent> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const found = this.events.find(fits);
        if (found === undefined) return;
        clearTimeout(timer);
        this.#watchers.delete(look);
        resolve(found);
      };
      const timer = setTimeout(() => {
        this.#watchers.delete(look);
        reject(
          new Error(`no such event within ${withinMs} ms; got ${JSON.stringify(this.events.slice(-5))}`),
        );
      }, withinMs);
      this.#watchers.add(look);
      look();
    });
  }
}
