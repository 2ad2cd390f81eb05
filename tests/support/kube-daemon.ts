/** A process of its own with the whole daemon on a kubeconfig: `kube-daemon.ts DIR KUBECONFIG`; a line on stdin asks for figures. */
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { readConfig } from '#daemon/config.ts';
import { startDaemon } from '#daemon/daemon.ts';
import { systemClock } from '#host/clock.ts';
import { SystemExec } from '#host/exec.ts';
import { Files } from '#host/files.ts';

const [dir = '', kubeconfig = ''] = process.argv.slice(2);
const env = { KUBECONFIG: kubeconfig };
const argv = ['--port', '0', '--listen', '127.0.0.1', '--data-dir', join(dir, 'data')];
const command = readConfig(argv, env, dir, () => undefined);
if (command.kind !== 'run') throw new Error('no configuration');
const quiet = () => undefined;
const exec = new SystemExec();
const daemon = await startDaemon(command.config, {
  clock: systemClock,
  exec,
  files: new Files(command.config.root),
  log: {
    info: quiet,
    warn: quiet,
    error: (data, message) => console.error(message, JSON.stringify(data)),
    debug: quiet,
  },
  env,
});
console.log(JSON.stringify({ port: daemon.port }));

for await (const _line of createInterface({ input: process.stdin })) {
  globalThis.gc?.();
  const { rss, heapUsed, external } = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  const { cluster, clusterLink } = daemon.observatory.current.facts;
  const pods = cluster.known ? cluster.value.keyPodCount : 0;
  const at = performance.now();
  const started = exec.started;
  console.log(
    JSON.stringify({
      rss,
      heapUsed,
      external,
      cpuMs: (user + system) / 1000,
      at,
      started,
      clusterLink,
      pods,
    }),
  );
}
await daemon.close();
