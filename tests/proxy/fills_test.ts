import { assert, assertEquals, assertRejects } from "@std/assert";
import { bytesOf, type Content, contentOf, randomBytes, randomOf } from "../support/content.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake_registry.ts";
import { startFakeStorage } from "../support/fake_storage.ts";
import type { Fault } from "../support/faults.ts";
import { connectionOf, fetchDecodes, openRaw, rawRequest } from "../support/http.ts";
import { type ListenerName, LISTENERS, startListener } from "../support/listeners.ts";
import { captureLogs } from "../support/logs.ts";
import type { TestProxyOptions } from "../support/proxy.ts";

const SIZE = 3_000_000;
const blob = contentOf(randomBytes(SIZE, 1));
const BYTES = bytesOf(blob);
const PATH = `/v2/library/big/blobs/${blob.digest}`;
const KIND = { kind: "blob", method: "GET" } as const;

/** A proxy in front of an upstream that holds `blob`. */
async function setUp(
  listener: ListenerName,
  { upstream, ...options }: TestProxyOptions & { upstream?: FakeRegistry } = {},
) {
  const registry = upstream ?? await startFakeRegistry();
  registry.addBlob("library/big", blob);
  const test = await startListener(listener, { upstreams: { docker: registry }, ...options });
  const { proxy } = test;
  return {
    ...test,
    upstream: registry,
    get cache() {
      return proxy.proxy.cache!;
    },
    /** Waits until the fill under way has ended, and what came of it is in the store or gone. */
    settled: (content: Content = blob) => proxy.proxy.cache!.content.settled(content.digest),
    isStored: async (content: Content = blob) =>
      await proxy.proxy.cache!.index.blob(content.digest) !== undefined,
    async [Symbol.asyncDispose]() {
      await test[Symbol.asyncDispose]();
      await registry.close();
    },
  };
}

/** What a client has of a body when it breaks or ends. */
async function partOf(response: Response): Promise<{ bytes: Uint8Array; isWhole: boolean }> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let isWhole = true;
  try {
    for await (const chunk of response.body ?? []) chunks.push(chunk);
  } catch {
    isWhole = false;
  }
  return { bytes: await new Blob(chunks).bytes(), isWhole };
}

/** Reads `count` bytes or somewhat more, and stays. */
async function take(response: Response, count: number) {
  const reader = response.body!.getReader();
  const bytes: number[] = [];
  while (bytes.length < count) {
    const { value } = await reader.read();
    for (const byte of value!) bytes.push(byte);
  }
  return { bytes: new Uint8Array(bytes), reader };
}

async function partsOn(disk: string): Promise<string[]> {
  return (await Array.fromAsync(Deno.readDir(`${disk}/fills`))).map(({ name }) => name);
}

