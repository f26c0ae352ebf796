import { assert, assertEquals, assertRejects } from "@std/assert";
import { IdleError } from "../../../lib/upstream/download/body.ts";
import { ChunkReader } from "../../../lib/upstream/download/chunks.ts";
import { bodyOf, cut, fedBody, oneMemory } from "../../support/bodies.ts";
import { randomBytes } from "../../support/content.ts";

const IDLE = 60_000;

async function collect(reader: ChunkReader): Promise<number[]> {
  const bytes: number[] = [];
  for (let chunk; (chunk = await reader.read());) for (const byte of chunk) bytes.push(byte);
  return bytes;
}

for (const type of ["bytes", undefined] as const) {
  for (const hasMemory of [true, false]) {
    const what = `${type ? "a byte stream" : "a plain stream"} ${
      hasMemory ? "read into given memory" : "read as it comes"
    }`;
    const memory = hasMemory ? oneMemory(4096) : undefined;

    Deno.test(`${what} gives all bytes in order`, async () => {
      const bytes = randomBytes(200_000, 1);
      const body = bodyOf(cut(bytes, [1, 2, 70_000, 199_999]), { type });
      assertEquals(await collect(new ChunkReader(body, { idle: IDLE, memory })), [...bytes]);
    });

    Deno.test(`${what} that stands still ends with an IdleError`, async () => {
      const body = bodyOf([randomBytes(10, 1)], { type, end: "stall" });
      const reader = new ChunkReader(body, { idle: 20, memory });
      assertEquals((await reader.read())?.byteLength, 10);
      await assertRejects(() => reader.read(), IdleError, "No data for 0.02 s");
      reader.cancel();
    });

    Deno.test(`${what} that breaks passes on what broke it`, async () => {
      const end = new Error("Connection reset");
      const reader = new ChunkReader(bodyOf([], { type, end }), { idle: IDLE, memory });
      await assertRejects(() => reader.read(), Error, "Connection reset");
    });

    Deno.test(`cancelling ${what} reaches the connection`, () => {
      const fed = fedBody({ type });
      new ChunkReader(fed.body, { idle: IDLE, memory }).cancel();
      assert(fed.cancelled);
    });
  }
}

Deno.test("a byte stream is read into the memory that is given, which comes back with each chunk", async () => {
  const fed = fedBody({ type: "bytes" });
  const memory = oneMemory(2);
  const reader = new ChunkReader(fed.body, { idle: IDLE, memory });
  fed.push(new Uint8Array([1, 2, 3]));
  let seen: ArrayBufferLike | undefined;
  for (const bytes of [[1, 2], [3]]) {
    const chunk = await reader.read();
    assertEquals([...chunk!], bytes);
    assertEquals(chunk!.buffer, memory.take());
    memory.giveBack(chunk!.buffer as ArrayBuffer);
    // The same memory under a new name: the old name is detached.
    if (seen) assertEquals(seen.byteLength, 0);
    seen = chunk!.buffer;
  }
  reader.cancel();
});

Deno.test("a plain stream leaves the memory that is given alone", async () => {
  const memory = oneMemory(2);
  const bytes = randomBytes(10, 1);
  const reader = new ChunkReader(bodyOf([bytes]), { idle: IDLE, memory });
  assertEquals(await collect(reader), [...bytes]);
  assertEquals(memory.isTaken, false);
});

Deno.test("a chunk in memory of its own stays what it was", async () => {
  const fed = fedBody({ type: "bytes" });
  const reader = new ChunkReader(fed.body, { idle: IDLE });
  fed.push(new Uint8Array([1]));
  const first = await reader.read();
  fed.push(new Uint8Array([2]));
  const second = await reader.read();
  assertEquals([...first!, ...second!], [1, 2]);
  reader.cancel();
});
