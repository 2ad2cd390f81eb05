import type { ClusterWatch } from '#cluster/kube/cluster-watch.ts';
import { storedJournal } from '#containerd/journal.ts';
import { ContainerdService } from '#containerd/service.ts';
import { systemdRuntimeUnit } from '#containerd/unit.ts';
import type { Core } from '#daemon/core.ts';
import type { Clock } from '#host/clock.ts';
import { known, type Observed, unknown } from '#lib/observed.ts';
import { refusalByState } from '#state/admit.ts';
import type { Facts } from '#state/facts.ts';
import { ImageUse } from '#store/image-use.ts';

/** What the rest of the daemon knows about images that must stay. */
export interface NeededImages {
  /** Images that the specs of this node's pods name, as the cluster tells it; asked where there is a cluster. */
  readonly podImages: () => Observed<readonly string[]>;
  /** Images of a recorded upgrade target; left out: nobody knows them. */
  readonly upgradeImages?: () => Observed<readonly string[]>;
}

/** The container runtime, put together with what it needs of the rest of the daemon. */
export function openContainers(core: Core, needed: NeededImages): ContainerdService {
  const { config, clock, exec, files, store, kv, observatory, events } = core;
  return new ContainerdService({
    ...{ clock, exec, files },
    imageUse: new ImageUse(store),
    journal: storedJournal(store, kv),
    unit: systemdRuntimeUnit({ exec, files, sandboxed: config.sandbox }),
    address: config.containerdAddress,
    outside: !config.sandbox,
    protectedReferences: () => protectedReferences(needed, observatory.current.facts, clock.now()),
    usage: async (path) => files.fileSystem(path),
    installed: () => isInstalled(observatory.current.facts) === true,
    admit: (operation) => {
      const refused = refusalByState(operation, observatory.current.state);
      if (refused !== undefined) throw refused;
    },
    publish: (data) => {
      events.publish('image', data);
    },
    report: (conditions) => {
      const { reported } = observatory.current.facts;
      observatory.update({ reported: { ...reported, containerd: conditions } });
    },
  });
}

/** Ends what a crash interrupted, then keeps an eye on the runtime until the daemon stops. */
export function lookAfter(containers: ContainerdService, { stopping, onError }: Core): void {
  containers
    .recover()
    .catch((error: unknown) => onError('ending an interrupted change of the runtime', error));
  void containers.watch.run(stopping.signal);
}

/** Everything that must not be removed because somebody will ask for it. One unknown part makes the whole unknown. */
export function protectedReferences(
  { podImages, upgradeImages }: NeededImages,
  facts: Pick<Facts, 'clusterLink' | 'install'>,
  now: number,
): Observed<readonly string[]> {
  const pods = facts.clusterLink === 'no-kubeconfig' ? podsWithoutCluster(facts, now) : podImages();
  const upgrade = imagesOfUpgrade(facts.install, upgradeImages, now);
  if (!pods.known || !upgrade.known) return pods.known ? upgrade : pods;
  const stale = pods.stale ?? upgrade.stale;
  const both = known([...pods.value, ...upgrade.value], 'pods and upgrade', now);
  return stale === undefined ? both : { ...both, stale };
}

/** The files that record an upgrade also tell whether anything is installed: while they cannot be read, nothing is known. */
function imagesOfUpgrade(
  install: Facts['install'],
  upgradeImages: NeededImages['upgradeImages'],
  now: number,
): Observed<readonly string[]> {
  if (!install.known) return install;
  const { upgradeTarget: target } = install.value;
  if (target === undefined) return { ...install, value: [] };
  const reason = `the images of the recorded upgrade to ${target.version} are not known`;
  return upgradeImages?.() ?? unknown('upgrade', now, reason);
}

/** Without a cluster in sight it is only certain that there are no pods where nothing is installed. */
function podsWithoutCluster(facts: Pick<Facts, 'install'>, now: number): Observed<readonly string[]> {
  if (isInstalled(facts) === false) return known([], 'install-files', now);
  return unknown('pods', now, 'no cluster tells the pods of this node');
}

/** What the pods of this node name; unknown unless the watch follows them right now. */
export function imagesOfPods(
  watch: Pick<ClusterWatch, 'localPods' | 'localPodsAge'>,
  clock: Clock,
): Observed<readonly string[]> {
  if (watch.localPodsAge > 0)
    return unknown('pods', clock.now(), 'the cluster does not tell the pods of this node now');
  return known(
    [...watch.localPods.values()].flatMap(({ images }) => images),
    'pods',
    clock.now(),
  );
}

/** undefined: not known. */
function isInstalled({ install }: Pick<Facts, 'install'>): boolean | undefined {
  return install.known ? install.value.installed !== undefined || install.value.engineRunning : undefined;
}
