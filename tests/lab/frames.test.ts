import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { encodeFrame, FrameReader, type FrameType, frame } from './frames.ts';

const types = Object.values(frame).filter((type) => type !== frame.hello);
const message = fc.record({
  type: fc.constantFrom<FrameType>(...types),
  id: fc.nat(0xffff_ffff),
  payload: fc.uint8Array({ maxLength: 300 }),
});

/** Cuts bytes at the given places, which may lie anywhere. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const sorted = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b);
  return [0, ...sorted].map((from, at) => bytes.subarray(from, sorted[at] ?? bytes.length));
}

test('frames come out as they went in, however the stream is cut', () => {
  const property = fc.property(fc.array(message), fc.array(fc.nat()), (messages, places) => {
    const bytes = Buffer.concat(messages.map(({ type, id, payload }) => encodeFrame(type, id, payload)));
    const reader = new FrameReader();
    const out = cut(bytes, places).flatMap((chunk) => reader.push(chunk));
    const plain = (each: { type: number; id: number; payload: Uint8Array }) => [
      each.type,
      each.id,
      [...each.payload],
    ];
    assert.deepEqual(out.map(plain), messages.map(plain));
  });
  fc.assert(property, { numRuns: 300 });
});

test('a hello is understood after whatever half frame of a former life', () => {
  const property = fc.property(message, fc.nat(), fc.array(fc.nat()), ({ type, id, payload }, at, places) => {
    const whole = encodeFrame(type, id, payload);
    const half = whole.subarray(0, at % whole.length);
    const reader = new FrameReader();
    const stream = Buffer.concat([half, encodeFrame(frame.hello, 0, '{"pid":1}'), encodeFrame(frame.ack, 7)]);
    const out = cut(stream, places).flatMap((chunk) => reader.push(chunk));
    // The half frame may be completed by what follows it; it answers nobody, as numbers are not given twice.
    assert.ok(out.length <= 3);
    assert.deepEqual(
      out.slice(-2).map((each) => [each.type, each.id]),
      [
        [frame.hello, 0],
        [frame.ack, 7],
      ],
    );
    assert.equal(out.at(-2)?.payload.toString(), '{"pid":1}');
  });
  fc.assert(property, { numRuns: 300 });
});

test('bytes that are no frame are passed over', () => {
  const reader = new FrameReader();
  const out = reader.push(Buffer.concat([Buffer.from('boot noise'), encodeFrame(frame.ack, 3)]));
  assert.deepEqual(
    out.map((each) => each.id),
    [3],
  );
});
