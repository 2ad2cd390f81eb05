import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { storedJournal } from '#containerd/journal.ts';
import { KeyValues } from '#store/kv.ts';
import { Store } from '#store/store.ts';
import { mirrorsIn, mortalMirrorsIn } from '../../tests/support/fake-containerd.ts';
import { Life } from '../../tests/support/mortal.ts';
import { randomFrom } from '../../tests/support/random.ts';

/** A configuration, and what the one edit makes of it, worked out by hand. */
interface Trial {
  readonly name: string;
  readonly before: string;
  readonly after: (certsDir: string) => string;
}

const recorded = (name: string) =>
  readFileSync(join(import.meta.dirname, '../../tests/support/recorded-containerd', name), 'utf8');

/** One line of a default configuration says another value, and no other byte is touched. */
function unset(name: string, text: string, line: string): Trial {
  assert.equal(text.split(line).length, 2, `${name} says ${line} once`);
  const after = (certsDir: string) => text.replace(line, line.replace(/''|""/, `"${certsDir}"`));
  return { name, before: text, after };
}

const head = `# the machine of a person who likes comments
version = 2   # two
imports = [ "/etc/containerd/conf.d/*.toml", ] # theirs

`;
const tail = `# somebody else's
[plugins."io.foreign.v9.thing"] # not ours
  x = 0x10 # sixteen
  when = 1979-05-27T07:32:00Z
  list = [ 1, # one
    2, ]
\t# the end, without a newline`;
const table = 'plugins."io.containerd.grpc.v1.cri".registry';

const of2 = recorded('default-2.4.toml');

const trials: readonly Trial[] = [
  unset("Debian's default", recorded('default-1.6.toml'), 'config_path = ""'),
  unset('a version 3 file', of2.replace('version = 4', 'version = 3'), "      config_path = ''"),
  unset('the default of 2.4', of2, "      config_path = ''"),
  {
    name: 'comments, foreign plugins, inline mirrors',
    before: `${head}[${table}]
  config_path = "" # set me
  [${table}.mirrors."docker.io"] # fast
    endpoint = ["https://one"]
${tail}`,
    after: (certsDir) => `${head}[${table}]
  config_path = "${certsDir}" # set me
${tail}`,
  },
];

const withInlineMirror = ({ before }: Trial) => before.includes('https://one');

/** A machine with the configuration of a trial, whose runtime was started with it. */
function machine({ before }: Trial, folder?: string) {
  const made = mirrorsIn(folder);
  writeFileSync(made.place.configFile, before);
  made.fake.loaded = before;
  return made;
}

type Machine = ReturnType<typeof machine>;
const put = ({ store }: Pick<Machine, 'store'>) => store.put('quay.io', { endpoints: ['https://new'] });
const configOf = ({ place }: Machine) => readFileSync(place.configFile, 'utf8');
const etcOf = ({ folder }: Machine) => readdirSync(join(folder, 'etc'));

for (const trial of trials) {
  test(`${trial.name}: exactly the intended edit, the old bytes beside it`, async () => {
    const made = machine(trial);
    await put(made);
    assert.equal(configOf(made), trial.after(made.place.certsDir));
    assert.equal(readFileSync(`${made.place.configFile}.beosd-backup`, 'utf8'), trial.before);
    assert.deepEqual(etcOf(made), ['certs.d', 'config.toml', 'config.toml.beosd-backup']);
    assert.equal(made.fake.restarts, 1);
  });

  test(`${trial.name}: killed before any single change, the old bytes or the edit; no mirror is lost`, async () => {
    for (const takesIt of [true, false]) {
      for (let calls = 0; !(await survives(trial, calls, takesIt)); calls++) assert.ok(calls < 100);
    }
  });

  test(`${trial.name}: a read-only file or disk: refused by name, the old bytes stay`, {
    skip: noMounts(),
  }, async () => {
    for (const errno of ['EROFS', 'EBUSY']) {
      await onTmpfs('size=1m', async (folder) => {
        const made = machine(trial, folder);
        const { configFile } = made.place;
        // A file that is mounted by itself cannot be replaced, whatever its folder allows.
        if (errno === 'EBUSY') execFileSync('mount', ['--bind', '-o', 'ro', configFile, configFile]);
        else execFileSync('mount', ['-o', 'remount,ro', folder]);
        try {
          await assert.rejects(put(made), { code: 'file_not_written', message: new RegExp(errno) });
          assert.equal(configOf(made), trial.before);
          assert.equal(made.fake.restarts, 0);
        } finally {
          if (errno === 'EBUSY') execFileSync('umount', [configFile]);
        }
      });
    }
  });

  test(`${trial.name}: a full disk, from the first byte to the last`, { skip: noMounts() }, async (t) => {
    const seen = { refused: 0, made: 0 };
    // 4 KiB pages: each round leaves one page more than the one before, until everything fits.
    for (let pages = 0; pages <= 16; pages++) {
      await onTmpfs('size=256k,nr_inodes=1000', async (folder) => {
        const made = machine(trial, folder);
        fillUp(folder, pages);
        seen[await putOnFullDisk(made, trial)]++;
      });
    }
    t.diagnostic(`${seen.refused} refusals, ${seen.made} successes`);
    assert.ok(seen.refused > 0 && seen.made > 0);
  });
}

