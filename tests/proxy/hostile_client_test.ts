/**
 * Clients that mean ill or are broken: they get an error, or the end of their connection, and nobody else does.
 */
import { assert, assertEquals } from "@std/assert";
import { listen } from "../../lib/server/listener.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { connectionOf, openRaw, rawRequest, whole } from "../support/http.ts";
import { bytesOf, makeImage } from "../support/image.ts";
import { LISTENERS, startListener } from "../support/listeners.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";
import { connectTls } from "../support/secure.ts";

const image = makeImage({ layers: [3000] });
const layer = image.layers[0]!;
const bytes = bytesOf(layer);

async function startAll(env: Record<string, string> = {}) {
  const docker = await startFakeRegistry();
  docker.add("team/app", "1", image);
  const proxy = await startTestProxy({ upstreams: { docker }, env });
  return {
    docker,
    proxy,
    async [Symbol.asyncDispose]() {
      await proxy.close();
      await docker.close();
    },
  };
}

/** What somebody says who then says nothing more. */
const HALF = {
  "http/1.1": "GET /v2/ HTTP/1.1\r\nHost: loc",
  "tls": new Uint8Array([0x16, 3, 1, 2, 0, 1]),
};

const alive = async (proxy: TestProxy) =>
  assertEquals((await whole(`${proxy.url}/v2/team/app/manifests/1`)).digest, image.digest);

const DOTS = [
  "..",
  "%2e%2e",
  "%2E.",
  ".%2e",
  "..%2f..",
  "%2e%2e%2f",
  "%252e%252e",
  "..%5c..",
  "..;",
];
const ODD = [
  "%00",
  "%0d%0aX-Evil:1",
  "%ff",
  "%",
  "%zz",
  "\\",
  "//",
  "a%2fb",
  "%c0%ae%c0%ae",
  "~root",
];

Deno.test("no traversal in any part of a path reaches upstream, the disk or another path", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  const digest = layer.digest;
  for (const evil of [...DOTS, ...ODD]) {
    for (
      const path of [
        `/v2/${evil}/etc/passwd`,
        `/v2/team/${evil}/manifests/1`,
        `/v2/team/app/${evil}/manifests/1`,
        `/v2/team/app/manifests/${evil}`,
        `/v2/team/app/manifests/${evil}/${evil}/blobs`,
        `/v2/team/app/blobs/${evil}`,
        `/v2/team/app/blobs/sha256:${evil}`,
        `/v2/team/app/blobs/${digest}/${evil}`,
        `/v2/team/app/referrers/${evil}`,
        `/${evil}/v2/team/app/manifests/${evil}`,
        `/${evil}`,
      ]
    ) {
      const answer = await rawRequest(proxy.host, { path });
      assert([301, 400, 404].includes(answer.status), `${path} is ${answer.status}`);
      assert(answer.complete && !answer.headers.has("x-evil"), path);
      const location = answer.headers.get("location") ?? "/v2/";
      assert(/^\/v2\/[^/]|^\/v2\/$/.test(location), `${path} leads to ${location}`);
    }
  }
  for (const { target } of docker.log) assert(!/\.\.|%2e|%00|\\/i.test(target), target);
  await alive(proxy);
});

Deno.test("names, tags and digests may be as long as they may be, and no longer", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  const host = new URL(docker.url).host.length;
  const name = (length: number) => "a/" + "b".repeat(length - 2);
  for (
    const [path, status] of [
      [`${name(255 - host - 1)}/manifests/1`, 404],
      [`${name(256)}/manifests/1`, 400],
      [`team/app/manifests/${"t".repeat(128)}`, 404],
      [`team/app/manifests/${"t".repeat(129)}`, 400],
      [`team/app/manifests/-dash`, 400],
      [`Team/app/manifests/1`, 400],
      [`team/app_/manifests/1`, 400],
      [`team/app/blobs/sha256:${"a".repeat(64)}`, 404],
      [`team/app/blobs/sha256:${"a".repeat(63)}`, 400],
      [`team/app/blobs/sha256:${"a".repeat(65)}`, 400],
      [`team/app/blobs/sha256:${"A".repeat(64)}`, 400],
      [`team/app/blobs/sha256`, 400],
    ] as const
  ) {
    const { status: got } = await rawRequest(proxy.host, { path: `/v2/${path}` });
    assertEquals([path, got], [path, status]);
  }
});

