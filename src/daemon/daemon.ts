import { type Caller, callerLabel } from '#api/caller.ts';
import type { Handlers } from '#api/operations.ts';
import { authHandlers } from '#auth/handlers.ts';
import { noWorkloads } from '#auth/workloads.ts';
import { openAccess, tellOwner } from '#daemon/access.ts';
import { announce } from '#daemon/announce.ts';
import type { Config } from '#daemon/config.ts';
import { nodeIdOf, nodeSecret, version } from '#daemon/identity.ts';
import type { Log } from '#daemon/log.ts';
import { ownNames } from '#daemon/own-names.ts';
import { furnishSandbox, pathsOf } from '#daemon/paths.ts';
import { profiles } from '#daemon/profiles.ts';
import { clearSocket, socketPath } from '#daemon/socket.ts';
import { Sources } from '#daemon/sources.ts';
import { StoreWatch } from '#daemon/store-watch.ts';
import { Work } from '#daemon/work.ts';
import { MessageBusPort, systemBusAddress } from '#host/bus.ts';
import type { Clock } from '#host/clock.ts';
import type { Exec } from '#host/exec.ts';
import type { Files } from '#host/files.ts';
import { openApiHandlers } from '#http/openapi-handlers.ts';
import { type AuditLine, Pipeline } from '#http/pipeline.ts';
import { HttpEdge } from '#http/server.ts';
import { EventHub } from '#jobs/events.ts';
import { jobHandlers } from '#jobs/handlers.ts';
import { Once } from '#jobs/once.ts';
import { currentPhase, type JobRecord, toWire } from '#jobs/record.ts';
import { JobRunner } from '#jobs/runner.ts';
import { causeChain } from '#lib/fault.ts';
import { Connectivity } from '#network/connectivity.ts';
import { networkHandlers } from '#network/handlers.ts';
import { LinkRates } from '#network/rates.ts';
import { refusal } from '#state/admit.ts';
import type { JobFacts } from '#state/facts.ts';
import { Observatory } from '#state/observatory.ts';
import { AuditLog } from '#store/audit.ts';
import { EventLog } from '#store/events.ts';
import { Idempotency } from '#store/idempotency.ts';
import { JobJournal } from '#store/jobs.ts';
import { KeyValues } from '#store/kv.ts';
import { Store } from '#store/store.ts';
import { systemHandlers } from '#system/handlers.ts';
import { ProcessMeter } from '#system/metrics.ts';

/** The doors to the machine, as the program or a test opens them. */
export interface DaemonPorts {
  readonly clock: Clock;
  readonly exec: Exec;
  readonly files: Files;
  readonly log: Log;
  readonly env: NodeJS.ProcessEnv;
}

export interface Daemon {
  readonly port: number;
  /** Where root talks to it. */
  readonly socket: string;
  readonly observatory: Observatory;
  readonly runner: JobRunner;
  /** Lets go of everything in reverse order; jobs go on with the next start. */
  close(): Promise<void>;
}

/**
 * Puts the daemon together and starts it. By the time it resolves, the API answers and its first status is true as far
 * as files can tell; the network is read right after. Nothing here waits for anything but the listeners.
 */
export async function startDaemon(config: Config, ports: DaemonPorts): Promise<Daemon> {
  const parts = assemble(config, ports);
  const { sources, runner, http, observatory, access, log } = parts;
  sources.start();
  tellOwner(access.owners, observatory);
  const socket = socketPath(config.socket, process.pid);
  await clearSocket(ports.files, socket);
  const port = await listen(http, config, socket);
  parts.work.sweep(parts.journal.open());
  runner.resume();
  sources
    .listen()
    .catch((error: unknown) => log.error({ cause: causeChain(error) }, 'network source failed'));
  log.info({ version, port, sandbox: config.sandbox, profile: config.profile }, 'beosd serves');
  return { port, socket, observatory, runner, close: () => close(parts) };
}

type Parts = ReturnType<typeof assemble>;

