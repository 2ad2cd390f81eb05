/** A process of its own with a wire fake full of pods: `kube-churn.ts PODS NODES`; `churn RATE MS` on stdin makes changes. */
import { createInterface } from 'node:readline';
import { KubeFake } from './kube-fake.ts';
import { KubeWorld, testNames } from './kube-world.ts';

const [pods = 100, nodes = 1] = process.argv.slice(2).map(Number);
const fake = await KubeFake.start();
const world = new KubeWorld(fake);
await world.define(testNames);
await world.system(testNames, '1.12.0');
for (let count = 1; count <= nodes; count++)
  await world.node(`node-${count}`, { address: `192.168.1.${count + 9}` });
for (let count = 0; count < pods; count++) await fake.must('POST', podPath(count), podOf(count, 0));
console.log(JSON.stringify({ kubeconfig: fake.kubeconfig() }));

function podPath(count: number): string {
  return `/api/v1/namespaces/user-space-${count % 100}/pods`;
}

/** As large as a real one: what the API server adds (managedFields, volumes, tolerations) is most of it. */
function podOf(count: number, restarts: number): Record<string, unknown> {
  const ready = restarts % 2 === 0;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: `app-${count}-7d9c5b8f6d-x2v5q`,
      namespace: `user-space-${count % 100}`,
      labels: { app: `app-${count}`, 'pod-template-hash': '7d9c5b8f6d' },
      managedFields: [{ manager: 'kubelet', fieldsV1: { filler: 'f:status f:conditions '.repeat(120) } }],
    },
    spec: {
      nodeName: `node-${(count % nodes) + 1}`,
      serviceAccountName: 'default',
      containers: [
        {
          name: 'main',
          image: `example.com/app-${count % 300}:1.0`,
          env: [{ name: 'A', value: 'b'.repeat(300) }],
        },
      ],
    },
    status: {
      phase: 'Running',
      podIP: `10.42.${Math.floor(count / 250) % 250}.${count % 250}`,
      conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }],
      containerStatuses: [{ name: 'main', restartCount: restarts, state: { running: {} } }],
    },
  };
}

/** Changes at a steady rate: every pod in turn becomes unready and ready again. */
async function churn(rate: number, ms: number): Promise<number> {
  const began = performance.now();
  let sent = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setInterval(() => {
    const passed = performance.now() - began;
    for (const due = Math.min(passed, ms) * (rate / 1000); sent < due; sent++) {
      const count = Math.floor(sent / 2) % pods;
      const { metadata, status } = podOf(count, sent % 2 === 0 ? 1 : 0) as {
        metadata: { name: string };
        status: unknown;
      };
      void fake.call('PUT', `${podPath(count)}/${metadata.name}/status`, { metadata, status });
    }
    if (passed < ms) return;
    clearInterval(timer);
    resolve();
  }, 5);
  await promise;
  return sent;
}

for await (const line of createInterface({ input: process.stdin })) {
  const [, rate, ms] = line.split(' ').map(Number);
  console.log(JSON.stringify({ sent: await churn(rate ?? 0, ms ?? 0) }));
}
await fake.stop();
