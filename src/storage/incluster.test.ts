import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Call } from '#api/operation.ts';
import { type FakeDisk, FakeMachine, type FakeVolume } from '#host/fake/machine.ts';
import { noOtherNodes, type OtherNodes, storageHandlers } from '#storage/handlers.ts';
import { ShareLists } from '#storage/share-lists.ts';
import { quickStore, rig, shareRoot } from '../../tests/support/fake-storage.ts';

const call: Call = {
  caller: { class: 'workload', proof: 'address' },
  ...{ signal: new AbortController().signal, requestId: '1', dryRun: false },
};
const nothing = { params: {}, query: {}, body: undefined } as const;
const volume = (fstype: string, label: string): FakeVolume => ({
  ...{ fstype, uuid: `u-${label}`, label, files: new Map() },
});
const disk = (transport: 'usb' | 'sata', label: string): FakeDisk => ({
  ...{ serial: `S-${label}`, model: 'Acme', transport, volumes: [volume('ext4', label)] },
});

/** This node has a stick, a SATA disk below the share root and one elsewhere, and a share. */
async function node(others: OtherNodes) {
  const folders = ['/', '/olares', shareRoot, `${shareRoot}/Films`, '/srv/data'];
  const machine = new FakeMachine(folders);
  machine.fstab.set(`${shareRoot}/Films`, 'u-FILMS');
  machine.fstab.set('/srv/data', 'u-DATA');
  for (const each of [disk('usb', 'STICK'), disk('sata', 'FILMS'), disk('sata', 'DATA')]) machine.plug(each);
  machine.shares.set('//nas/public', volume('cifs', 'public'));
  machine.servers.add('nas');
  const { storage, ports } = rig({ machine, store: quickStore() });
  const lists = new ShareLists(ports, storage.registry);
  const jobs = {
    start: async () => 'job-1',
    plan: async () => ({ allowed: true, preconditions: [], steps: [] }),
  };
  const handlers = storageHandlers({ storage, lists, nodeName: () => 'node-1', others, jobs });
  await storage.start();
  await handlers['command.mountSamba']({ ...nothing, body: { smbPath: '//nas/public' } }, call);
  return { handlers, storage };
}

const routes = ['Usb', 'Hdd', 'Smb', 'Path'] as const;
const here: Record<(typeof routes)[number], string[]> = {
  Usb: ['STICK'],
  Hdd: ['Films'],
  Smb: ['public'],
  Path: ['Films', 'STICK', 'public'],
};

test('the -incluster lists have this node’s mounts below the share root, by relative path and node', async () => {
  const { handlers, storage } = await node(noOtherNodes);
  for (const route of routes) {
    const answer = await handlers[`system.mounted${route}Incluster`](nothing, call);
    assert.ok('data' in answer && 'beside' in answer);
    assert.deepEqual(
      answer.data.map((row) => row.path),
      here[route],
    );
    assert.deepEqual(new Set(answer.data.map((row) => row.node)), new Set(['node-1']));
    assert.deepEqual(answer.beside, { unreachable: [] });
    const alone = await handlers[`system.mounted${route}`](nothing, call);
    assert.ok('data' in alone);
    assert.ok(alone.data.every((row) => row.path.startsWith('/') && !('node' in row)));
  }
  await storage.close();
});

test('what other nodes tell is added, and one that cannot be reached is named beside the data', async () => {
  const asked: string[] = [];
  const unreachable = [{ node: 'node-3', reason: 'does not answer' }];
  const { handlers, storage } = await node({
    mounted: async (path, signal) => {
      asked.push(path);
      assert.equal(signal.aborted, false);
      return { rows: [{ path: 'Theirs', node: 'node-2' }], unreachable };
    },
  });
  for (const route of routes) {
    const answer = await handlers[`system.mounted${route}Incluster`](nothing, call);
    assert.ok('data' in answer && 'beside' in answer);
    const rows = answer.data.map((row) => `${row.node}/${row.path}`);
    assert.deepEqual(rows, [...here[route].map((path) => `node-1/${path}`), 'node-2/Theirs']);
    assert.deepEqual(answer.beside, { unreachable });
  }
  assert.deepEqual(
    asked,
    routes.map((route) => `/system/mounted-${route.toLowerCase()}`),
  );
  await storage.close();
});
