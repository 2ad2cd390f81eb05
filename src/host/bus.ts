import type { Message, MessageBus } from 'dbus-native';
import type { Clock } from '#host/clock.ts';
import { messageOf } from '#lib/fault.ts';

export interface BusCall {
  readonly service: string;
  readonly path: string;
  readonly interface: string;
  readonly member: string;
  /** D-Bus signature of `args`; left out when there are none. */
  readonly signature?: string;
  readonly args?: readonly unknown[];
  /** ms until the call fails with {@link BusError} `timeout`. Default 10 000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export interface SignalMatch {
  /** Well-known name; signals of anybody else are dropped, however they got here. */
  readonly service: string;
  readonly interface: string;
  readonly member: string;
  readonly path?: string;
}

export interface BusSubscription {
  close(): void;
}

/** Why a call failed: `name` of the D-Bus error, or `unavailable`, `timeout`, `aborted` when there was no answer. */
export class BusError extends Error {
  override readonly name = 'BusError';
  readonly reason: 'refused' | 'unavailable' | 'timeout' | 'aborted';
  /** For `refused`: the error's name, e.g. `org.freedesktop.DBus.Error.ServiceUnknown`. */
  readonly dbusName: string | undefined;

  constructor(reason: BusError['reason'], message: string, dbusName?: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.reason = reason;
    this.dbusName = dbusName;
  }
}

/** The system bus. Values are plain: variants unwrapped, string-keyed dicts as objects, 64-bit integers as bigint. */
export interface Bus {
  /** The values of the reply. Rejects with {@link BusError}. */
  call(call: BusCall): Promise<readonly unknown[]>;
  property(
    service: string,
    path: string,
    iface: string,
    name: string,
    signal?: AbortSignal,
  ): Promise<unknown>;
  /** Stays in force when the bus or the service goes away and comes back. */
  onSignal(match: SignalMatch, listener: (args: readonly unknown[], path: string) => void): BusSubscription;
  /**
   * Told whenever the connection comes or goes; and at once, when it is already known. Makes the connection: who wants to
   * know hears of a bus that was never there, and of one that nobody calls.
   */
  onAvailability(listener: (available: boolean, reason: string | undefined) => void): BusSubscription;
}

/** Address of the system bus: the environment's, else where every distribution has it. */
export function systemBusAddress(env: Readonly<Record<string, string | undefined>>): string {
  return env['DBUS_SYSTEM_BUS_ADDRESS'] ?? 'unix:path=/run/dbus/system_bus_socket';
}

interface Subscription extends SignalMatch {
  readonly listener: (args: readonly unknown[], path: string) => void;
}

interface Connection {
  readonly client: MessageBus;
  /** Unique names behind the well-known ones that somebody listens to. */
  readonly owners: Map<string, string>;
  /** Subscriptions whose rules the bus has, or is being told. */
  readonly installed: Set<Subscription>;
}

const dbus = 'org.freedesktop.DBus';
const signalMessage = 4; // D-Bus specification, message types
const defaultTimeoutMs = 10_000;
const connectTimeoutMs = 5_000;
const retryFirstMs = 1_000;
const retryLastMs = 30_000;

/**
 * One connection to a message bus, made when first needed.
 *
 * INVARIANTS: nothing in flight is ever repeated (a call may not be idempotent); while somebody subscribes or asks for the
 * availability, a lost connection is tried again with growing pauses; a signal reaches a listener only from the present owner of its service.
 */
export class MessageBusPort implements Bus {
  readonly #address: string;
  readonly #clock: Clock;
  readonly #subscriptions = new Set<Subscription>();
  readonly #availability = new Set<(available: boolean, reason: string | undefined) => void>();
  readonly #closed = new AbortController();
  #connecting: Promise<Connection> | undefined;
  #retrying = false;
  #last: { readonly available: boolean; readonly reason: string | undefined } | undefined;

  constructor(address: string, clock: Clock) {
    this.#address = address;
    this.#clock = clock;
  }

