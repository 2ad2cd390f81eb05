/** What beosctl needs of the terminal and the process around it; tests pass one of their own. */
export interface Terminal {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** Draws the line on which the cursor of standard error stands anew. */
  readonly redraw: (line: string) => void;
  readonly outIsTty: boolean;
  readonly errIsTty: boolean;
  readonly inIsTty: boolean;
  readonly columns: number;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly home: string;
  readonly cwd: string;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
  /** Standard input to its end. */
  readonly readStdin: () => Promise<string>;
  /** A line from the terminal, without echo. */
  readonly readSecret: (prompt: string) => Promise<string>;
}

/**
 * Text as a screen shall show it: names of shares and sticks, and lines of logs, come from others, and a terminal obeys what
 * stands in them (ECMA-48 control characters, C1 included). Line ends and tabs stay.
 */
export function visible(text: string): string {
  return text.replace(/[^\P{Cc}\n\t]/gu, (control) => {
    const code = control.charCodeAt(0).toString(16).padStart(2, '0');
    return `\\x${code}`;
  });
}

/** The command line is wrong: exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly remedy: string | undefined;

  constructor(message: string, remedy?: string) {
    super(message);
    this.remedy = remedy;
  }
}
