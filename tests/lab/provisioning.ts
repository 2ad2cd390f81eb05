import assert from 'node:assert/strict';
import type { Disk, ProvisionFilesystem } from '#api/storage.ts';
import type { Guest } from './guest.ts';
import { type BeosNode, shareRoot } from './node.ts';
import { diskOf, ended, eventually, mountOf } from './storage-node.ts';

export interface Wanted {
  readonly serial: string;
  readonly filesystem: ProvisionFilesystem;
  readonly label: string;
}

/** Asks for a provisioning and returns the answer. */
export async function askProvision(
  node: BeosNode,
  disk: Pick<Disk, 'id'>,
  body: Readonly<Record<string, unknown>>,
  query = '',
) {
  return await node.call('POST', `/storage/disks/${encodeURIComponent(disk.id)}/provision${query}`, body);
}

/** Starts a provisioning as its owner would, the serial number typed right; the id of its job. */
export async function provision(node: BeosNode, wanted: Wanted, wipe = false): Promise<string> {
  const { serial, filesystem, label } = wanted;
  const disk = await diskOf(node, serial);
  const body = { filesystem, label, confirm: serial, ...(wipe ? { wipe } : {}) };
  const answer = await askProvision(node, disk, body);
  assert.equal(answer.status, 200, answer.message);
  return (answer.data as { jobId: string }).jobId;
}

/** The disk is mounted with its label and can be written to; its path. */
export async function provisioned(node: BeosNode, { serial, filesystem, label }: Wanted): Promise<string> {
  const path = `${shareRoot}/${label}`;
  const at = await eventually(`${label} is mounted`, 60_000, async () => mountOf(await node.paths(), serial));
  assert.deepEqual([at.path, at.fstype, at.read_only, at.invalid], [path, filesystem, false, false]);
  const disk = await diskOf(node, serial);
  assert.deepEqual(
    disk.volumes.map((volume) => [volume.label, volume.fstype, volume.mountedAt]),
    [[label, filesystem, [path]]],
  );
  const { data } = await node.call('GET', '/system/conditions');
  const codes = (data as readonly { readonly code: string }[]).map(({ code }) => code);
  assert.ok(!codes.some((code) => /^(mount|device)/.test(code)), codes.join(', '));
  await node.vm.run(['sh', '-c', 'echo "$2" > "$1/kept" && sync -f "$1/kept"', 'sh', path, label]);
  return path;
}

/**
 * What became of a provisioning that was cut off: *done*, or *blank again possible*. Either is proven: the disk is in
 * use, or the job names what is on it and a second provisioning, with `wipe` when it is not blank, makes it so.
 */
export async function outcome(node: BeosNode, id: string, wanted: Wanted): Promise<string> {
  const job = await ended(node, id);
  if (job.state === 'succeeded') {
    assert.equal(job.percent, 100);
    await provisioned(node, wanted);
    return 'done';
  }
  assert.equal(job.state, 'failed', JSON.stringify(job));
  assert.match(job.error?.message ?? '', /found: \S/, 'the job says what is on the disk');
  assert.match(job.error?.remedy ?? '', /Provision it again/, JSON.stringify(job.error));
  const disk = await diskOf(node, wanted.serial);
  assert.ok(disk.blank || disk.notBlankBecause !== '', 'the list says whether it is blank');
  await letGo(node, wanted.serial);
  const second = await ended(node, await provision(node, wanted, !disk.blank));
  assert.equal(second.state, 'succeeded', JSON.stringify(second));
  await provisioned(node, wanted);
  return `blank again possible: ${job.error?.message}`;
}

/** A stick that holds a file system again is mounted as any other; it is taken out of use, and stays where it is. */
async function letGo(node: BeosNode, serial: string): Promise<void> {
  const mountedAt = await eventually('it is mounted, or is not going to be', 60_000, async () => {
    const [volume] = (await diskOf(node, serial)).volumes;
    const isSettled = volume?.mountedAt.length !== 0 || volume.notMountedBecause !== '';
    return isSettled ? (volume?.mountedAt ?? []) : undefined;
  });
  for (const path of mountedAt) {
    const { status, message } = await node.call('POST', '/command/umount-usb?force=true', { path });
    assert.equal(status, 200, message);
  }
}

/** When a tripwire acts: the program never begins, is stopped half-way, or has just ended. */
export type Moment = 'before' | 'during' | 'after';

/** Programs that are found first, in memory: a power cut takes them away. */
const traps = '/usr/local/sbin';

export async function armable(vm: Guest): Promise<void> {
  await vm.run(['mount', '-t', 'tmpfs', 'traps', traps]);
}

const killDaemon = 'kill -9 "$(systemctl show --property=MainPID --value beosd)"';

/**
 * The next run of `program` kills the daemon at that moment. One that is stopped half-way goes on only once the
 * daemon is back, as a slow one does that outlives it.
 */
export async function killAt(vm: Guest, program: string, moment: Moment): Promise<void> {
  const acts: Readonly<Record<Moment, readonly string[]>> = {
    before: [killDaemon, 'exit 1'],
    during: [
      '"$real" "$@" & child=$!',
      `sleep 0.1; kill -STOP $child; old=$(systemctl show --property=MainPID --value beosd); ${killDaemon}`,
      'until [ "$(systemctl is-active beosd)" = active ] && [ "$(systemctl show --property=MainPID --value beosd)" != "$old" ]; do sleep 0.1; done',
      'sleep 1; kill -CONT $child; wait $child',
    ],
    after: ['"$real" "$@"', killDaemon],
  };
  await arm(vm, program, acts[moment]);
}

/** Instead of the next run of `program` the daemon is killed, and a person formats the disk before it is back. */
export async function formattedInstead(vm: Guest, program: string): Promise<void> {
  await arm(vm, program, [killDaemon, 'for node; do :; done', 'mkfs.vfat -I "$node"']);
}

/** The next run of `program` stops for good at that moment; resolves when it has been reached. */
export async function stopAt(
  vm: Guest,
  program: string,
  moment: Moment,
): Promise<{ readonly reached: Promise<unknown> }> {
  const mark = `/run/reached-${program}`;
  const wait = `: > ${mark}; exec sleep 3600`;
  const acts: Readonly<Record<Moment, readonly string[]>> = {
    before: [wait],
    during: ['"$real" "$@" & child=$!', 'sleep 0.1; kill -STOP $child', wait],
    after: ['"$real" "$@"', wait],
  };
  await arm(vm, program, acts[moment]);
  const look = 'until [ -e "$1" ]; do sleep 0.1; done';
  const reached = vm.run(['sh', '-c', look, 'sh', mark], { timeoutMs: 120_000 });
  reached.catch(() => undefined); // awaited by the caller, unless what comes before it fails
  return { reached };
}

async function arm(vm: Guest, program: string, act: readonly string[]): Promise<void> {
  const script = [
    '#!/bin/sh',
    'rm -- "$0"',
    `real=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v ${program})`,
    ...act,
  ];
  await vm.put(`${traps}/${program}`, `${script.join('\n')}\n`, 0o755);
}
