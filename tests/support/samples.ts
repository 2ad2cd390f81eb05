import { Agent, get } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

export interface Samples {
  readonly count: number;
  readonly p50: number;
  readonly p99: number;
}

/** How long an answer takes when it is asked for every 10 ms, ms: what a client sees, not what the processor can bear. */
export async function samples(port: number, path: string, ms: number): Promise<Samples> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const taken: number[] = [];
  const end = performance.now() + ms;
  while (performance.now() < end) {
    const asked = performance.now();
    await once(port, path, agent);
    taken.push(performance.now() - asked);
    await delay(10);
  }
  agent.destroy();
  taken.sort((a, b) => a - b);
  const at = (share: number) => taken[Math.floor((taken.length - 1) * share)] ?? Number.NaN;
  return { count: taken.length, p50: at(0.5), p99: at(0.99) };
}

/** The lowest p99: what others do on the machine meanwhile only ever makes a round slower. */
export function best(rounds: readonly Samples[]): number {
  return Math.min(...rounds.map(({ p99 }) => p99));
}

function once(port: number, path: string, agent: Agent): Promise<void> {
  return new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port, path, agent }, (response) => {
      response.resume();
      response.on('end', resolve);
      response.on('error', reject);
    }).on('error', reject);
  });
}
