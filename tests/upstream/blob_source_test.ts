import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import type { Caller } from "../../lib/auth/access.ts";
import { OciError } from "../../lib/oci/error.ts";
import { registryOf } from "../../lib/oci/registry.ts";
import type { Target } from "../../lib/transforms/route.ts";
import type { AskOptions } from "../../lib/upstream/registry_client.ts";
import { IdleError } from "../../lib/upstream/download/body.ts";
import { MismatchError } from "../../lib/upstream/download/download.ts";
import { blobSource } from "../../lib/upstream/blob_source.ts";
import { bodyOf, cut, drain, fedBody } from "../support/bodies.ts";
import { digestOf, randomBytes } from "../support/content.ts";

const BYTES = randomBytes(10_000, 1);
const SIZE = String(BYTES.byteLength);

const target: Target = {
  registry: registryOf("test", new URL("http://127.0.0.1:1")),
  repository: "a/b",
  kind: "blob",
  reference: digestOf(BYTES),
  prefix: "",
  base: "",
};
const caller: Caller = { id: "me", credential: { kind: "anonymous" }, isShared: false };

/** A source whose upstream answers `answer`, and what it was asked. */
function sourceWith(
  answer: (headers: Headers) => Response,
  first: Record<string, string> = { "content-length": SIZE },
) {
  const asked: AskOptions[] = [];
  const source = blobSource({
    asker: {
      ask(_target, options) {
        asked.push(options);
        const response = answer(options.headers!);
        return Promise.resolve({ response, url: new URL("http://127.0.0.1:1"), abort() {} });
      },
    },
    target,
    caller,
    first: new Headers(first),
    idle: 20,
  });
  return { source, asked };
}

function partial(range: string, body: ReadableStream<Uint8Array<ArrayBuffer>>): Response {
  return new Response(body, { status: 206, headers: { "content-range": range } });
}

const HEADERS: [first: Record<string, string>, range: string, ifRange: string | null][] = [
  [{ "content-length": SIZE, "etag": '"abc"' }, "bytes=4000-9999", '"abc"'],
  [{ "content-length": SIZE, "etag": 'W/"abc"' }, "bytes=4000-9999", null],
  [{ "content-length": SIZE }, "bytes=4000-9999", null],
  [{ "etag": '"abc"' }, "bytes=4000-", '"abc"'],
];
for (const [first, range, ifRange] of HEADERS) {
  const what = JSON.stringify(first);
  Deno.test(`after an answer with ${what} it goes on with Range: ${range}`, async () => {
    const { source, asked } = sourceWith(
      () => partial(`bytes 4000-9999/${SIZE}`, bodyOf([BYTES.slice(4000)])),
      first,
    );
    const { bytes } = await drain(await source.open(4000));
    assertEquals(bytes, BYTES.slice(4000));
    const [{ headers, method, redirects, caller: asking }] = asked as [AskOptions];
    assertEquals(headers?.get("range"), range);
    assertEquals(headers?.get("if-range"), ifRange);
    assertEquals(headers?.get("accept-encoding"), "identity");
    assertEquals([method, redirects, asking], ["GET", "follow", caller]);
    assertEquals(asked[0]?.signal, undefined);
  });
}

Deno.test("from the first byte on it asks without a range", async () => {
  const { source, asked } = sourceWith(() => new Response(bodyOf([BYTES])));
  assertEquals((await drain(await source.open(0))).bytes, BYTES);
  assertEquals(asked[0]?.headers?.has("range"), false);
});

Deno.test("an upstream that ignores the range is skipped over, wherever its chunks end", async () => {
  for (const cuts of [[], [4000], [3999, 4001], [1, 2, 3, 8000]]) {
    for (const offset of [1, 4000, 9999]) {
      const { source } = sourceWith(() => new Response(bodyOf(cut(BYTES, cuts))));
      assertEquals((await drain(await source.open(offset))).bytes, BYTES.slice(offset));
    }
  }
});

Deno.test("an upstream that stands still while it is skipped over is cut", async () => {
  const fed = fedBody();
  const { source } = sourceWith(() => new Response(fed.body));
  const opening = assertRejects(() => source.open(4000), IdleError);
  fed.push(BYTES.slice(0, 100));
  await opening;
  assert(fed.cancelled);
});

Deno.test("an upstream that ends or breaks while it is skipped over is no source", async () => {
  for (const end of ["close", new Error("Connection reset")] as const) {
    const { source } = sourceWith(() => new Response(bodyOf([BYTES.slice(0, 100)], { end })));
    await assertRejects(() => source.open(4000), Error);
  }
});

Deno.test("a part of what has another size is other content, and asking again no help", async () => {
  const fed = fedBody();
  const { source } = sourceWith(() => partial("bytes 4000-10000/10001", fed.body));
  await assertRejects(() => source.open(4000), MismatchError, "10001 bytes of what had 10000");
  assert(fed.cancelled);
});

Deno.test("an upstream that has nothing there is other content", async () => {
  const { source } = sourceWith(() => {
    throw new OciError("RANGE_INVALID", "Outside");
  });
  await assertRejects(() => source.open(4000), MismatchError, "less than it announced");
});

Deno.test("a part that begins elsewhere, or nowhere, is refused and may be asked for again", async () => {
  for (const range of ["bytes 3999-9999/10000", "bytes */10000", "4000-9999", ""]) {
    const fed = fedBody();
    const { source } = sourceWith(() => partial(range, fed.body));
    const error = await assertRejects(() => source.open(4000), OciError);
    assertEquals(error.status, 502);
    assert(fed.cancelled);
  }
});

Deno.test("a part whose whole size is not told, or not known from before, is taken", async () => {
  const unknown = sourceWith(() => partial("bytes 4000-9999/*", bodyOf([BYTES.slice(4000)])));
  assertEquals((await drain(await unknown.source.open(4000))).bytes, BYTES.slice(4000));
  const unsaid = sourceWith(
    () => partial(`bytes 4000-9999/${SIZE}`, bodyOf([BYTES.slice(4000)])),
    {},
  );
  assertEquals((await drain(await unsaid.source.open(4000))).bytes, BYTES.slice(4000));
});

Deno.test("an answer without a body is none", async () => {
  const { source } = sourceWith(() => new Response(null));
  await assertRejects(() => source.open(4000), OciError, "Upstream resumes with nothing");
});

Deno.test("no answer to a range makes it throw anything but its own errors, or go on elsewhere", async () => {
  const position = fc.oneof(fc.constantFrom(0, 3999, 4000, 9999, 10_000), fc.maxSafeNat());
  const header = fc.oneof(
    fc.string({ unit: fc.constantFrom(..."0123456789-/* bytes") }),
    fc.tuple(position, position, position).map(([a, b, c]) => `bytes ${a}-${b}/${c}`),
  );
  await fc.assert(fc.asyncProperty(header, async (header) => {
    const { source } = sourceWith(() => partial(header, bodyOf([BYTES.slice(4000)])));
    try {
      const body = await source.open(4000);
      await body.cancel();
      assert(/^bytes 4000-\d+\/(10000|\*)$/.test(header), header);
    } catch (error) {
      assert(error instanceof OciError || error instanceof MismatchError, `${error}`);
    }
  }));
});