  async call(call: BusCall): Promise<readonly unknown[]> {
    call.signal?.throwIfAborted();
    const { client } = await this.#connection();
    return await invoke(client, call);
  }

  async property(
    service: string,
    path: string,
    iface: string,
    name: string,
    signal?: AbortSignal,
  ): Promise<unknown> {
    const [value] = await this.call({
      service,
      path,
      interface: 'org.freedesktop.DBus.Properties',
      member: 'Get',
      signature: 'ss',
      args: [iface, name],
      ...(signal ? { signal } : {}),
    });
    return value;
  }

  onSignal(match: SignalMatch, listener: Subscription['listener']): BusSubscription {
    const subscription: Subscription = { ...match, listener };
    this.#subscriptions.add(subscription);
    this.#connection().then(
      (connection) => this.#install(connection, subscription),
      () => this.#retryLater(),
    );
    return {
      close: () => {
        this.#subscriptions.delete(subscription);
        this.#uninstall(subscription);
      },
    };
  }

  onAvailability(listener: (available: boolean, reason: string | undefined) => void): BusSubscription {
    this.#availability.add(listener);
    if (this.#last) listener(this.#last.available, this.#last.reason);
    this.#connection().catch(() => this.#retryLater());
    return { close: () => this.#availability.delete(listener) };
  }

  /** Ends the connection; calls in flight fail. */
  async close(): Promise<void> {
    this.#closed.abort(new BusError('unavailable', 'the bus connection was closed'));
    const connection = await this.#connecting?.catch(() => undefined);
    await connection?.client.close();
  }

  #connection(): Promise<Connection> {
    if (this.#closed.signal.aborted) return Promise.reject(this.#closed.signal.reason);
    if (this.#connecting !== undefined) return this.#connecting;
    const connecting = this.#connect();
    this.#connecting = connecting;
    connecting.catch(() => {
      if (this.#connecting === connecting) this.#connecting = undefined;
    });
    return connecting;
  }

  async #connect(): Promise<Connection> {
    try {
      const client = await open(this.#address);
      const connection: Connection = { client, owners: new Map(), installed: new Set() };
      client.connection.on('message', (message) => this.#receive(connection, message));
      client.connection.on('close', () => this.#lost('the connection to the bus ended'));
      // Who is told that the bus is there, or gets an answer over it, misses no signal from then on.
      await Promise.all([...this.#subscriptions].map((each) => this.#install(connection, each)));
      this.#tell(true, undefined);
      return connection;
    } catch (error) {
      const reason = `no message bus at ${this.#address}: ${messageOf(error)}`;
      this.#tell(false, reason);
      throw new BusError('unavailable', reason, undefined, error);
    }
  }

  #lost(reason: string): void {
    if (this.#closed.signal.aborted) return;
    this.#connecting = undefined;
    this.#tell(false, reason);
    if (this.#isAwaited()) this.#retryLater();
  }

  #isAwaited(): boolean {
    return this.#subscriptions.size > 0 || this.#availability.size > 0;
  }

  #retryLater(): void {
    if (this.#retrying || this.#closed.signal.aborted) return;
    this.#retrying = true;
    this.#reconnect()
      .catch(() => undefined) // closed meanwhile
      .finally(() => {
        this.#retrying = false;
      });
  }

  async #reconnect(): Promise<void> {
    for (let pause = retryFirstMs; ; pause = Math.min(pause * 2, retryLastMs)) {
      await this.#clock.sleep(pause, this.#closed.signal);
      if (!this.#isAwaited()) return;
      const connection = await this.#connection().catch(() => undefined);
      if (connection) return;
    }
  }

  /** Never rejects: a rule that could not be set is a lost connection, and that is reported as such. */
  async #install(connection: Connection, subscription: Subscription): Promise<void> {
    if (connection.installed.has(subscription)) return;
    connection.installed.add(subscription);
    try {
      const { client, owners } = connection;
      if (!owners.has(subscription.service)) {
        owners.set(subscription.service, '');
        await addMatch(client, ownerRule(subscription.service));
        const owner = await client.getNameOwner(subscription.service).catch(() => '');
        owners.set(subscription.service, owner);
      }
      await addMatch(client, ruleOf(subscription));
    } catch {
      connection.client.connection.end();
    }
  }

  #uninstall(subscription: Subscription): void {
    const rule = ruleOf(subscription);
    for (const other of this.#subscriptions) if (ruleOf(other) === rule) return;
    this.#connecting?.then(({ client }) => client.removeMatch(rule)).catch(() => undefined);
  }

  #receive({ owners }: Connection, message: Message): void {
    if (message.type !== signalMessage || message.sender === undefined) return;
    const args = message.body ?? [];
    if (message.sender === dbus && message.member === 'NameOwnerChanged') {
      const [name, , owner] = args;
      if (typeof name === 'string' && owners.has(name)) owners.set(name, String(owner));
    }
    for (const each of [...this.#subscriptions]) {
      const owner = each.service === dbus ? dbus : owners.get(each.service);
      if (owner === message.sender && matches(each, message)) each.listener(args, message.path ?? '');
    }
  }

  #tell(available: boolean, reason: string | undefined): void {
    if (this.#last?.available === available && this.#last.reason === reason) return;
    this.#last = { available, reason };
    for (const listener of this.#availability) listener(available, reason);
  }
}

/** Connects and says hello; the library is loaded here, so that a machine without a bus never pays for it. */
async function open(address: string): Promise<MessageBus> {
  const { createClient } = (await import('dbus-native')).default;
  const client = createClient({ busAddress: address, timeout: defaultTimeoutMs });
  const broken = new Promise<never>((_, reject) => {
    client.connection.on('error', reject); // stays: an error without a listener would end the process
    client.connection.on('close', () => reject(new Error('the bus closed the connection')));
  });
  broken.catch(() => undefined);
  try {
    await Promise.race([
      client.invokeDbus({ member: 'GetId' }, { timeout: connectTimeoutMs }).then(() => undefined),
      broken,
    ]);
    return client;
  } catch (error) {
    client.connection.end();
    throw error;
  }
}

function invoke(client: MessageBus, call: BusCall): Promise<readonly unknown[]> {
  return new Promise((resolve, reject) => {
    client.invoke(
      {
        destination: call.service,
        path: call.path,
        interface: call.interface,
        member: call.member,
        ...(call.signature === undefined ? {} : { signature: call.signature, body: [...(call.args ?? [])] }),
      },
      {
        timeout: call.timeoutMs ?? defaultTimeoutMs,
        ...(call.signal ? { signal: call.signal } : {}),
      },
      (error, ...values: unknown[]) => {
        if (error) reject(toBusError(call, error));
        else resolve(values);
      },
    );
  });
}

function toBusError(call: BusCall, error: Error & { dbusName?: string; code?: unknown }): BusError {
  const what = `${call.interface}.${call.member}`;
  if (error.code === 'ETIMEDOUT') return new BusError('timeout', `${what}: no answer in time`);
  if (error.code === 'ABORT_ERR') return new BusError('aborted', `${what}: given up`);
  if (error.code === 'ECONNCLOSED')
    return new BusError('unavailable', `${what}: the connection to the bus ended`);
  return new BusError('refused', messageOf(error), error.dbusName, error);
}

async function addMatch(client: MessageBus, rule: string): Promise<void> {
  await client.addMatch(rule);
}

function matches(match: SignalMatch, message: Message): boolean {
  return (
    match.interface === message.interface &&
    match.member === message.member &&
    (match.path === undefined || match.path === message.path)
  );
}

function ruleOf(match: SignalMatch): string {
  const path = match.path === undefined ? '' : `,path='${match.path}'`;
  return `type='signal',sender='${match.service}',interface='${match.interface}',member='${match.member}'${path}`;
}

function ownerRule(service: string): string {
  return `type='signal',sender='${dbus}',interface='${dbus}',member='NameOwnerChanged',arg0='${service}'`;
}
