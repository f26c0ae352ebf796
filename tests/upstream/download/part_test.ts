import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { OciError } from "../../../lib/oci/error.ts";
import { ofLength, partOf } from "../../../lib/upstream/download/part.ts";
import { bodyOf, drain, fedBody } from "../../support/bodies.ts";
import { randomBytes } from "../../support/content.ts";

/** Range, upstream's status and headers, and the length or undefined for 502. */
const PARTS: [
  range: string | null,
  status: number,
  headers: Record<string, string>,
  length: number | undefined,
][] = [
  ["bytes=0-9", 206, { "content-range": "bytes 0-9/100" }, 10],
  ["bytes=0-9", 206, { "content-range": "bytes 0-9/*" }, 10],
  ["bytes=0-9", 206, { "content-range": "bytes 0-9/100", "content-length": "10" }, 10],
  ["bytes=90-200", 206, { "content-range": "bytes 90-99/100" }, 10],
  ["bytes=-10", 206, { "content-range": "bytes 90-99/100" }, 10],
  ["bytes=90-", 206, { "content-range": "bytes 90-99/100" }, 10],
  ["bytes=0-9", 206, { "content-range": "bytes 0-9/100", "content-encoding": "identity" }, 10],
  ["bytes=0-9", 206, { "content-range": "bytes 0-8/100" }, undefined],
  ["bytes=0-9", 206, { "content-range": "bytes 1-9/100" }, undefined],
  ["bytes=0-9", 206, { "content-range": "bytes 0-9/5" }, undefined],
  ["bytes=0-9", 206, { "content-range": "bytes 9-0/100" }, undefined],
  ["bytes=0-9", 206, { "content-range": "bytes */100" }, undefined],
  ["bytes=0-9", 206, { "content-range": "0-9/100" }, undefined],
  ["bytes=0-9", 206, {}, undefined],
  ["bytes=0-9", 206, { "content-range": "bytes 0-9/100", "content-length": "11" }, undefined],
  ["bytes=0-9", 206, { "content-range": "bytes 0-9/100", "content-encoding": "gzip" }, undefined],
  ["bytes=0-1,5-6", 206, { "content-type": "multipart/byteranges" }, undefined],
  [null, 206, { "content-range": "bytes 0-9/100" }, undefined],
  ["bytes=0-9", 203, { "content-range": "bytes 0-9/100" }, undefined],
];
for (const [range, status, headers, length] of PARTS) {
  const what = `${status} with ${JSON.stringify(headers)}`;
  Deno.test(`${what} is ${length ?? "not"} what was asked for with ${range}`, () => {
    const fed = fedBody();
    const response = new Response(fed.body, { status, headers });
    if (length !== undefined) return assertEquals(partOf(response, range).length, length);
    const error = assertThrows(() => partOf(response, range), OciError);
    assertEquals(error.status, 502);
    assert(fed.cancelled);
  });
}

/** Range, Content-Range, and whether that is all of the blob. */
const WHOLES: [range: string, contentRange: string, isWhole: boolean][] = [
  ["bytes=0-", "bytes 0-99/100", true],
  ["bytes=0-", "bytes 0-99/*", true],
  ["bytes=0-99", "bytes 0-99/100", true],
  ["bytes=0-200", "bytes 0-99/*", true],
  ["bytes=-200", "bytes 0-99/100", true],
  ["bytes=0-99", "bytes 0-99/*", false],
  ["bytes=0-99", "bytes 0-99/101", false],
  ["bytes=1-", "bytes 1-99/100", false],
  ["bytes=1-", "bytes 1-99/*", false],
];
for (const [range, contentRange, isWhole] of WHOLES) {
  Deno.test(`${contentRange} in answer to ${range} is ${isWhole ? "all" : "not all"} of it`, () => {
    const response = new Response("", { status: 206, headers: { "content-range": contentRange } });
    assertEquals(partOf(response, range).isWhole, isWhole);
  });
}

Deno.test("a part breaks off where it is shorter or longer than it should be", async () => {
  const bytes = randomBytes(1000, 1);
  const chunks = [bytes.slice(0, 600), bytes.slice(600)];
  assertEquals(await drain(ofLength(bodyOf(chunks), 1000)), { bytes });
  const short = await drain(ofLength(bodyOf(chunks), 1001));
  assertEquals(short.error?.message, "Body ended 1 bytes early");
  const long = await drain(ofLength(bodyOf(chunks), 999));
  assertEquals([long.bytes.byteLength, long.error?.message], [
    600,
    "Body is longer than 999 bytes",
  ]);
});

Deno.test("a client that leaves a part ends the connection", async () => {
  const fed = fedBody();
  await ofLength(fed.body, 10).cancel();
  assert(fed.cancelled);
});

Deno.test("a part is as long as its Content-Range says, and no header makes it throw anything but its own error", () => {
  const position = fc.oneof(fc.nat({ max: 20 }), fc.maxSafeNat());
  fc.assert(fc.property(position, position, fc.nat({ max: 20 }), (one, other, beyond) => {
    const [start, end] = one < other ? [one, other] : [other, one];
    if (end >= 1e15) return;
    const size = end + 1 + beyond;
    const headers = { "content-range": `bytes ${start}-${end}/${size}` };
    const response = new Response(null, { status: 206, headers });
    assertEquals(partOf(response, `bytes=${start}-${end}`), {
      start,
      end,
      length: end - start + 1,
      isWhole: start === 0 && beyond === 0,
    });
  }));
  const header = fc.oneof(
    fc.string({ unit: fc.constantFrom(..."0123456789-/* bytes=") }),
    fc.tuple(position, position, position).map(([a, b, c]) => `bytes ${a}-${b}/${c}`),
    fc.constant("bytes 0-9/*"),
  );
  const asked = fc.constantFrom(null, "bytes=0-9", "bytes=-5", "bytes=3-", "x");
  const length = fc.option(fc.nat({ max: 20 }), { nil: undefined });
  fc.assert(fc.property(header, asked, length, (header, asked, length) => {
    const response = new Response(null, { status: 206, headers: { "content-range": header } });
    if (length !== undefined) response.headers.set("content-length", String(length));
    try {
      const { length: found } = partOf(response, asked);
      assert(found > 0 && found === (length ?? found));
    } catch (error) {
      assert(error instanceof OciError && error.status === 502, `${error}`);
    }
  }));
});
