import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type ClusterReport, ClusterWatch } from '#cluster/kube/cluster-watch.ts';
import type { KubeTimings } from '#cluster/kube/connection.ts';
import type { Identity } from '#cluster/kube/facts.ts';
import { systemClock } from '#host/clock.ts';
import { Files } from '#host/files.ts';
import { testNames } from './kube-world.ts';

export interface Followed {
  readonly watch: ClusterWatch;
  readonly kubeconfig: string;
  readonly reports: readonly ClusterReport[];
  identity: Identity;
  /** The first report, from now or already there, that fits; fails after `withinMs`. */
  until(what: string, fits: (report: ClusterReport) => boolean, withinMs?: number): Promise<ClusterReport>;
  stop(): Promise<void>;
}

/** A ClusterWatch on a kubeconfig of its own, with its reports. */
export function follow(kubeconfig: string, timings?: KubeTimings): Followed {
  const dir = mkdtempSync(join(tmpdir(), 'beosd-follow-'));
  const path = join(dir, 'config');
  writeFileSync(path, kubeconfig);
  const stop = new AbortController();
  const reports: ClusterReport[] = [];
  const waiting = new Set<(report: ClusterReport) => void>();
  const followed = { identity: { hostName: 'node-1', addresses: ['192.168.1.10'] } as Identity };
  const watch = new ClusterWatch({
    clock: systemClock,
    random: Math.random,
    files: new Files(),
    names: testNames,
    kubeconfigs: [path],
    identity: () => followed.identity,
    onReport: (report) => {
      reports.push(report);
      for (const tell of waiting) tell(report);
    },
    ...(timings === undefined ? {} : { timings }),
  });
  const running = watch.run(stop.signal);
  return Object.assign(followed, {
    watch,
    kubeconfig: path,
    reports,
    until: (what: string, fits: (report: ClusterReport) => boolean, withinMs = 10_000) =>
      waitFor(what, fits, withinMs, watch, waiting),
    stop: async () => {
      stop.abort(new Error('the test is over'));
      await running;
      rmSync(dir, { recursive: true, force: true });
    },
  });
}

/** Why a report's truth is old; never the whole report, whose times may hold any digits that a test looks for. */
export const reasonOf = ({ cluster }: ClusterReport): string =>
  (cluster.known ? cluster.stale?.reason : cluster.reason) ?? '';

/** For counters that tell nobody when they change. */
export async function eventually(what: string, check: () => boolean, withinMs = 5000): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (!check()) {
    if (performance.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`);
    await delay(5);
  }
}

function waitFor(
  what: string,
  fits: (report: ClusterReport) => boolean,
  withinMs: number,
  watch: ClusterWatch,
  waiting: Set<(report: ClusterReport) => void>,
): Promise<ClusterReport> {
  if (fits(watch.report)) return Promise.resolve(watch.report);
  const { promise, resolve, reject } = Promise.withResolvers<ClusterReport>();
  const timer = setTimeout(
    () => reject(new Error(`not within ${withinMs} ms: ${what}; last: ${JSON.stringify(watch.report)}`)),
    withinMs,
  );
  const tell = (report: ClusterReport) => {
    if (fits(report)) resolve(report);
  };
  waiting.add(tell);
  return promise.finally(() => {
    clearTimeout(timer);
    waiting.delete(tell);
  });
}
