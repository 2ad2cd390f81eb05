import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MessageBusPort } from '#host/bus.ts';
import { systemClock } from '#host/clock.ts';
import { type Exec, ExecError } from '#host/exec.ts';
import { FakeClock } from '#host/fake/clock.ts';
import { Files } from '#host/files.ts';
import type { Checkpoint, PhaseContext } from '#jobs/definition.ts';
import { Interrupted } from '#jobs/outcome.ts';
import { isFault } from '#lib/fault.ts';
import { type PowerInput, type PowerOptions, rebootDefinition, shutdownDefinition } from '#system/power.ts';
import { fakeLogind } from '../../tests/support/fake-logind.ts';
import { privateBus } from '../../tests/support/private-bus.ts';

const nowhere = 'unix:path=/nonexistent/socket';

/** Everything that power needs, with a systemctl that only takes notes. */
function bench(address: string, more: Partial<PowerOptions> = {}) {
  const commands: string[] = [];
  const exec: Exec = {
    started: 0,
    run: (file, args) => {
      commands.push([file, ...args].join(' '));
      return Promise.resolve({ exitCode: 0, stdout: '', stderr: '' });
    },
    lines: () => {
      throw new Error('power listens to no command');
    },
  };
  const bus = new MessageBusPort(address, systemClock);
  const root = mkdtempSync(join(tmpdir(), 'beosd-power-'));
  const options: PowerOptions = {
    bus,
    exec,
    files: new Files(root),
    clock: new FakeClock(),
    bootIdentity: () => 'boot-1',
    sandboxed: false,
    ...more,
  };
  return { bus, options, commands, root };
}

function context(checkpoint: Checkpoint = {}) {
  const remembered: Checkpoint[] = [];
  const value: PhaseContext<PowerInput> = {
    jobId: 'p',
    input: {},
    signal: new AbortController().signal,
    checkpoint,
    remember: (patch) => remembered.push(patch),
    progress: () => undefined,
  };
  return { value, remembered };
}

const issueOf = (definition: ReturnType<typeof rebootDefinition>) => {
  const phase = definition.phases({}).find(({ name }) => name === 'issue');
  assert.ok(phase?.resume);
  return { run: phase.run, resume: phase.resume };
};

test('reboot and shutdown ask logind once each, after the intent was written down', async () => {
  await using bus = await privateBus();
  const logind = await fakeLogind(await bus.peer('org.freedesktop.login1'));
  const { options, commands, bus: port } = bench(bus.address);
  const { value, remembered } = context();
  await issueOf(rebootDefinition(options)).run(value);
  await issueOf(shutdownDefinition(options)).run(value);
  assert.deepEqual(logind.calls, ['Reboot(false)', 'PowerOff(false)']);
  assert.deepEqual(remembered, [{ boot: 'boot-1' }, { boot: 'boot-1' }]);
  assert.deepEqual(commands, []);
  await port.close();
});

test('who holds the shutdown back is named, and the machine stays up', async () => {
  await using bus = await privateBus();
  const logind = await fakeLogind(await bus.peer('org.freedesktop.login1'));
  logind.inhibitors = [
    ['sleep', 'Somebody', 'irrelevant', 'block', 0, 1],
    ['shutdown', 'Somebody', 'only delays', 'delay', 0, 2],
    ['shutdown:sleep', 'Package Manager', 'writing the kernel', 'block', 0, 77],
  ];
  const { options, commands, bus: port } = bench(bus.address);
  await assert.rejects(issueOf(rebootDefinition(options)).run(context().value), (error) => {
    assert.ok(isFault(error) && error.code === 'power_refused');
    assert.match(error.message, /Package Manager \(process 77\) holds it back: writing the kernel/);
    assert.doesNotMatch(error.message, /irrelevant|only delays/);
    return true;
  });
  assert.deepEqual([logind.calls, commands], [[], []]);
  await port.close();
});

test('a refusal by logind itself is the reason of the failure, and nothing else is tried', async () => {
  await using bus = await privateBus();
  const logind = await fakeLogind(await bus.peer('org.freedesktop.login1'));
  logind.refuseWith = {
    name: 'org.freedesktop.login1.OperationInProgress',
    text: 'There is an operation in progress',
  };
  const { options, commands, bus: port } = bench(bus.address);
  await assert.rejects(
    issueOf(rebootDefinition(options)).run(context().value),
    /refused\. There is an operation in progress/,
  );
  assert.deepEqual(commands, []);
  await port.close();
});

