import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  bindOwnName,
  editableEntries,
  type HostsEntry,
  hiddenByContract,
  keyOf,
  ownAddresses,
  replaceEditable,
} from '#network/hosts-text.ts';

const reserved = { own: 'node1', hidden: hiddenByContract };

const file = [
  '# static table\r',
  '127.0.0.1\tlocalhost',
  '127.0.1.1   node1.lan NODE1 # set by the installer',
  '::1     ip6-localhost ip6-loopback',
  '',
  '10.0.0.5   nas nas.lan\t# printer room',
  '  10.0.0.6 Cam',
  '#10.0.0.7 off',
  '192.168.1.5 api.cluster.local lb.kubesphere.local',
  'garbage line',
  '10.0.0.300 wrong',
].join('\n');

test('only IPv4 entries that are not the platform’s are shown', () => {
  assert.deepEqual(editableEntries(file, reserved), [
    { ip: '127.0.1.1', host: 'node1.lan' },
    { ip: '10.0.0.5', host: 'nas' },
    { ip: '10.0.0.5', host: 'nas.lan' },
    { ip: '10.0.0.6', host: 'Cam' },
  ]);
});

test('writing what was read changes no byte, in whatever case the names come back', () => {
  const items = editableEntries(file, reserved);
  assert.equal(replaceEditable(file, items, reserved), file);
  const upper = items.map(({ ip, host }) => ({ ip, host: host.toUpperCase() }));
  assert.equal(replaceEditable(file, upper, reserved), file);
});

test('a dropped name leaves its line, the comment of the line stays, a missing final newline stays missing', () => {
  const kept = [{ ip: '127.0.1.1', host: 'node1.lan' }];
  const after = replaceEditable(
    file,
    [...kept, { ip: '10.0.0.5', host: 'nas' }, { ip: '1.2.3.4', host: 'new' }],
    reserved,
  );
  assert.equal(
    after,
    file.replace('nas nas.lan\t#', 'nas\t#').replace('  10.0.0.6 Cam\n', '').concat('\n1.2.3.4\tnew'),
  );
  const emptied = replaceEditable(file, kept, reserved);
  assert.ok(emptied.includes('\n# printer room\n'));
});

test('half a character that looks like a blank is none, here as for the resolver', () => {
  const voila = Buffer.from('10.0.0.5 voil\u00e0 nas\n').toString('latin1');
  const [first, second] = editableEntries(voila, reserved);
  assert.equal(Buffer.from(first?.host ?? '', 'latin1').toString(), 'voil\u00e0');
  assert.equal(second?.host, 'nas');
  const without = replaceEditable(voila, [{ ip: '10.0.0.5', host: 'nas' }], reserved);
  assert.equal(without, '10.0.0.5 nas\n');
});

test('adding and taking away again gives the file from before', () => {
  fc.assert(
    fc.property(fc.boolean(), fc.constantFrom('\n', '\r\n'), (isOpen, eol) => {
      const text = ['# a', '127.0.0.1 localhost', '::1 x'].join(eol) + (isOpen ? '' : eol);
      const added = replaceEditable(text, [{ ip: '10.0.0.1', host: 'x.lan' }], reserved);
      assert.equal(added, isOpen ? `${text}${eol}10.0.0.1\tx.lan` : `${text}10.0.0.1\tx.lan${eol}`);
      assert.equal(replaceEditable(added, [], reserved), text);
    }),
  );
});

test('after any edit of any file the editable set is the one asked for and foreign lines keep their bytes', () => {
  const octet = fc.integer({ min: 0, max: 255 });
  const ip = fc.tuple(octet, octet).map(([a, b]) => `10.0.${a % 3}.${b % 5}`);
  const host = fc.constantFrom('a', 'b', 'B.lan', 'localhost', 'node1', 'x.cluster.local', 'c-1.lan');
  const mapping = fc
    .tuple(ip, fc.array(host, { minLength: 1, maxLength: 3 }))
    .map(([a, names]) => `${a}  ${names.join('\t')}`);
  const foreign = fc.constantFrom('', '# note', '\t', '::1 a b', 'what is this', '300.1.1.1 a', '10.0.0.1');
  const line = fc.oneof(
    mapping,
    foreign,
    mapping.map((text) => `${text} # why`),
  );
  const text = fc
    .tuple(fc.array(line, { maxLength: 8 }), fc.constantFrom('\n', '\r\n'), fc.boolean())
    .map(([lines, eol, open]) => lines.join(eol) + (open ? '' : eol));
  const items = fc.uniqueArray(
    fc.record({ ip, host: fc.constantFrom('a', 'b', 'b.LAN', 'c-1.lan', 'new.lan') }),
    { selector: keyOf, maxLength: 6 },
  );
  fc.assert(
    fc.property(text, items, (before, wanted) => {
      const after = replaceEditable(before, wanted, reserved);
      const keys = (list: readonly HostsEntry[]) => list.map(keyOf).sort();
      assert.deepEqual(keys(editableEntries(after, reserved)), keys(wanted));
      const isForeign = (each: string) => editableEntries(each, reserved).length === 0;
      const lines = (all: string) => all.split('\n').map((each) => each.replace(/\r$/, ''));
      const survived = lines(after);
      for (const each of lines(before).filter((other) => other.trim() !== '' && isForeign(other))) {
        assert.ok(survived.includes(each), `lost: ${JSON.stringify(each)}`);
      }
      assert.equal(replaceEditable(after, wanted, reserved), after);
    }),
    { numRuns: 2000 },
  );
});

test('our name is bound in place, and taken off every other address', () => {
  const text = '127.0.0.1 localhost node1\n192.168.1.4  node1.cluster.local node1 # kubekey\n';
  const after = bindOwnName(text, 'node1', '192.168.1.9');
  assert.equal(
    after,
    '127.0.0.1 localhost\n192.168.1.9\tnode1\n192.168.1.4  node1.cluster.local # kubekey\n',
  );
  assert.deepEqual(ownAddresses(after, 'NODE1'), ['192.168.1.9']);
  const debian = '127.0.0.1\tlocalhost\n127.0.1.1\tnode1.lan node1\n';
  assert.equal(bindOwnName(debian, 'node1', '10.0.0.2'), debian.replace('127.0.1.1', '10.0.0.2'));
  assert.equal(bindOwnName('', 'node1', '10.0.0.2'), '10.0.0.2\tnode1\n');
  assert.equal(bindOwnName(after, 'node1', '192.168.1.9'), after);
});
