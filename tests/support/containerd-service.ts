import { join } from 'node:path';
import type { Caller } from '#api/caller.ts';
import type { Call } from '#api/operation.ts';
import { openRpc } from '#containerd/rpc.ts';
import { ContainerdService } from '#containerd/service.ts';
import { systemClock } from '#host/clock.ts';
import { SystemExec } from '#host/exec.ts';
import { Files } from '#host/files.ts';
import { known } from '#lib/observed.ts';
import type { ReportedCondition } from '#state/facts.ts';
import type { TestContainerd } from './containerd.ts';
import { MemoryJournal } from './fake-containerd.ts';

export const call = (more: Partial<Call> = {}): Call => ({
  caller: { class: 'root', proof: 'socket' },
  signal: new AbortController().signal,
  requestId: 'test',
  dryRun: false,
  ...more,
});
export const workload: Caller = { class: 'workload', proof: 'address', namespace: 'os-system' };
export const none = { params: {}, query: {}, body: undefined };

/** The service as the daemon has it, over a containerd of the test. */
export function serviceOver(containerd: TestContainerd, references: readonly string[] = []) {
  const published: Record<string, unknown>[] = [];
  const reported: (readonly ReportedCondition[])[] = [];
  const files = new Files();
  const journal = new MemoryJournal();
  const service = new ContainerdService({
    ...{ files, exec: new SystemExec(), clock: systemClock, journal },
    imageUse: { lastUsed: () => new Map(), note: () => undefined },
    unit: {
      check: async () => undefined,
      restart: async () => {
        await containerd.stop();
        await containerd.start();
      },
    },
    address: containerd.socket,
    outside: true,
    protectedReferences: () => known(references, 'test', 0),
    usage: async (path) => files.fileSystem(path),
    installed: () => true,
    admit: () => undefined,
    publish: (data) => published.push(data),
    report: (conditions) => reported.push(conditions),
    graceMs: 0,
    binary: containerd.installed.binary,
    place: () => ({
      socket: containerd.socket,
      k3s: false,
      configFile: containerd.configFile,
      certsDir: containerd.certsDir,
      registriesYaml: join(containerd.folder, 'registries.yaml'),
    }),
  });
  return { service, handlers: service.handlers, published, reported, journal };
}

/** Pulls through CRI, as kubelet does; the id of the image. */
export const pull = async (containerd: TestContainerd, image: string) => {
  const rpc = openRpc(containerd.socket, 30_000);
  try {
    return (await rpc.images.pullImage({ image: { image } })).imageRef;
  } finally {
    rpc.close();
  }
};
