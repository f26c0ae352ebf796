import { assert, assertEquals, assertGreater, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { gzipSync } from "node:zlib";
import { OciError } from "../../../lib/oci/error.ts";
import {
  announcedLength,
  type BoundedOptions,
  ChunksError,
  decoded,
  IdleError,
  readBounded,
  readWithin,
  withIdleLimit,
} from "../../../lib/upstream/download/body.ts";
import { ChunkReader } from "../../../lib/upstream/download/chunks.ts";
import { bodyOf, cut, drain, fedBody } from "../../support/bodies.ts";
import { randomBytes } from "../../support/content.ts";

const BYTES = randomBytes(10_000, 1);

/** Reads a body of at most 10,000 bytes, within a minute. */
function read(
  body: ReadableStream<Uint8Array<ArrayBuffer>> | Uint8Array<ArrayBuffer> | null,
  { headers = {}, ...options }: Partial<BoundedOptions> & { headers?: HeadersInit } = {},
) {
  const bounds = { limit: BYTES.byteLength, deadline: 60_000, what: "text", ...options };
  return readBounded(new Response(body, { headers }), bounds);
}

Deno.test("a body within its limit is read whole, however it comes", async () => {
  const cuts = fc.array(fc.nat(BYTES.byteLength), { maxLength: 8 });
  const announced = fc.boolean();
  await fc.assert(fc.asyncProperty(cuts, announced, async (cuts, isAnnounced) => {
    const headers: HeadersInit = isAnnounced ? { "content-length": "10000" } : {};
    assertEquals(await read(bodyOf(cut(BYTES, cuts)), { headers }), BYTES);
  }));
  assertEquals(await read(null), new Uint8Array());
});

Deno.test("one byte too much is refused, and no more than that is read", async () => {
  let pulls = 0;
  let isCancelled = false;
  const endless = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull(controller) {
      pulls++;
      controller.enqueue(new Uint8Array(1000));
    },
    cancel: () => void (isCancelled = true),
  }, { highWaterMark: 0 });
  const error = await assertRejects(() => read(endless), OciError, "larger than 10000 bytes");
  assertEquals([error.status, error.code], [502, "UNAVAILABLE"]);
  assertEquals([pulls, isCancelled], [11, true]);
});

Deno.test("a body that is announced to be too large is not even begun", async () => {
  const fed = fedBody();
  const headers = { "content-length": "10001" };
  await assertRejects(() => read(fed.body, { headers }), OciError, "larger than 10000 bytes");
  assertEquals(fed.cancelled, true);
});

Deno.test("a body shorter or longer than announced is none", async () => {
  for (const length of ["9999", "1", "0"]) {
    const headers = { "content-length": length };
    const error = await assertRejects(() => read(bodyOf([BYTES]), { headers }), OciError);
    assertEquals([error.status, error.detail], [502, { cause: `10000 of ${length} bytes` }]);
  }
  const headers = { "content-length": "10000" };
  for (const body of [bodyOf([BYTES.slice(1)]), null]) {
    await assertRejects(() => read(body, { headers }), OciError, "broke off");
  }
});

Deno.test("a body that breaks is 502 with the cause, one that does not come 504", async () => {
  const broken = bodyOf([BYTES.slice(1)], { end: new Error("Connection reset") });
  const error = await assertRejects(() => read(broken), OciError, "Upstream's text broke off");
  assertEquals([error.status, error.detail], [502, { cause: "Connection reset" }]);

  const idle = await assertRejects(
    () => read(bodyOf([BYTES.slice(1)], { end: "stall" }), { idle: 20 }),
    OciError,
    "broke off",
  );
  assertEquals([idle.status, idle.detail], [504, { cause: "No data for 0.02 s" }]);

  const late = await assertRejects(() => read(fedBody().body, { deadline: 20 }), OciError);
  assertEquals([late.status, late.detail], [504, { cause: "not complete within 0.02 s" }]);
});

Deno.test("a body that drips in time with the idle limit still ends at the deadline", async () => {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const dripping = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      await new Promise((resolve) => timer = setTimeout(resolve, 5));
      controller.enqueue(new Uint8Array(1));
    },
    cancel: () => clearTimeout(timer),
  }, { highWaterMark: 0 });
  const error = await assertRejects(() => read(dripping, { idle: 1000, deadline: 60 }), OciError);
  assertEquals([error.status, error.detail], [504, { cause: "not complete within 0.06 s" }]);
});

for (const coding of ["gzip", "x-gzip", "GZIP", "deflate"]) {
  Deno.test(`a body encoded as ${coding} although it was asked for plain is decoded`, async () => {
    const format = coding === "deflate" ? "deflate" : "gzip";
    const encoded = new Response(
      bodyOf([BYTES]).pipeThrough(new CompressionStream(format)),
      { headers: { "content-encoding": coding, "content-length": "1" } },
    );
    const bounds = { limit: BYTES.byteLength, deadline: 60_000, what: "text" };
    assertEquals(await readBounded(encoded, bounds), BYTES);
  });
}