/** A daemon dies before its n-th change; the next one ends what it began. True: it had done everything by then. */
async function survives(trial: Trial, calls: number, takesIt: boolean): Promise<boolean> {
  const made = machine(trial);
  const after = trial.after(made.place.certsDir);
  made.fake.accepts = (config) => takesIt || config === trial.before;
  const life = new Life();
  life.endAfter(calls);
  await put(mortalMirrorsIn(made, life)).catch(() => undefined);
  const found = configOf(made);
  assert.ok(found === trial.before || found === after, `neither old nor new after ${calls} changes`);
  await made.store.recover().catch((error: unknown) => {
    assert.ok(
      !takesIt && error instanceof Error && 'code' in error && error.code === 'runtime_rolled_back',
      String(error),
    );
  });
  assert.equal(configOf(made), takesIt ? found : trial.before);
  assert.equal(made.fake.loaded, configOf(made), 'the runtime runs with what stands there');
  assert.equal(made.journal.mark, undefined);
  assert.deepEqual(
    etcOf(made).filter((name) => /candidate|tmp$/.test(name)),
    [],
  );
  const mirrors = new Map(
    (await made.store.list()).map((each) => [each.registry, each.file.endpoints[0]?.url]),
  );
  if (withInlineMirror(trial))
    assert.equal(mirrors.get('docker.io'), 'https://one', `after ${calls} changes`);
  made.fake.accepts = () => true;
  await put(made);
  assert.equal(configOf(made), after);
  rmSync(made.folder, { recursive: true });
  return !life.isOver;
}

async function putOnFullDisk(made: Machine, trial: Trial): Promise<'refused' | 'made'> {
  const failure: unknown = await put(made).then(
    () => undefined,
    (error: unknown) => error,
  );
  assert.equal(made.journal.mark, undefined);
  if (failure === undefined) {
    assert.equal(configOf(made), trial.after(made.place.certsDir));
    return 'made';
  }
  assert.ok(failure instanceof Error && 'code' in failure, String(failure));
  assert.equal(failure.code, 'file_not_written', String(failure));
  assert.equal(configOf(made), trial.before);
  assert.equal(made.fake.restarts, 0);
  return 'refused';
}

function noMounts(): string | false {
  return process.getuid?.() === 0 ? false : 'mounting a small tmpfs needs root';
}

/** A tmpfs of a few pages; unmounted and removed at the end whatever happens. */
function onTmpfs(options: string, work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'beosd-tmpfs-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'none', folder]);
  return work(folder).finally(() => {
    execFileSync('umount', [folder]);
    rmSync(folder, { recursive: true });
  });
}

function fillUp(folder: string, freePages: number): void {
  const page = Buffer.alloc(4096, 1);
  let written = 0;
  try {
    for (;;) writeFileSync(join(folder, `filler-${written++}`), page);
  } catch {
    rmSync(join(folder, `filler-${written - 1}`), { force: true });
  }
  for (let n = 0; n < freePages; n++) rmSync(join(folder, `filler-${n}`), { force: true });
}

const crashes = process.env['BEOSD_SOAK'] === undefined ? 8 : 200;

