import { setTimeout as delay } from 'node:timers/promises';
import type { ClusterReport } from '#cluster/kube/cluster-watch.ts';
import type { KubeNames } from '#cluster/kube/names.ts';
import type { ApiAnswer } from './kube-client.ts';
import type { Followed } from './kube-harness.ts';

/** What both the real server and the fake can be told. */
export interface KubeApi {
  call(method: string, path: string, body?: unknown, contentType?: string): Promise<ApiAnswer>;
  must(method: string, path: string, body?: unknown, contentType?: string): Promise<ApiAnswer['body']>;
  kubeconfig(token?: string): string;
}

export const testNames: KubeNames = {
  trustedNamespaces: ['os-*', 'user-system-*', 'user-space-*'],
  keyNamespaces: ['user-space*', 'user-system*', 'os-framework', 'os-network', 'os-platform', 'os-gpu'],
  foreignNamespaces: ['default', 'kube-public', 'kube-node-lease', 'kube-system'],
  users: {
    group: 'iam.example.com',
    version: 'v1alpha2',
    plural: 'users',
    ownerRoleAnnotation: 'example.com/owner-role',
    wizardStatusAnnotation: 'example.com/wizard-status',
    nameAnnotation: 'example.com/terminus-name',
  },
  system: { group: 'sys.example.com', version: 'v1alpha1', plural: 'terminus', name: 'terminus' },
  certificates: {
    configMap: 'zone-ssl-config',
    namespacePrefix: 'user-space-',
    expiryKey: 'expired_at',
    renewal: { name: 'download-user-cert', image: 'example.com/tool:1.0', command: ['renew'] },
  },
  nodeLabelPrefix: 'beosd.example.com',
};

export interface NodeOptions {
  readonly address?: string;
  readonly ready?: boolean;
  readonly master?: boolean;
  readonly pressures?: readonly string[];
}

export interface PodOptions {
  readonly node?: string;
  readonly phase?: string;
  readonly reason?: string;
  /** A container waits for this reason. */
  readonly waiting?: string;
  readonly ready?: boolean;
  readonly scheduled?: boolean;
  readonly owner?: string;
  readonly ip?: string;
  readonly hostNetwork?: boolean;
  readonly serviceAccount?: string;
}

interface Written {
  readonly metadata: { readonly name: string; readonly [key: string]: unknown };
  readonly [key: string]: unknown;
}

/** Writes objects as the controllers and kubelets of a cluster would, with a few words each. */
export class KubeWorld {
  readonly #api: KubeApi;
  readonly #made = new Map<string, string>();
  readonly #namespaces = new Set<string>();
  #marks = 0;

  constructor(api: KubeApi) {
    this.#api = api;
  }

  /** Defines the resources of the platform, and waits until the server serves them. */
  async define(names: KubeNames): Promise<void> {
    const definitions = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
    for (const { group, version, plural } of [names.users, names.system]) {
      await this.#api.must('POST', definitions, crd(group, version, plural));
      const deadline = performance.now() + 10_000;
      while ((await this.#api.call('GET', `/apis/${group}/${version}/${plural}`)).status !== 200) {
        if (performance.now() > deadline) throw new Error(`${plural}.${group} is not served`);
        await delay(10);
      }
    }
  }

  async undefine(names: KubeNames): Promise<void> {
    for (const { group, plural } of [names.users, names.system]) {
      await this.#api.must(
        'DELETE',
        `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${plural}.${group}`,
      );
    }
  }

