import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { createHasher } from "../../../lib/oci/digest.ts";
import { ChunkReader, type Chunks } from "../../../lib/upstream/download/chunks.ts";
import { verifiedStream } from "../../../lib/upstream/download/verified.ts";
import { bodyOf, cut, drain, fedBody } from "../../support/bodies.ts";
import { digestOf, randomBytes } from "../../support/content.ts";

const BYTES = randomBytes(10_000, 1);
const digest = digestOf(BYTES);
const size = BYTES.byteLength;

function chunksOf(body: ReadableStream<Uint8Array>): Chunks {
  return new ChunkReader(body, { idle: 60_000 });
}

/** What a client gets of `bytes` when `digest` is expected, and what was reported. */
async function deliver(
  bytes: Uint8Array<ArrayBuffer>,
  options: Partial<Parameters<typeof verifiedStream>[1]> & { cuts?: number[] } = {},
) {
  const { cuts = [1, 5000], ...rest } = options;
  const ends: [sent: number, complete: boolean][] = [];
  const mismatches: string[] = [];
  const stream = verifiedStream(chunksOf(bodyOf(cut(bytes, cuts))), {
    digest,
    ...rest,
    onEnd: (sent, complete) => ends.push([sent, complete]),
    onMismatch: (reason) => mismatches.push(reason),
  });
  return { ...await drain(stream), ends, mismatches };
}

Deno.test("a body that is right comes whole, however it is cut, with its size known or not", async () => {
  const cuts = fc.array(fc.integer({ min: 0, max: size }), { maxLength: 8 });
  await fc.assert(fc.asyncProperty(cuts, fc.boolean(), async (cuts, isKnown) => {
    const { bytes, error, ends, mismatches } = await deliver(BYTES, {
      cuts,
      size: isKnown ? size : undefined,
    });
    assertEquals([error, ends, mismatches], [undefined, [[size, true]], []]);
    assertEquals(bytes, BYTES);
  }));
});

Deno.test("a body that is wrong never comes whole, however it is cut, with its size known or not", async () => {
  const cuts = fc.array(fc.integer({ min: 0, max: size }), { maxLength: 8 });
  const at = fc.integer({ min: 0, max: size - 1 });
  await fc.assert(fc.asyncProperty(cuts, at, fc.boolean(), async (cuts, at, isKnown) => {
    const wrong = BYTES.slice();
    wrong[at]! ^= 0xff;
    const result = await deliver(wrong, { cuts, size: isKnown ? size : undefined });
    assertEquals(result.error?.name, "MismatchError");
    assert(result.bytes.byteLength < size);
    assertEquals(result.ends, [[result.bytes.byteLength, false]]);
    assertEquals(result.mismatches, [`Digest of the body is ${digestOf(wrong).split(":")[1]}`]);
  }));
});

Deno.test("a body of another length never comes whole", async () => {
  const short = await deliver(BYTES.slice(0, -1), { size });
  assertEquals(short.mismatches, ["Body has 9999 of 10000 bytes"]);
  assert(short.bytes.byteLength < size);
  const long = await deliver(new Uint8Array([...BYTES, 0]), { size, cuts: [size] });
  assertEquals(long.mismatches, ["Body is longer than 10000 bytes"]);
  assert(long.bytes.byteLength < size);
});

Deno.test("a chunk is passed on as soon as it is here, but for the last", async () => {
  for (const known of [size, undefined]) {
    const fed = fedBody();
    const reader = verifiedStream(chunksOf(fed.body), { digest, size: known }).getReader();
    fed.push(BYTES.slice(0, 4000));
    if (known !== undefined) assertEquals((await reader.read()).value?.byteLength, 4000);
    const next = reader.read();
    let isThere = false;
    next.then(() => isThere = true, () => {});
    fed.push(BYTES.slice(4000));
    if (known === undefined) assertEquals((await next).value?.byteLength, 4000);
    else {
      await new Promise((resolve) => setTimeout(resolve, 0));
      assertEquals(isThere, false, "The last chunk came before the end was known to be right");
    }
    fed.end();
    const last = known === undefined ? reader.read() : next;
    assertEquals((await last).value?.byteLength, 6000);
    assertEquals((await reader.read()).done, true);
  }
});

