import { homedir } from 'node:os';
import type { Terminal } from '#cli/terminal.ts';
import { UsageError, visible } from '#cli/terminal.ts';

/** The terminal of this process. */
export function systemTerminal(signal: AbortSignal): Terminal {
  const { stdin, stdout, stderr } = process;
  return {
    out: (text) => void stdout.write(stdout.isTTY ? visible(text) : text),
    err: (text) => void stderr.write(stderr.isTTY ? visible(text) : text),
    redraw: (line) => void stderr.write(`\r\u001b[2K${visible(line.replaceAll('\n', ' '))}`),
    outIsTty: stdout.isTTY === true,
    errIsTty: stderr.isTTY === true,
    inIsTty: stdin.isTTY === true,
    columns: stdout.columns ?? stderr.columns ?? 80,
    env: process.env,
    home: homedir(),
    cwd: process.cwd(),
    signal,
    readStdin,
    readSecret,
  };
}

async function readStdin(): Promise<string> {
  let text = '';
  process.stdin.setEncoding('utf8');
  for await (const chunk of process.stdin) text += chunk;
  return text;
}

/** Raw mode, so that the terminal echoes nothing; it is put back whatever happens. */
async function readSecret(prompt: string): Promise<string> {
  const { stdin, stderr } = process;
  stderr.write(prompt);
  stdin.setRawMode(true);
  stdin.setEncoding('utf8');
  let line = '';
  try {
    for await (const chunk of stdin) {
      for (const key of String(chunk)) {
        if (key === '\r' || key === '\n') return line;
        if (key === '\u0003' || key === '\u0004') throw new UsageError('no password was entered');
        line = key === '\u007f' ? line.slice(0, -1) : line + key;
      }
    }
    return line;
  } finally {
    stdin.setRawMode(false);
    stdin.pause();
    stderr.write('\n');
  }
}
