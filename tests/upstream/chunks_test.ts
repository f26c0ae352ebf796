import { assert, assertEquals, assertRejects } from "@std/assert";
import { IdleError } from "../../lib/upstream/body.ts";
import { ChunkReader } from "../../lib/upstream/chunks.ts";
import { bodyOf, cut, fedBody } from "../support/bodies.ts";
import { randomBytes } from "../support/content.ts";

const IDLE = 60_000;

async function collect(reader: ChunkReader): Promise<number[]> {
  const bytes: number[] = [];
  for (let chunk; (chunk = await reader.read());) for (const byte of chunk) bytes.push(byte);
  return bytes;
}

for (const type of ["bytes", undefined] as const) {
  for (const reuse of [true, false]) {
    const what = `${type ? "a byte stream" : "a plain stream"} ${reuse ? "with" : "without"} reuse`;

    Deno.test(`${what} gives all bytes in order`, async () => {
      const bytes = randomBytes(200_000, 1);
      const body = bodyOf(cut(bytes, [1, 2, 70_000, 199_999]), { type });
      assertEquals(await collect(new ChunkReader(body, { idle: IDLE, reuse })), [...bytes]);
    });

    Deno.test(`${what} that stands still ends with an IdleError`, async () => {
      const body = bodyOf([randomBytes(10, 1)], { type, end: "stall" });
      const reader = new ChunkReader(body, { idle: 20, reuse });
      assertEquals((await reader.read())?.byteLength, 10);
      await assertRejects(() => reader.read(), IdleError, "No data for 0.02 s");
      reader.cancel();
    });

    Deno.test(`${what} that breaks passes on what broke it`, async () => {
      const end = new Error("Connection reset");
      const reader = new ChunkReader(bodyOf([], { type, end }), { idle: IDLE, reuse });
      await assertRejects(() => reader.read(), Error, "Connection reset");
    });

    Deno.test(`cancelling ${what} reaches the connection`, () => {
      const fed = fedBody({ type });
      new ChunkReader(fed.body, { idle: IDLE, reuse }).cancel();
      assert(fed.cancelled);
    });
  }
}

Deno.test("with reuse a byte stream is read into the same memory again and again", async () => {
  const fed = fedBody({ type: "bytes" });
  const reader = new ChunkReader(fed.body, { idle: IDLE, reuse: true });
  let seen: ArrayBufferLike | undefined;
  for (const byte of [1, 2, 3]) {
    fed.push(new Uint8Array([byte]));
    const chunk = await reader.read();
    assertEquals([...chunk!], [byte]);
    // The same memory under a new name: the old name is detached.
    if (seen) assertEquals(seen.byteLength, 0);
    seen = chunk!.buffer;
  }
  reader.cancel();
});

Deno.test("without reuse a chunk stays what it was", async () => {
  const fed = fedBody({ type: "bytes" });
  const reader = new ChunkReader(fed.body, { idle: IDLE });
  fed.push(new Uint8Array([1]));
  const first = await reader.read();
  fed.push(new Uint8Array([2]));
  const second = await reader.read();
  assertEquals([...first!, ...second!], [1, 2]);
  reader.cancel();
});
