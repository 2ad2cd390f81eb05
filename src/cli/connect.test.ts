import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeUrl } from '#cli/connect.ts';
import { UsageError } from '#cli/terminal.ts';

test('a node is named by address, name or URL; only one without a port has the usual one', () => {
  for (const [given, meant] of [
    ['10.0.0.5', 'http://10.0.0.5:18088'],
    ['node.local:8080', 'http://node.local:8080'],
    ['[fd00::5]', 'http://[fd00::5]:18088'],
    ['http://10.0.0.5', 'http://10.0.0.5:18088'],
    ['http://10.0.0.5/', 'http://10.0.0.5:18088'],
    ['10.0.0.5:80', 'http://10.0.0.5'],
    ['http://10.0.0.5:80/', 'http://10.0.0.5'],
    ['https://node.example', 'https://node.example'],
  ] as const)
    assert.equal(nodeUrl(given), meant, given);
  for (const given of ['', 'fd00::5', 'http://', 'a b'])
    assert.throws(() => nodeUrl(given), UsageError, given);
});
