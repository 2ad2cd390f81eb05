import type { Caller } from '#api/caller.ts';
import { fault } from '#api/errors.ts';
import type { Call, DryRun } from '#api/operation.ts';
import type { Handlers, OperationName } from '#api/operations.ts';
import type { Holder, MountedPath, UsageStat } from '#api/storage.ts';
import type { Jobs } from '#jobs/definition.ts';
import { nameOfPath } from '#storage/names.ts';
import { nfsFolder, nfsSource, parseNfs } from '#storage/nfs.ts';
import type { MountRow } from '#storage/registry.ts';
import type { ShareLists } from '#storage/share-lists.ts';
import { checkLogin, checkServer, parseSmbPath, smbFolder, smbPathOf, smbSource } from '#storage/smb.ts';
import type { Storage } from '#storage/storage.ts';
import { relativePath } from '#storage/views.ts';

type Names = Extract<
  OperationName,
  | 'command.mountSamba'
  | 'command.mountSambaV2'
  | 'command.umountSamba'
  | 'command.umountSambaIncluster'
  | 'command.umountUsb'
  | 'command.umountUsbIncluster'
  | 'command.mountNfs'
  | 'command.umountNfs'
  | 'command.umountNfsIncluster'
  | 'command.listNfs'
  | `system.mounted${string}`
  | `storage.${string}`
>;

/** What the handlers need beside storage itself; compose.ts passes it. */
export interface StorageEdge {
  readonly storage: Storage;
  readonly lists: ShareLists;
  nodeName(): string;
  readonly jobs: Jobs;
  /** The same question to the other nodes; this node alone while there is no cluster. */
  readonly others: OtherNodes;
}

/** The other nodes of the cluster. */
export interface OtherNodes {
  mounted(
    path: string,
    signal: AbortSignal,
  ): Promise<{
    readonly rows: readonly Readonly<Record<string, unknown>>[];
    readonly unreachable: readonly { readonly node: string; readonly reason: string }[];
  }>;
}

/** No cluster: nobody else to ask. */
export const noOtherNodes: OtherNodes = { mounted: async () => ({ rows: [], unreachable: [] }) };

export function storageHandlers(edge: StorageEdge): Pick<Handlers, Names> {
  return { ...mountHandlers(edge), ...umountHandlers(edge), ...listHandlers(edge), ...diskHandlers(edge) };
}

type MountNames = Extract<Names, `command.mount${string}` | 'command.listNfs'>;

function mountHandlers({ storage, lists }: StorageEdge): Pick<Handlers, MountNames> {
  const { shares } = storage;
  return {
    'command.mountSamba': async ({ body }, call) => {
      const target = parseSmbPath(body.smbPath);
      const login = checkLogin(body.user, body.password);
      if (target.share === undefined) {
        throw fault('invalid_input', 'The path must name a share: //server/share.', { field: 'smbPath' });
      }
      smbFolder(target, storage.settings.protectedNames);
      if (call.dryRun) return { plan: mountPlan(storage, smbSource(target)) };
      mayAct(storage);
      return { data: { path: await shares.mountSmb(target, login, call.signal) } };
    },
    'command.mountSambaV2': async ({ body }, call) => {
      const target = parseSmbPath(body.smbPath);
      const login = checkLogin(body.user, body.password);
      if (call.dryRun) {
        if (target.share !== undefined) smbFolder(target, storage.settings.protectedNames);
        return { plan: mountPlan(storage, smbSource(target)) };
      }
      mayAct(storage);
      const choice = await lists.smb(target, login);
      const wanted = smbPathOf(target, target.share ?? '').toLowerCase();
      const isKnown = choice.some((each) => each.path.toLowerCase() === wanted);
      if (!isKnown) return { status: 300, message: 'Choose a valid share path', data: choice };
      mayAct(storage);
      return { data: { path: await shares.mountSmb(target, login, call.signal) } };
    },
    'command.mountNfs': async ({ body }, call) => {
      const target = parseNfs(body.server, body.sharedPath);
      nfsFolder(target, body.mountPath, storage.settings);
      if (call.dryRun) return { plan: mountPlan(storage, nfsSource(target)) };
      mayAct(storage);
      return { data: { path: await shares.mountNfs(target, body.mountPath, call.signal) } };
    },
    'command.listNfs': async ({ body }) => {
      const server = checkServer(body.server, 'server');
      return { data: await lists.nfs(server) };
    },
  };
}

type UmountNames = Extract<Names, `command.umount${string}`>;

