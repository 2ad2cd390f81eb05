import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';

/**
 * Listens on loopback on a port below those that the kernel hands out (32768–60999): while the server is stopped no
 * connection of another test gets it, nor one of a client that tries to reach it (TCP connects to itself when both ends
 * draw the same port), so that it can come back.
 */
export async function listenOnQuietPort(server: Server): Promise<number> {
  for (let tries = 0; tries < 100; tries++) {
    const port = randomInt(20_000, 32_000);
    server.listen(port, '127.0.0.1');
    try {
      await once(server, 'listening');
      return port;
    } catch {
      // taken
    }
  }
  throw new Error('no free port');
}

/** Ports of that kind, each another one, for programs that have to be told theirs. */
export async function quietPorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports: number[] = [];
  for (const server of servers) ports.push(await listenOnQuietPort(server));
  for (const server of servers) {
    server.close();
    await once(server, 'close');
  }
  return ports;
}
