import { Mutex } from '#lib/mutex.ts';

/** One lock a mount: a server that hangs holds up nobody but its own share. */
export class Locks {
  readonly #locks = new Map<string, { readonly mutex: Mutex; users: number }>();

  async run<T>(key: string, task: () => Promise<T> | T): Promise<T> {
    const lock = this.#locks.get(key) ?? { mutex: new Mutex(), users: 0 };
    this.#locks.set(key, lock);
    lock.users++;
    try {
      return await lock.mutex.run(task);
    } finally {
      lock.users--;
      if (lock.users === 0) this.#locks.delete(key);
    }
  }

  /**
   * The lock for as long as the function that comes has not been called. Who holds one takes another only where it is
   * not {@link busy}: then nobody waits for who waits for him.
   */
  acquire(key: string): Promise<() => void> {
    const given = Promise.withResolvers<() => void>();
    const returned = Promise.withResolvers<void>();
    void this.run(key, () => {
      given.resolve(returned.resolve);
      return returned.promise;
    });
    return given.promise;
  }

  /** Somebody is at it, or waits for it. */
  busy(key: string): boolean {
    return this.#locks.has(key);
  }
}
