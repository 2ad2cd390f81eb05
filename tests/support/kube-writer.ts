/**
 * A process of its own that changes pods of an API server as fast as it takes them: `kube-writer.ts URL CA-FILE PODS`;
 * `write MS` on stdin. Pod `app-N` is in the namespace `user-space-(N % 20)`. Every pod ends ready.
 */
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { KubeClient } from './kube-client.ts';

const [url = '', caFile = '', pods = '1'] = process.argv.slice(2);
const client = new KubeClient(url, readFileSync(caFile, 'utf8'));
console.log(JSON.stringify({ ready: true }));

async function setReady(index: number, status: 'True' | 'False'): Promise<void> {
  const path = `/api/v1/namespaces/user-space-${index % 20}/pods/app-${index}/status`;
  const patch = { status: { conditions: [{ type: 'Ready', status }] } };
  await client.must('PATCH', path, patch, 'application/strategic-merge-patch+json');
}

/** Changes made within so many ms. */
async function write(ms: number): Promise<number> {
  const end = performance.now() + ms;
  let sent = 0;
  const writer = async (_: unknown, index: number) => {
    for (; performance.now() < end; sent += 2) {
      await setReady(index, 'False');
      await setReady(index, 'True');
    }
  };
  await Promise.all(Array.from({ length: Math.min(64, Number(pods)) }, writer));
  return sent;
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify({ sent: await write(Number(line.split(' ')[1])) }));
}
