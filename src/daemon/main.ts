import { ConfigError, helpText, readConfig } from '#daemon/config.ts';
import { type Daemon, startDaemon } from '#daemon/daemon.ts';
import { version } from '#daemon/identity.ts';
import { openLog } from '#daemon/log.ts';
import { systemClock } from '#host/clock.ts';
import { SystemExec } from '#host/exec.ts';
import { Files } from '#host/files.ts';
import { serviceManager } from '#host/notify.ts';
import { causeChain, errnoOf } from '#lib/fault.ts';

/** Exit codes of contract §9. */
const exitCodes = { stopped: 0, failed: 1, badConfig: 2, portTaken: 3 } as const;

/** The program: reads its configuration, serves until it is told to stop, returns its exit code. */
export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  let command: ReturnType<typeof readConfig>;
  try {
    const files = new Files();
    command = readConfig(argv, env, process.cwd(), (path) => files.readText(path));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`beosd: ${causeChain(error)}\n`);
    return exitCodes.badConfig;
  }
  switch (command.kind) {
    case 'help':
      process.stdout.write(helpText);
      return exitCodes.stopped;
    case 'version':
      process.stdout.write(`beosd ${version}\n`);
      return exitCodes.stopped;
    case 'vendor':
      process.stdout.write('beOS\n');
      return exitCodes.stopped;
    case 'check':
      process.stdout.write('The configuration is valid.\n');
      return exitCodes.stopped;
    case 'run':
      return await serve(command.config, env);
  }
}

async function serve(config: Parameters<typeof startDaemon>[0], env: NodeJS.ProcessEnv): Promise<number> {
  const log = openLog(config.file.logLevel ?? 'info');
  const exec = new SystemExec();
  const manager = serviceManager(env, exec);
  const told = stopSignal();
  // Nobody who listens any more, or no room for what we say, is no reason to end.
  process.stdout.on('error', () => undefined);
  let daemon: Daemon;
  try {
    daemon = await startDaemon(config, { clock: systemClock, exec, files: new Files(config.root), log, env });
  } catch (error) {
    const taken = errnoOf(error) === 'EADDRINUSE';
    process.stderr.write(
      `beosd: ${taken ? `port ${config.port} is taken; name another with --port or BEOSD_PORT` : causeChain(error)}\n`,
    );
    return taken ? exitCodes.portTaken : exitCodes.failed;
  }
  process.stdout.write(`beosd listening on http://${shownHost(config.listen)}:${daemon.port}\n`);
  if (daemon.socket !== config.socket) process.stdout.write(`beosd socket: ${daemon.socket}\n`);
  await manager.notify('READY=1');
  const beat =
    manager.watchdogMs === undefined
      ? undefined
      : setInterval(() => void manager.notify('WATCHDOG=1'), manager.watchdogMs / 2);
  await told;
  clearInterval(beat);
  await manager.notify('STOPPING=1');
  await daemon.close();
  return exitCodes.stopped;
}

/** Settles at the first SIGINT or SIGTERM; the second one ends the process at once. */
function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    const stop = () => {
      resolve();
      for (const signal of ['SIGINT', 'SIGTERM'] as const)
        process.once(signal, () => process.exit(exitCodes.failed));
    };
    process.once('SIGINT', stop);
    process.once('SIGTERM', stop);
  });
}

function shownHost(listen: readonly string[]): string {
  const host = listen[0] ?? 'localhost';
  return host === '0.0.0.0' ? '127.0.0.1' : host.includes(':') ? `[${host}]` : host;
}