test('a machine that goes down before logind has answered was not refused, one that stays up was', async () => {
  await using bus = await privateBus();
  const logind = await fakeLogind(await bus.peer('org.freedesktop.login1'));
  logind.refuseWith = { name: 'org.freedesktop.DBus.Error.NoReply', text: 'recipient disconnected' };
  const { options, commands, bus: port } = bench(bus.address);
  const { run } = issueOf(rebootDefinition(options));
  await assert.rejects(run(context().value), /refused\. recipient disconnected/);
  logind.preparing = true;
  await run(context().value);
  assert.deepEqual(commands, []);
  await port.close();
});

test('without a bus, or without logind on it, systemctl is asked', async () => {
  await using bus = await privateBus();
  for (const address of [nowhere, bus.address]) {
    const { options, commands, bus: port } = bench(address);
    await issueOf(rebootDefinition(options)).run(context().value);
    await issueOf(shutdownDefinition(options)).run(context().value);
    assert.deepEqual(commands, ['systemctl reboot', 'systemctl poweroff']);
    await port.close();
  }
});

test('a shutdown that somebody has planned for later is not taken for the one that is asked for now', async () => {
  await using bus = await privateBus();
  const logind = await fakeLogind(await bus.peer('org.freedesktop.login1'));
  logind.refuseWith = { name: 'org.freedesktop.DBus.Error.NoReply', text: 'recipient disconnected' };
  for (const address of [bus.address, nowhere]) {
    const { options, commands, root, bus: port } = bench(address);
    mkdirSync(join(root, 'run/systemd/shutdown'), { recursive: true });
    writeFileSync(join(root, 'run/systemd/shutdown/scheduled'), 'USEC=1\nMODE=reboot\n');
    const asked = issueOf(rebootDefinition(options)).run(context().value);
    if (address === nowhere) await asked;
    else await assert.rejects(asked, /refused/);
    assert.deepEqual(commands, address === nowhere ? ['systemctl reboot'] : []);
    await port.close();
  }
});

test('where systemctl cannot either, the job says so', async () => {
  const exec: Exec = {
    started: 0,
    run: (file, args) =>
      Promise.reject(
        new ExecError({
          file,
          args,
          reason: 'exit',
          exitCode: 1,
          stdout: '',
          stderr: 'not booted with systemd',
        }),
      ),
    lines: () => {
      throw new Error('power listens to no command');
    },
  };
  const { options, bus } = bench(nowhere, { exec });
  await assert.rejects(issueOf(rebootDefinition(options)).run(context().value), (error) => {
    return (
      isFault(error) && error.code === 'systemd_unavailable' && /not booted with systemd/.test(error.message)
    );
  });
  await bus.close();
});

test('after a crash: another boot is success, a shutdown under way is success, a machine that stayed up is neither', async () => {
  await using bus = await privateBus();
  const logind = await fakeLogind(await bus.peer('org.freedesktop.login1'));
  const { options, root, bus: port } = bench(bus.address);
  const resume = (checkpoint: Checkpoint) =>
    issueOf(rebootDefinition(options)).resume(context(checkpoint).value);
  await resume({ boot: 'boot-0' });
  await assert.rejects(resume({ boot: 'boot-1' }), Interrupted);
  await assert.rejects(resume({}), Interrupted);
  logind.preparing = true;
  await resume({ boot: 'boot-1' });
  logind.preparing = false;
  mkdirSync(join(root, 'run/systemd/shutdown'), { recursive: true });
  writeFileSync(join(root, 'run/systemd/shutdown/scheduled'), 'MODE=reboot\n');
  await resume({ boot: 'boot-1' });
  assert.deepEqual(logind.calls, [], 'finding out never asks for it');
  await port.close();
});

test('the first phase waits two seconds and can be called back', async () => {
  const clock = new FakeClock();
  const { options, bus } = bench(nowhere, { clock });
  const [wait] = rebootDefinition(options).phases({});
  assert.ok(wait?.cancellable);
  let over = false;
  const waiting = Promise.resolve(wait.run(context().value)).then(() => {
    over = true;
  });
  await clock.advance(1_999);
  assert.equal(over, false);
  await clock.advance(1);
  await waiting;
  const cancel = new AbortController();
  const called = wait.run({ ...context().value, signal: cancel.signal });
  cancel.abort(new Error('called back'));
  await assert.rejects(called, /called back/);
  await bus.close();
});

test('a sandbox refuses, with its own code', async () => {
  const { options, bus } = bench(nowhere, { sandboxed: true });
  const [check] = await rebootDefinition(options).preconditions({});
  assert.deepEqual([check?.ok, check?.code], [false, 'sandbox']);
  await bus.close();
});
