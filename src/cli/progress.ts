import type { Job } from '#api/shapes.ts';
import { percentText } from '#cli/output.ts';
import type { Terminal } from '#cli/terminal.ts';

const barWidth = 24;

/**
 * Shows a job on standard error: one line that is drawn anew on a terminal, else a line for each new phase, state or
 * ten percent, so that a log stays short.
 */
export class JobProgress {
  readonly #terminal: Pick<Terminal, 'err' | 'redraw' | 'errIsTty' | 'columns'>;
  #last = '';
  #drawn = false;

  constructor(terminal: Pick<Terminal, 'err' | 'redraw' | 'errIsTty' | 'columns'>) {
    this.#terminal = terminal;
  }

  show(job: Job): void {
    if (this.#terminal.errIsTty) {
      const line = `${bar(job.percent)} ${headline(job)}`.slice(0, this.#terminal.columns - 1);
      this.#terminal.redraw(line);
      this.#drawn = true;
      return;
    }
    const step = `${job.state} ${job.phase} ${Math.floor((job.percent ?? 0) / 10)}`;
    if (step === this.#last) return;
    this.#last = step;
    this.#terminal.err(`${headline(job)}\n`);
  }

  /** The connection was lost and is sought again. */
  interrupted(reason: string, retryMs: number): void {
    const text = `${reason}; trying again in ${(retryMs / 1000).toFixed(1)} s`;
    if (this.#terminal.errIsTty) this.#terminal.redraw(text.slice(0, this.#terminal.columns - 1));
    else if (this.#last !== 'lost') this.#terminal.err(`${text}\n`);
    this.#last = 'lost';
    this.#drawn = this.#terminal.errIsTty;
  }

  /** Ends the line that was being drawn. */
  done(): void {
    if (this.#drawn) this.#terminal.err('\n');
    this.#drawn = false;
  }
}

function headline(job: Job): string {
  const phase = job.phases.find((each) => each.name === job.phase);
  const doing = phase?.message ? `${phase.name}: ${phase.message}` : (job.phase ?? '');
  return [percentText(job.percent).padStart(4), job.operation, job.state, doing].filter(Boolean).join('  ');
}

function bar(percent: number | null): string {
  const full = Math.round(((percent ?? 0) / 100) * barWidth);
  return `[${'#'.repeat(full)}${(percent === null ? '?' : '-').repeat(barWidth - full)}]`;
}
