import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { JsonLines, ListSplitter, StreamFormatError } from '#cluster/kube/json-stream.ts';

/** The bytes cut at the given places. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const sorted = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b);
  const edges = [0, ...sorted, bytes.length];
  return edges.slice(1).map((edge, index) => bytes.subarray(edges[index], edge));
}

const seed = Number(process.env['FC_SEED'] ?? 20261123);

test('a watch gives the same values however its bytes are cut', () => {
  fc.assert(
    fc.property(fc.array(fc.jsonValue(), { maxLength: 8 }), fc.array(fc.nat(5000)), (values, places) => {
      const bytes = Buffer.from(values.map((value) => `${JSON.stringify(value)}\n`).join(''));
      const seen: unknown[] = [];
      const lines = new JsonLines((value) => seen.push(value));
      for (const piece of cut(bytes, places)) lines.push(piece);
      assert.equal(lines.end(), true);
      assert.deepEqual(seen, JSON.parse(JSON.stringify(values)));
    }),
    { seed, numRuns: 200 },
  );
});

test('half a line at the end of a watch is dropped and told', () => {
  const seen: unknown[] = [];
  const lines = new JsonLines((value) => seen.push(value));
  lines.push(Buffer.from('{"type":"ADDED"}\n{"type":"MODI'));
  assert.equal(lines.end(), false);
  assert.deepEqual(seen, [{ type: 'ADDED' }]);
});

test('a line that is not JSON is an error, not an event', () => {
  const lines = new JsonLines(() => assert.fail('no value expected'));
  assert.throws(() => lines.push(Buffer.from('{"type":\n')), StreamFormatError);
});

test('an endless line does not fill the memory', () => {
  const lines = new JsonLines(() => undefined);
  const block = Buffer.alloc(1024 * 1024, 0x61);
  assert.throws(() => {
    for (let count = 0; count < 6; count++) lines.push(block);
  }, /larger than 4 MiB/);
});

test('a list gives its items and its metadata however its bytes are cut', () => {
  const item = fc.record({ metadata: fc.dictionary(fc.string(), fc.string()), spec: fc.jsonValue() });
  fc.assert(
    fc.property(
      fc.array(item, { maxLength: 6 }),
      fc.string(),
      fc.boolean(),
      fc.array(fc.nat(5000)),
      (items, token, metadataFirst, places) => {
        const metadata = { resourceVersion: '42', continue: token };
        const body = metadataFirst
          ? { kind: 'PodList', metadata, items }
          : { kind: 'PodList', items, metadata };
        const seen: unknown[] = [];
        const splitter = new ListSplitter((value) => seen.push(value));
        for (const piece of cut(Buffer.from(JSON.stringify(body, null, metadataFirst ? 0 : 2)), places)) {
          splitter.push(piece);
        }
        assert.deepEqual(splitter.end().metadata, metadata);
        assert.deepEqual(seen, JSON.parse(JSON.stringify(items)));
      },
    ),
    { seed, numRuns: 200 },
  );
});

test('a list that ends in the middle is an error', () => {
  const splitter = new ListSplitter(() => undefined);
  splitter.push(Buffer.from('{"kind":"PodList","items":[{"a":1},{"b"'));
  assert.throws(() => splitter.end(), /ended in the middle/);
});

test('a list of null is an empty list', () => {
  const splitter = new ListSplitter(() => assert.fail('no item expected'));
  splitter.push(Buffer.from('{"metadata":{"resourceVersion":"7"},"items":null}'));
  assert.equal(splitter.end().metadata?.resourceVersion, '7');
});
