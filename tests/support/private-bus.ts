import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import dbus, { type MessageBus } from 'dbus-native';

export interface PrivateBus extends AsyncDisposable {
  readonly address: string;
  /** A peer of its own that owns the name. */
  peer(name: string): Promise<MessageBus>;
  /** Ends the bus, as a crash of it would. */
  kill(): Promise<void>;
  /** Starts it again at the same address. */
  restart(): Promise<void>;
}

/** A message bus of the test's own, by the real dbus-daemon. */
export async function privateBus(): Promise<PrivateBus> {
  const dir = mkdtempSync(join(tmpdir(), 'beosd-bus-'));
  const config = join(dir, 'bus.conf');
  writeFileSync(
    config,
    `<busconfig><type>session</type><listen>unix:path=${dir}/socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`,
  );
  const address = `unix:path=${dir}/socket`;
  const peers: MessageBus[] = [];
  let running = await start(config);
  const kill = async () => {
    running.child.kill('SIGKILL');
    await running.ended;
    rmSync(join(dir, 'socket'), { force: true });
  };
  return {
    address,
    peer: async (name) => {
      const client = dbus.createClient({ busAddress: address, timeout: 5_000 });
      client.connection.on('error', () => undefined);
      peers.push(client);
      await client.requestName(name, 0);
      return client;
    },
    kill,
    restart: async () => {
      running = await start(config);
    },
    [Symbol.asyncDispose]: async () => {
      for (const peer of peers) await peer.close();
      await kill();
      rmSync(dir, { recursive: true });
    },
  };
}

async function start(config: string) {
  const child = spawn('dbus-daemon', ['--config-file', config, '--print-address', '--nofork'], {
    stdio: ['ignore', 'pipe', 'ignore'], // it complains that a test may not raise the limit of descriptors
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout }).once('line', () => resolve());
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`dbus-daemon ended with ${code}`)));
  });
  return { child, ended };
}