Deno.test("the limit is on what a body decodes to", async () => {
  const bomb = new Uint8Array(gzipSync(new Uint8Array(20 * 2 ** 20)));
  const headers = { "content-encoding": "gzip" };
  await assertRejects(() => read(bomb, { headers }), OciError, "larger than 10000 bytes");
});

Deno.test("what only says that it is encoded, and what nobody can decode, is refused", async () => {
  const broken = await assertRejects(
    () => read(BYTES, { headers: { "content-encoding": "gzip" } }),
    OciError,
    "broke off",
  );
  assertEquals(broken.status, 502);
  const unknown = await assertRejects(
    () => read(BYTES, { headers: { "content-encoding": "zstd" } }),
    OciError,
    "unknown encoding",
  );
  assertEquals([unknown.status, unknown.detail], [502, { encoding: "zstd" }]);
});

Deno.test("a decoded answer says nothing of how it was encoded", () => {
  const headers = {
    "content-encoding": "gzip",
    "content-length": "20",
    "content-range": "bytes 0-19/20",
    "content-type": "application/json",
  };
  const response = new Response(new Uint8Array(gzipSync("{}")), { status: 203, headers });
  const plain = decoded(response, "list");
  assertEquals([...plain.headers], [["content-type", "application/json"]]);
  assertEquals(plain.status, 203);
  const identity = new Response("{}", { headers: { "content-encoding": "identity" } });
  assert(decoded(identity, "list") === identity);
  assertThrows(
    () => decoded(new Response("", { headers: { "content-encoding": "br" } }), "list"),
    OciError,
  );
});

const LENGTHS: readonly [header: HeadersInit, length: number | undefined][] = [
  [{ "content-length": "0" }, 0],
  [{ "content-length": "12345" }, 12345],
  [{ "content-length": "12345", "content-encoding": "identity" }, 12345],
  [{ "content-length": "12345", "content-encoding": "gzip" }, undefined],
  [{}, undefined],
  [{ "content-length": "-1" }, undefined],
  [{ "content-length": "1.5" }, undefined],
  [{ "content-length": "1e9" }, undefined],
  [{ "content-length": "5, 5" }, undefined],
  [{ "content-length": "9".repeat(30) }, undefined],
];

Deno.test("a length is announced only by a number that can be counted to", () => {
  for (const [headers, length] of LENGTHS) {
    assertEquals(announcedLength(new Headers(headers)), length, JSON.stringify(headers));
  }
  fc.assert(fc.property(fc.stringMatching(/^[ -~]*$/), (text) => {
    const length = announcedLength(new Headers({ "content-length": text }));
    assert(length === undefined || Number.isSafeInteger(length) && length >= 0);
  }));
});

Deno.test("a reader waits for the next chunk, and not longer than it should", async () => {
  const fed = fedBody();
  const reader = fed.body.getReader();
  fed.push(BYTES);
  assertEquals((await readWithin(reader, 60_000)).value, BYTES);
  await assertRejects(() => readWithin(reader, 10), IdleError, "No data for 0.01 s");
});

Deno.test("a limited body passes everything on, and ends upstream's when it stands still", async () => {
  const whole = await drain(withIdleLimit(bodyOf(cut(BYTES, [1, 5000])), 60_000));
  assertEquals(whole, { bytes: BYTES });
  const fed = fedBody();
  fed.push(BYTES);
  const { bytes, error } = await drain(withIdleLimit(fed.body, 20));
  assertEquals([bytes, error?.name, fed.cancelled], [BYTES, "IdleError", true]);
});

Deno.test("who leaves a limited body ends upstream's", async () => {
  const fed = fedBody();
  await withIdleLimit(fed.body, 60_000).cancel();
  assertEquals(fed.cancelled, true);
});

/** A body of `count` chunks of `size` bytes that are all there already. */
function crumbs(count: number, size: number): ReadableStream<Uint8Array<ArrayBuffer>> {
  let left = count;
  return new ReadableStream({
    pull(controller) {
      if (left-- === 0) controller.close();
      else controller.enqueue(new Uint8Array(size));
    },
  }, { highWaterMark: 0 });
}

Deno.test("a body that comes byte by byte is broken off, bounded or passed on", async () => {
  const limit = 2 ** 20;
  const error = await assertRejects(() => read(crumbs(20_000, 1), { limit }), OciError);
  assertEquals(error.detail, { cause: "It comes in too many chunks" });
  assertEquals((await read(crumbs(9_000, 1), { limit })).byteLength, 9_000);
  assertEquals((await read(crumbs(20_000, 40), { limit })).byteLength, 800_000);
  const passedOn = withIdleLimit(crumbs(20_000, 1), 60_000);
  await assertRejects(() => new Response(passedOn).bytes(), ChunksError);
  const reader = new ChunkReader(crumbs(20_000, 1), { idle: 60_000 });
  await assertRejects(async () => {
    while (await reader.read());
  }, ChunksError);
});

Deno.test("small chunks that are there already are read while others have their turn", async () => {
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  await read(crumbs(9_000, 1), { limit: 2 ** 20 });
  clearInterval(timer);
  assertGreater(turns, 3);
});
