import { connect, type Socket } from 'node:net';

/** A connection to a unix socket; errors arrive as events, as on every socket. */
export function openLocalSocket(path: string): Socket {
  return connect({ path });
}
