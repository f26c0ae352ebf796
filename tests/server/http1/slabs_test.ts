import { assert, assertEquals, assertThrows } from "@std/assert";
import { Buffer } from "node:buffer";
import { Slabs, SMALL_BUFFER } from "../../../lib/server/http1/slabs.ts";

Deno.test("buffers share memory, none with another, and are used again", () => {
  const slabs = new Slabs();
  const taken = Array.from({ length: 300 }, () => slabs.take());
  for (const [i, buffer] of taken.entries()) buffer.fill(i % 256);
  for (const [i, buffer] of taken.entries()) {
    assertEquals(buffer.byteLength, SMALL_BUFFER);
    assert(buffer.every((byte) => byte === i % 256));
  }
  assertEquals(new Set(taken.map(({ buffer }) => buffer)).size, 3);
  const [one] = taken;
  slabs.give(one!);
  assertEquals(slabs.take(), one);
});

Deno.test("memory that nobody uses is let go, but for one piece", () => {
  const slabs = new Slabs();
  const taken = Array.from({ length: 1_280 }, () => slabs.take());
  assertEquals(slabs.bytes, 1_280 * SMALL_BUFFER);
  for (const buffer of taken) slabs.give(buffer);
  assertEquals(slabs.bytes, 128 * SMALL_BUFFER);
});

Deno.test("a buffer from elsewhere is not taken back", () => {
  assertThrows(() => new Slabs().give(Buffer.alloc(SMALL_BUFFER)), TypeError);
});
