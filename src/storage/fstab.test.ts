import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseUdevData } from '#host/udev.ts';
import type { Volume } from '#storage/devices.ts';
import { parseFstab } from '#storage/fstab.ts';

const data = parseUdevData(
  [
    'S:disk/by-uuid/9C33-6BBD',
    'S:disk/by-label/My\\x20Photos',
    'S:mapper/vg-photos',
    'E:ID_PART_ENTRY_NAME=photos',
    'E:ID_FS_TYPE=vfat',
  ].join('\n'),
);
assert.ok(data);

type Named = Parameters<ReturnType<typeof parseFstab>[number]['matches']>[0];
const stick: Named = {
  uuid: '9C33-6BBD',
  partUuid: 'c9f1aa2e-01',
  label: 'My Photos',
  device: { ...data, node: '/dev/sdb1' } as unknown as Volume['device'],
};

test('a line names a disk by everything that fstab(5) and udev know it by', () => {
  const specs = [
    'UUID=9C33-6BBD',
    'UUID=9c33-6bbd',
    'UUID="9C33-6BBD"',
    'PARTUUID=C9F1AA2E-01',
    'LABEL=My\\040Photos',
    'LABEL="My\\040Photos"',
    'PARTLABEL=photos',
    '/dev/sdb1',
    '/dev/disk/by-uuid/9C33-6BBD',
    '/dev/disk/by-label/My\\x20Photos',
    '/dev/mapper/vg-photos',
  ];
  for (const spec of specs) {
    const [entry] = parseFstab(`${spec} /srv ext4 defaults 0 2`);
    assert.ok(entry?.matches(stick), spec);
  }
});

test('a line of another disk, or of nothing that is a disk, names none', () => {
  const specs = [
    ...['UUID=0000-0000', 'UUID=', 'PARTUUID=', 'LABEL=my\\040photos', 'LABEL=', 'PARTLABEL=', 'PARTLABEL=x'],
    ...[
      '/dev/sdb',
      '/dev/sdb11',
      '/dev/disk/by-uuid/9C33',
      'nas:/srv',
      '//nas/srv',
      'tmpfs',
      'proc',
      '# UUID=9C33-6BBD',
    ],
  ];
  for (const spec of specs)
    for (const entry of parseFstab(`${spec} /srv ext4 defaults 0 2`)) assert.ok(!entry.matches(stick), spec);
  const nameless: Named = { ...stick, uuid: '', partUuid: '', label: '' };
  for (const spec of ['UUID=', 'LABEL=', 'PARTUUID=', 'UUID=""', 'LABEL=""'])
    assert.ok(!parseFstab(`${spec} /srv ext4`)[0]?.matches(nameless), spec);
});

test('a line tells where, whether at boot, and whether only to be read; the last word holds', () => {
  const of = (line: string) =>
    parseFstab(line).map(({ target, isDisk, auto, readOnly }) =>
      [target, ...(isDisk ? ['disk'] : []), ...(auto ? ['auto'] : []), ...(readOnly ? ['ro'] : [])].join(' '),
    );
  assert.deepEqual(of('UUID=1 /srv/a/ ext4 rw,nofail'), ['/srv/a disk auto']);
  assert.deepEqual(of('UUID=1 /a\\040b ext4 ro,noauto 0 0'), ['/a b disk ro']);
  assert.deepEqual(of('UUID=1 //srv/./x/../b// ext4 noauto,auto,ro,rw'), ['/srv/b disk auto']);
  assert.deepEqual(of('/dev/sda1 /srv/b none bind'), ['/srv/b auto']);
  assert.deepEqual(of('/srv/a /srv/b none rbind,noauto'), ['/srv/b']);
  assert.deepEqual(of('nas:/films /srv/films nfs'), ['/srv/films auto']);
  assert.deepEqual(of('UUID=1 / ext4 rw,ro'), ['/ disk auto ro']);
  assert.deepEqual(of('UUID=1 none swap sw 0 0\nUUID=1\n\n   # UUID=1 /srv ext4\n'), []);
});