function umountHandlers(edge: StorageEdge): Pick<Handlers, UmountNames> {
  const { storage } = edge;
  const share = (kind: 'smb' | 'nfs', path: string, form: 'absolute' | 'relative') => {
    const name = nameOfPath(path, storage.settings, form);
    return shareByName(storage.registry.byName(name), kind, name);
  };
  const umountShare = async (row: MountRow, force: boolean | undefined) => {
    mayAct(storage);
    await umountOrHolders(storage, row, force === true);
  };
  const plainly = async (row: MountRow, call: Call, force: boolean | undefined) => {
    if (call.dryRun) return { plan: umountPlan(storage, row) };
    await umountShare(row, force);
    return { data: undefined };
  };
  const inCluster = async (kind: 'smb' | 'nfs', body: { path: string; node?: string }, call: Call) => {
    onlyThisNode(edge, body.node);
    const row = share(kind, body.path, 'relative');
    if (call.dryRun) return { plan: umountPlan(storage, row) };
    await umountShare(row, false);
    return { data: [onThisNode(edge, body.path)] };
  };
  const usb = (path: string, form: 'relative' | 'either') => {
    const name = nameOfPath(path, storage.settings, form);
    const row = storage.registry.byName(name);
    if (row === undefined) throw fault('not_found', `beosd has not mounted anything called ${name}.`);
    if (row.kind !== 'usb') throw fault('not_our_mount', `${name} is of kind ${row.kind}, not usb.`);
    return row;
  };
  const eject = async (row: MountRow, force: boolean | undefined) => {
    mayAct(storage);
    const ejected = await storage.ejector.eject(row, force === true);
    return { ...ejected, holders: [...ejected.holders] };
  };
  return {
    'command.umountSamba': ({ body, query }, call) =>
      plainly(share('smb', body.path, 'absolute'), call, allowed(query.force, call)),
    'command.umountNfs': ({ body, query }, call) =>
      plainly(share('nfs', body.path, 'absolute'), call, allowed(query.force, call)),
    'command.umountSambaIncluster': ({ body }, call) => inCluster('smb', body, call),
    'command.umountNfsIncluster': ({ body }, call) => inCluster('nfs', body, call),
    'command.umountUsb': async ({ body, query }, call) => {
      allowed(query.force, call);
      const row = usb(body.path, 'either');
      if (call.dryRun) return { plan: ejectPlan(storage, row, query.force === true) };
      return { data: await eject(row, query.force) };
    },
    'command.umountUsbIncluster': async ({ body, query }, call) => {
      allowed(query.force, call);
      onlyThisNode(edge, body.node);
      const row = usb(body.path, 'relative');
      if (call.dryRun) return { plan: ejectPlan(storage, row, query.force === true) };
      const { safe, holders } = await eject(row, query.force);
      const words = safe ? {} : { message: notSafe(holders) };
      return { data: [{ ...onThisNode(edge, body.path), ...words }] };
    },
  };
}

/** A busy share is a refusal that names who uses it. */
async function umountOrHolders(storage: Storage, row: MountRow, force: boolean): Promise<void> {
  await storage.ejector.explained(row, () => storage.shares.umount(row, force));
}

/** Detaching what is in use cannot be undone: a pod's address is not proof enough (contract §5). */
function mayForce(force: boolean | undefined, caller: Caller): void {
  if (force !== true || caller.class === 'root' || caller.proof === 'signature-bound') return;
  throw fault('bound_form_required', 'force=true needs a signature in the bound form.');
}

const sandboxed = 'Started without --system, beosd mounts and unmounts nothing.';

function mayAct(storage: Storage): void {
  if (storage.settings.mayAct) return;
  throw fault('sandbox', sandboxed);
}

function onlyThisNode({ nodeName }: StorageEdge, node: string | undefined): void {
  if (node === undefined || node === nodeName()) return;
  throw fault('not_found', `There is no node ${node} in reach.`, { field: 'node' });
}

/** `force` as it was asked for, by somebody who may: a dry run needs the proof of the act. */
function allowed(force: boolean | undefined, call: Call): boolean | undefined {
  mayForce(force, call.caller);
  return force;
}

function onThisNode({ nodeName }: StorageEdge, path: string) {
  return { node: nodeName(), path, ok: true, message: 'success to umount' };
}

/** The rows of -incluster have no place of their own for it. */
function notSafe(holders: readonly Holder[]): string {
  const names = new Set(holders.map(({ pod, command, path }) => `${pod ?? command} at ${path}`));
  const by = names.size === 0 ? '' : `, still used by ${[...names].join(', ')}`;
  return `unmounted, but not safe to pull yet${by}`;
}

type ListNames = Extract<Names, `system.mounted${string}`>;

