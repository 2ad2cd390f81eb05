import assert from 'node:assert/strict';
import type { FakeClock } from '#host/fake/clock.ts';
import { FakeMachine } from '#host/fake/machine.ts';
import type { Login } from '#storage/smb.ts';
import { quickStore, type RigOptions, rig, shareRoot } from './fake-storage.ts';

/** A share as a client names it. */
export const target = (server: string, share: string) => ({ server, port: undefined, share, path: share });

/** A storage daemon, and two file servers with a share each: `//nas/nas-files` and `//attic/attic-files`. */
export async function shares(options: Partial<RigOptions> = {}) {
  const machine = options.machine ?? new FakeMachine(['/', '/olares', shareRoot]);
  for (const server of ['nas', 'attic']) {
    machine.servers.add(server);
    machine.shares.set(`//${server}/${server}-files`, {
      fstype: 'cifs',
      uuid: server,
      label: '',
      files: new Map(),
    });
  }
  const parts = rig({ store: quickStore(), ...options, machine });
  await parts.storage.start();
  const mount = (server: string, login?: Login) =>
    parts.storage.shares.mountSmb(target(server, `${server}-files`), login);
  const isInvalid = async (server: string) =>
    (await parts.storage.mounted((row) => row.path === `${shareRoot}/${server}-files`)).every(
      (row) => row.invalid,
    );
  const row = (server: string) => {
    const found = parts.storage.registry.byName(`${server}-files`);
    assert.ok(found);
    return found;
  };
  const refuse = (server: string, words: string) => {
    const share = machine.shares.get(`//${server}/${server}-files`);
    assert.ok(share);
    share.broken = words;
    return () => {
      delete share.broken;
    };
  };
  const pathOf = (server: string) => `${shareRoot}/${server}-files`;
  const entryOf = (server: string) => machine.entries().find((each) => each.target === pathOf(server));
  /** Its mount does not answer any more, although its server does: it is made anew, and then the words are said. */
  const lose = async (server: string, words: string) => {
    machine.dead.add(pathOf(server));
    await isInvalid(server);
    const mend = refuse(server, words);
    await pass(parts.clock, 10_000);
    machine.dead.delete(pathOf(server));
    assert.equal(entryOf(server), undefined);
    return mend;
  };
  return { ...parts, machine, mount, isInvalid, row, refuse, lose, entryOf };
}

/** Lets the loop that looks after the shares come round. */
export async function pass(clock: FakeClock, ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 1000) {
    await clock.advance(1000);
    for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
  }
}
