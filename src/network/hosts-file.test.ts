import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { systemClock } from '#host/clock.ts';
import { FileLock } from '#host/file-lock.ts';
import { Files } from '#host/files.ts';
import { isFault } from '#lib/fault.ts';
import type { Observed } from '#lib/observed.ts';
import { HostsFile } from '#network/hosts-file.ts';
import type { HostsFacts } from '#state/facts.ts';

const foreign = '# first\n127.0.0.1\tlocalhost\n127.0.1.1 node1\n\n::1 ip6-localhost # six\n';

function setup(text = foreign, more: { files?: Files } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'beosd-hosts-'));
  const path = join(folder, 'hosts');
  writeFileSync(path, text);
  const seen: Observed<HostsFacts>[] = [];
  const hosts = new HostsFile({
    files: more.files ?? new Files(),
    clock: systemClock,
    path,
    lockPath: join(folder, 'lock'),
    hostName: () => 'node1',
    protectedNames: ['gate.example.com', '*.registry.example.com'],
    onFacts: (facts) => seen.push(facts),
  });
  return { folder, path, hosts, seen };
}

test('every entry is checked, and a refusal names it and changes nothing', async () => {
  const { hosts, path } = setup();
  const bad = [
    [{ ip: '10.0.0.1', host: 'a b' }, 'items[0].host'],
    [{ ip: '10.0.0.1', host: 'a\n6.6.6.6 evil' }, 'items[0].host'],
    [{ ip: '10.0.0.1#', host: 'a' }, 'items[0].ip'],
    [{ ip: '::1', host: 'a' }, 'items[0].ip'],
    [{ ip: '10.0.0.1', host: 'LOCALHOST' }, 'items[0].host'],
    [{ ip: '10.0.0.1', host: 'Node1' }, 'items[0].host'],
    [{ ip: '10.0.0.1', host: 'api.Cluster.local' }, 'items[0].host'],
  ] as const;
  for (const [item, field] of bad) {
    await assert.rejects(hosts.replace([item], undefined), (error) => {
      assert.ok(isFault(error));
      assert.deepEqual([error.code, error.details.field], ['invalid_input', field], JSON.stringify(item));
      return true;
    });
  }
  const twice = { ip: '10.0.0.1', host: 'a' };
  await assert.rejects(hosts.replace([twice, { ...twice, host: 'A' }], undefined), { code: 'invalid_input' });
  assert.equal(readFileSync(path, 'utf8'), foreign);
});

test('a trusted name is only bound, moved or freed by the owner; what stays as it is may be sent back', async () => {
  const { hosts } = setup(`${foreign}10.0.0.9 gate.example.com\n`);
  const kept = { ip: '10.0.0.9', host: 'gate.example.com' };
  await assert.rejects(hosts.replace([{ ...kept, ip: '10.6.6.6' }], []), { code: 'forbidden' });
  await assert.rejects(hosts.replace([], []), { code: 'forbidden' });
  await assert.rejects(hosts.replace([kept, { ip: '10.6.6.6', host: 'a.registry.example.com' }], []), {
    code: 'forbidden',
  });
  assert.deepEqual(await hosts.replace([kept, { ip: '10.0.0.8', host: 'nas' }], []), [
    kept,
    { ip: '10.0.0.8', host: 'nas' },
  ]);
  assert.deepEqual(await hosts.replace([], undefined), []);
});

test('what was read can be sent back, also a name that nobody may add', async () => {
  const { hosts, path } = setup(`${foreign}10.0.0.5 my_nas\n10.0.0.6 10.0.0.7\n`);
  const all = hosts.entries();
  assert.deepEqual(
    all.map(({ host }) => host),
    ['my_nas', '10.0.0.7'],
  );
  await hosts.replace([...all, { ip: '10.0.0.8', host: 'new' }], undefined);
  assert.equal(readFileSync(path, 'utf8'), `${foreign}10.0.0.5 my_nas\n10.0.0.6 10.0.0.7\n10.0.0.8\tnew\n`);
  await assert.rejects(hosts.replace([{ ip: '10.0.0.9', host: 'my_nas' }], undefined), {
    code: 'invalid_input',
  });
  assert.deepEqual(await hosts.replace([], undefined), []);
});

