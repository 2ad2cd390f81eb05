import assert from 'node:assert/strict';
import { createConnection } from 'node:net';
import { test } from 'node:test';
import { messageOf } from '#lib/fault.ts';

test('a connection that every address of a name has refused tells each of them', async () => {
  // As Node does it (net, autoSelectFamily): an AggregateError without a message of its own.
  const error = await new Promise<unknown>((resolve) => {
    const addresses = [
      { address: '127.0.0.1', family: 4 },
      { address: '127.0.0.2', family: 4 },
    ];
    const lookup = (
      _host: string,
      _options: unknown,
      found: (error: null, all: { address: string; family: number }[]) => void,
    ) => found(null, addresses);
    createConnection({ host: 'two.invalid', port: 1, autoSelectFamily: true, lookup }).once('error', resolve);
  });
  assert.ok(error instanceof AggregateError);
  assert.equal(messageOf(error), 'connect ECONNREFUSED 127.0.0.1:1; connect ECONNREFUSED 127.0.0.2:1');
  assert.equal(messageOf(new Error('told')), 'told');
  assert.equal(messageOf('text'), 'text');
});