function assemble(config: Config, ports: DaemonPorts) {
  const { clock, exec, files, log, env } = ports;
  const stopping = new AbortController();
  const profile = profiles[config.profile];
  const paths = pathsOf(config, profile, files);
  if (config.sandbox) furnishSandbox(files, paths.hostsFile);
  const store = new Store(config.dataDir, clock.now);
  const kv = new KeyValues(store);
  const audit = new AuditLog(store);
  const nodeId = nodeIdOf(files, kv, config.sandbox);
  const { frpServer, frpEnable, containerMode } = config;
  const observatory = new Observatory({
    clock,
    version,
    nodeId,
    profile: {
      defaultFrpServer: frpServer,
      frpEnable,
      ...(containerMode === undefined ? {} : { containerMode }),
    },
    onListenerError: (error) => log.error({ cause: causeChain(error) }, 'a listener of the state failed'),
  });
  const storeWatch = new StoreWatch({ store, observatory, clock, signal: stopping.signal });
  const bus = new MessageBusPort(systemBusAddress(env), clock);
  const onError = (what: string, error: unknown) => log.error({ cause: causeChain(error) }, `${what} failed`);
  const sources = new Sources({ config, profile, paths, observatory, clock, exec, files, onError });
  const { signal } = stopping;
  const access = openAccess({
    ...{ config, profile, clock, files, store, audit, observatory, nodeId, signal },
    workloads: noWorkloads,
  });
  const eventLog = new EventLog(store);
  const events = new EventHub({
    log: eventLog,
    clock,
    snapshot: () => ({ status: observatory.current.status }),
  });
  observatory.onChange((now, before) => {
    if (now.state !== before.state) log.info({ state: now.state, because: now.because }, 'state changed');
    announce(events, now, before);
    storeWatch.look();
  });
  const journal = new JobJournal(store);
  const work = new Work({
    config,
    profile,
    paths,
    clock,
    files,
    bus,
    exec,
    owners: access.owners,
    observatory,
    env,
    bindHost: (ip) => sources.hostsFile.bind(ip),
  });
  const runner: JobRunner = new JobRunner({
    journal,
    clock,
    definitions: work.definitions,
    admit: (operation, caller) => refusal(operation, caller, observatory.current.state),
    onChange: (job, what) => {
      observatory.setJobs(runner.newestOfEach().map(toFacts));
      events.publish('job', { ...toWire(job) });
      if (what === 'state' && job.finishedAt !== null) auditEnd(audit, clock, job);
    },
    onInternal: (jobId, error) => log.error({ jobId, cause: causeChain(error) }, 'a job met a fault of ours'),
  });
  const handlers: Handlers = {
    ...authHandlers({ clock, nodeId, ...access }),
    ...jobHandlers({ runner, events, files }),
    ...systemHandlers({
      snapshot: () => observatory.current,
      meter: new ProcessMeter(files),
      tallies: () => ({
        jobs: countStates(runner),
        lastEventId: eventLog.range().newest,
        processesStarted: exec.started,
      }),
      audit: ({ limit, before }) =>
        audit.list(limit, before).map((row) => ({ ...row, at: new Date(row.at).toISOString() })),
    }),
    ...networkHandlers({
      facts: () => observatory.current.facts,
      files,
      hostsFile: sources.hostsFile,
      rates: new LinkRates(files, clock),
      startChangeIp: work.changeIp(runner),
      connectivity: new Connectivity({ clock, targets: config.sandbox ? [] : profile.probeTargets }),
    }),
    ...work.handlers(runner),
    ...openApiHandlers(version),
  };
  const pipeline = new Pipeline({
    handlers,
    classify: (request) => access.authenticator.classify(request, request.signal),
    state: () => observatory.current.state,
    once: new Once({
      idempotency: new Idempotency(store),
      clock,
      hashKey: nodeSecret(kv, 'idempotency-key'),
      startedSince: (operation, caller, at) => startedSince(runner, operation, caller, at),
    }),
    audit: (line) => {
      auditCall(audit, clock, line);
      storeWatch.look();
    },
    logInternal: (requestId, operation, error) =>
      log.error({ requestId, operation, cause: causeChain(error) }, 'a fault of ours'),
  });
  const http = new HttpEdge({
    pipeline,
    ownNames: () => ownNames(observatory.current.facts, profile.mdns, config.file.hostNames ?? []),
    statusBody: () => observatory.current.body,
    logInternal: (requestId, operation, error) =>
      log.error({ requestId, operation, cause: causeChain(error) }, 'a fault of ours'),
  });
  storeWatch.look();
  bus.onAvailability((available, reason) => observatory.update({ bus: { available, reason } }));
  return { stopping, store, observatory, bus, sources, access, runner, http, log, work, journal };
}

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

async function close({ stopping, store, bus, sources, runner, http, log }: Parts): Promise<void> {
  stopping.abort();
  sources.stop();
  await Promise.all([http.close(), runner.stop()]);
  await bus.close();
  store.close();
  log.info({}, 'beosd has stopped');
}

function toFacts(job: JobRecord): JobFacts {
  return {
    operation: job.operation,
    state: job.state,
    phase: currentPhase(job)?.name ?? null,
    percent: job.shownPercent,
    error: job.error?.message ?? job.error?.code,
    createdAt: job.createdAt,
    finishedAt: job.finishedAt ?? undefined,
  };
}

function countStates(runner: JobRunner): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { state } of runner.newestOfEach()) counts[state] = (counts[state] ?? 0) + 1;
  return counts;
}

function startedSince(runner: JobRunner, operation: string, caller: string, at: number): unknown {
  const job = runner.list(50).find((each) => each.operation === operation && each.caller === caller);
  return job !== undefined && Date.parse(job.createdAt) >= at ? { jobId: job.id } : undefined;
}

function auditCall(audit: AuditLog, clock: Clock, line: AuditLine): void {
  const { caller, operation, outcome, jobId, detail } = line;
  audit.append({
    ...{ at: clock.now(), caller: callerLabel(caller), proof: caller.proof, operation, outcome },
    ...(jobId === undefined ? {} : { jobId }),
    ...(detail === undefined ? {} : { detail }),
  });
}

function auditEnd(audit: AuditLog, clock: Clock, job: JobRecord): void {
  const caller: Caller = job.caller;
  audit.append({
    at: clock.now(),
    caller: callerLabel(caller),
    proof: caller.proof,
    operation: job.operation,
    outcome: job.state,
    jobId: job.id,
    ...(job.error === null ? {} : { detail: job.error.code }),
  });
}
