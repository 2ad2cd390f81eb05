import type { Terminal } from '#cli/terminal.ts';

/** A terminal that remembers what was written to it. */
export class FakeTerminal implements Terminal {
  stdout = '';
  stderr = '';
  outIsTty = false;
  errIsTty = false;
  inIsTty = false;
  columns = 100;
  env: Record<string, string | undefined> = {};
  home = '/nonexistent';
  cwd = '/nonexistent';
  /** What standard input holds, and what a person types at a prompt. */
  input = '';
  prompts: string[] = [];
  readonly controller = new AbortController();
  readonly signal = this.controller.signal;

  readonly out = (text: string) => {
    this.stdout += text;
  };
  readonly err = (text: string) => {
    this.stderr += text;
  };
  readonly redraw = (line: string) => {
    this.stderr += `\r\u001b[2K${line}`;
  };
  readonly readStdin = () => Promise.resolve(this.input);
  readonly readSecret = (prompt: string) => {
    this.prompts.push(prompt);
    return Promise.resolve(this.input);
  };
}
