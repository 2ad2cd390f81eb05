import { announce } from '#daemon/announce.ts';
import type { Config } from '#daemon/config.ts';
import { nodeIdOf, nodeSecret, version } from '#daemon/identity.ts';
import type { Log } from '#daemon/log.ts';
import { type Paths, pathsOf } from '#daemon/paths.ts';
import { type Profile, profiles } from '#daemon/profiles.ts';
import { StoreWatch } from '#daemon/store-watch.ts';
import { type Bus, MessageBusPort, systemBusAddress } from '#host/bus.ts';
import type { Clock } from '#host/clock.ts';
import type { Exec } from '#host/exec.ts';
import type { Files } from '#host/files.ts';
import { EventHub } from '#jobs/events.ts';
import { causeChain } from '#lib/fault.ts';
import { Observatory } from '#state/observatory.ts';
import { AuditLog } from '#store/audit.ts';
import { EventLog } from '#store/events.ts';
import { Idempotency } from '#store/idempotency.ts';
import { JobJournal } from '#store/jobs.ts';
import { KeyValues } from '#store/kv.ts';
import { Store } from '#store/store.ts';

/** The doors to the machine, as the program or a test opens them. */
export interface DaemonPorts {
  readonly clock: Clock;
  readonly exec: Exec;
  readonly files: Files;
  readonly log: Log;
  readonly env: NodeJS.ProcessEnv;
}

/** What every capability of the daemon stands on. */
export interface Core extends DaemonPorts {
  readonly config: Config;
  readonly profile: Profile;
  readonly paths: Paths;
  readonly store: Store;
  readonly kv: KeyValues;
  readonly audit: AuditLog;
  readonly journal: JobJournal;
  readonly eventLog: EventLog;
  readonly idempotency: Idempotency;
  readonly events: EventHub;
  readonly observatory: Observatory;
  readonly storeWatch: StoreWatch;
  readonly bus: Bus & { close(): Promise<void> };
  readonly nodeId: string;
  readonly idempotencyKey: Uint8Array;
  /** Aborted when the daemon stops. */
  readonly stopping: AbortController;
  /** A failure that nobody waits for goes to the log, once, with its causes. */
  readonly onError: (what: string, error: unknown) => void;
}

/** Opens the store and everything that stands directly on it; never throws for the sake of a disk. */
export function openCore(config: Config, ports: DaemonPorts): Core {
  const { clock, files, log, env } = ports;
  const profile = profiles[config.profile];
  const paths = pathsOf(config, profile, files);
  const stopping = new AbortController();
  const onError = (what: string, error: unknown) => log.error({ cause: causeChain(error) }, `${what} failed`);
  const store = new Store(config.dataDir, clock.now);
  const kv = new KeyValues(store);
  const nodeId = nodeIdOf(files, kv, config.sandbox);
  const observatory = openObservatory(config, clock, nodeId, onError);
  const storeWatch = new StoreWatch({ store, observatory, clock, signal: stopping.signal });
  const eventLog = new EventLog(store, () => {
    events.wake();
    // The disk may have refused them: it was asked off our thread, and says so only now.
    if (!store.health.durable) storeWatch.look();
  });
  const snapshot = () => ({ status: observatory.current.status });
  const events = new EventHub({ log: eventLog, clock, snapshot });
  observatory.onChange((now, before) => {
    if (now.state !== before.state) log.info({ state: now.state, because: now.because }, 'state changed');
    announce(events, now, before);
    storeWatch.look();
  });
  const bus = new MessageBusPort(systemBusAddress(env), clock);
  return {
    ...ports,
    ...{ config, profile, paths, store, kv, nodeId, observatory, storeWatch, eventLog, events, bus },
    audit: new AuditLog(store),
    journal: new JobJournal(store),
    idempotency: new Idempotency(store),
    idempotencyKey: nodeSecret(kv, 'idempotency-key'),
    stopping,
    onError,
  };
}

function openObservatory(
  { frpServer, frpEnable, containerMode }: Config,
  clock: Clock,
  nodeId: string,
  onError: Core['onError'],
): Observatory {
  return new Observatory({
    clock,
    version,
    nodeId,
    profile: {
      defaultFrpServer: frpServer,
      frpEnable,
      ...(containerMode === undefined ? {} : { containerMode }),
    },
    onListenerError: (error) => onError('a listener of the state', error),
  });
}
