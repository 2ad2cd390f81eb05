import { pino } from 'pino';

/** What the daemon tells its log: a constant message, data in fields. Never a token, a password or a body. */
export interface Log {
  info(data: object, message: string): void;
  warn(data: object, message: string): void;
  error(data: object, message: string): void;
  debug(data: object, message: string): void;
}

/** What waits while nobody takes it, bytes; what comes after that is left out. */
const waitingBytes = 256 * 1024;

/** JSON lines on standard error, which the journal keeps. A file there that the disk has no room for is no reason to end. */
export function openLog(level: string): Log {
  const destination = pino.destination({ fd: 2, sync: true, maxLength: waitingBytes });
  destination.on('error', () => undefined);
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: {
        paths: ['password', '*.password', 'token', '*.token', 'headers', '*.headers', 'body', '*.body'],
        remove: true,
      },
    },
    destination,
  );
}
