/**
 * One large layer, many clients: what it costs upstream, and what the proxy's process has in memory at most,
 * by the operating system's own figure.
 */
import { assert, assertEquals } from "@std/assert";
import { type Content, generated } from "../support/content.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake_registry.ts";
import { digestOfStream, openRaw, rawRequest } from "../support/http.ts";
import { type ProxyProcess, startProxy } from "../support/proxy_process.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** An upstream with one blob of `size` bytes, and a proxy process of its own. */
async function setUp(size: number, env: Record<string, string> = {}) {
  const blob = generated({ size, seed: 5 });
  const upstream = await startFakeRegistry();
  upstream.addBlob("library/big", blob);
  const settings = { UPSTREAM_DOCKER: upstream.url, LOG_LEVEL: "debug", ...env };
  const proxy = await startProxy({ env: settings });
  return {
    blob,
    upstream,
    proxy,
    path: `/v2/library/big/blobs/${blob.digest}`,
    async [Symbol.asyncDispose]() {
      await proxy.stop();
      await upstream.close();
    },
  };
}

function assertOneGet(upstream: FakeRegistry, blob: Content): void {
  assertEquals(upstream.count({ kind: "blob", method: "GET" }), 1);
  assertEquals(upstream.blobGets(blob.digest), 1);
}

function assertPeak(proxy: ProxyProcess, limit: number): void {
  const peak = Math.round(proxy.rss() / MIB);
  assert(peak < limit, `The proxy had ${peak} MiB in memory, and should have less than ${limit}`);
}

/** Reads all of it and counts. To hash as much as twenty clients get would take longer than all else. */
async function sizeOf(stream: ReadableStream<Uint8Array>): Promise<number> {
  let size = 0;
  for await (const chunk of stream) size += chunk.byteLength;
  return size;
}

Deno.test("a 1 GiB layer for one client: one upstream GET, less than 200 MB in memory", async () => {
  await using t = await setUp(GIB);
  const response = await fetch(t.proxy.url + t.path);
  assertEquals(response.headers.get("content-length"), String(GIB));
  assertEquals(await digestOfStream(response.body!), { size: GIB, digest: t.blob.digest });
  assertOneGet(t.upstream, t.blob);
  assertPeak(t.proxy, 200);
});

Deno.test("a 1 GiB layer for 20 clients at once: one upstream GET, less than 200 MB in memory", async () => {
  await using t = await setUp(GIB);
  const clients = Array.from({ length: 20 }, async (_, i) => {
    const response = await fetch(t.proxy.url + t.path);
    if (i > 0) return assertEquals(await sizeOf(response.body!), GIB);
    assertEquals(await digestOfStream(response.body!), { size: GIB, digest: t.blob.digest });
  });
  await Promise.all(clients);
  assertOneGet(t.upstream, t.blob);
  assertPeak(t.proxy, 200);
});

Deno.test("200 clients that read 10 KB/s of a 1 GiB fill: less than 200 MB, and a fast one is not held up", async () => {
  await using t = await setUp(GIB);
  const slow = Array.from({ length: 200 }, async () => {
    const connection = await openRaw(t.proxy.host);
    await connection.write(`GET ${t.path} HTTP/1.1\r\nhost: ${t.proxy.host}\r\n\r\n`);
    // It ends when the connection is closed below.
    return { connection, answer: connection.answer({ rate: 10_000, timeout: 600_000 }) };
  });
  const opened = await Promise.all(slow);
  try {
    const response = await fetch(t.proxy.url + t.path);
    assertEquals(await digestOfStream(response.body!), { size: GIB, digest: t.blob.digest });
    assertOneGet(t.upstream, t.blob);
    // `deno task bench` measures it against 150 MB; this is the limit that must always hold.
    assertPeak(t.proxy, 200);
  } finally {
    for (const { connection } of opened) connection.close();
  }
  for (const { answer } of opened) {
    const { status, body, complete } = await answer;
    assertEquals([status, complete], [200, false]);
    assertEquals(body, t.blob.read(0, body.byteLength));
  }
});

Deno.test("a client that leaves after 1 MiB of 200: the next is served from the finished fill", async () => {
  const size = 200 * MIB;
  await using t = await setUp(size);
  const { body } = await rawRequest(t.proxy.host, { path: t.path, stopAfter: MIB });
  assertEquals(body, t.blob.read(0, MIB));
  await t.proxy.log(/Stored sha256:/, 60_000);
  assertOneGet(t.upstream, t.blob);
  await t.upstream.down();
  const response = await fetch(t.proxy.url + t.path);
  assertEquals([response.status, response.headers.get("x-cache")], [200, "HIT"]);
  assertEquals(await digestOfStream(response.body!), { size, digest: t.blob.digest });
});
