import type { Config } from '#daemon/config.ts';
import type { Paths } from '#daemon/paths.ts';
import type { Profile } from '#daemon/profiles.ts';
import type { Clock } from '#host/clock.ts';
import type { Exec } from '#host/exec.ts';
import type { Files } from '#host/files.ts';
import { ExternalIp } from '#network/external-ip.ts';
import { HostAddress } from '#network/host-ip.ts';
import { HostsFile } from '#network/hosts-file.ts';
import { LinkWatcher } from '#network/links.ts';
import { nextTurn } from '#state/derive.ts';
import { isAllowed } from '#state/gate.ts';
import type { Observatory, Snapshot } from '#state/observatory.ts';
import { ClockSync } from '#system/clock-sync.ts';
import { DiskSpace } from '#system/disk-space.ts';
import { InstallFiles } from '#system/install-files.ts';
import { Machine } from '#system/machine.ts';
import { Resync, type Resynced } from '#system/resync.ts';
import { ShutdownWatch } from '#system/shutdown.ts';
import { Turns } from '#system/turns.ts';

export interface SourceOptions {
  readonly config: Config;
  readonly profile: Profile;
  readonly paths: Paths;
  readonly observatory: Observatory;
  readonly clock: Clock;
  readonly exec: Exec;
  readonly files: Files;
  readonly env: NodeJS.ProcessEnv;
  readonly onError: (what: string, error: unknown) => void;
}

interface Source extends Resynced {
  start(): unknown;
  stop(): void;
}

/** Where the facts come from: each source watches its part of the machine and reports to the observatory. */
export class Sources {
  readonly hostsFile: HostsFile;
  readonly diskSpace: DiskSpace;
  readonly #links: LinkWatcher;
  readonly #read: readonly Source[];
  readonly #externalIp: ExternalIp;
  readonly #resync: Resync;
  readonly #turns: Turns;

  constructor(options: SourceOptions) {
    const { observatory, clock, exec, files, paths, onError } = options;
    this.diskSpace = new DiskSpace({
      files,
      clock,
      dataDir: paths.dataDir,
      onFacts: (dataDir) => observatory.update({ dataDir }),
    });
    const address = hostAddress(options, () => this.hostsFile);
    const observe = () => {
      const { network, hosts } = observatory.current.facts;
      address.observe(network, hosts);
    };
    this.hostsFile = hostsFile(options, observe);
    this.#links = new LinkWatcher({
      exec,
      files,
      clock,
      onFacts: (network) => {
        observatory.update({ network });
        observe();
      },
    });
    this.#externalIp = externalIp(options);
    this.#read = [...readAtStart(options), this.hostsFile, this.diskSpace];
    const own: Resynced = { resync: () => observatory.resync() };
    const again: Resynced = { resync: observe };
    this.#resync = new Resync(clock, [...this.#read, this.#links, again, this.#externalIp, own], (error) =>
      onError('resync', error),
    );
    this.#turns = new Turns({
      clock,
      next: () => nextTurn(observatory.current.facts, observatory.current.jobs, clock.now()),
      onTurn: () => observatory.resync(),
    });
    observatory.onChange(() => this.#turns.look());
  }

  /** Reads what can be read at once, so that the first answer is already true; then listens. */
  start(): void {
    for (const source of this.#read) source.start();
  }

  /** Settles when the kernel's network has been read for the first time. */
  async listen(): Promise<void> {
    void this.#resync.start();
    await this.#links.start();
    this.#externalIp.start();
  }

  stop(): void {
    this.#resync.stop();
    this.#turns.stop();
    for (const source of [...this.#read, this.#links, this.#externalIp]) source.stop();
  }
}

function readAtStart(options: SourceOptions): Source[] {
  const { observatory, clock, files, profile, paths } = options;
  return [
    new Machine({
      files,
      clock,
      machineInfoPath: files.systemPath(profile.machineInfoPath),
      defaultDeviceName: 'Selfhosted',
      onFacts: (machine) => observatory.update({ machine }),
    }),
    new InstallFiles({
      files,
      clock,
      baseDir: paths.baseDir,
      releasePath: files.systemPath(profile.release.path),
      releaseKeys: {
        name: profile.release.nameKey,
        version: profile.release.versionKey,
        baseDir: profile.release.baseDirKey,
      },
      etcdEnvPath: files.systemPath(profile.etcdEnvPath),
      installerNames: [paths.installer.split('/').at(-1) ?? paths.installer],
      engineWords: profile.engineWords,
      onFacts: (facts) => observatory.update(facts),
    }),
    new ShutdownWatch({ files, clock, onFacts: (shutdown) => observatory.update({ shutdown }) }),
    new ClockSync({
      files,
      clock,
      bootedAt: () => {
        const { machine } = observatory.current.facts;
        return machine.known ? machine.value.bootedAt : undefined;
      },
      onFacts: (facts) => observatory.update({ clock: facts }),
    }),
  ];
}

function hostsFile(
  { files, clock, paths, profile, config, env, observatory }: SourceOptions,
  observe: () => void,
): HostsFile {
  return new HostsFile({
    files,
    clock,
    path: paths.hostsFile,
    lockPath: `${paths.dataDir}/hosts.lock`,
    hostName: () => {
      const { machine } = observatory.current.facts;
      return machine.known ? machine.value.hostName : '';
    },
    protectedNames: [...profile.hosts.ownerOnly, ...trustedHosts(config, env)],
    hiddenNames: profile.hosts.hidden,
    onFacts: (hosts) => {
      observatory.update({ hosts });
      observe();
    },
  });
}

/** Hosts that this node was told to trust in place of the profile's: the DID gate, the release source, registries. */
export function trustedHosts({ didGateUrl }: Pick<Config, 'didGateUrl'>, env: NodeJS.ProcessEnv): string[] {
  const { DOWNLOAD_CDN_URL: releases = '', REGISTRY_MIRRORS: registries = '' } = env;
  return [didGateUrl ?? '', releases, ...registries.split(',')].flatMap((each) => {
    const text = each.trim();
    const url = URL.parse(text.includes('://') ? text : `https://${text}`);
    return url === null ? [] : [url.hostname];
  });
}

function hostAddress(options: SourceOptions, hosts: () => HostsFile): HostAddress {
  const { clock, observatory, onError } = options;
  return new HostAddress({
    clock,
    resolve: () => [],
    rebind: (ip) => {
      if (!mayRebind(observatory.current)) return;
      hosts()
        .bind(ip)
        .catch((error: unknown) => onError('hosts file', error));
    },
    onFact: (hostIp) => observatory.update({ hostIp }),
  });
}

/**
 * An installed cluster was built for its address: it moves by change-host, not because a lease changed. While an
 * installer works the file is its own, as it is for everybody else who would change the address.
 */
export function mayRebind({ facts: { install }, state }: Pick<Snapshot, 'facts' | 'state'>): boolean {
  return install.known && install.value.installed === undefined && isAllowed('changeHost', state);
}

function externalIp({ config, profile, clock, observatory }: SourceOptions): ExternalIp {
  const asked = !config.sandbox && config.file.externalIp !== false;
  return new ExternalIp({
    clock,
    url: asked ? profile.externalIpUrl : undefined,
    hasDefaultRoute: () => {
      const { network } = observatory.current.facts;
      return network.known && network.value.defaultRoutes.length > 0;
    },
    onFacts: (fact) => observatory.update({ externalIp: fact }),
  });
}
