import { assert, assertEquals, assertRejects } from "@std/assert";
import { bytesOf, type Content, contentOf, randomBytes } from "../support/content.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import type { Fault } from "../support/faults.ts";
import { fetchDecodes } from "../support/http.ts";
import { type ListenerName, LISTENERS, startListener } from "../support/listeners.ts";
import type { TestProxyOptions } from "../support/proxy.ts";

const LARGE = contentOf(randomBytes(300_000, 1));
const SMALL = contentOf(randomBytes(2048, 2));
const HOUR = 60 * 60_000;

function pathOf({ digest }: Content): string {
  return `/v2/library/app/blobs/${digest}`;
}

/** A proxy that has both blobs already. */
async function setUp(listener: ListenerName = "our HTTP/1", options: TestProxyOptions = {}) {
  const upstream = await startFakeRegistry();
  const test = await startListener(listener, { upstreams: { docker: upstream }, ...options });
  for (const blob of [LARGE, SMALL]) {
    upstream.addBlob("library/app", blob);
    assertEquals(await (await test.get(pathOf(blob))).bytes(), bytesOf(blob));
    await test.proxy.proxy.cache!.content.settled(blob.digest);
  }
  upstream.log.length = 0;
  const { index } = test.proxy.proxy.cache!;
  const key = { registry: new URL(upstream.url).host, repository: "library/app" };
  return {
    ...test,
    upstream,
    index,
    /** Makes it as if the proof that the repository is public were two hours old. */
    async forgetPublic() {
      const since = await index.publicSince(key);
      assert(since !== undefined);
      await index.setPublic(key, since - 2 * HOUR);
    },
    async [Symbol.asyncDispose]() {
      await test[Symbol.asyncDispose]();
      await upstream.close();
    },
  };
}

/** What is asked of `size` bytes, and what part of them comes: all, none (416), or from here to there. */
function ranges(size: number): [range: string, part: "whole" | "none" | [number, number]][] {
  const last = size - 1;
  return [
    ["bytes=0-0", [0, 0]],
    ["bytes=500-1499", [500, 1499]],
    ["bytes=500-", [500, last]],
    ["bytes=-500", [size - 500, last]],
    [`bytes=-${size + 1}`, [0, last]],
    [`bytes=${last}-`, [last, last]],
    [`bytes=${last}-${last + 1000}`, [last, last]],
    [`bytes=0-${last}`, [0, last]],
    ["bytes=0-99999999999999999999", [0, last]],
    ["BYTES=1-2", [1, 2]],
    [" bytes = 1-2 ", [1, 2]],
    [`bytes=${size}-`, "none"],
    [`bytes=${size}-${size + 10}`, "none"],
    ["bytes=500-0", "none"],
    ["bytes=-0", "none"],
    ["bytes=99999999999999999999-", "none"],
    ["bytes=0-1,5-6", "whole"],
    ["bytes=-", "whole"],
    ["bytes=a-b", "whole"],
    ["bytes=1-2-3", "whole"],
    ["bytes=+1-2", "whole"],
    ["lines=1-2", "whole"],
    ["bytes", "whole"],
    ["0-1", "whole"],
  ];
}

for (const listener of LISTENERS) {
  for (const [what, blob] of [["large", LARGE], ["small", SMALL]] as const) {
    Deno.test(`ranges of a ${what} stored blob on ${listener} are what RFC 9110 says`, async () => {
      await using t = await setUp(listener);
      const { size } = blob;
      for (const [range, part] of ranges(size)) {
        for (const method of ["GET", "HEAD"]) {
          const response = await t.get(pathOf(blob), { method, headers: { range } });
          const { status, headers } = response;
          const body = await response.bytes();
          const message = `${method} ${range}`;
          if (part === "none") {
            assertEquals([status, headers.get("content-range")], [416, `bytes */${size}`], message);
            continue;
          }
          const [start, end] = part === "whole" ? [0, size - 1] : part;
          assertEquals(status, part === "whole" ? 200 : 206, message);
          assertEquals(
            headers.get("content-range"),
            part === "whole" ? null : `bytes ${start}-${end}/${size}`,
            message,
          );
          assertEquals(headers.get("content-length"), String(end - start + 1), message);
          assertEquals(headers.get("accept-ranges"), "bytes", message);
          const sent = bytesOf(blob).slice(start, end + 1);
          assertEquals(body, method === "GET" ? sent : new Uint8Array(), message);
        }
      }
      assertEquals(t.upstream.log, []);
    });
  }

  Deno.test(`a stored blob on ${listener} has every header clients need, for GET and HEAD`, async () => {
    await using t = await setUp(listener);
    for (const blob of [LARGE, SMALL]) {
      for (const method of ["GET", "HEAD"]) {
        const response = await t.get(pathOf(blob), { method });
        const { headers } = response;
        assertEquals(response.status, 200);
        assertEquals(headers.get("content-length"), String(blob.size));
        assertEquals(headers.get("content-type"), "application/octet-stream");
        assertEquals(headers.get("docker-content-digest"), blob.digest);
        assertEquals(headers.get("docker-distribution-api-version"), "registry/2.0");
        assertEquals(headers.get("etag"), `"${blob.digest}"`);
        assertEquals(headers.get("x-cache"), "HIT");
        assert(/^\d+$/.test(headers.get("age")!));
        assertEquals((await response.bytes()).byteLength, method === "GET" ? blob.size : 0);
      }
    }
    assertEquals(t.upstream.log, []);
  });
}