for (const listener of LISTENERS) {
  const on = `on ${listener}`;

  Deno.test(`a hundred clients, whole, ranged and HEAD, cost one upstream GET ${on}`, async () => {
    await using t = await setUp(listener);
    t.upstream.faults.add(KIND, { stallAt: SIZE / 2, stallFor: 100 });
    const random = randomOf(7);
    const clients = Array.from({ length: 100 }, async (_, i) => {
      if (i % 10 === 0) {
        const response = await t.get(PATH, { method: "HEAD" });
        assertEquals([response.status, await response.bytes()], [200, new Uint8Array()]);
        assertEquals(response.headers.get("content-length"), String(SIZE));
        return;
      }
      if (i % 3 === 0) {
        const [a, b] = [random(), random()].map((x) => Math.floor(x * SIZE)) as [number, number];
        const [start, end] = [Math.min(a, b), Math.max(a, b)];
        const response = await t.get(PATH, { headers: { range: `bytes=${start}-${end}` } });
        assertEquals(response.status, 206);
        assertEquals(response.headers.get("content-range"), `bytes ${start}-${end}/${SIZE}`);
        assertEquals(response.headers.get("content-length"), String(end - start + 1));
        assertEquals(await response.bytes(), BYTES.subarray(start, end + 1));
        return response.headers.get("x-cache");
      }
      const response = await t.get(PATH);
      assertEquals(response.status, 200);
      assertEquals(response.headers.get("content-length"), String(SIZE));
      assertEquals(response.headers.get("docker-content-digest"), blob.digest);
      assertEquals(await response.bytes(), BYTES);
      return response.headers.get("x-cache");
    });
    const results = (await Promise.all(clients)).filter((result) => result !== undefined);
    assertEquals(t.upstream.blobGets(blob.digest), 1);
    assertEquals(results.filter((result) => result === "MISS").length, 1);
    assertEquals(results.filter((result) => result === "HIT").length, results.length - 1);
  });

  Deno.test(`a client gets what is here at once ${on}`, async () => {
    await using t = await setUp(listener);
    t.upstream.faults.add(KIND, { stallAt: 1000 });
    const { bytes, reader } = await take(await t.get(PATH), 1000);
    assertEquals(bytes, BYTES.slice(0, 1000));
    await reader.cancel();
  });

  Deno.test(`wrong bytes break the connection before their last, and are not kept ${on}`, async () => {
    using logs = await captureLogs();
    await using t = await setUp(listener);
    t.upstream.faults.add(KIND, { corruptAt: 1_234_567 }, { times: 1 });
    const responses = await Promise.all([
      t.get(PATH),
      t.get(PATH),
      t.get(PATH, { headers: { range: `bytes=${SIZE - 10}-` } }),
    ]);
    for (const [i, response] of responses.entries()) {
      const { bytes, isWhole } = await partOf(response);
      assertEquals(isWhole, false);
      assert(bytes.byteLength < [SIZE, SIZE, 10][i]!);
    }
    await t.settled();
    assertEquals([await t.isStored(), await partsOn(t.proxy.cacheDir)], [false, []]);
    assertEquals(t.proxy.stats.cacheEvents.get("mismatch"), 1);
    const [told, ...more] = logs.find(/wrong bytes/);
    assertEquals([told?.level, told?.properties.digest, more.length], ["error", blob.digest, 0]);
    const again = await t.get(PATH);
    assertEquals([again.headers.get("x-cache"), await again.bytes()], ["MISS", BYTES]);
    assertEquals(t.upstream.blobGets(blob.digest), 2);
  });

  Deno.test(`a fill goes on when its client leaves, and serves the next ${on}`, async () => {
    await using t = await setUp(listener);
    t.upstream.faults.add(KIND, { stallAt: 1_000_000, stallFor: 50 });
    const { reader } = await take(await t.get(PATH), 1000);
    await reader.cancel();
    await t.settled();
    assert(await t.isStored());
    const next = await t.get(PATH);
    assertEquals([next.headers.get("x-cache"), await next.bytes()], ["HIT", BYTES]);
    assertEquals(t.upstream.blobGets(blob.digest), 1);
  });

  Deno.test(`a range comes during a fill, also one beyond what is here ${on}`, async () => {
    await using t = await setUp(listener);
    t.upstream.faults.add(KIND, { stallAt: 1_000_000, stallFor: 200 });
    const whole = t.get(PATH).then((response) => response.bytes());
    const ranges: [header: string, start: number, end: number][] = [
      ["bytes=0-0", 0, 0],
      ["bytes=999990-1000010", 999_990, 1_000_010],
      ["bytes=2000000-2000099", 2_000_000, 2_000_099],
      ["bytes=2999000-", 2_999_000, SIZE - 1],
      ["bytes=-1000", SIZE - 1000, SIZE - 1],
      ["bytes=2999999-9999999", SIZE - 1, SIZE - 1],
    ];
    await Promise.all(ranges.map(async ([range, start, end]) => {
      const response = await t.get(PATH, { headers: { range } });
      assertEquals(response.status, 206);
      assertEquals(response.headers.get("content-range"), `bytes ${start}-${end}/${SIZE}`);
      assertEquals(response.headers.get("content-length"), String(end - start + 1));
      assertEquals(await response.bytes(), BYTES.slice(start, end + 1));
    }));
    const outside = await t.get(PATH, { headers: { range: `bytes=${SIZE}-` } });
    assertEquals([outside.status, outside.headers.get("content-range")], [416, `bytes */${SIZE}`]);
    await outside.body?.cancel();
    assertEquals(await whole, BYTES);
    assertEquals(t.upstream.blobGets(blob.digest), 1);
  });

  Deno.test(`an upstream that breaks again and again is resumed, and nobody notices ${on}`, async () => {
    await using t = await setUp(listener);
    let breaks = 0;
    t.upstream.faults.schedule(11, ({ kind, headers }, random) => {
      if (kind !== "blob" || breaks === 8) return undefined;
      breaks++;
      const [, from = "0"] = /^bytes=(\d+)-/.exec(headers.get("range") ?? "") ?? [];
      const at = Math.floor(random() * Math.min(600_000, SIZE - Number(from)));
      return random() < 0.5 ? { resetAt: at } : { cutAt: at };
    });
    const clients = [
      t.get(PATH),
      t.get(PATH),
      t.get(PATH, { headers: { range: "bytes=100-2999999" } }),
    ];
    const [one, two, part] = await Promise.all(clients.map(async (r) => (await r).bytes()));
    assertEquals(one, BYTES);
    assertEquals(two, BYTES);
    assertEquals(part, BYTES.slice(100));
    await t.settled();
    assert(await t.isStored());
    const asked = t.upstream.log.filter(({ kind, method }) => kind === "blob" && method === "GET");
    assertEquals(asked.length, 9);
    assertEquals(t.proxy.stats.upstreamResumes.get("docker"), 8);
    const [first, ...resumes] = asked.map(({ headers }) => headers);
    assertEquals(first!.has("range"), false);
    for (const headers of resumes.filter((headers) => headers.has("range"))) {
      assert(headers.get("range")!.endsWith(`-${SIZE - 1}`), headers.get("range")!);
      assertEquals(headers.get("if-range"), `"${blob.digest}"`);
    }
  });
}

