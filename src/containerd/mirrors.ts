import { fault } from '#api/errors.ts';
import type { RuntimePlace } from '#containerd/address.ts';
import { caFileName, folderNames, hostsFileName, ourCa, registryOfFolder } from '#containerd/certs-dir.ts';
import { type ConfigSwitch, notWritten, type PreparedSwitch } from '#containerd/config-switch.ts';
import {
  emptyHostsFile,
  type HostsFile,
  parseHostsFile,
  renderHostsFile,
  withEndpoints,
} from '#containerd/hosts-toml.ts';
import { k3sMirrors } from '#containerd/k3s.ts';
import { registryName } from '#containerd/reference.ts';
import { hasEndpoints } from '#containerd/wire.ts';
import { type Files, syncDir } from '#host/files.ts';
import { causeChain, isFault } from '#lib/fault.ts';
import { Mutex } from '#lib/mutex.ts';

/** The mirrors of one registry and where they are kept. */
export interface Mirror {
  readonly registry: string;
  readonly file: HostsFile;
  readonly source: 'certs.d' | 'config.toml' | 'registries.yaml';
  /** Where its hosts.toml stands; file names in that are meant from there. */
  readonly folder?: string;
  /** Why the file could not be read; `file` is empty then. */
  readonly problem?: string;
}

export interface MirrorChange {
  readonly endpoints: readonly string[];
  readonly skipVerify?: boolean;
  readonly overridePath?: boolean;
  /** PEM; '' takes a CA away. */
  readonly ca?: string;
}

export interface MirrorStoreDeps {
  readonly files: Files;
  readonly place: () => RuntimePlace;
  readonly config: Pick<ConfigSwitch, 'read' | 'rehearse' | 'prepare' | 'commit' | 'recover'>;
}

/**
 * Registry mirrors: one folder of certs.d a registry (containerd docs/hosts.md).
 *
 * INVARIANTS: one change at a time, each reading what the one before has written; a change touches only the folder of
 * its registry, and, the very first one, the runtime's configuration; nothing outside of certs.d can be named.
 */
export class MirrorStore {
  readonly #deps: MirrorStoreDeps;
  readonly #lock = new Mutex();

  constructor(deps: MirrorStoreDeps) {
    this.#deps = deps;
  }

