#!/usr/bin/env node
import { runBeosctl } from '#cli/main.ts';
import { systemTerminal } from '#cli/system-terminal.ts';
import manifest from '../package.json' with { type: 'json' };

const interrupted = new AbortController();
process.once('SIGINT', () => interrupted.abort(new Error('Ctrl-C')));
// A reader that goes away (`beosctl events | head`) ends us, as quietly as SIGPIPE ends other programs.
process.stdout.on('error', () => process.exit(128 + 13));
runBeosctl(process.argv.slice(2), systemTerminal(interrupted.signal), manifest.version).then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    process.stderr.write(`beosctl: ${error instanceof Error ? error.stack : String(error)}\n`);
    process.exitCode = 1;
  },
);
