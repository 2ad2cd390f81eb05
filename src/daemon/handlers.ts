import type { Handlers } from '#api/operations.ts';
import { authHandlers } from '#auth/handlers.ts';
import type { ContainerdService } from '#containerd/service.ts';
import type { Access } from '#daemon/access.ts';
import type { Core } from '#daemon/core.ts';
import { version } from '#daemon/identity.ts';
import type { Sources } from '#daemon/sources.ts';
import type { Volumes } from '#daemon/volumes.ts';
import type { Work } from '#daemon/work.ts';
import { openApiHandlers } from '#http/openapi-handlers.ts';
import { jobHandlers } from '#jobs/handlers.ts';
import type { JobRunner } from '#jobs/runner.ts';
import { Connectivity } from '#network/connectivity.ts';
import { networkHandlers } from '#network/handlers.ts';
import { LinkRates } from '#network/rates.ts';
import { systemHandlers } from '#system/handlers.ts';
import { ProcessMeter } from '#system/metrics.ts';

export interface HandlerParts {
  readonly core: Core;
  readonly access: Access;
  readonly sources: Sources;
  readonly work: Work;
  readonly volumes: Volumes;
  readonly runner: JobRunner;
  readonly containers: ContainerdService;
}

/** One handler for each operation of the contract; a missing one does not compile. */
export function allHandlers(parts: HandlerParts): Handlers {
  const { core, access, work, volumes, runner, containers } = parts;
  const { clock, files, events, nodeId } = core;
  return {
    ...authHandlers({ clock, nodeId, ...access }),
    ...jobHandlers({
      ...{ runner, events, files },
      stillHolds: (caller) => access.authenticator.stillHolds(caller),
    }),
    ...ofSystem(parts),
    ...ofNetwork(parts),
    ...work.handlers(runner),
    ...containers.handlers,
    ...volumes.handlers(runner),
    ...openApiHandlers(version),
  };
}

function ofSystem({ core, runner }: HandlerParts) {
  const { observatory, files, eventLog, exec, audit } = core;
  return systemHandlers({
    snapshot: () => observatory.current,
    meter: new ProcessMeter(files),
    tallies: () => ({
      jobs: countStates(runner),
      lastEventId: eventLog.range().newest,
      processesStarted: exec.started,
    }),
    audit: ({ limit, before }) =>
      audit.list(limit, before).map((row) => ({ ...row, at: new Date(row.at).toISOString() })),
  });
}

function ofNetwork({ core, sources, work, runner, containers }: HandlerParts) {
  const { observatory, files, clock, config, profile } = core;
  return networkHandlers({
    facts: () => observatory.current.facts,
    files,
    hostsFile: sources.hostsFile,
    rates: new LinkRates(files, clock),
    startChangeIp: work.changeIp(runner),
    trustedHosts: () => containers.mirrorHosts(),
    // Without --system nothing outside is contacted (contract §10).
    connectivity: new Connectivity({ clock, targets: config.sandbox ? [] : profile.probeTargets }),
  });
}

function countStates(runner: JobRunner): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { state } of runner.newestOfEach()) counts[state] = (counts[state] ?? 0) + 1;
  return counts;
}
