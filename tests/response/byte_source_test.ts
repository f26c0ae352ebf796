import { assert, assertEquals, assertRejects } from "@std/assert";
import { type ByteSource, streamOf } from "../../lib/response/byte_source.ts";

/** A source of `size` bytes, what was read of it, and how it ended. */
function sourceOf(size: number, { failAt = Infinity } = {}) {
  const ends: number[] = [];
  const asked: number[] = [];
  let at = 0;
  const source: ByteSource = {
    read(buffer) {
      asked.push(buffer.byteLength);
      if (at >= failAt) return Promise.reject(new Error("Broken off"));
      const n = Math.min(buffer.byteLength, size - at);
      at += n;
      return Promise.resolve(n === 0 ? undefined : buffer.fill(7, 0, n).subarray(0, n));
    },
    end: (sent) => void ends.push(sent),
  };
  return { source, ends, asked };
}

const SIZE = 200_000;

Deno.test("a source as a stream is all of it, and ends it once", async () => {
  for (const length of [SIZE, undefined]) {
    const { source, ends } = sourceOf(SIZE);
    const bytes = await new Response(streamOf(source, length)).bytes();
    assertEquals([bytes.byteLength, ends], [SIZE, [SIZE]]);
  }
});

Deno.test("no more is read of a source than is expected of it", async () => {
  const { source, asked } = sourceOf(SIZE);
  const bytes = await new Response(streamOf(source, 70_000)).bytes();
  assertEquals([bytes.byteLength, asked.reduce((sum, n) => sum + n)], [70_000, 70_000]);
});

Deno.test("nothing is read before somebody reads the stream", async () => {
  const { source, asked, ends } = sourceOf(SIZE);
  const stream = streamOf(source, SIZE);
  await new Promise((resolve) => setTimeout(resolve));
  assertEquals(asked, []);
  await stream.cancel();
  assertEquals(ends, [0]);
});

Deno.test("a stream that is cancelled ends its source with what was read", async () => {
  const { source, ends } = sourceOf(SIZE);
  const reader = streamOf(source, SIZE).getReader();
  const { value } = await reader.read();
  await reader.cancel();
  assertEquals(ends, [value!.byteLength]);
});

Deno.test("a source that breaks off breaks the stream", async () => {
  const { source, ends } = sourceOf(SIZE, { failAt: 1 });
  await assertRejects(() => new Response(streamOf(source, SIZE)).bytes(), Error, "Broken off");
  assertEquals(ends.length, 1);
  assert(ends[0]! < SIZE);
});

Deno.test("what a source lends until its next read stays as it is in the stream", async () => {
  const lent = new Uint8Array(3);
  let reads = 0;
  const source: ByteSource = {
    read: () => Promise.resolve(++reads > 4 ? undefined : lent.fill(reads)),
    end() {},
  };
  const chunks = await Array.fromAsync(streamOf(source));
  assertEquals(chunks, [1, 2, 3, 4].map((n) => new Uint8Array(3).fill(n)));
});
