import { type ExitCode, explainFailure } from '#cli/failure.ts';
import { buildProgram } from '#cli/program.ts';
import type { Terminal } from '#cli/terminal.ts';

/** Runs one command line (without `node` and the script) and returns its exit code. Never throws. */
export async function runBeosctl(
  argv: readonly string[],
  terminal: Terminal,
  version: string,
): Promise<ExitCode> {
  let exitCode: ExitCode = 0;
  const program = buildProgram({
    terminal,
    version,
    exit: (code) => {
      exitCode = code;
    },
  });
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return exitCode;
  } catch (error) {
    const failure = explainFailure(error, terminal.signal);
    terminal.err(failure.text);
    return failure.exitCode;
  }
}
