import { fault } from '#api/errors.ts';
import type { Locks } from '#storage/locks.ts';

/** What is done for a request. */
export interface RequestActs {
  /** What can be found out without the lock; undefined: nothing. It rejects where the request is refused. */
  before(given: AbortSignal): Promise<void> | undefined;
  /** The share's lock is held. Undefined: by now another share is meant. */
  mount(): Promise<string | undefined>;
}

/** What several clients may wait for. */
interface Flight {
  readonly identity: string;
  readonly outcome: Promise<string | undefined>;
  /** Aborted: it is not begun any more. */
  readonly given: AbortController;
  clients: number;
  begun: boolean;
}

/**
 * Requests to mount shares: each try at a server that is silent takes 25 s, and each with a wrong password brings its
 * account nearer to being locked. So those who ask for the same wait for one try, and what all who asked have left, or
 * somebody has overtaken by a forced umount, is not begun. What has begun is brought to its end, whoever still waits.
 */
export class ShareRequests {
  readonly #locks: Locks;
  /** By what they ask for; it holds passwords, and is nobody else's. */
  readonly #flights = new Map<string, Flight>();

  constructor(locks: Locks) {
    this.#locks = locks;
  }

  /**
   * Mounts under the lock of the share, or joins who asks for the same, down to the login. Throws `conflict` when it
   * was given up before its turn; undefined: see {@link RequestActs}.
   */
  async run(
    { identity, login }: { readonly identity: string; readonly login: unknown },
    acts: RequestActs,
    signal?: AbortSignal,
  ): Promise<string | undefined> {
    if (signal?.aborted === true) throw abandoned();
    const likeness = JSON.stringify([identity, login]);
    const flight = this.#flights.get(likeness) ?? this.#begin(likeness, identity, acts);
    flight.clients++;
    const leave = () => {
      flight.clients--;
      if (flight.clients === 0) this.#giveUp(likeness, flight, abandoned());
    };
    signal?.addEventListener('abort', leave, { once: true });
    try {
      return await flight.outcome;
    } finally {
      signal?.removeEventListener('abort', leave);
    }
  }

  /** Whoever waits to mount this share does not do so any more; what is being mounted is. */
  overtake(identity: string): void {
    for (const [likeness, flight] of this.#flights)
      if (flight.identity === identity) this.#giveUp(likeness, flight, overtaken());
  }

  #begin(likeness: string, identity: string, acts: RequestActs): Flight {
    const given = new AbortController();
    const { signal } = given;
    const begin = () => {
      flight.begun = true;
      return acts.mount();
    };
    const carryOut = async () => {
      const before = acts.before(signal);
      // At once in the queue where nothing is to be found out: in the order of arrival.
      if (before !== undefined) await before;
      return await this.#locks.run(identity, begin, { signal });
    };
    const outcome = carryOut().finally(() => this.#land(likeness, flight));
    const flight: Flight = { identity, outcome, given, clients: 0, begun: false };
    this.#flights.set(likeness, flight);
    return flight;
  }

  #giveUp(likeness: string, flight: Flight, reason: Error): void {
    if (flight.begun) return;
    // At once: who asks from now on does not join what comes to nothing.
    this.#land(likeness, flight);
    flight.given.abort(reason);
  }

  #land(likeness: string, flight: Flight): void {
    if (this.#flights.get(likeness) === flight) this.#flights.delete(likeness);
  }
}

const abandoned = () => fault('conflict', 'Who asked has left before the share was to be mounted.');
const overtaken = () =>
  fault('conflict', 'The share was unmounted by force while this request to mount it was waiting.', {
    remedy: 'Ask again if it is to be mounted all the same.',
  });
