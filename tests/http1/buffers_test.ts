import { assert, assertEquals } from "@std/assert";
import { Buffers } from "../../lib/http1/buffers.ts";

Deno.test("buffers are smaller the more are in use, and used again", () => {
  const buffers = new Buffers();
  const taken = Array.from({ length: 200 }, () => buffers.take());
  const sizes = taken.map(({ byteLength }) => byteLength);
  assertEquals(sizes, sizes.toSorted((a, b) => b - a));
  assertEquals([sizes[0], sizes.at(-1)], [2 ** 20, 2 ** 16]);
  assert(sizes.reduce((sum, size) => sum + size) < 24 * 2 ** 20);
  assertEquals(new Set(taken).size, 200);
  for (const buffer of taken) buffers.give(buffer);
  assert(taken.includes(buffers.take()));
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