function listHandlers(edge: StorageEdge): Pick<Handlers, ListNames> {
  const { storage } = edge;
  const of = (type?: MountedPath['type']) =>
    storage.mounted((row) => (type === undefined ? true : row.type === type));
  const inCluster = async <T extends UsageStat>(route: string, here: readonly T[], signal: AbortSignal) => {
    const others = await edge.others.mounted(route, signal);
    const own = here.flatMap((row) => {
      const path = relativePath(row.path, storage.settings.shareRoot);
      return path === undefined ? [] : [{ ...row, path, node: edge.nodeName() }];
    });
    const data = [...own, ...(others.rows as unknown as (T & { path: string; node: string })[])];
    return { data, beside: { unreachable: others.unreachable } };
  };
  const usb = async () => (await of('usb')).map(usageOf);
  const hdd = async () => (await of('hdd')).map(usageOf);
  const smb = async () =>
    (await of('smb')).map((row) => ({ ...usageOf(row), invalid: row.invalid, device: row.device }));
  return {
    'system.mountedUsb': async () => ({ data: await usb() }),
    'system.mountedHdd': async () => ({ data: await hdd() }),
    'system.mountedSmb': async () => ({ data: await smb() }),
    'system.mountedPath': async () => ({ data: await of() }),
    'system.mountedUsbIncluster': async (_, { signal }) =>
      inCluster('/system/mounted-usb', await usb(), signal),
    'system.mountedHddIncluster': async (_, { signal }) =>
      inCluster('/system/mounted-hdd', await hdd(), signal),
    'system.mountedSmbIncluster': async (_, { signal }) =>
      inCluster('/system/mounted-smb', await smb(), signal),
    'system.mountedPathIncluster': async (_, { signal }) =>
      inCluster('/system/mounted-path', await of(), signal),
  };
}

function usageOf(row: MountedPath): UsageStat {
  const { path, fstype, total, free, used, usedPercent } = row;
  const { inodesTotal, inodesUsed, inodesFree, inodesUsedPercent } = row;
  return {
    path,
    fstype,
    total,
    free,
    used,
    usedPercent,
    inodesTotal,
    inodesUsed,
    inodesFree,
    inodesUsedPercent,
  };
}

type DiskNames = Extract<Names, `storage.${string}`>;

function diskHandlers({ storage, jobs }: StorageEdge): Pick<Handlers, DiskNames> {
  return {
    'storage.disks': async () => ({ data: await storage.disks() }),
    'storage.setPolicy': ({ params, body }, call) => {
      const disk = storage.diskById(params.id);
      if (call.dryRun) return { plan: policyPlan(disk.id, body.policy) };
      storage.setPolicy(disk, body.policy);
      return { data: { id: disk.id, policy: body.policy } };
    },
    'storage.provision': async ({ params, body }, call) => {
      const input = { ...body, disk: params.id, wipe: body.wipe === true };
      storage.diskById(params.id);
      const definition = storage.provisioner.definition();
      if (call.dryRun) return { plan: await jobs.plan(definition, input) };
      mayAct(storage);
      return { data: { jobId: await jobs.start(definition, { input, caller: call.caller }) } };
    },
  };
}

/** A plan for what is only done with `--system`. */
function systemPlan({ settings }: Storage, steps: DryRun['steps']): DryRun {
  const ok = settings.mayAct;
  const reason = ok ? 'beosd mounts and unmounts on this machine' : sandboxed;
  return { allowed: ok, preconditions: [{ name: 'system', ok, reason }], steps };
}

function mountPlan(storage: Storage, source: string): DryRun {
  const steps = [
    { name: 'mount', does: `mount ${source} below the share root`, reversible: true },
    {
      name: 'remember',
      does: 'keep it, credentials sealed, and mount it again after a start',
      reversible: true,
    },
  ];
  return systemPlan(storage, steps);
}

function umountPlan(storage: Storage, row: MountRow): DryRun {
  const path = storage.mounter.pathOf(row);
  const steps = [
    { name: 'unmount', does: `unmount ${path}`, reversible: true },
    { name: 'forget', does: 'forget the share and its credentials', reversible: false },
  ];
  return systemPlan(storage, steps);
}

function ejectPlan(storage: Storage, row: MountRow, force: boolean): DryRun {
  const path = storage.mounter.pathOf(row);
  const gently = [
    { name: 'flush', does: `write out what ${path} still has in memory`, reversible: true },
    { name: 'unmount', does: `unmount ${path}; refused while it is in use`, reversible: true },
    { name: 'power down', does: 'stop the disk if nothing else on it is in use', reversible: true },
  ];
  const hard = [
    { name: 'flush', does: `try to write out what ${path} still has in memory`, reversible: true },
    { name: 'detach', does: `detach ${path} although it is in use; not safe to pull`, reversible: false },
  ];
  return systemPlan(storage, force ? hard : gently);
}

function policyPlan(id: string, policy: string): DryRun {
  const steps = [{ name: 'policy', does: `from now on ${id} is ${policy}`, reversible: true }];
  return { allowed: true, preconditions: [], steps };
}

/** The share at a path below the share root, or the refusal that fits. */
function shareByName(row: MountRow | undefined, kind: 'smb' | 'nfs', name: string): MountRow {
  if (row === undefined) throw fault('not_found', `beosd has not mounted anything called ${name}.`);
  if (row.kind !== kind) throw fault('not_our_mount', `${name} is of kind ${row.kind}, not ${kind}.`);
  return row;
}