  /** Every registry with mirrors or settings of its own, sorted by name. */
  async list(): Promise<Mirror[]> {
    const { roots, inline } = await this.#deps.config.read();
    const found = new Map<string, Mirror>();
    for (const [name, file] of this.#k3s()) {
      found.set(name, { registry: name, file, source: 'registries.yaml' });
    }
    if (roots.length === 0) {
      for (const [name, file] of inline) found.set(name, { registry: name, file, source: 'config.toml' });
    }
    for (const root of [...roots].reverse()) {
      for (const mirror of this.#listFolder(root)) found.set(mirror.registry, mirror);
    }
    return [...found.values()].sort((a, b) => (a.registry < b.registry ? -1 : 1));
  }

  async get(registry: string): Promise<Mirror | undefined> {
    const { roots, inline } = await this.#deps.config.read();
    for (const root of roots) {
      for (const folder of folderNames(registry)) {
        const mirror = this.#readMirror(root, folder, registry);
        if (mirror !== undefined) return mirror;
      }
    }
    const configured = roots.length === 0 ? inline.get(registry) : undefined;
    if (configured !== undefined) return { registry, file: configured, source: 'config.toml' };
    const file = this.#k3s().get(registry);
    return file && { registry, file, source: 'registries.yaml' };
  }

  /** What the runtime goes by. Without k3s its registries.yaml is only shown: nothing of it is kept, or trusted for it. */
  async inForce(registry: string): Promise<Mirror | undefined> {
    const mirror = await this.get(registry);
    return mirror?.source === 'registries.yaml' ? undefined : mirror;
  }

  /**
   * Replaces the endpoints of a registry. Settings of endpoints that stay are kept. What `check` throws of the mirror as
   * it is at the moment of the change refuses it.
   */
  async put(
    registry: string,
    change: MirrorChange,
    check: (before: Mirror | undefined) => void = () => undefined,
  ): Promise<Mirror> {
    return await this.#lock.run(async () => {
      await this.#changeable(registry);
      const before = await this.inForce(registry);
      check(before);
      const pending = await this.#deps.config.prepare();
      const ca = change.ca === undefined || change.ca === '' ? change.ca : caFileName(change.ca);
      const file = withEndpoints(registry, before?.file ?? emptyHostsFile, change.endpoints, {
        ...(change.skipVerify === undefined ? {} : { skipVerify: change.skipVerify }),
        ...(change.overridePath === undefined ? {} : { overridePath: change.overridePath }),
        ...(ca === undefined ? {} : { ca }),
      });
      const root = await this.#writeRoot(pending);
      await this.#switching(pending, root, registry, () => {
        this.#write(root, registry, file, change.ca);
      });
      return { registry, file, source: 'certs.d' };
    });
  }

  /**
   * Takes the mirrors of a registry away; how the registry itself is verified and asked stays. Throws `not_found` when
   * it has no mirrors; what `check` throws refuses it.
   */
  async delete(registry: string, check: () => void = () => undefined): Promise<void> {
    await this.#lock.run(async () => {
      const before = await this.#deletable(registry);
      check();
      const pending = before.source === 'config.toml' ? await this.#deps.config.prepare() : undefined;
      const root = await this.#writeRoot(pending);
      const { roots } = await this.#deps.config.read();
      const rest = withoutMirrors(before.file);
      await this.#switching(pending, root, registry, () => {
        const kept = rest && this.#write(rootOf(before) ?? root, registry, rest, undefined);
        // Also where containerd has not looked so far: what stands there must not come to life by the switch.
        for (const each of new Set([...roots, root])) this.#remove(each, registry, kept);
      });
    });
  }

  /** What stands in the way of a change is thrown; true: the runtime's configuration is edited first. Reads only. */
  async rehearse(registry: string): Promise<boolean> {
    await this.#changeable(registry);
    return await this.#deps.config.rehearse();
  }

  /** As {@link rehearse}, of a {@link delete}. */
  async rehearseDelete(registry: string): Promise<{ mirror: Mirror; switchNeeded: boolean }> {
    const mirror = await this.#deletable(registry);
    return { mirror, switchNeeded: mirror.source === 'config.toml' && (await this.#deps.config.rehearse()) };
  }

  /** What a crash has left; safe at every start. */
  async recover(): Promise<void> {
    await this.#lock.run(() => this.#deps.config.recover());
  }

  /** The text of the authorities (`ca`: a file name, or several) of an endpoint; undefined: none, or not to be read. */
  caOf(mirror: Mirror | undefined, ca: unknown): string | undefined {
    const names: readonly unknown[] = Array.isArray(ca) ? ca : [ca];
    const texts = names.flatMap((name) => this.#caText(mirror?.folder, name) ?? []);
    return texts.length > 0 ? texts.join('\n') : undefined;
  }

  #caText(folder: string | undefined, name: unknown): string | undefined {
    if (typeof name !== 'string' || name === '') return undefined;
    if (folder === undefined && !name.startsWith('/')) return undefined;
    try {
      return this.#deps.files.readText(name.startsWith('/') ? name : `${folder}/${name}`);
    } catch {
      return undefined; // the probe then verifies against the system's authorities and says what it sees
    }
  }

  /** The mirror as it is; refuses what k3s would overwrite. */
  async #changeable(registry: string): Promise<Mirror | undefined> {
    if (this.#deps.place().k3s && this.#k3s().has(registry)) {
      throw managedByK3s(registry);
    }
    return await this.get(registry);
  }

  /** The mirror that is to go; refuses what does not stand in the runtime's own files, whoever reads it. */
  async #deletable(registry: string): Promise<Mirror> {
    const before = await this.#changeable(registry);
    if (before === undefined || !hasEndpoints(before)) {
      throw fault('not_found', `${registry} has no mirrors.`);
    }
    if (before.source === 'registries.yaml') throw managedByK3s(registry);
    return before;
  }

  #k3s(): Map<string, HostsFile> {
    const { registriesYaml } = this.#deps.place();
    try {
      const text = this.#deps.files.readText(registriesYaml);
      return text === undefined ? new Map() : k3sMirrors(text);
    } catch (error) {
      throw fault('runtime_config_damaged', `${registriesYaml} cannot be read: ${causeChain(error)}`, {
        cause: error,
      });
    }
  }

  /** The folder that containerd looks into first. */
  async #writeRoot(pending: PreparedSwitch | undefined): Promise<string> {
    const { roots } = await this.#deps.config.read();
    return pending === undefined ? (roots[0] ?? this.#deps.place().certsDir) : this.#deps.place().certsDir;
  }

  /**
   * Changes files of certs.d, and makes the switch where one is due. Where that fails they are as they were: the next
   * switch would bring to life what was refused now.
   */
  async #switching(
    pending: PreparedSwitch | undefined,
    root: string,
    registry: string,
    change: () => void,
  ): Promise<void> {
    if (pending === undefined) return change();
    const { inline } = await this.#deps.config.read();
    const migrating = inlineRegistries(inline, pending.configFile);
    const before = [registry, ...migrating.keys()].flatMap((name) => this.#textsOf(root, name));
    try {
      for (const [name, file] of migrating) if (name !== registry) this.#migrate(root, name, file);
      change();
      await this.#deps.config.commit(pending);
    } catch (error) {
      // Only while the old configuration stands: else these files are all that is left of its mirrors.
      const { roots } = await this.#deps.config.read();
      if (roots.length === 0) for (const [folder, text] of before) this.#putBack(folder, text);
      throw error;
    }
  }

  /** Inline mirrors end with the switch: before it, they are written where containerd will look from then on. */
  #migrate(root: string, registry: string, file: HostsFile): void {
    const urls = file.endpoints.map(({ url }) => url);
    this.#write(root, registry, withEndpoints(registry, file, urls, {}), undefined);
  }

  #textsOf(root: string, registry: string): [folder: string, text: string | undefined][] {
    return folderNames(registry).map((name) => {
      const folder = `${root}/${name}`;
      return [folder, this.#deps.files.readText(`${folder}/${hostsFileName}`)];
    });
  }

  #putBack(folder: string, text: string | undefined): void {
    const { files } = this.#deps;
    if (text !== undefined) {
      files.makeDir(folder);
      files.replace(`${folder}/${hostsFileName}`, text);
    } else if (files.exists(folder)) {
      files.remove(`${folder}/${hostsFileName}`);
      this.#sweep(folder, '');
      files.removeEmptyDir(folder);
    }
  }

  #listFolder(root: string): Mirror[] {
    const mirrors = new Map<string, Mirror>();
    for (const folder of this.#deps.files.list(root)) {
      const registry = registryOfFolder(folder);
      if (registry === undefined) continue;
      const mirror = this.#readMirror(root, folder, registry);
      // containerd prefers `host_5000_` to `host:5000`.
      if (mirror !== undefined && (!mirrors.has(registry) || folder.endsWith('_')))
        mirrors.set(registry, mirror);
    }
    return [...mirrors.values()];
  }

  #readMirror(root: string, folder: string, registry: string): Mirror | undefined {
    try {
      const text = this.#deps.files.readText(`${root}/${folder}/${hostsFileName}`);
      if (text === undefined) return undefined;
      return { registry, file: parseHostsFile(text), source: 'certs.d', folder: `${root}/${folder}` };
    } catch (error) {
      const problem = `${root}/${folder}/${hostsFileName} cannot be read: ${causeChain(error)}`;
      return { registry, file: emptyHostsFile, source: 'certs.d', problem };
    }
  }

  /** The folder that it was written into. */
  #write(root: string, registry: string, file: HostsFile, ca: string | undefined): string {
    const { files } = this.#deps;
    const text = renderHostsFile(file);
    try {
      const folder = this.#folderToWrite(root, registry);
      if (!files.exists(folder)) {
        files.makeDir(folder);
        syncDir(root);
      }
      if (ca !== undefined && ca !== '') files.replace(`${folder}/${caFileName(ca)}`, ca);
      files.replace(`${folder}/${hostsFileName}`, text);
      this.#sweep(folder, text);
      return folder;
    } catch (error) {
      if (isFault(error)) throw error;
      throw notWritten(`${root}/${registry}`, error);
    }
  }

  #remove(root: string, registry: string, except?: string): void {
    const { files } = this.#deps;
    for (const name of folderNames(registry)) {
      const folder = `${root}/${name}`;
      if (folder === except || !files.exists(folder)) continue;
      try {
        this.#refuseOutside(root, folder);
        files.remove(`${folder}/${hostsFileName}`);
        syncDir(folder);
        this.#sweep(folder, '');
        if (files.removeEmptyDir(folder)) syncDir(root);
      } catch (error) {
        if (isFault(error)) throw error;
        throw notWritten(folder, error);
      }
    }
  }

  /** Removes what is ours and `text` does not name: old CAs, temp files of a crash. What others put there stays. */
  #sweep(folder: string, text: string): void {
    for (const name of this.#deps.files.list(folder)) {
      if (ourCa.test(name) && !text.includes(name)) this.#deps.files.remove(`${folder}/${name}`);
    }
    this.#deps.files.sweepTemps(`${folder}/${hostsFileName}`);
  }

  #folderToWrite(root: string, registry: string): string {
    const { files } = this.#deps;
    files.makeDir(root);
    const [preferred, plain] = folderNames(registry);
    const name = plain !== undefined && !files.exists(`${root}/${preferred}`) ? plain : preferred;
    const folder = `${root}/${name}`;
    this.#refuseOutside(root, folder);
    return folder;
  }

  /** A name cannot lead out of certs.d (see registryName), but a link that somebody put there could. */
  #refuseOutside(root: string, folder: string): void {
    const { files } = this.#deps;
    const inside = `${files.realPath(root)}/`;
    for (const path of [folder, `${folder}/${hostsFileName}`]) {
      const real = files.realPath(path);
      if (real !== undefined && !real.startsWith(inside)) {
        throw fault('impossible', `${path} is a link that leads out of ${root}.`);
      }
    }
  }
}

/** Inline mirrors under the names that certs.d has for them. */
function inlineRegistries(
  inline: ReadonlyMap<string, HostsFile>,
  configFile: string,
): Map<string, HostsFile> {
  const named = new Map<string, HostsFile>();
  for (const [name, file] of inline) {
    const registry = registryName(name);
    if (registry === undefined) {
      throw fault('runtime_config_damaged', `${configFile} has mirrors of "${name}", which is no registry.`);
    }
    named.set(registry, file);
  }
  return named;
}

function managedByK3s(registry: string): Error {
  return fault('mirror_managed', `The mirrors of ${registry} stand in k3s' registries.yaml.`);
}

/** The root below which the mirror's folder stands. */
function rootOf({ folder }: Mirror): string | undefined {
  return folder?.slice(0, folder.lastIndexOf('/'));
}

/**
 * What a file says of the registry itself; undefined: nothing that needs a file. A `server` alone says where else to ask,
 * as a mirror does, and for docker.io it is ours.
 */
function withoutMirrors({ server }: HostsFile): HostsFile | undefined {
  return Object.keys(server).some((key) => key !== 'server') ? { server, endpoints: [] } : undefined;
}
