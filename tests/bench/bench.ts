import { setTimeout as idle } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { ask, cpuMsOf, memoryOf, startDaemonProcess, startedBy } from '../support/daemon-process.ts';
import { type Load, load, mixed, startBare } from './measure.ts';

/**
 * `npm run bench`: start, memory, idle cost, throughput and latency of the bundle beside a bare node:http server, in
 * one run on one machine; exit code 1 when a target was missed. Figures go to docs/performance.md by hand; ratios are what
 * travels between machines.
 */
const { values } = parseArgs({
  options: { idle: { type: 'string', default: '60' }, load: { type: 'string', default: '8' } },
});
const idleMs = Number(values.idle) * 1000;
const loadMs = Number(values.load) * 1000;

function print(
  name: string,
  value: number,
  unit: string,
  target?: { readonly text: string; readonly met: boolean },
): void {
  if (target?.met === false) process.exitCode = 1;
  const verdict = target === undefined ? '' : `   target ${target.text}: ${target.met ? 'met' : 'MISSED'}`;
  process.stdout.write(
    `${name.padEnd(38)} ${value.toFixed(value < 100 ? 2 : 0).padStart(9)} ${unit}${verdict}\n`,
  );
}

const starts: number[] = [];
for (let i = 0; i < 10; i++) {
  const began = performance.now();
  const daemon = await startDaemonProcess();
  await ask(daemon.port, { path: '/system/status' });
  starts.push(performance.now() - began);
  await daemon.stop();
}
const bareStarts: number[] = [];
for (let i = 0; i < 5; i++) {
  const bare = await startBare(1600);
  bareStarts.push(bare.startMs);
  await bare.stop();
}
const best = Math.min(...starts);
print('start to first status, best of 10', best, 'ms', { text: '<= 450 ms', met: best <= 450 });
print('start of the bare server, best of 5', Math.min(...bareStarts), 'ms');

const daemon = await startDaemonProcess();
const { pid } = daemon;
await idle(3000);
const before = { cpu: cpuMsOf(pid), started: await startedBy(daemon.port) };
await idle(idleMs);
const after = { cpu: cpuMsOf(pid), started: await startedBy(daemon.port) };
const memory = memoryOf(pid);
const percent = ((after.cpu - before.cpu) / idleMs) * 100;
const started = after.started - before.started;
print(`processes started in ${values.idle} s idle`, started, '', { text: '0', met: started === 0 });
print('CPU while idle', percent, '% of a core', { text: '< 0.5 %', met: percent < 0.5 });
print('RSS after idle', memory.rssKiB / 1024, 'MB');
const privateMb = memory.privateKiB / 1024;
print('private memory after idle', privateMb, 'MB', { text: '<= 55 MB', met: privateMb <= 55 });

const { text } = await ask(daemon.port, { path: '/system/status' });
const bare = await startBare(Buffer.byteLength(text));
await load(bare.port, '/', 1000);
await load(daemon.port, '/system/status', 1000);
const rounds: { readonly bare: Load; readonly ours: Load }[] = [];
for (let i = 0; i < 7; i++) {
  rounds.push({
    bare: await load(bare.port, '/', loadMs / 4),
    ours: await load(daemon.port, '/system/status', loadMs / 4),
  });
}
/** The middle one: what else the machine does for a moment hits one round, and one side of it. */
const median = (figure: (round: (typeof rounds)[number]) => number) =>
  rounds.map(figure).toSorted((a, b) => a - b)[Math.floor(rounds.length / 2)] ?? Number.NaN;
print(
  'status throughput, 50 connections',
  median(({ ours }) => ours.perSecond),
  'req/s',
);
print(
  'bare node:http',
  median((round) => round.bare.perSecond),
  'req/s',
);
const rateRatio = median((round) => round.ours.perSecond / round.bare.perSecond);
print('throughput ratio', rateRatio, 'x', { text: '>= 0.7x', met: rateRatio >= 0.7 });
print(
  'status p99',
  median(({ ours }) => ours.p99),
  'ms',
);
print(
  'bare p99',
  median((round) => round.bare.p99),
  'ms',
);
const p99Ratio = median((round) => round.ours.p99 / round.bare.p99);
print('p99 ratio', p99Ratio, 'x', { text: '<= 1.5x', met: p99Ratio <= 1.5 });
await bare.stop();
for (let thousand = 0; thousand < 50; thousand++) await mixed(daemon.port, 1000);
print('private memory after 50,000 requests', memoryOf(pid).privateKiB / 1024, 'MB');
await daemon.stop();