const GZIPPED: [string, Fault] = ["it is gzip'd, which nobody asked for", { gzip: true }];

/** One upstream's way of sending the wrong thing once. Whatever follows is right. */
const WRONG: [what: string, fault: Fault][] = [
  ["one bit is another", { corruptAt: SIZE - 1 }],
  ["the first byte is another", { corruptAt: 0 }],
  ["it is shorter, and says so", { truncateTo: 1_000_000 }],
  ["it is one byte shorter, and says so", { truncateTo: SIZE - 1 }],
  ["it is longer, and says so", { extra: 1 }],
  ["its length is a lie, and too small", { contentLength: SIZE - 1 }],
  ["its length is a lie, and too large", { contentLength: SIZE + 1000 }],
  ["it has no length and one byte is another", { contentLength: null, corruptAt: 10 }],
  ["it has no length and is shorter", { contentLength: null, truncateTo: 1_000_000 }],
  ["it has no length and is longer", { contentLength: null, extra: 5 }],
  ...await fetchDecodes() ? [] : [GZIPPED],
  ["it is some page of text", { body: "<html>Please log in</html>" }],
];
for (const [what, fault] of WRONG) {
  Deno.test(`no client gets the whole of a blob when ${what}`, async () => {
    await using t = await setUp("our HTTP/1");
    t.upstream.faults.add(KIND, fault, { times: 1 });
    const answer = await rawRequest(t.proxy.host, { path: PATH });
    // Whatever is found out before the first byte is an error that the client can read.
    if (answer.status === 200) assertEquals(answer.complete, false);
    else assertEquals(answer.status, 502);
    await t.settled();
    assertEquals([await t.isStored(), await partsOn(t.proxy.cacheDir)], [false, []]);
    assertEquals(t.proxy.stats.cacheEvents.get("mismatch"), 1);
    assertEquals(await (await t.get(PATH)).bytes(), BYTES);
  });
}

Deno.test("the empty blob is fetched, kept and served like any other", async () => {
  await using t = await setUp("our HTTP/1");
  const empty = contentOf(new Uint8Array());
  t.upstream.addBlob("library/big", empty);
  for (const cache of ["MISS", "HIT"]) {
    const response = await t.get(`/v2/library/big/blobs/${empty.digest}`);
    assertEquals([response.status, response.headers.get("content-length")], [200, "0"]);
    assertEquals(response.headers.get("x-cache"), cache);
    assertEquals((await response.bytes()).byteLength, 0);
    await t.settled(empty);
  }
});

Deno.test("an upstream that ignores ranges is read again from the start, and nobody notices", async () => {
  await using t = await setUp("our HTTP/1");
  t.upstream.faults.add(KIND, { resetAt: 1_000_000 }, { times: 1 });
  t.upstream.faults.add(KIND, { ignoreRange: true });
  assertEquals(await (await t.get(PATH)).bytes(), BYTES);
  assertEquals(t.upstream.blobGets(blob.digest), 2);
});