  async node(name: string, options: NodeOptions = {}): Promise<void> {
    const labels = options.master === false ? {} : { 'node-role.kubernetes.io/master': 'true' };
    await this.#put(
      '/api/v1/nodes',
      { apiVersion: 'v1', kind: 'Node', metadata: { name, labels } },
      nodeStatus(name, options),
    );
  }

  async pod(namespace: string, name: string, options: PodOptions = {}): Promise<void> {
    await this.namespace(namespace);
    const body = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        name,
        ...(options.owner === undefined ? {} : { ownerReferences: [ownerOf(options.owner)] }),
      },
      spec: {
        nodeName: options.node ?? 'node-1',
        hostNetwork: options.hostNetwork ?? false,
        serviceAccountName: options.serviceAccount ?? 'default',
        containers: [{ name: 'main', image: 'example.com/app:1.0' }],
      },
    };
    await this.#put(`/api/v1/namespaces/${namespace}/pods`, body, podStatus(options));
  }

  async namespace(name: string): Promise<void> {
    if (this.#namespaces.has(name)) return;
    this.#namespaces.add(name);
    await this.#api.call('POST', '/api/v1/namespaces', {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name },
    });
  }

  async user(
    names: KubeNames,
    name: string,
    options: { owner?: boolean; wizard?: string } = {},
  ): Promise<void> {
    const { group, version, plural } = names.users;
    const annotations = {
      [names.users.ownerRoleAnnotation]: options.owner === false ? 'normal' : 'owner',
      [names.users.nameAnnotation]: `${name}@example.com`,
      ...(options.wizard === undefined ? {} : { [names.users.wizardStatusAnnotation]: options.wizard }),
    };
    await this.#put(`/apis/${group}/${version}/${plural}`, {
      apiVersion: `${group}/${version}`,
      kind: 'User',
      metadata: { name, annotations },
    });
  }

  async system(names: KubeNames, release: string): Promise<void> {
    const { group, version, plural, name } = names.system;
    await this.#put(`/apis/${group}/${version}/${plural}`, {
      apiVersion: `${group}/${version}`,
      kind: 'Terminus',
      metadata: { name },
      spec: { version: release },
    });
  }

  async certificate(names: KubeNames, user: string, expiresAt: string): Promise<void> {
    const { configMap, namespacePrefix, expiryKey } = names.certificates;
    await this.namespace(`${namespacePrefix}${user}`);
    await this.#put(`/api/v1/namespaces/${namespacePrefix}${user}/configmaps`, {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: configMap },
      data: { [expiryKey]: expiresAt },
    });
  }

  async remove(collection: string, name: string): Promise<void> {
    const path = `${collection}/${name}`;
    this.#made.delete(path);
    await this.#api.must('DELETE', `${path}?gracePeriodSeconds=0`, { gracePeriodSeconds: 0 });
  }

  async removePod(namespace: string, name: string): Promise<void> {
    await this.remove(`/api/v1/namespaces/${namespace}/pods`, name);
  }

  /** What has been written so far has arrived: a mark is written last and awaited. */
  async settled(followed: Pick<Followed, 'until'>): Promise<void> {
    const mark = `settled-${++this.#marks}`;
    const { group, version, plural, name } = testNames.system;
    const path = `/apis/${group}/${version}/${plural}/${name}`;
    const now = await this.#api.must('GET', path);
    const was = (now as { spec: { version: string } }).spec.version;
    for (const release of [mark, was]) {
      await this.system(testNames, release);
      const arrived = (report: ClusterReport) =>
        report.cluster.known && report.cluster.value.version === release;
      await followed.until(`the mark ${release}`, arrived);
    }
  }

  /** Everything that was made is taken away again; namespaces and definitions stay. */
  async reset(): Promise<void> {
    for (const path of [...this.#made.keys()]) {
      this.#made.delete(path);
      await this.#api.call('DELETE', `${path}?gracePeriodSeconds=0`, { gracePeriodSeconds: 0 });
    }
  }

  /** Creates or replaces, and then the status, which is a resource of its own. */
  async #put(collection: string, body: Written, status?: unknown): Promise<void> {
    const path = `${collection}/${body.metadata.name}`;
    if (!this.#made.has(path)) {
      const made = await this.#api.call('POST', collection, {
        ...body,
        ...(status === undefined ? {} : { status }),
      });
      if (made.status >= 300 && made.status !== 409) throw new Error(`${path}: ${JSON.stringify(made)}`);
      if (made.status === 409) await this.#replace(path, body);
    } else if (!path.includes('/pods/')) {
      await this.#replace(path, body);
    }
    this.#made.set(path, collection);
    if (status === undefined) return;
    const now = await this.#api.must('GET', path);
    await this.#api.must('PUT', `${path}/status`, { ...now, status });
  }

  async #replace(path: string, body: Written): Promise<void> {
    const now = (await this.#api.must('GET', path)) as { metadata: { resourceVersion: string; uid: string } };
    const { resourceVersion, uid } = now.metadata;
    await this.#api.must('PUT', path, {
      ...now,
      ...body,
      metadata: { ...body.metadata, resourceVersion, uid },
    });
  }
}

function nodeStatus(name: string, options: NodeOptions): unknown {
  const pressures = options.pressures ?? [];
  return {
    addresses: [
      { type: 'InternalIP', address: options.address ?? '192.168.1.10' },
      { type: 'Hostname', address: name },
    ],
    conditions: [
      {
        type: 'Ready',
        status: options.ready === false ? 'False' : 'True',
        reason: 'KubeletReady',
        message: '',
      },
      ...['DiskPressure', 'MemoryPressure', 'PIDPressure'].map((type) => ({
        type,
        status: pressures.includes(type) ? 'True' : 'False',
        reason: 'Kubelet',
        message: `kubelet has ${pressures.includes(type) ? '' : 'no '}${type}`,
      })),
    ],
  };
}

function podStatus(options: PodOptions): unknown {
  const phase = options.phase ?? 'Running';
  const waiting = options.waiting === undefined ? { running: {} } : { waiting: { reason: options.waiting } };
  return {
    phase,
    ...(options.reason === undefined ? {} : { reason: options.reason }),
    ...(options.ip === undefined ? {} : { podIP: options.ip, podIPs: [{ ip: options.ip }] }),
    conditions: [
      { type: 'PodScheduled', status: options.scheduled === false ? 'False' : 'True' },
      {
        type: 'Ready',
        status: (options.ready ?? (phase === 'Running' && !options.waiting)) ? 'True' : 'False',
      },
    ],
    containerStatuses: [
      {
        name: 'main',
        image: 'example.com/app:1.0',
        imageID: '',
        ready: phase === 'Running',
        restartCount: 0,
        state: waiting,
      },
    ],
  };
}

function ownerOf(kind: string): unknown {
  return { apiVersion: 'batch/v1', kind, name: 'owner', uid: '00000000-0000-0000-0000-000000000001' };
}

function crd(group: string, version: string, plural: string): unknown {
  const kind = plural === 'terminus' ? 'Terminus' : 'User';
  const schema = { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } };
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${group}` },
    spec: {
      group,
      scope: 'Cluster',
      names: { plural, singular: kind.toLowerCase(), kind, listKind: `${kind}List` },
      versions: [{ name: version, served: true, storage: true, schema }],
    },
  };
}