test('a list of a hundred thousand names is a hosts file like any other', async () => {
  const blocked = Array.from({ length: 100_000 }, (_, n) => `0.0.0.0 ads-${n}.example.com\n`).join('');
  const { hosts, path, seen } = setup(`${foreign}${blocked}`);
  await hosts.bind('192.168.1.7');
  const fact = seen.at(-1);
  assert.deepEqual(fact?.known && fact.value.ownAddresses, ['192.168.1.7']);
  assert.equal(readFileSync(path, 'utf8'), `${foreign.replace('127.0.1.1', '192.168.1.7')}${blocked}`);
});

test('what another program writes while we edit is not lost', async () => {
  let others = 0;
  class Busy extends Files {
    override readBytes(path: string, maxBytes?: number): Buffer | undefined {
      const bytes = super.readBytes(path, maxBytes);
      if (path.endsWith('hosts') && others > 0)
        writeFileSync(path, `${bytes ?? ''}10.9.9.${others--}\tother\n`);
      return bytes;
    }
  }
  const { hosts, path, folder } = setup(foreign, { files: new Busy() });
  others = 2;
  await hosts.bind('192.168.1.7');
  const theirs = '10.9.9.2\tother\n10.9.9.1\tother\n';
  assert.equal(readFileSync(path, 'utf8'), `${foreign.replace('127.0.1.1', '192.168.1.7')}${theirs}`);
  others = 1000;
  await assert.rejects(hosts.bind('192.168.1.8'), {
    code: 'hosts_file_unavailable',
    message: /changed by another program/,
  });
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.includes('tmp')),
    [],
  );
});

test('a file that cannot be written is a fault with its reason', async () => {
  class Full extends Files {
    override replace(): void {
      throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
    }
  }
  const { hosts } = setup(foreign, { files: new Full() });
  await assert.rejects(hosts.replace([{ ip: '10.0.0.1', host: 'a' }], undefined), {
    code: 'hosts_file_unavailable',
    message: /no space left/,
  });
});

test('a file that is a mount of its own, as in a container, is left as it is and the reason told', {
  skip: process.getuid?.() === 0 ? false : 'needs root to mount',
}, async () => {
  const { hosts, path, folder } = setup();
  execFileSync('mount', ['--bind', path, path]);
  try {
    await assert.rejects(hosts.bind('192.168.1.7'), {
      code: 'hosts_file_unavailable',
      message: /a mount of its own/,
    });
    assert.equal(readFileSync(path, 'utf8'), foreign);
    assert.deepEqual(
      readdirSync(folder).filter((name) => name.endsWith('.tmp')),
      [],
    );
  } finally {
    execFileSync('umount', ['-l', path]);
  }
});

test('a change by somebody else is seen, and binding our name tells the new address', async (t) => {
  const { hosts, path, seen } = setup();
  hosts.start();
  t.after(() => hosts.stop());
  const told = () => seen.flatMap((facts) => (facts.known ? [facts.value.ownAddresses.join()] : []));
  assert.deepEqual(told(), ['127.0.1.1']);
  writeFileSync(path, foreign.replace('127.0.1.1', '192.168.1.4'));
  await until(() => told().includes('192.168.1.4'));
  await hosts.bind('192.168.1.7');
  assert.equal(told().at(-1), '192.168.1.7');
  assert.equal(readFileSync(path, 'utf8'), foreign.replace('127.0.1.1', '192.168.1.7'));
});

test('bytes that are no UTF-8 come back as they were', async () => {
  const { hosts, path } = setup();
  const latin = Buffer.concat([Buffer.from('# K\xfcche\n', 'latin1'), Buffer.from(foreign)]);
  writeFileSync(path, latin);
  await hosts.replace([{ ip: '10.0.0.1', host: 'a' }], undefined);
  assert.deepEqual(readFileSync(path), Buffer.concat([latin, Buffer.from('10.0.0.1\ta\n')]));
});

