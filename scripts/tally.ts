import { relative } from 'node:path';
import type { TestEvent } from 'node:test/reporters';

/** What a run came to, counted from the events of node:test. */
export class Tally {
  passed = 0;
  failed = 0;
  readonly skipped: string[] = [];
  readonly #root: string;
  readonly #print: (text: string) => void;
  /** The last of what a file wrote to standard error: the reason when the file as a whole fails. */
  readonly #written = new Map<string, string>();

  constructor(root: string, print: (text: string) => void) {
    this.#root = root;
    this.#print = print;
  }

  /**
   * Counts tests, and of suites and files what their tests do not tell: one that is skipped as a whole (its tests are
   * never heard of), one whose own code or hook failed, a file without a single test.
   */
  hear(event: TestEvent): void {
    if (event.type === 'test:stderr') this.#keep(event.data.file, event.data.message);
    if (event.type !== 'test:pass' && event.type !== 'test:fail') return;
    const { data } = event;
    const isSuite = data.details.type === 'suite';
    const where = `${relative(this.#root, data.file ?? '')}: ${data.name}`;
    if (data.skip !== undefined && data.skip !== false) {
      const reason = data.skip === true ? 'no reason given' : data.skip;
      this.skipped.push(`${where}${isSuite ? ', all of it' : ''} (${reason})`);
    } else if (event.type === 'test:fail') {
      const { error } = event.data.details;
      if (!isSuite || failureOf(error) !== 'subtestsFailed') this.fail(where, this.#reason(data, error));
    } else if (!isSuite && data.name === data.file) {
      this.fail(where, 'a file without a single test');
    } else if (!isSuite) {
      this.passed++;
    }
  }

  fail(where: string, reason: string): void {
    this.failed++;
    this.#print(`\nFAILED ${where}\n${reason}\n`);
  }

  #reason(data: { name: string; file?: string | undefined }, error: Error): string {
    const written = data.name === data.file ? (this.#written.get(data.file) ?? '') : '';
    return `${describe(error)}\n${written}`.trimEnd();
  }

  #keep(file: string, message: string): void {
    this.#written.set(file, `${this.#written.get(file) ?? ''}${message}`.slice(-4000));
  }
}

function failureOf(error: Error): unknown {
  return 'failureType' in error ? error.failureType : undefined;
}

function describe(error: Error): string {
  const { cause } = error;
  return cause instanceof Error ? (cause.stack ?? cause.message) : String(cause ?? error.message);
}
