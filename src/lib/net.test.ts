import assert from 'node:assert/strict';
import { test } from 'node:test';
import { placeOf } from '#lib/net.ts';

test('an IPv4 address is a place of its own, an IPv6 one shares the place of its /64', () => {
  const places: readonly (readonly [string, string])[] = [
    ['192.168.1.77', '192.168.1.77'],
    ['::ffff:192.168.1.77', '192.168.1.77'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['fe80::1:2:3:4', 'fe80:0:0:0::/64'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:DB8:1:2::9', '2001:db8:1:2::/64'],
    ['2001:db8::2:3:4:5:6', '2001:db8:0:2::/64'],
    ['64:ff9b:1:2::192.0.2.1', '64:ff9b:1:2::/64'],
    ['1::2:3:192.0.2.1', '1:0:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
    ['::', '0:0:0:0::/64'],
    ['', ''],
    ['nonsense', 'nonsense'],
  ];
  for (const [address, place] of places) assert.equal(placeOf(address), place, address);
});
