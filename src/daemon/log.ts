import { pino } from 'pino';

/** What the daemon tells its log: a constant message, data in fields. Never a token, a password or a body. */
export interface Log {
  info(data: object, message: string): void;
  warn(data: object, message: string): void;
  error(data: object, message: string): void;
  debug(data: object, message: string): void;
}

/** JSON lines on standard error, which the journal keeps. */
export function openLog(level: string): Log {
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
    pino.destination({ fd: 2, sync: true }),
  );
}
