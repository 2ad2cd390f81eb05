import { connect } from 'node:net';

/**
 * One load run in a process of its own: `load.ts PORT PATH CONNECTIONS MS`, prints JSON {requests, p50, p99} (ms).
 * Keep-alive, one request under way per connection; only loopback.
 */
const [port, path, connections, duration] = process.argv.slice(2);
const request = Buffer.from(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n\r\n`);
const latencies: number[] = [];
const end = performance.now() + Number(duration);

function lengthOf(response: Buffer): number | undefined {
  const head = response.indexOf('\r\n\r\n');
  if (head < 0) return undefined;
  const match = /content-length: (\d+)/i.exec(response.toString('latin1', 0, head));
  return match === null ? undefined : head + 4 + Number(match[1]);
}

function client(): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), '127.0.0.1');
    socket.setNoDelay(true);
    let sentAt = 0;
    let received: Buffer = Buffer.alloc(0);
    const send = () => {
      sentAt = performance.now();
      socket.write(request);
    };
    socket.on('connect', send);
    socket.on('error', reject);
    socket.on('data', (chunk: Buffer) => {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
      const length = lengthOf(received);
      if (length === undefined || received.length < length) return;
      if (!received.toString('latin1', 0, 12).endsWith(' 200'))
        reject(new Error(received.toString('latin1', 0, 60)));
      received = Buffer.alloc(0);
      const now = performance.now();
      latencies.push(now - sentAt);
      if (now < end) {
        send();
      } else {
        socket.destroy();
        resolve();
      }
    });
  });
}

const began = performance.now();
await Promise.all(Array.from({ length: Number(connections) }, client));
const seconds = (performance.now() - began) / 1000;
latencies.sort((a, b) => a - b);
const at = (share: number) => latencies[Math.floor((latencies.length - 1) * share)] ?? Number.NaN;
process.stdout.write(
  JSON.stringify({
    requests: latencies.length,
    perSecond: latencies.length / seconds,
    p50: at(0.5),
    p99: at(0.99),
  }),
);
