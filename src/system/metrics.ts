import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { JobState } from '#api/shapes.ts';
import type { Files } from '#host/files.ts';
import type { Snapshot } from '#state/observatory.ts';

/** Numbers that other parts of the daemon keep. */
export interface Tallies {
  /** Of each operation its newest job counts. */
  readonly jobs: Readonly<Partial<Record<JobState, number>>>;
  readonly lastEventId: number;
  /** Children that this daemon has started since it runs. */
  readonly processesStarted: number;
}

export interface ProcessReading {
  readonly rssBytes: number;
  readonly heapUsedBytes: number;
  readonly openFds: number | undefined;
  readonly cpuSeconds: number;
  readonly uptimeSeconds: number;
  /** How long one turn of the event loop took just now. */
  readonly loopLagSeconds: number;
  /** Share of time that the event loop was busy since the reading before, 0 to 1. */
  readonly loopUtilisation: number;
}

/** The daemon's own use of the machine. Read on demand: a sampling histogram would wake an idle daemon all the time. */
export class ProcessMeter {
  readonly #files: Files;
  #loop = performance.eventLoopUtilization();

  constructor(files: Files) {
    this.#files = files;
  }

  async read(): Promise<ProcessReading> {
    const askedAt = performance.now();
    await nextTurn();
    const loopLagSeconds = (performance.now() - askedAt) / 1000;
    const loop = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(loop, this.#loop);
    this.#loop = loop;
    const { rss, heapUsed } = process.memoryUsage();
    const { user, system } = process.cpuUsage();
    return {
      rssBytes: rss,
      heapUsedBytes: heapUsed,
      openFds: this.#openFds(),
      cpuSeconds: (user + system) / 1e6,
      uptimeSeconds: process.uptime(),
      loopLagSeconds,
      loopUtilisation: Number.isFinite(utilization) ? utilization : 0,
    };
  }

  #openFds(): number | undefined {
    try {
      return this.#files.list('/proc/self/fd').length - 1; // the one that lists them
    } catch {
      return undefined;
    }
  }
}

/** Prometheus text exposition, version 0.0.4. Pure. */
export function renderMetrics(snapshot: Snapshot, tallies: Tallies, reading: ProcessReading): string {
  const { status, conditions, facts } = snapshot;
  const jobs = Object.entries(tallies.jobs).map(([state, count]) => sample({ state }, count));
  const codes = [...new Set(conditions.map(({ code }) => code))].map((code) => sample({ code }, 1));
  const families = [
    family('beosd_info', 'gauge', 'What runs here.', [sample({ version: status.beosdVersion }, 1)]),
    family('beosd_node_state', 'gauge', 'The state of the node.', [sample({ state: snapshot.state }, 1)]),
    family('beosd_conditions', 'gauge', 'Problems that the node has now.', codes),
    family('beosd_jobs', 'gauge', 'The newest job of each operation, by state.', jobs),
    family('beosd_last_event_id', 'counter', 'Id of the last event.', [sample({}, tallies.lastEventId)]),
    family('beosd_processes_started_total', 'counter', 'Children started.', [
      sample({}, tallies.processesStarted),
    ]),
    family('beosd_store_durable', 'gauge', '1 while the store keeps what it is told.', [
      sample({}, facts.store.durable ? 1 : 0),
    ]),
    family('beosd_event_loop_lag_seconds', 'gauge', 'Duration of one turn of the event loop.', [
      sample({}, reading.loopLagSeconds),
    ]),
    family('beosd_event_loop_utilisation_ratio', 'gauge', 'Share of busy time since the last scrape.', [
      sample({}, reading.loopUtilisation),
    ]),
    family('beosd_heap_used_bytes', 'gauge', 'JavaScript heap in use.', [sample({}, reading.heapUsedBytes)]),
    family('process_resident_memory_bytes', 'gauge', 'Resident memory.', [sample({}, reading.rssBytes)]),
    family('process_cpu_seconds_total', 'counter', 'Processor time.', [sample({}, reading.cpuSeconds)]),
    family('process_uptime_seconds', 'gauge', 'Age of the daemon.', [sample({}, reading.uptimeSeconds)]),
    family(
      'process_open_fds',
      'gauge',
      'Open file descriptors.',
      reading.openFds === undefined ? [] : [sample({}, reading.openFds)],
    ),
  ];
  return families.join('');
}

interface Sample {
  readonly labels: string;
  readonly value: number;
}

function sample(labels: Readonly<Record<string, string>>, value: number): Sample {
  const pairs = Object.entries(labels).map(([name, text]) => `${name}="${escaped(text)}"`);
  return { labels: pairs.length === 0 ? '' : `{${pairs.join(',')}}`, value };
}

function escaped(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

function family(name: string, type: 'gauge' | 'counter', help: string, samples: readonly Sample[]): string {
  const lines = samples.map(({ labels, value }) => `${name}${labels} ${value}\n`);
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join('')}`;
}
