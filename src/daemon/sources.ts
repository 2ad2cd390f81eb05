import type { Config } from '#daemon/config.ts';
import type { Log } from '#daemon/log.ts';
import type { Paths } from '#daemon/paths.ts';
import type { Profile } from '#daemon/profiles.ts';
import type { Bus, BusSubscription } from '#host/bus.ts';
import type { Clock } from '#host/clock.ts';
import type { Exec } from '#host/exec.ts';
import type { Files } from '#host/files.ts';
import { messageOf } from '#lib/fault.ts';
import { ExternalIp } from '#network/external-ip.ts';
import { HostAddress } from '#network/host-ip.ts';
import { HostsFile } from '#network/hosts-file.ts';
import { LinkWatcher } from '#network/links.ts';
import type { Observatory } from '#state/observatory.ts';
import { ClockSync } from '#system/clock-sync.ts';
import { DiskSpace } from '#system/disk-space.ts';
import { InstallFiles } from '#system/install-files.ts';
import { Machine } from '#system/machine.ts';
import { Resync } from '#system/resync.ts';
import { ShutdownWatch } from '#system/shutdown.ts';

export interface SourceOptions {
  readonly config: Config;
  readonly profile: Profile;
  readonly paths: Paths;
  readonly observatory: Observatory;
  readonly clock: Clock;
  readonly exec: Exec;
  readonly files: Files;
  readonly bus: Bus;
  readonly log: Log;
}
