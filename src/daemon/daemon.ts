import { callerLabel } from '#api/caller.ts';
import { type Access, openAccess, tellOwner } from '#daemon/access.ts';
import { AuditDoor } from '#daemon/audit-door.ts';
import { closeMs, isOverWithin } from '#daemon/closing.ts';
import { openCluster, podNameOf } from '#daemon/cluster.ts';
import type { Config } from '#daemon/config.ts';
import { imagesOfPods, lookAfter, openContainers } from '#daemon/containers.ts';
import { type Core, type DaemonPorts, openCore } from '#daemon/core.ts';
import { allHandlers, type HandlerParts } from '#daemon/handlers.ts';
import { version } from '#daemon/identity.ts';
import { rememberedNames } from '#daemon/own-names.ts';
import { furnishSandbox } from '#daemon/paths.ts';
import { clearSocket, socketPath } from '#daemon/socket.ts';
import { Sources } from '#daemon/sources.ts';
import { Volumes } from '#daemon/volumes.ts';
import { Work } from '#daemon/work.ts';
import { Pipeline } from '#http/pipeline.ts';
import { HttpEdge } from '#http/server.ts';
import { Once } from '#jobs/once.ts';
import { currentPhase, type JobRecord, toWire } from '#jobs/record.ts';
import { JobRunner } from '#jobs/runner.ts';
import { causeChain } from '#lib/fault.ts';
import { refusal } from '#state/admit.ts';
import type { JobFacts } from '#state/facts.ts';
import type { Observatory } from '#state/observatory.ts';

export interface Daemon {
  readonly port: number;
  /** Where root talks to it. */
  readonly socket: string;
  readonly observatory: Observatory;
  readonly runner: JobRunner;
  /** Lets go of everything in reverse order, within {@link closeMs}; jobs go on with the next start. */
  close(): Promise<void>;
}

/**
 * Puts the daemon together and starts it. By the time it resolves, the API answers and its first status is true as far
 * as files can tell; the network is read right after. Nothing here waits for anything but the listeners.
 *
 * @throws Error when no listener can be had, or another daemon answers on the socket
 */
export async function startDaemon(config: Config, ports: DaemonPorts): Promise<Daemon> {
  const core = openCore(config, ports);
  const { observatory, log, bus, onError } = core;
  if (config.sandbox) furnish(core);
  const sources = new Sources(core);
  const cluster = openCluster(core);
  const { workloads } = cluster;
  const access = openAccess({ ...core, workloads, signal: core.stopping.signal });
  const work = new Work({ ...core, owners: access.owners, bindHost: (ip) => sources.hostsFile.bind(ip) });
  const volumes = new Volumes(core, { podName: (uid) => podNameOf(cluster.watch, uid) });
  const runner = openRunner(core, [...work.definitions, ...volumes.definitions]);
  const containers = openContainers(core, { podImages: () => imagesOfPods(cluster.watch, core.clock) });
  const http = openHttp({ core, access, sources, work, volumes, runner, containers });
  tellJobs(runner, observatory); // what ended before this start counts too: a failed install stays failed
  sources.start();
  tellOwner(access.owners, observatory);
  core.storeWatch.look();
  const socket = socketPath(config.socket, process.pid);
  await clearSocket(core.files, socket);
  const port = await listen(http, config, socket);
  sweep(core, work);
  takeUp(runner, onError);
  // A disk that could not be read may hold open jobs, and disks and shares that were mounted.
  core.storeWatch.onRecovered(() => takeUp(runner, onError));
  core.storeWatch.onRecovered(() => volumes.recovered());
  lookAfter(containers, core);
  bus.onAvailability((available, reason) => observatory.update({ bus: { available, reason } }));
  sources.listen().catch((error: unknown) => onError('the network source', error));
  cluster.start(core.stopping.signal);
  volumes.start().catch((error: unknown) => onError('storage', error));
  log.info({ version, port, sandbox: config.sandbox, profile: config.profile }, 'beosd serves');
  const letGo = async () => {
    await Promise.all([http.close(), runner.stop()]);
    containers.close();
    await volumes.close();
    await bus.close();
    core.store.close();
  };
  const close = async () => {
    core.stopping.abort();
    sources.stop();
    // A format, a mount or an installer that does not end may take minutes; all of them stand being left at any moment.
    const isOver = await isOverWithin(closeMs, core.clock, letGo());
    if (isOver) log.info({}, 'beosd has stopped');
    else log.warn({}, 'beosd stops with work under way, which the next start goes on with');
  };
  return { port, socket, observatory, runner, close };
}

function furnish({ files, paths, onError }: Core): void {
  try {
    furnishSandbox(files, paths.hostsFile);
  } catch (error) {
    onError('furnishing the sandbox', error); // a full disk: without a hosts file of its own it serves all the same
  }
}

