import { assert, assertEquals } from "@std/assert";
import { type ByteSource, streamOf } from "../lib/byte_source.ts";
import { drain } from "./support/bodies.ts";
import { randomBytes } from "./support/content.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

/** A source of `size` bytes, the reads that were asked of it, and how it was ended. */
function sourceOf(size: number) {
  const limits: number[] = [];
  const ends: number[] = [];
  let at = 0;
  const source: ByteSource = {
    read(buffer) {
      limits.push(buffer.byteLength);
      const length = Math.min(buffer.byteLength, size - at);
      at += length;
      return Promise.resolve(length > 0 ? buffer.subarray(0, length) : undefined);
    },
    end: (sent) => void ends.push(sent),
  };
  return { source, limits, ends };
}

/** Takes `bytes` of a stream, and stays. */
async function take(stream: ReadableStream<Uint8Array>, bytes: number) {
  const reader = stream.getReader();
  for (let taken = 0; taken < bytes;) taken += (await reader.read()).value!.byteLength;
  return reader;
}

Deno.test("a stream gives the bytes of its source in order, and nothing beyond its length", async () => {
  const bytes = randomBytes(300_000, 1);
  let at = 0;
  let sent: number | undefined;
  const stream = streamOf({
    read(buffer) {
      buffer.set(bytes.subarray(at, at += buffer.byteLength));
      return Promise.resolve(buffer);
    },
    end: (all) => void (sent = all),
  }, 250_001);
  assertEquals(await drain(stream), { bytes: bytes.slice(0, 250_001) });
  assertEquals(sent, 250_001);
});

Deno.test("nothing is read before the client asks", async () => {
  const { source, limits } = sourceOf(MIB);
  const stream = streamOf(source);
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(limits, []);
  await stream.cancel();
});

Deno.test("reads are 64 KiB until a client has taken 16 MiB, and never more than 1 MiB", async () => {
  const { source, limits } = sourceOf(Infinity);
  const reader = await take(streamOf(source), 600 * MIB);
  await reader.cancel();
  let taken = 0;
  for (const limit of limits) {
    if (taken < 16 * MIB) assertEquals(limit, 64 * KIB);
    assert(limit <= MIB);
    taken += limit;
  }
  assertEquals(limits.at(-1), MIB);
});

Deno.test("the more clients read, the smaller is what each of them may hold", async () => {
  const others = Array.from({ length: 31 }, () => streamOf(sourceOf(MIB).source).getReader());
  for (const other of others) await other.read();
  const { source, limits } = sourceOf(Infinity);
  const reader = await take(streamOf(source), 300 * MIB);
  assertEquals(Math.max(...limits), 256 * KIB);
  for (const other of others) await other.cancel();
  for (let i = 0; i < 10; i++) await reader.read();
  assertEquals(limits.at(-1), MIB);
  await reader.cancel();
});

Deno.test("a stream that nobody reads counts for nothing", async () => {
  for (let i = 0; i < 1000; i++) streamOf(sourceOf(MIB).source);
  const { source, limits } = sourceOf(Infinity);
  await (await take(streamOf(source), 300 * MIB)).cancel();
  assertEquals(Math.max(...limits), MIB);
});

Deno.test("at its end, when it breaks and when the client leaves, a source is ended once", async () => {
  const whole = sourceOf(MIB);
  await drain(streamOf(whole.source));
  assertEquals(whole.ends, [MIB]);

  const left = sourceOf(MIB);
  await (await take(streamOf(left.source), 1)).cancel();
  assertEquals(left.ends, [64 * KIB]);

  const ends: number[] = [];
  const broken = streamOf({
    read: () => Promise.reject(new Error("Disk error")),
    end: (sent) => void ends.push(sent),
  });
  assertEquals((await drain(broken)).error?.message, "Disk error");
  assertEquals(ends, [0]);
});

Deno.test("what a client left behind in the middle of a read goes nowhere", async () => {
  const gate = Promise.withResolvers<Uint8Array<ArrayBuffer>>();
  const ends: number[] = [];
  const stream = streamOf({ read: () => gate.promise, end: (sent) => void ends.push(sent) });
  const reader = stream.getReader();
  const read = reader.read();
  await reader.cancel();
  gate.resolve(new Uint8Array(10));
  assertEquals((await read).done, true);
  assertEquals(ends, [0]);
});
