import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readdirSync, renameSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { anchorAtEnd, Tail } from '#host/tail.ts';

const file = () => join(mkdtempSync(join(tmpdir(), 'beosd-tail-')), 'log');

test('what stood before the anchor is never read', () => {
  const path = file();
  writeFileSync(path, 'old\nAll done\n');
  const tail = new Tail(path, anchorAtEnd(path));
  assert.deepEqual(tail.read(), []);
  appendFileSync(path, 'new\n');
  assert.deepEqual(tail.read(), ['new']);
});

test('a line counts when it is complete, also when a character was cut in two', () => {
  const path = file();
  const tail = new Tail(path, anchorAtEnd(path));
  const bytes = Buffer.from('größe\r\nrest', 'utf8');
  writeFileSync(path, bytes.subarray(0, 3));
  assert.deepEqual(tail.read(), []);
  appendFileSync(path, bytes.subarray(3));
  assert.deepEqual(tail.read(), ['größe']);
  appendFileSync(path, '\n');
  assert.deepEqual(tail.read(), ['rest']);
});

test('a file that was cut, replaced, or cut and has grown beyond the anchor is read from its beginning', () => {
  const path = file();
  writeFileSync(path, 'something old\n');
  const anchor = anchorAtEnd(path);

  truncateSync(path, 0);
  writeFileSync(path, 'short\n');
  assert.deepEqual(new Tail(path, anchor).read(), ['short']);

  writeFileSync(path, 'this is much longer than it was\nsecond\n');
  assert.deepEqual(new Tail(path, anchor).read(), ['this is much longer than it was', 'second']);

  const tail = new Tail(path, anchorAtEnd(path));
  renameSync(path, `${path}.1`);
  assert.deepEqual(tail.read(), []);
  writeFileSync(path, 'rotated\n');
  assert.deepEqual(tail.read(), ['rotated']);
});

test('a line without an end does not fill the memory', () => {
  const path = file();
  const tail = new Tail(path, anchorAtEnd(path));
  for (let at = 0; at < 40; at++) {
    appendFileSync(path, 'x'.repeat(10_000));
    tail.read();
  }
  appendFileSync(path, '\nnext\n');
  const [long, next] = tail.read();
  assert.equal(long?.length, 16 * 1024);
  assert.equal(next, 'next');
});

test('no descriptor stays open', () => {
  const path = file();
  writeFileSync(path, 'x\n');
  const tail = new Tail(path, { inode: 0, offset: 0, before: '' });
  tail.read();
  const before = readdirSync('/proc/self/fd').length;
  for (let at = 0; at < 200; at++) tail.read();
  assert.equal(readdirSync('/proc/self/fd').length, before);
});
