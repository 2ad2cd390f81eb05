import { type ConnectionOptions, connect } from '#cli/connect.ts';
import { defaultKeyFile, readKey, writeKey } from '#cli/local-files.ts';
import { dataText } from '#cli/output.ts';
import { type Terminal, UsageError } from '#cli/terminal.ts';
import { createKey } from '#client/sign.ts';

/** Commands that are no operation of the contract: the event stream and the keys of this person. */

export interface EventsOptions extends ConnectionOptions {
  readonly json?: boolean;
  readonly lastEventId?: string;
}

/** Prints events until Ctrl-C or a refusal. */
export async function runEvents(options: EventsOptions, terminal: Terminal): Promise<never> {
  const last = options.lastEventId === undefined ? undefined : Number(options.lastEventId);
  if (last !== undefined && !Number.isSafeInteger(last)) {
    throw new UsageError(`--last-event-id takes a number, not ${options.lastEventId}`);
  }
  const client = connect(options, terminal);
  const onInterrupted = (_error: unknown, ms: number) =>
    terminal.err(`connection lost; trying again in ${(ms / 1000).toFixed(1)} s\n`);
  for await (const event of client.events({
    onInterrupted,
    ...(last === undefined ? {} : { lastEventId: last }),
  })) {
    const { at, ...rest } = event.data;
    terminal.out(
      options.json
        ? `${JSON.stringify(event)}\n`
        : `${String(at)}  ${event.type.padEnd(9)}  ${JSON.stringify(rest)}  (${event.id})\n`,
    );
  }
  throw new Error('the stream of events ended');
}

export interface KeyOptions {
  readonly key?: string;
  readonly name?: string;
  readonly kind?: string;
  readonly json?: boolean;
}

export function runKeyNew(options: KeyOptions, terminal: Terminal): void {
  const kind = options.kind === 'secp256k1' ? 'secp256k1' : 'Ed25519';
  const key = createKey({ kind, ...(options.name === undefined ? {} : { name: options.name }) });
  const file = options.key ?? defaultKeyFile(terminal);
  writeKey(file, key);
  printKey({ name: key.name, did: key.did, file }, options, terminal);
}

/** The public half only. */
export function runKeyShow(options: KeyOptions, terminal: Terminal): void {
  const file = options.key ?? terminal.env['BEOSCTL_KEY'] ?? defaultKeyFile(terminal);
  const { name, did } = readKey(file);
  printKey({ name, did, file }, options, terminal);
}

function printKey(shown: Record<string, string>, options: KeyOptions, terminal: Terminal): void {
  terminal.out(options.json ? `${JSON.stringify(shown)}\n` : dataText(shown));
}