Deno.test("a part that ends before the last byte does not wait for the rest", async () => {
  const fed = fedBody();
  const part = { start: 100, end: 4999 };
  const stream = verifiedStream(chunksOf(fed.body), { digest, size, part });
  fed.push(BYTES.slice(0, 6000));
  assertEquals(await drain(stream), { bytes: BYTES.slice(100, 5000) });
  assert(fed.cancelled);
});

Deno.test("a part with the last byte waits for the digest", async () => {
  const wrong = BYTES.slice();
  wrong[0]! ^= 0xff;
  const result = await deliver(wrong, { size, part: { start: 9000, end: 9999 } });
  assertEquals(result.error?.name, "MismatchError");
  assert(result.bytes.byteLength < 1000);
  const right = await deliver(BYTES, { size, part: { start: 9000, end: 9999 } });
  assertEquals(right.bytes, BYTES.slice(9000));
});

Deno.test("a body that goes on from an offset is verified with the hash of what was before", async () => {
  const hash = () => createHasher(digest).update(BYTES.subarray(0, 4000));
  const right = await deliver(BYTES.slice(4000), { size, offset: 4000, hash: hash() });
  assertEquals(right.bytes, BYTES.slice(4000));
  const part = { start: 5000, end: Infinity };
  const some = await deliver(BYTES.slice(4000), { size, offset: 4000, hash: hash(), part });
  assertEquals(some.bytes, BYTES.slice(5000));
  const wrong = await deliver(BYTES.slice(4000), { size, offset: 4000 });
  assertEquals(wrong.mismatches.length, 1);
});

Deno.test("what the client had before has to be the beginning of the content, however that is cut", async () => {
  const cuts = fc.array(fc.integer({ min: 0, max: size }), { maxLength: 8 });
  const length = fc.integer({ min: 1, max: size });
  await fc.assert(fc.asyncProperty(cuts, length, fc.boolean(), async (cuts, length, isWrong) => {
    const had = BYTES.slice(0, length);
    if (isWrong) had[length - 1]! ^= 0xff;
    const before = { length, hash: createHasher(digest).update(had) };
    const part = { start: length, end: Infinity };
    const { bytes, error } = await deliver(BYTES, { cuts, size, before, part });
    assertEquals(error?.name, isWrong ? "MismatchError" : undefined);
    if (isWrong) assert(length === size || bytes.byteLength < size - length);
    else assertEquals(bytes, BYTES.slice(length));
  }));
});

Deno.test("a connection that breaks is no mismatch", async () => {
  const mismatches: string[] = [];
  const ends: [number, boolean][] = [];
  const body = bodyOf([BYTES.slice(0, 4000)], { end: new Error("Connection reset") });
  const { bytes, error } = await drain(verifiedStream(chunksOf(body), {
    digest,
    size,
    onEnd: (sent, complete) => ends.push([sent, complete]),
    onMismatch: (reason) => mismatches.push(reason),
  }));
  assertEquals(error?.message, "Connection reset");
  assertEquals([bytes.byteLength, ends, mismatches], [4000, [[4000, false]], []]);
});

Deno.test("a client that leaves ends the connection, and is told about once", async () => {
  const fed = fedBody();
  const ends: [number, boolean][] = [];
  const stream = verifiedStream(chunksOf(fed.body), {
    digest,
    size,
    onEnd: (sent, complete) => ends.push([sent, complete]),
  });
  const reader = stream.getReader();
  fed.push(BYTES.slice(0, 4000));
  await reader.read();
  await reader.cancel();
  assert(fed.cancelled);
  assertEquals(ends, [[4000, false]]);
});
