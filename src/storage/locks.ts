/** How a lock is waited for. */
export interface LockWait {
  /** Who waits leaves when it is aborted, and is told its reason. */
  readonly signal?: AbortSignal;
  /** Before all who do not say so. */
  readonly first?: boolean;
}

interface Waiter {
  readonly first: boolean;
  readonly enter: () => void;
}

/** One lock a mount: a server that hangs holds up nobody but its own share. In the order of arrival, unless somebody is to be first. */
export class Locks {
  /** Who waits for each lock that somebody has. */
  readonly #waiting = new Map<string, Waiter[]>();

  async run<T>(key: string, task: () => Promise<T> | T, wait: LockWait = {}): Promise<T> {
    const release = await this.acquire(key, wait);
    try {
      wait.signal?.throwIfAborted();
      return await task();
    } finally {
      release();
    }
  }

  /**
   * The lock for as long as the function that comes has not been called. Who holds one takes another only where it is
   * not {@link busy}: then nobody waits for who waits for him.
   */
  acquire(key: string, { signal, first = false }: LockWait = {}): Promise<() => void> {
    if (signal?.aborted === true) return Promise.reject(signal.reason);
    const queue = this.#waiting.get(key);
    if (queue === undefined) {
      const free: Waiter[] = [];
      this.#waiting.set(key, free);
      return Promise.resolve(this.#releaseOf(key, free));
    }
    const { promise, resolve, reject } = Promise.withResolvers<() => void>();
    const leave = () => {
      queue.splice(queue.indexOf(waiter), 1);
      reject(signal?.reason);
    };
    const enter = () => {
      signal?.removeEventListener('abort', leave);
      resolve(this.#releaseOf(key, queue));
    };
    const waiter: Waiter = { first, enter };
    signal?.addEventListener('abort', leave, { once: true });
    const after = first ? queue.findIndex((each) => !each.first) : -1;
    queue.splice(after < 0 ? queue.length : after, 0, waiter);
    return promise;
  }

  /** Somebody is at it, or waits for it. */
  busy(key: string): boolean {
    return this.#waiting.has(key);
  }

  #releaseOf(key: string, queue: Waiter[]): () => void {
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      const next = queue.shift();
      if (next === undefined) this.#waiting.delete(key);
      else next.enter();
    };
  }
}