const CONDITIONS: [headers: Record<string, string>, status: number][] = [
  [{ "if-none-match": "ETAG" }, 304],
  [{ "if-none-match": "W/ETAG" }, 304],
  [{ "if-none-match": '"other", ETAG' }, 304],
  [{ "if-none-match": "*" }, 304],
  [{ "if-none-match": '"other"' }, 200],
  [{ "if-none-match": "ETAG", "range": "bytes=0-1" }, 304],
  [{ "if-range": "ETAG", "range": "bytes=0-1" }, 206],
  [{ "if-range": '"other"', "range": "bytes=0-1" }, 200],
  [{ "if-range": "W/ETAG", "range": "bytes=0-1" }, 200],
  [{ "if-range": "Tue, 15 Nov 1994 12:45:26 GMT", "range": "bytes=0-1" }, 200],
  [{ "if-range": '"other"', "range": "bytes=999999999-" }, 200],
];
for (const [condition, status] of CONDITIONS) {
  Deno.test(`a stored blob is ${status} for ${JSON.stringify(condition)}`, async () => {
    await using t = await setUp();
    for (const blob of [LARGE, SMALL]) {
      const headers = Object.fromEntries(
        Object.entries(condition).map(([name, value]) => [
          name,
          value.replace("ETAG", `"${blob.digest}"`),
        ]),
      );
      for (const method of ["GET", "HEAD"]) {
        const response = await t.get(pathOf(blob), { method, headers });
        assertEquals(response.status, status);
        assertEquals(response.headers.get("etag"), `"${blob.digest}"`);
        const length = { 304: 0, 206: 2, 200: blob.size }[status];
        assertEquals((await response.bytes()).byteLength, method === "GET" ? length : 0);
      }
    }
  });
}

Deno.test("what is stored is served without upstream", async () => {
  await using t = await setUp();
  await t.upstream.down();
  for (const blob of [LARGE, SMALL]) {
    for (const method of ["HEAD", "GET"]) {
      const response = await t.get(pathOf(blob), { method });
      assertEquals([response.status, response.headers.get("x-cache")], [200, "HIT"]);
      await response.body?.cancel();
    }
  }
});

const TROUBLES: [what: string, status: number | undefined][] = [
  ["is down", undefined],
  ["answers 429", 429],
  ["answers 500", 500],
  ["answers 503", 503],
];
for (const [what, status] of TROUBLES) {
  Deno.test(`when upstream ${what} a blob that has to be proved anew is served stale`, async () => {
    await using t = await setUp();
    await t.forgetPublic();
    if (status === undefined) await t.upstream.down();
    else t.upstream.faults.add({}, { status });
    for (const blob of [LARGE, SMALL]) {
      for (const method of ["HEAD", "GET"]) {
        const response = await t.get(pathOf(blob), { method });
        assertEquals([response.status, response.headers.get("x-cache")], [200, "STALE"]);
        assertEquals(response.headers.get("content-length"), String(blob.size));
        const body = await response.bytes();
        if (method === "GET") assertEquals(body, bytesOf(blob));
      }
      const part = await t.get(pathOf(blob), { headers: { range: "bytes=5-9" } });
      assertEquals([part.status, part.headers.get("x-cache")], [206, "STALE"]);
      assertEquals(await part.bytes(), bytesOf(blob).slice(5, 10));
    }
    t.upstream.faults.clear();
    await t.upstream.up();
  });
}

Deno.test("when upstream says that a repository is not public any more, its blobs are not served stale", async () => {
  await using t = await setUp();
  await t.forgetPublic();
  t.upstream.faults.add({}, { status: 403 });
  for (const blob of [LARGE, SMALL]) {
    const response = await t.get(pathOf(blob));
    assertEquals(response.status, 403);
    await response.body?.cancel();
  }
});

Deno.test("a proof of access does not fetch again what is here", async () => {
  await using t = await setUp();
  await t.forgetPublic();
  const response = await t.get(pathOf(LARGE));
  assertEquals([response.headers.get("x-cache"), await response.bytes()], ["HIT", bytesOf(LARGE)]);
  const asked = t.upstream.log.map(({ method, kind, bytes }) => `${method} ${kind} ${bytes}`);
  assertEquals(asked, ["GET blob 8192"]);
  const [start, end] = t.upstream.log[0]!.headers.get("range")!.slice("bytes=".length).split("-");
  assert(Number(start) >= 0 && Number(end) < LARGE.size);
});

