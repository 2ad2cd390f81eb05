/** The daemon was killed: what it would have done next, it never does. */
export class Dead extends Error {
  override readonly name = 'Dead';
}

/**
 * One run of a daemon in a model test. Every touch of the machine passes {@link guard}, which is where it dies, and where
 * others get in between.
 */
export class Life {
  #callsLeft = Number.POSITIVE_INFINITY;
  #armed: { readonly call: string; readonly act: () => void } | undefined;

  get isOver(): boolean {
    return this.#callsLeft <= 0;
  }

  /** Of all that it still does, these many calls happen. */
  endAfter(calls: number): void {
    if (!this.isOver) this.#callsLeft = calls + 1;
  }

  /** The next call of this name happens; nothing after it does. */
  endAt(call: string): void {
    this.before(call, () => {
      this.#callsLeft = 0;
    });
  }

  /** Right before the next call of this name somebody else acts. */
  before(call: string, act: () => void): void {
    if (!this.isOver) this.#armed = { call, act };
  }

  end(): void {
    this.#callsLeft = 0;
  }

  readonly guard = (call: string): void => {
    this.#callsLeft--;
    if (this.isOver) throw new Dead('the daemon was killed');
    if (this.#armed?.call !== call) return;
    const { act } = this.#armed;
    this.#armed = undefined;
    act();
  };
}