/** What is left of jobs that are over; not while the journal itself was lost, as then nobody can say which are. */
function sweep({ store, journal, onError }: Core, work: Work): void {
  if (store.health.historyLostAt !== undefined) return;
  try {
    work.sweep(journal.open());
  } catch (error) {
    onError('sweeping what earlier jobs have left', error); // a foreign folder, a read-only disk: no reason not to serve
  }
}

/** A disk that fails again at this very moment is no reason to end; when it is back, they are taken up. */
function takeUp(runner: JobRunner, onError: Core['onError']): void {
  try {
    runner.resume();
  } catch (error) {
    onError('taking up open jobs', error);
  }
}

function openRunner(core: Core, definitions: Work['definitions']): JobRunner {
  const { journal, clock, observatory, events, log } = core;
  const runner: JobRunner = new JobRunner({
    journal,
    clock,
    definitions,
    admit: (operation, caller) => refusal(operation, caller, observatory.current.state),
    onChange: (job, what) => {
      tellJobs(runner, observatory);
      events.publish('job', { ...toWire(job) });
      if (what === 'state' && job.finishedAt !== null) auditEnd(core, job);
    },
    onInternal: (jobId, error) => log.error({ jobId, cause: causeChain(error) }, 'a job met a fault of ours'),
  });
  return runner;
}

function tellJobs(runner: JobRunner, observatory: Observatory): void {
  observatory.setJobs(runner.newestOfEach().map(toFacts));
}

function openHttp(parts: HandlerParts): HttpEdge {
  const { core, access, runner } = parts;
  const { observatory, clock, idempotency, storeWatch, log, profile, config } = core;
  const logInternal = (requestId: string, operation: string, error: unknown) =>
    log.error({ requestId, operation, cause: causeChain(error) }, 'a fault of ours');
  const audits = new AuditDoor(core);
  const pipeline = new Pipeline({
    handlers: allHandlers(parts),
    classify: (request) => classify(access, request),
    state: () => observatory.current.state,
    once: new Once({
      idempotency,
      clock,
      hashKey: core.idempotencyKey,
      startedSince: (operation, caller, at) => startedSince(runner, operation, caller, at),
    }),
    audit: (line) => {
      audits.record(line);
      storeWatch.look();
    },
    logInternal,
  });
  return new HttpEdge({
    pipeline,
    ownNames: rememberedNames(() => observatory.current.facts, profile.mdns, config.file.hostNames ?? []),
    statusBody: () => observatory.current.body,
    logInternal,
  });
}

const classify = (
  { authenticator }: Access,
  request: Parameters<Access['authenticator']['classify']>[0] & { signal: AbortSignal },
) => authenticator.classify(request, request.signal);

async function listen(http: HttpEdge, config: Config, socket: string): Promise<number> {
  let port = config.port;
  for (const host of config.listen) {
    try {
      port = await http.listen({ host, port });
    } catch (error) {
      // A machine without IPv6 is no error (contract §10).
      if (!(host.includes(':') && config.listen.length > 1 && isNoSuchAddress(error))) throw error;
    }
  }
  // Who may open the socket is decided by its mode, from the moment it exists: contract §1 wants 0600.
  const before = process.umask(0o177);
  try {
    await http.listen({ socket });
  } finally {
    process.umask(before);
  }
  return port;
}

function isNoSuchAddress(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return ['EAFNOSUPPORT', 'EADDRNOTAVAIL', 'EINVAL'].includes(code);
}

/** `order`: the journal gives the newest job of each operation, oldest first. */
function toFacts(job: JobRecord, order: number): JobFacts {
  const { boot } = job.checkpoint;
  return {
    operation: job.operation,
    state: job.state,
    phase: currentPhase(job)?.name ?? null,
    percent: job.shownPercent,
    error: job.error?.message ?? job.error?.code,
    createdAt: job.createdAt,
    finishedAt: job.finishedAt ?? undefined,
    ...(typeof boot === 'string' ? { boot } : {}),
    order,
  };
}

function startedSince(runner: JobRunner, operation: string, caller: string, at: number): unknown {
  // The signer of an install is called its owner afterwards: the name decides, not the class before it.
  const who = (label: string) => label.slice(label.indexOf(' ') + 1);
  const job = runner
    .list(50)
    .find((each) => each.operation === operation && who(each.caller) === who(caller));
  return job !== undefined && Date.parse(job.createdAt) >= at ? { jobId: job.id } : undefined;
}

function auditEnd({ audit, clock }: Core, job: JobRecord): void {
  audit.append({
    at: clock.now(),
    caller: callerLabel(job.caller),
    proof: job.caller.proof,
    operation: job.operation,
    outcome: job.state,
    jobId: job.id,
    ...(job.error === null ? {} : { detail: job.error.code }),
  });
}