Deno.test("a Host that is none, several or strange is 400 or has no route, and changes no path", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  const ask = (headers: (readonly [string, string | null])[], path = "/v2/team/app/manifests/1") =>
    rawRequest(proxy.host, { path, headers });
  for (
    const host of [
      "",
      "a b",
      "a/v2/team/app",
      "user@localhost",
      "localhost:99999",
      "[::1",
      "a?b",
      "a#b",
      "a\\b",
      "%6c",
    ]
  ) assertEquals([host, (await ask([["Host", host]])).status], [host, 400]);
  assertEquals((await ask([["Host", null]])).status, 400);
  assertEquals((await ask([["Host", "localhost"], ["Host", "evil.example"]])).status, 400);
  assertEquals((await ask([["Host", "evil.example"]])).status, 404);
  assertEquals(docker.log, []);
  for (const host of ["LOCALHOST", "localhost.", "localhost:1"]) {
    assertEquals([host, (await ask([["Host", host]])).status], [host, 200]);
  }
});

Deno.test("requests whose end two readers could see in different places are refused, and the connection ends", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  const smuggled = "GET /v2/smuggled/x/manifests/1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
  for (
    const [fields, status] of [
      ["Content-Length: 5\r\nContent-Length: 6", 400],
      ["Content-Length: 5\r\nTransfer-Encoding: chunked", 400],
      ["Content-Length: -1", 400],
      ["Content-Length: 0x10", 400],
      ["Content-Length : 5", 400],
      ["Transfer-Encoding: gzip, chunked", 501],
      ["Transfer-Encoding:\x0bchunked", 400],
      ["X-A: b\r\n folded", 400],
      ["X-A: a\nX-B: b", 400],
    ] as const
  ) {
    const client = await openRaw(proxy.host);
    await client.write(`POST /v2/auth HTTP/1.1\r\nHost: localhost\r\n${fields}\r\n\r\n${smuggled}`);
    const answer = await client.answer();
    assertEquals([fields, answer.status], [fields, status]);
    assertEquals([fields, (await client.answer()).status], [fields, 0]);
    client.close();
  }
  assertEquals(docker.log, []);
  await alive(proxy);
});

for (const name of LISTENERS) {
  Deno.test(`ranges of every shape are what they say, or 416, or the whole, on ${name}`, async () => {
    await using docker = await startFakeRegistry();
    docker.add("team/app", "1", image);
    await using all = await startListener(name, { upstreams: { docker } });
    const { get } = all;
    const size = bytes.byteLength;
    for (
      const [range, status, from, to] of [
        ["bytes=0-0", 206, 0, 1],
        ["bytes=10-", 206, 10, size],
        ["bytes=-10", 206, size - 10, size],
        [`bytes=0-${size * 2}`, 206, 0, size],
        [`bytes=-${size * 2}`, 206, 0, size],
        [`bytes=${size}-`, 416, 0, 0],
        ["bytes=-0", 416, 0, 0],
        ["bytes=9-5", 416, 0, 0],
        ["bytes=99999999999999999999-", 416, 0, 0],
        ["lines=1-2", 200, 0, size],
        ["bytes=a-b", 200, 0, size],
      ] as const
    ) {
      for (let i = 0; i < 2; i++) {
        const response = await get(`/v2/team/app/blobs/${layer.digest}`, { headers: { range } });
        const body = await response.bytes();
        assertEquals([range, response.status], [range, status]);
        if (status !== 416) assertEquals(body, bytes.slice(from, to), range);
      }
    }
  });
}

for (const name of ["our HTTP/1", "our HTTPS/1"] as const) {
  Deno.test(`hundreds of silent and half-said connections hold up nobody, on ${name}`, async () => {
    await using docker = await startFakeRegistry();
    docker.add("team/app", "1", image);
    await using all = await startListener(name, { upstreams: { docker } });
    const { host, port } = all.proxy;
    const clients = [];
    for (let i = 0; i < 400; i++) {
      const isSecure = name !== "our HTTP/1" && i % 4 < 2;
      const client = isSecure ? connectionOf(await connectTls(port)) : await openRaw(host);
      if (i % 2) {
        await client.write(isSecure || name === "our HTTP/1" ? HALF["http/1.1"] : HALF.tls);
      }
      clients.push(client);
    }
    for (let i = 0; i < 5; i++) {
      const response = await all.get("/v2/team/app/manifests/1");
      assertEquals(response.headers.get("docker-content-digest"), image.digest);
      await response.body?.cancel();
    }
    for (const client of clients) client.close();
  });
}

Deno.test("a token request whose body does not come holds up nobody, and asks upstream for nothing", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  const client = await openRaw(proxy.host);
  await client.write(
    "POST /v2/auth HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\ngrant",
  );
  await alive(proxy);
  assertEquals(docker.count({ kind: "token" }), 0);
  client.close();
});

Deno.test("a port is listened to once", async () => {
  await using all = await startAll();
  const { proxy } = all;
  let error: unknown;
  try {
    (await listen(proxy.proxy, { hostname: "127.0.0.1", port: proxy.port })).close();
  } catch (caught) {
    error = caught;
  }
  assert(error instanceof Deno.errors.AddrInUse);
});
