// Runs in the guest beside the daemon, and tells in lines of JSON what it sees, until it is stopped.
// usage: shares-inside.ts pace | threads PID | needles FILE
import { readdirSync, readFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

const socketPath = '/run/beosd/beosd.sock';
const agent = new Agent({ keepAlive: true, maxSockets: 1 });

function tell(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** What a file says now; '' when it is gone. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function ask(path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, path, agent, headers: { host: '127.0.0.1' } }, (answer) => {
      const parts: Buffer[] = [];
      answer.on('data', (part: Buffer) => parts.push(part));
      answer.once('error', reject);
      answer.once('end', () => {
        if (answer.statusCode === 200) resolve(Buffer.concat(parts).toString('utf8'));
        else reject(new Error(`${path}: ${answer.statusCode}`));
      });
    });
    sent.once('error', reject);
    sent.end();
  });
}

/** Asks the API all the time, at the pace of a watchful client: how long each answer took, and what is invalid when. */
async function pace(): Promise<never> {
  const paths = ['/system/mounted-path', '/system/status', '/system/conditions'];
  let before = '';
  let times: [path: string, ms: number][] = [];
  let phase = '';
  for (;;) {
    for (const path of paths) {
      const began = performance.now();
      const text = await ask(path);
      times.push([path, performance.now() - began]);
      if (path === '/system/mounted-path') before = tellChange(before, text);
      await sleep(10);
    }
    const now = textOf('/run/lab/phase').trim();
    if (now === phase && times.length < 60) continue;
    tell({ kind: 'times', phase, times });
    [phase, times] = [now, []];
  }
}

function tellChange(before: string, text: string): string {
  const rows = (JSON.parse(text) as { data: { path: string; invalid: boolean }[] }).data;
  const invalid = rows.filter((row) => row.invalid).map((row) => row.path);
  const now = JSON.stringify([rows.length, invalid]);
  if (now !== before) tell({ kind: 'invalid', at: Date.now(), rows: rows.length, invalid });
  return now;
}

/** Looks at every thread of a process all the time, and tells of each that waits uninterruptibly. */
async function threads(pid: string): Promise<never> {
  const waiting = new Map<string, number>();
  for (let looks = 1; ; looks++) {
    const ids = readdirSync(`/proc/${pid}/task`);
    for (const id of ids) {
      const task = `/proc/${pid}/task/${id}`;
      const stat = textOf(`${task}/stat`);
      if (stat.slice(stat.lastIndexOf(')') + 2)[0] !== 'D') {
        waiting.delete(id);
        continue;
      }
      const [wchan, stack] = [textOf(`${task}/wchan`), textOf(`${task}/stack`)];
      const [at, thread] = [Date.now(), `${id} ${textOf(`${task}/comm`).trim()}`];
      waiting.set(id, waiting.get(id) ?? at);
      tell({ kind: 'waits', at, since: waiting.get(id), thread, wchan, stack });
    }
    if (looks % 50 === 0) tell({ kind: 'looks', looks: 50, threads: ids.length });
    await sleep(20);
  }
}

/** Searches arguments and environment of every process, over and over; a process lives but a moment. */
async function needles(file: string): Promise<never> {
  const needle = readFileSync(file, 'utf8');
  const seen = new Set<string>();
  for (let rounds = 1; ; rounds++) {
    for (const id of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
      const argv = textOf(`/proc/${id}/cmdline`);
      const name = argv.slice(0, argv.indexOf('\0'));
      if (!seen.has(name)) tell({ kind: 'saw', name });
      seen.add(name);
      for (const [where, text] of [
        ['arguments', argv],
        ['environment', textOf(`/proc/${id}/environ`)],
      ] as const)
        if (text.includes(needle)) tell({ kind: 'found', name, where });
    }
    if (rounds % 20 === 0) tell({ kind: 'rounds', rounds: 20 });
    await sleep(0);
  }
}

const [mode, what = ''] = process.argv.slice(2);
if (mode === 'pace') await pace();
else if (mode === 'threads') await threads(what);
else await needles(what);