test(`killed with -9 at ${crashes} random moments: the old bytes or the new ones, and the next start ends it well`, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'beosd-crash-'));
  const seen = { old: 0, new: 0 };
  const random = randomFrom(t, Date.now() % 1_000_000);
  const lives = await Promise.all(trials.map(async (trial) => ({ trial, ms: await measure(trial) })));
  for (let n = 0; n < crashes; n++) {
    const life = lives[n % lives.length];
    assert.ok(life);
    const { trial, ms } = life;
    layOut(folder, trial);
    await killDuringPut(folder, random() * ms * 1.1);
    const after = readFileSync(join(folder, 'etc', 'config.toml'), 'utf8');
    const expected = trial.after(join(folder, 'etc', 'certs.d'));
    assert.ok(after === trial.before || after === expected, `neither old nor new: ${after}`);
    seen[after === trial.before ? 'old' : 'new']++;
    await recoverAndCheck(folder, trial, after);
  }
  rmSync(folder, { recursive: true, force: true });
  if (crashes >= 100) assert.ok(seen.old > 0 && seen.new > 0, 'the moments lay on both sides of the edit');
  t.diagnostic(`old bytes ${seen.old} times, new bytes ${seen.new} times`);
});

function layOut(folder: string, { before }: Trial): void {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, 'etc'), { recursive: true });
  writeFileSync(join(folder, 'etc', 'config.toml'), before);
}

interface Editor {
  readonly kill: () => void;
  /** Resolves once it has said the word, also when that came in one piece with another; rejects when it ends without. */
  readonly said: (word: string) => Promise<void>;
  readonly ended: Promise<unknown>;
}

function startChild(folder: string): Editor {
  const script = join(import.meta.dirname, '..', '..', 'tests', 'support', 'switch-child.ts');
  const child = spawn(process.execPath, [script, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
  let words = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    words += text;
  });
  // Not `exit`: what it wrote last may still be in the pipe then.
  const ended = once(child, 'close');
  return {
    kill: () => child.kill('SIGKILL'),
    ended,
    said: async (word) => {
      const over = ended.then(() => 'over' as const);
      while (!words.split('\n').includes(word)) {
        const next = await Promise.race([once(child.stdout, 'data'), over]);
        if (next === 'over' && !words.split('\n').includes(word))
          throw new Error(`it ended before "${word}"`);
      }
    },
  };
}

/** How long the whole change takes when nobody interferes, ms. */
async function measure(trial: Trial): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'beosd-crash-'));
  layOut(folder, trial);
  const child = startChild(folder);
  await child.said('go');
  const began = performance.now();
  await child.said('done');
  const took = performance.now() - began;
  await child.ended;
  rmSync(folder, { recursive: true });
  return took;
}

async function killDuringPut(folder: string, afterMs: number): Promise<void> {
  const child = startChild(folder);
  await child.said('go');
  await new Promise((resolve) => setTimeout(resolve, afterMs)); // the moment of the crash, not a wait for anything
  child.kill();
  await child.ended;
}

/** What the daemon does at its next start: afterwards the runtime runs with what stands in the file. */
async function recoverAndCheck(folder: string, trial: Trial, after: string): Promise<void> {
  const store = new Store(join(folder, 'store'), Date.now);
  const journal = storedJournal(store, new KeyValues(store));
  const made = mirrorsIn(folder, { journal });
  made.fake.loaded = trial.before;
  const interrupted = journal.get() !== undefined;
  await made.store.recover();
  assert.equal(journal.get(), undefined);
  assert.equal(configOf(made), after);
  if (interrupted) assert.equal(made.fake.loaded, after, 'the restart was caught up on');
  assert.deepEqual(
    etcOf(made).filter((name) => /candidate|tmp$/.test(name)),
    [],
  );
  await put(made);
  assert.equal(configOf(made), trial.after(made.place.certsDir));
  const mirrors = (await made.store.list()).map(({ registry, source }) => [registry, source]);
  const quay = ['quay.io', 'certs.d'];
  assert.deepEqual(mirrors, withInlineMirror(trial) ? [['docker.io', 'certs.d'], quay] : [quay]);
  store.close();
}