Deno.test("an upstream that stands still is cut after UPSTREAM_IDLE_TIMEOUT, and resumed", async () => {
  await using t = await setUp("our HTTP/1", { env: { UPSTREAM_IDLE_TIMEOUT: "0.2s" } });
  t.upstream.faults.add(KIND, { stallAt: 1_000_000 }, { times: 1 });
  assertEquals(await (await t.get(PATH)).bytes(), BYTES);
  const [first, second] = t.upstream.log.filter(({ kind }) => kind === "blob");
  assertEquals(first!.end, "left");
  assert(Number(/^bytes=(\d+)-/.exec(second!.headers.get("range")!)![1]) > 900_000);
});

Deno.test("a resumed download asks the registry for a new place in storage", async () => {
  const storage = await startFakeStorage();
  const upstream = await startFakeRegistry({ storage, auth: "token" });
  try {
    upstream.control.signatureLife = 0.1;
    await using t = await setUp("our HTTP/1", {
      upstream,
      env: { ALLOW_PRIVATE_NETWORKS: "true", UPSTREAM_IDLE_TIMEOUT: "0.2s" },
    });
    // By the time it is cut, what was signed first has expired.
    storage.faults.add({}, { stallAt: 1_000_000 }, { times: 1 });
    assertEquals(await (await t.get(PATH)).bytes(), BYTES);
    const [first, second, ...more] = storage.log;
    assertEquals(more, []);
    assert(first!.target !== second!.target);
    assertEquals(second!.headers.get("if-range"), `"${blob.digest.slice(-32)}"`);
    assertEquals(storage.authorizations, []);
  } finally {
    await storage.close();
  }
});

Deno.test("other content behind the same name is not mixed into a download", async () => {
  await using t = await setUp("our HTTP/1");
  const other = bytesOf(contentOf(randomBytes(SIZE + 5, 2)));
  t.upstream.faults.schedule(1, ({ headers }) => {
    const [, from] = /^bytes=(\d+)-/.exec(headers.get("range") ?? "") ?? [];
    if (from === undefined) return { resetAt: 1_000_000 };
    const range = `bytes ${from}-${other.byteLength - 1}/${other.byteLength}`;
    return { headers: { "content-range": range }, body: other.slice(Number(from)) };
  });
  const { isWhole } = await partOf(await t.get(PATH));
  assertEquals(isWhole, false);
  await t.settled();
  assertEquals(await t.isStored(), false);
  assertEquals(t.proxy.stats.cacheEvents.get("mismatch"), 1);
});

Deno.test("when upstream is gone for good the client's connection breaks, and nothing is kept", async () => {
  using logs = await captureLogs();
  await using t = await setUp("our HTTP/1");
  t.upstream.faults.add(KIND, { resetAt: 1_000_000 }, { times: 1 });
  const missing = t.upstream.faults.add(KIND, { status: 404 });
  const { bytes, isWhole } = await partOf(await t.get(PATH));
  assertEquals(isWhole, false);
  assertEquals(bytes, BYTES.slice(0, bytes.byteLength));
  await t.settled();
  assertEquals([await t.isStored(), await partsOn(t.proxy.cacheDir)], [false, []]);
  assertEquals(logs.find(/Download of .* failed/).length, 1);
  assertEquals(t.proxy.stats.cacheEvents.get("mismatch"), 0);
  missing.remove();
  assertEquals(await (await t.get(PATH)).bytes(), BYTES);
});

Deno.test("clients that read nothing hinder neither the fill nor those that do", async () => {
  await using t = await setUp("our HTTP/1");
  t.upstream.faults.add(KIND, { stallAt: 1_000_000, stallFor: 50 });
  const idle = await Promise.all(Array.from({ length: 20 }, async () => {
    const connection = await openRaw(t.proxy.host);
    await connection.write(`GET ${PATH} HTTP/1.1\r\nhost: ${t.proxy.host}\r\n\r\n`);
    return connection;
  }));
  assertEquals(await (await t.get(PATH)).bytes(), BYTES);
  await t.settled();
  assert(await t.isStored());
  // And each of them still gets everything, when it likes.
  for (const connection of idle) {
    const { body, complete } = await connection.answer();
    assert(complete);
    assertEquals(body, BYTES);
    connection.close();
  }
  assertEquals(t.upstream.blobGets(blob.digest), 1);
});

