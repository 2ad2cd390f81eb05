import type { Handlers } from '#api/operations.ts';
import type { OwnerFile } from '#auth/owner.ts';
import { changeIpDefinition } from '#cluster/change-ip.ts';
import { clusterHandlers } from '#cluster/handlers.ts';
import { installDefinition } from '#cluster/install.ts';
import { type OpenJob, sweepLeftovers } from '#cluster/leftovers.ts';
import type { InstallerOptions } from '#cluster/ports.ts';
import { uninstallDefinition } from '#cluster/uninstall.ts';
import type { Config } from '#daemon/config.ts';
import { version } from '#daemon/identity.ts';
import type { Paths } from '#daemon/paths.ts';
import { failureMarks, type Profile } from '#daemon/profiles.ts';
import { bootIdentity } from '#host/boot.ts';
import type { Bus } from '#host/bus.ts';
import type { Clock } from '#host/clock.ts';
import { Disk } from '#host/disk.ts';
import type { Exec } from '#host/exec.ts';
import type { Files } from '#host/files.ts';
import { SystemLongRun } from '#host/longrun.ts';
import { DetachedLauncher } from '#host/longrun-detached.ts';
import { SystemdLauncher } from '#host/longrun-systemd.ts';
import { memoryFolder, SecretFiles } from '#host/secrets.ts';
import type { JobDefinition, Jobs } from '#jobs/definition.ts';
import type { ChangeIpJob } from '#network/handlers.ts';
import type { Observatory } from '#state/observatory.ts';
import { rebootDefinition, shutdownDefinition } from '#system/power.ts';
import { powerHandlers } from '#system/power-handlers.ts';

export interface WorkOptions {
  readonly config: Config;
  readonly profile: Profile;
  readonly paths: Paths;
  readonly clock: Clock;
  readonly files: Files;
  readonly bus: Bus;
  readonly exec: Exec;
  readonly owners: OwnerFile;
  readonly observatory: Observatory;
  readonly env: NodeJS.ProcessEnv;
  /** Binds the node's name in the hosts file. */
  readonly bindHost: (ip: string) => Promise<void>;
}

/** Variables of the daemon's own environment that the installer takes too (ancestor contract §4.3). */
const passedOn = [
  'REGISTRY_MIRRORS',
  'LOCAL_GPU_ENABLE',
  'PUBLICLY_ACCESSIBLE',
  'CLOUDFLARE_ENABLE',
  'FRP_ENABLE',
  'FRP_SERVER',
  'FRP_PORT',
  'FRP_AUTH_METHOD',
  'FRP_AUTH_TOKEN',
  'TOKEN_MAX_AGE',
  'MARKET_PROVIDER',
  'TERMINUS_CERT_SERVICE_API',
  'TERMINUS_DNS_SERVICE_API',
  'DOWNLOAD_CDN_URL',
  'DID_GATE_URL',
] as const;

type WorkOperations = 'command.install' | 'command.uninstall' | 'command.reboot' | 'command.shutdown';

/** The long work of the node as a whole: what the installer does, and power. */
export class Work {
  readonly definitions: readonly JobDefinition<never>[];
  readonly #installer: InstallerOptions;
  readonly #install: ReturnType<typeof installDefinition>;
  readonly #uninstall: ReturnType<typeof uninstallDefinition>;
  readonly #reboot: ReturnType<typeof rebootDefinition>;
  readonly #shutdown: ReturnType<typeof shutdownDefinition>;
  readonly #changeIp: ReturnType<typeof changeIpDefinition>;
  readonly #owners: OwnerFile;

  constructor(options: WorkOptions) {
    this.#owners = options.owners;
    this.#installer = installerOptions(options);
    this.#install = installDefinition(this.#installer);
    this.#uninstall = uninstallDefinition(this.#installer);
    const { bus, exec, files, clock, config } = options;
    const power = { bus, exec, files, clock, bootIdentity, sandboxed: config.sandbox };
    this.#reboot = rebootDefinition(power);
    this.#shutdown = shutdownDefinition(power);
    const { addressChangeFailed, previousAddress } = options.profile.files;
    this.#changeIp = changeIpDefinition({
      ...this.#installer,
      bindHost: options.bindHost,
      currentAddress: () => {
        const { hostIp } = options.observatory.current.facts;
        return hostIp.known ? hostIp.value : undefined;
      },
      marks: { previousAddress, failed: addressChangeFailed },
    });
    this.definitions = [this.#install, this.#uninstall, this.#changeIp, this.#reboot, this.#shutdown];
  }

  /** Before the open jobs are taken up: what is left of those that the journal knows to be over. */
  sweep(open: readonly OpenJob[]): void {
    sweepLeftovers(this.#installer, open);
  }

  /** How change-host moves an installed cluster. */
  changeIp(jobs: Jobs): ChangeIpJob {
    return {
      plan: (ip) => jobs.plan(this.#changeIp, { ip }),
      start: (ip, caller) => jobs.start(this.#changeIp, { input: { ip }, caller }),
    };
  }

  handlers(jobs: Jobs): Pick<Handlers, WorkOperations> {
    const plain = clusterHandlers({
      jobs,
      installer: this.#installer,
      install: this.#install,
      uninstall: this.#uninstall,
    });
    const owners = this.#owners;
    return {
      ...plain,
      ...powerHandlers({ jobs, reboot: this.#reboot, shutdown: this.#shutdown }),
      'command.install': async (input, call) => {
        // The first valid signer of an install claims the node; the claim is in force before the installer begins.
        if (call.dryRun || call.caller.class !== 'signer') return await plain['command.install'](input, call);
        return await owners.claimFor(call.caller, async () => await plain['command.install'](input, call));
      },
    };
  }
}

function installerOptions(options: WorkOptions): InstallerOptions {
  const { config, profile, paths, clock, files, bus, owners, observatory, env } = options;
  const memory = memoryFolder(config.sandbox ? [] : ['/run', '/dev/shm']);
  const secrets = new SecretFiles(
    memory === undefined ? `${paths.dataDir}/secrets` : `${memory}/beosd/secrets`,
    files,
  );
  const usesSystemd = !config.sandbox && files.exists('/run/systemd/system');
  const launcher = usesSystemd ? new SystemdLauncher(bus, secrets) : new DetachedLauncher();
  return {
    profile: profile.installer,
    program: paths.installer,
    sandboxed: config.sandbox && !paths.installerIsExplicit,
    baseDir: paths.baseDir,
    version: config.installedVersion ?? version,
    kube: config.kubeType,
    installedFile: profile.files.installed,
    failureMarks: failureMarks(profile),
    files,
    disk: new Disk(),
    longRun: new SystemLongRun({ runsDir: paths.runs, launcher, files, clock }),
    secrets,
    clock,
    claim: {
      confirm: () => owners.confirm(),
      lapse: () => owners.lapse(),
      release: () => void owners.release(),
    },
    clockSynchronised: () => observatory.current.facts.clock,
    bootIdentity,
    passedOn: Object.fromEntries(
      passedOn.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]])),
    ),
  };
}
