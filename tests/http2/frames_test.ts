import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { Frames } from "../../lib/http2/frames.ts";
import { FRAME, frame, joined } from "../support/http2.ts";

const kinds = fc.constantFrom(...Object.values(FRAME));
const frames = fc.array(fc.record({ kind: kinds, length: fc.nat(300) }), { maxLength: 12 });
const cuts = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 50 });

Deno.test("however frames are cut, an answer is seen exactly where bytes of one are", () => {
  fc.assert(fc.property(frames, cuts, (all, cuts) => {
    const bytes = joined(all.map(({ kind, length }) => frame(kind, new Uint8Array(length))));
    const isAnswer = all.flatMap(({ kind, length }) => {
      const counts = kind === FRAME.data || kind === FRAME.headers;
      return [...Array(9).fill(false), ...Array(length).fill(counts)];
    });
    const reader = new Frames();
    for (let at = 0, i = 0; at < bytes.byteLength; i++) {
      const end = Math.min(bytes.byteLength, at + cuts[i % cuts.length]!);
      const expected = isAnswer.slice(at, end).includes(true);
      assertEquals(reader.hasAnswer(bytes.subarray(at, end)), expected);
      at = end;
    }
  }));
});

Deno.test("a frame without a payload is no answer", () => {
  const reader = new Frames();
  assertEquals(reader.hasAnswer(frame(FRAME.data)), false);
  assertEquals(reader.hasAnswer(frame(FRAME.settings, new Uint8Array(6))), false);
  assertEquals(reader.hasAnswer(frame(FRAME.data, new Uint8Array(1))), true);
});