Deno.test("HEAD of a blob is answered from the index, though its file cannot be read", async () => {
  await using t = await setUp();
  const hex = LARGE.digest.slice("sha256:".length);
  await Deno.remove(`${t.proxy.cacheDir}/blobs/sha256/${hex.slice(0, 2)}/${hex}`);
  const response = await t.get(pathOf(LARGE), { method: "HEAD" });
  assertEquals(response.headers.get("content-length"), String(LARGE.size));
  assertEquals(t.upstream.log, []);
});

for (const size of [0, 100, LARGE.size - 1, LARGE.size + 1]) {
  Deno.test(`a file of ${size} bytes in place of ${LARGE.size} is found out before the first byte`, async () => {
    await using t = await setUp();
    const hex = LARGE.digest.slice("sha256:".length);
    await Deno.truncate(`${t.proxy.cacheDir}/blobs/sha256/${hex.slice(0, 2)}/${hex}`, size);
    const response = await t.get(pathOf(LARGE));
    assertEquals([response.status, response.headers.get("x-cache")], [200, "MISS"]);
    assertEquals(await response.bytes(), bytesOf(LARGE));
    assertEquals(t.upstream.blobGets(LARGE.digest), 1);
    await t.proxy.proxy.cache!.content.settled(LARGE.digest);
    const again = await t.get(pathOf(LARGE));
    assertEquals([again.headers.get("x-cache"), await again.bytes()], ["HIT", bytesOf(LARGE)]);
  });
}

Deno.test("a client that leaves in the middle of a stored blob leaves nothing open", async () => {
  for (const listener of LISTENERS) {
    await using t = await setUp(listener);
    const big = contentOf(randomBytes(20_000_000, 3));
    t.upstream.addBlob("library/app", big);
    await (await t.get(pathOf(big))).body!.cancel();
    const { content } = t.proxy.proxy.cache!;
    await content.settled(big.digest);
    const response = await t.get(pathOf(big));
    assertEquals(response.headers.get("x-cache"), "HIT");
    const reader = response.body!.getReader();
    await reader.read();
    await reader.cancel();
    // The server finds out when it next writes; nothing tells us of that but what is still open.
    for (let tries = 0; content.space.pinned > 0 && tries < 500; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assertEquals(content.space.pinned, 0);
  }
});

/** What upstream does to a range that passes through, and what the client gets. */
const PASSED: [what: string, fault: Fault, status: number, isWhole?: boolean][] = [
  ["as it should be", {}, 206, true],
  ["without a length", { contentLength: null }, 206, true],
  ["without a length, and shorter", { contentLength: null, truncateTo: 500 }, 206, false],
  ["without a length, and longer", { contentLength: null, extra: 500 }, 502],
  ["with another length than its Content-Range", { extra: 500 }, 502],
  ["from elsewhere", { headers: { "content-range": "bytes 0-999/300000" } }, 502],
  ["without Content-Range", { headers: { "content-range": null } }, 502],
  ["encoded", { gzip: true }, ...await fetchDecodes() ? [206, true] as const : [502] as const],
];
for (const [what, fault, status, isWhole] of PASSED) {
  Deno.test(`without a cache a range that upstream sends ${what} is ${status}`, async () => {
    await using upstream = await startFakeRegistry();
    upstream.addBlob("library/app", LARGE);
    for (const listener of LISTENERS) {
      const env = { CACHE_ENABLED: "false" };
      await using t = await startListener(listener, { upstreams: { docker: upstream }, env });
      upstream.faults.clear();
      upstream.faults.add({ kind: "blob" }, fault);
      const headers = { range: "bytes=1000-1999" };
      const reading = t.get(pathOf(LARGE), { headers }).then(async (response) => {
        assertEquals(response.status, status);
        return await response.bytes();
      });
      if (isWhole === false) await assertRejects(() => reading, TypeError);
      else if (isWhole) assertEquals(await reading, bytesOf(LARGE).slice(1000, 2000));
      else await reading;
    }
  });
}

Deno.test("a digest of another algorithm passes through and is never kept", async () => {
  await using t = await setUp();
  const digest = `sha384:${"a".repeat(96)}`;
  t.upstream.faults.add({ kind: "blob", reference: digest }, { status: 200, body: "whatever" });
  for (let i = 0; i < 2; i++) {
    const response = await t.get(`/v2/library/app/blobs/${digest}`);
    assertEquals([response.status, response.headers.get("x-cache")], [200, "BYPASS"]);
    assertEquals(await response.text(), "whatever");
  }
  assertEquals(t.upstream.count({ reference: digest }), 2);
});

Deno.test("a malformed digest is 400 and reaches nobody", async () => {
  await using t = await setUp();
  for (const digest of ["sha256:abc", "sha256:", `sha256:${"A".repeat(64)}`, "abc"]) {
    const response = await t.get(`/v2/library/app/blobs/${digest}`);
    assertEquals(response.status, 400);
    assertEquals((await response.json()).errors[0].code, "DIGEST_INVALID");
  }
  assertEquals(t.upstream.log, []);
});