Deno.test("a client that left before its answer was there leaves nothing behind", async () => {
  await using t = await setUp("our HTTP/1");
  t.upstream.faults.add(KIND, { delay: 100, stallAt: 1_000_000, stallFor: 100 });
  for (let i = 0; i < 5; i++) {
    const conn = await Deno.connect({ hostname: "127.0.0.1", port: t.proxy.port });
    const connection = connectionOf(conn);
    await connection.write(`GET ${PATH} HTTP/1.1\r\nhost: ${t.proxy.host}\r\n\r\n`);
    connection.close();
  }
  const staying = t.get(PATH);
  assertEquals(await (await staying).bytes(), BYTES);
  const [fill] = t.cache.content.fills;
  await fill?.unread; // never, if one of them still counted
  await t.settled();
  await t.cache.content.remove(blob.digest, "removed");
  assertEquals(t.cache.content.space.pinned, 0);
});

Deno.test("a blob without a length is served without one, and with it when it is stored", async () => {
  for (const listener of LISTENERS) {
    await using t = await setUp(listener);
    t.upstream.faults.add(KIND, { contentLength: null });
    const first = await t.get(PATH);
    assertEquals(first.headers.has("content-length"), false);
    assertEquals([first.status, await first.bytes()], [200, BYTES]);
    await t.settled();
    const second = await t.get(PATH, { headers: { range: "bytes=5-9" } });
    assertEquals(second.headers.get("content-range"), `bytes 5-9/${SIZE}`);
    assertEquals([second.status, await second.bytes()], [206, BYTES.slice(5, 10)]);
    assertEquals(t.upstream.blobGets(blob.digest), 1);
  }
});

Deno.test("a range of a blob without a length is the whole blob while it is downloaded", async () => {
  await using t = await setUp("our HTTP/1");
  t.upstream.faults.add(KIND, { contentLength: null });
  const response = await t.get(PATH, { headers: { range: "bytes=5-9" } });
  assertEquals([response.status, await response.bytes()], [200, BYTES]);
});

Deno.test("HEAD of what is not here asks for the size alone", async () => {
  await using t = await setUp("our HTTP/1");
  const response = await t.get(PATH, { method: "HEAD" });
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("content-length"), String(SIZE));
  assertEquals(response.headers.get("docker-content-digest"), blob.digest);
  assertEquals(response.headers.get("x-cache"), "MISS");
  assertEquals([t.upstream.count({ method: "GET", kind: "blob" }), await t.isStored()], [0, false]);
});

Deno.test("If-None-Match of what is not here is answered without a body", async () => {
  await using t = await setUp("our HTTP/1");
  const headers = { "if-none-match": `"${blob.digest}"` };
  const response = await t.get(PATH, { headers });
  assertEquals([response.status, await response.text()], [304, ""]);
  await t.settled();
});

Deno.test("a blob that upstream does not have is as upstream says, and asked for again", async () => {
  await using t = await setUp("our HTTP/1");
  const other = contentOf(randomBytes(100, 9));
  const path = `/v2/library/big/blobs/${other.digest}`;
  for (let i = 0; i < 2; i++) {
    const response = await t.get(path);
    assertEquals(response.status, 404);
    assertEquals((await response.json()).errors[0].code, "BLOB_UNKNOWN");
  }
  t.upstream.addBlob("library/big", other);
  assertEquals(await (await t.get(path)).bytes(), bytesOf(other));
});

Deno.test("a proxy that closes gives up its fills and leaves no draft", async () => {
  await using t = await setUp("our HTTP/1");
  t.upstream.faults.add(KIND, { stallAt: 1000 }, { times: 1 });
  const { reader } = await take(await t.get(PATH), 999);
  await t.proxy.restart();
  await assertRejects(() => reader.read());
  assertEquals(await partsOn(t.proxy.cacheDir), []);
  assertEquals(await (await t.get(PATH)).bytes(), BYTES);
});

Deno.test("without a cache a blob passes through, resumed and verified as well", async () => {
  for (const listener of LISTENERS) {
    await using t = await setUp(listener, { env: { CACHE_ENABLED: "false" } });
    t.upstream.faults.add(KIND, { resetAt: 1_000_000 }, { times: 1 });
    const response = await t.get(PATH);
    assertEquals(response.headers.get("x-cache"), "BYPASS");
    assertEquals(await response.bytes(), BYTES);
    assertEquals(t.proxy.stats.upstreamResumes.get("docker"), 1);
    t.upstream.faults.add(KIND, { corruptAt: 5 }, { times: 1 });
    const { bytes, isWhole } = await partOf(await t.get(PATH));
    assertEquals(isWhole, false);
    assert(bytes.byteLength < SIZE);
    assertEquals(t.proxy.stats.cacheEvents.get("mismatch"), 1);
  }
});
