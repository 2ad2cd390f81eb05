import assert from 'node:assert/strict';
import { test } from 'node:test';
import { redact } from '#lib/redact.ts';

test('what follows a word for a secret is taken out', () => {
  const secrets = [
    'password: hunter2',
    'Password is hunter2 and more hunter2',
    'TERMINUS_OS_PASSWORD=hunter2',
    '{"password":"hunter2","user":"alice"}',
    'Authorization: Bearer hunter2hunter2',
    "frp_auth_token = 'hunter2'",
    'curl -H "X: Bearer hunter2hunter2"',
    'signature eyJhbGciOiJFZERTQSJ9.hunter2.hunter2',
  ];
  for (const line of secrets) assert.doesNotMatch(redact(line), /hunter2/, line);
});

test('an ordinary line stays as it is', () => {
  for (const line of [
    '[Module] GetStorage',
    'Installing account ...',
    '2026-11-23T12:00:00Z\t[A] host: Task success (1s)',
  ]) {
    assert.equal(redact(line), line);
  }
});

test('takes time in proportion to the line, whatever the line repeats', () => {
  for (const piece of ['a.', 'password', 'eyJ-', 'eyJ', 'token is ', 'eyJa.', 'bearer ', 'a']) {
    const line = piece.repeat(Math.floor((256 * 1024) / piece.length));
    // CPU time: what else the machine does is not this function's fault.
    const began = process.cpuUsage();
    redact(line);
    const took = process.cpuUsage(began).user / 1000;
    assert.ok(took < 2000, `${piece}…: ${Math.round(took)} ms`);
  }
});

test('takes out a signature that is glued to other text', () => {
  assert.equal(redact('x-eyJhbGciOiJFZERTQSJ9.eyJuYW1lIjoiYSJ9.c2ln end'), '[redacted] end');
  assert.equal(redact('mytoken.of.k3s=K10abc'), 'mytoken.of.k3s=[redacted]');
  assert.equal(redact('see app.v2.example.com'), 'see app.v2.example.com');
});
