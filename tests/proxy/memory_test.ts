import { assert, assertEquals } from "@std/assert";
import { sharedBytes, underWay } from "../../lib/response/under_way.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { openRaw } from "../support/http.ts";
import { makeImage } from "../support/image.ts";
import { startTestProxy } from "../support/proxy.ts";
import { until } from "../support/until.ts";

const MIB = 2 ** 20;
const CLIENTS = 20;

/** Clients that ask for `path` several times, more than the system takes for them, and read nothing. */
async function readersOfNothing(host: string, path: string, times = 12): Promise<Disposable> {
  const request = `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`.repeat(times);
  const conns = await Promise.all(Array.from({ length: CLIENTS }, () => openRaw(host)));
  await Promise.all(conns.map((conn) => conn.write(request)));
  return { [Symbol.dispose]: () => conns.forEach((conn) => conn.close()) };
}

for (const cached of [true, false]) {
  const where = cached ? "from the cache" : "without a cache";
  Deno.test(`many clients that read nothing of a large manifest cost what one costs, ${where}`, async () => {
    await using registry = await startFakeRegistry();
    const image = makeImage({ annotations: { padding: "p".repeat(3 * MIB) } });
    registry.add("team/app", "1", image);
    await using proxy = await startTestProxy({
      upstreams: { docker: registry },
      env: { CACHE_ENABLED: String(cached) },
    });
    const path = `/v2/team/app/manifests/${image.digest}`;
    const whole = await fetch(proxy.url + path);
    assertEquals(new Uint8Array(await whole.arrayBuffer()), image.manifest);
    await until(() => underWay.used === 0);
    {
      using _clients = await readersOfNothing(proxy.host, path);
      // Without a cache each has its own on its way here at first.
      await until(() => cached || sharedBytes.size === 1 && registry.count() > CLIENTS);
      await until(() => underWay.used < 2 * image.size);
      assert(sharedBytes.size <= 1);
      // Who reads is served meanwhile.
      const other = await fetch(proxy.url + path);
      assertEquals((await other.arrayBuffer()).byteLength, image.size);
    }
    await until(() => underWay.used === 0 && sharedBytes.size === 0);
  });
}

Deno.test("bodies and heads that are half sent are counted, and not any more when the client leaves", async () => {
  await using proxy = await startTestProxy({ env: { CACHE_ENABLED: "false" } });
  const body = `POST /v2/auth HTTP/1.1\r\nHost: ${proxy.host}\r\nContent-Length: 65536\r\n\r\nhalf`;
  const head = `GET /v2/ HTTP/1.1\r\nHost: ${proxy.host}\r\nX-Long: ${"x".repeat(10_000)}`;
  for (const [half, bytes] of [[body, 65_536], [head, 10_000]] as const) {
    const conns = await Promise.all(Array.from({ length: CLIENTS }, () => openRaw(proxy.host)));
    await Promise.all(conns.map((conn) => conn.write(half)));
    await until(() => underWay.used >= CLIENTS * bytes);
    assert(underWay.used < CLIENTS * bytes * 3);
    for (const conn of conns) conn.close();
    await until(() => underWay.used === 0);
  }
});

Deno.test("whatever is asked for, nothing stays counted when it is answered", async () => {
  await using registry = await startFakeRegistry();
  const image = makeImage({ annotations: { padding: "p".repeat(MIB) } });
  registry.add("team/app", "1", image);
  await using proxy = await startTestProxy({ upstreams: { docker: registry } });
  const paths = [
    "/v2/",
    "/v2/team/app/manifests/1",
    `/v2/team/app/manifests/${image.digest}`,
    "/v2/team/app/manifests/none",
    `/v2/team/app/blobs/${image.layers[0]!.digest}`,
    "/v2/team/app/tags/list",
    `/v2/team/app/referrers/${image.digest}`,
  ];
  const headers = [{}, { "if-none-match": `"${image.digest}"` }, { "range": "bytes=5-9" }, {
    "accept": "application/vnd.docker.distribution.manifest.v2+json",
  }];
  for (const path of paths) {
    for (const method of ["GET", "HEAD"]) {
      for (const more of headers) {
        const response = await fetch(proxy.url + path, { method, headers: more as HeadersInit });
        await response.arrayBuffer();
        await until(() => underWay.used === 0 && sharedBytes.size === 0);
      }
    }
  }
});

Deno.test("upstream is asked for a list only where there is memory for it, which is counted until it is sent", async () => {
  const tags = Array.from({ length: 5_000 }, (_, i) => `t${i}`.padEnd(100, "x"));
  const list = JSON.stringify({ name: "team/app", tags });
  let asked = 0;
  const upstream = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    (request) => {
      const isList = request.url.endsWith("/tags/list");
      if (isList) asked++;
      return new Response(isList ? list : "{}", {
        headers: { "content-type": "application/json" },
      });
    },
  );
  const docker = `http://127.0.0.1:${upstream.addr.port}`;
  const proxy = await startTestProxy({ upstreams: { docker } });
  const url = `${proxy.url}/v2/team/app/tags/list`;
  underWay.add(underWay.limit);
  const refused = await fetch(url);
  await refused.body?.cancel();
  assertEquals([refused.status, refused.headers.get("retry-after"), asked], [503, "5", 0]);
  underWay.remove(underWay.limit);
  const answer = await fetch(url);
  assertEquals(await answer.text(), list);
  await until(() => underWay.used === 0);
  await proxy.close();
  await upstream.shutdown();
});