test('edits at the same time wait for each other and none is lost', async () => {
  const { hosts, path } = setup();
  await Promise.all([
    hosts.bind('192.168.1.7'),
    hosts.replace([{ ip: '10.0.0.1', host: 'a' }], undefined),
    hosts.replace([{ ip: '10.0.0.2', host: 'b' }], undefined),
  ]);
  assert.equal(readFileSync(path, 'utf8'), `${foreign.replace('127.0.1.1', '192.168.1.7')}10.0.0.2\tb\n`);
});

const edits = process.env['BEOSD_SOAK'] === '1' ? 5000 : 1000;

test(`${edits} random edits with kill -9 in between: always the old file or the new one, byte for byte, mode and owner kept`, {
  timeout: 600_000,
}, async (t) => {
  const { folder, path } = setup();
  chmodSync(path, 0o640);
  const isRoot = process.getuid?.() === 0;
  if (isRoot) chownSync(path, 12, 34);
  const seed = Number(process.env['BEOSD_SEED'] ?? Date.now() % 1_000_000);
  let state = seed + 1;
  const random = (below: number) => {
    state = (state * 48_271) % 2_147_483_647;
    return state % below;
  };
  let started = 0;
  let kills = 0;
  let before = foreign;
  const outcomes = { old: 0, new: 0 };
  while (started < edits) {
    const extraMs = random(3);
    const life = { seed: 1 + random(1e6), count: 2 + random(18), extraMs, before };
    const begun = await lifeOfEditor(path, join(folder, 'lock'), life);
    started += begun.length;
    kills++;
    const text = readFileSync(path, 'utf8');
    const [old, fresh] = [begun.at(-2) ?? before, begun.at(-1) ?? before];
    assert.ok([old, fresh].includes(text), `seed ${seed}, kill ${kills}: neither old nor new\n${text}`);
    outcomes[text === fresh ? 'new' : 'old']++;
    before = text;
    const { mode, uid, gid } = statSync(path);
    assert.equal(mode & 0o777, 0o640);
    if (isRoot) assert.deepEqual([uid, gid], [12, 34]);
  }
  new Files().sweepTemps(path);
  assert.deepEqual(
    readdirSync(folder).filter((name) => !name.startsWith('lock')),
    ['hosts'],
  );
  // Nobody holds the lock any more, whoever was killed.
  assert.equal(await new FileLock(join(folder, 'lock'), systemClock).run(() => 'free', 1000), 'free');
  t.diagnostic(`${started} edits started, ${kills} kills, ${JSON.stringify(outcomes)}, seed ${seed}`);
});

/**
 * Starts an editor and kills it `extraMs` after its `count`-th edit has begun; returns what the file was to hold after
 * each edit that it had begun.
 */
async function lifeOfEditor(
  path: string,
  lock: string,
  life: { seed: number; count: number; extraMs: number; before: string },
): Promise<string[]> {
  const script = fileURLToPath(new URL('../../tests/support/hosts-editor.ts', import.meta.url));
  const child = spawn(process.execPath, [script, path, lock, String(life.seed)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const begun: string[] = [];
  let doomed = false;
  createInterface({ input: child.stdout }).on('line', (line) => {
    begun.push(afterEdit(begun.at(-1) ?? life.before, line.split(' ').filter(Boolean)));
    if (begun.length < life.count || doomed) return;
    doomed = true;
    if (life.extraMs === 0) child.kill('SIGKILL');
    else setTimeout(() => child.kill('SIGKILL'), life.extraMs);
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  assert.equal(signal, 'SIGKILL', `the editor ended by itself with ${code}`);
  return begun;
}

/** What the editor's file holds after an edit, by a rule of our own: lines wanted still keep their place, new ones come last. */
function afterEdit(before: string, wanted: readonly string[]): string {
  const now = before.slice(foreign.length).split('\n').filter(Boolean);
  const kept = now.filter((line) => wanted.includes(line));
  const added = wanted.filter((line) => !now.includes(line));
  return foreign + [...kept, ...added].map((line) => `${line}\n`).join('');
}

/** Resolves when the condition holds; looks whenever something was told. */
async function until(holds: () => boolean): Promise<void> {
  const deadline = AbortSignal.timeout(5000);
  while (!holds()) {
    deadline.throwIfAborted();
    await systemClock.sleep(5);
  }
}
