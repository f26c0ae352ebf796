import { assert, assertEquals } from "@std/assert";
import { Buffers } from "../../lib/http1/buffers.ts";

const MIB = 2 ** 20;

Deno.test("buffers are smaller the more are in use, and used again", () => {
  const buffers = new Buffers();
  const taken = Array.from({ length: 200 }, () => buffers.take());
  const sizes = taken.map(({ byteLength }) => byteLength);
  assertEquals(sizes, sizes.toSorted((a, b) => b - a));
  assertEquals([sizes[0], sizes.at(-1)], [MIB, MIB / 16]);
  assertEquals(new Set(taken).size, 200);
  for (const buffer of taken) buffers.give(buffer);
  assert(taken.includes(buffers.take()));
});

Deno.test("who took a large buffer early gets a small one when many have come", () => {
  const buffers = new Buffers();
  const taken = Array.from({ length: 200 }, () => buffers.take());
  const renewed = taken.map((buffer) => buffers.renew(buffer));
  const total = renewed.reduce((sum, { byteLength }) => sum + byteLength, 0);
  assert(total <= 32 * MIB, `${total}`);
  assertEquals(new Set(renewed).size, 200);
});

Deno.test("a buffer is let go when nothing was needed for a while, and not before", () => {
  const buffers = new Buffers();
  const first = buffers.take();
  buffers.give(first);
  buffers.trim(); // used since
  const again = buffers.take();
  assertEquals(again, first);
  buffers.trim(); // in use
  buffers.give(again);
  buffers.trim();
  buffers.trim();
  assert(buffers.take() !== first);
});
