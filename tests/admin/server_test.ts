import { assert, assertEquals, assertMatch } from "@std/assert";
import openapi from "../../lib/admin/openapi.json" with { type: "json" };
import { Api } from "../../lib/admin/api.ts";
import { type AdminServer, startAdmin } from "../../lib/admin/server.ts";
import { readEvents } from "../../lib/commands/event_stream.ts";
import { breakMethod } from "../support/break_method.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import {
  blobsOf,
  type Image,
  makeImage,
  makeIndex,
  type Manifest,
  manifestsOf,
} from "../support/image.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";
import { until } from "../support/until.ts";

interface Setting extends AsyncDisposable {
  readonly registry: FakeRegistry;
  readonly proxy: TestProxy;
  readonly admin: AdminServer;
  readonly url: string;
  readonly image: Image;
}

async function start(
  options: { token?: string; env?: Record<string, string> } = {},
): Promise<Setting> {
  const stack = new AsyncDisposableStack();
  const registry = stack.use(await startFakeRegistry());
  const image = makeImage({ layers: [1000, 20_000] });
  registry.add("library/app", "1", image);
  const platform = { os: "aix", architecture: "ppc64" };
  registry.add("team/tool", "2", makeImage({ seed: 2, platform }));
  const proxy = stack.use(
    await startTestProxy({ upstreams: { docker: registry }, env: options.env }),
  );
  const admin = startAdmin(proxy.proxy, {
    host: "127.0.0.1",
    port: 0,
    token: options.token,
    isWanted: true,
  });
  stack.defer(() => admin.close());
  const url = `http://127.0.0.1:${admin.addr.port}`;
  return { registry, proxy, admin, url, image, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

async function ask(
  { url }: Pick<Setting, "url">,
  path: string,
  { method = "GET", body }: { method?: string; body?: unknown } = {},
) {
  const headers = { "content-type": "application/json" };
  return await whole(url + path, {
    method,
    body: body === undefined ? undefined : JSON.stringify(body),
    headers,
  });
}

async function pull({ proxy, image }: Setting): Promise<void> {
  const manifest = await whole(`${proxy.url}/v2/library/app/manifests/1`);
  assertEquals(manifest.digest, manifestsOf(image)[0]!.digest);
  for (const { digest } of blobsOf(image)) {
    assertEquals((await whole(`${proxy.url}/v2/library/app/blobs/${digest}`)).digest, digest);
  }
  // What clients have is not stored at the same moment.
  const { cache } = proxy.proxy;
  if (cache) await until(async () => (await cache.index.totals()).entries >= 4);
}

/** Posts, and reads the events of the answer. */
async function events({ url }: Setting, path: string, body: unknown) {
  const response = await fetch(url + path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "content-type": "application/json" },
  });
  assertEquals(response.headers.get("content-type"), "text/event-stream");
  const found = await Array.fromAsync(readEvents(response.body!));
  return found.map(({ event, data }) => ({ event, ...JSON.parse(data) }));
}

Deno.test("the public listener exposes nothing of the operator's listener", async () => {
  await using setting = await start();
  for (const path of ["/metrics", "/stats", "/stats/cache", "/api/overview", "/api/images"]) {
    const answer = await whole(setting.proxy.url + path);
    assertEquals(answer.status, 404, path);
    assert(!answer.text.includes("library/app"));
  }
});

Deno.test("the API reports requests and downloads", async () => {
  await using setting = await start();
  await pull(setting);
  await pull(setting);
  const overview = (await ask(setting, "/api/overview")).json;
  assertEquals(overview.cache.entries, 4);
  assertEquals([overview.requests.miss, overview.requests.hit], [4, 4]);
  assertEquals(overview.bytes.toClients, 2 * overview.bytes.fromCache);
  const [docker] = (await ask(setting, "/api/registries")).json;
  assertEquals([docker.name, docker.state, docker.errors], ["docker", "up", 0]);
  const history = (await ask(setting, "/api/history")).json;
  assertEquals(history.samples.at(-1).hit, 4);
  assertEquals((await ask(setting, "/api/fills")).json, []);
});

Deno.test("the overview reports a failing index, and everything else", async () => {
  await using setting = await start();
  await pull(setting);
  using _broken = breakMethod(setting.proxy.proxy.cache!.index, "totals", "disk I/O error");
  const { cache, requests } = (await ask(setting, "/api/overview")).json;
  assertEquals([cache.bytes, cache.problem, requests.miss], [null, "disk I/O error", 4]);
  const stream = await fetch(`${setting.url}/api/events`);
  for await (const { event, data } of readEvents(stream.body!)) {
    assertEquals([event, JSON.parse(data).cache.problem], ["overview", "disk I/O error"]);
    break;
  }
  assertEquals((await ask(setting, "/metrics")).status, 200);
});

Deno.test("/stats and /stats/cache have go-docker-proxy's format", async () => {
  await using setting = await start();
  await pull(setting);
  await pull(setting);
  const { totalSize, totalSizeHuman, ...rest } = (await ask(setting, "/stats")).json.cache;
  assertMatch(totalSizeHuman, /^\d+\.\d\d KB$/);
  const { bytes } = (await ask(setting, "/api/overview")).json.cache;
  assertEquals(totalSize, bytes);
  assertEquals(rest, {
    blob: { count: 4, requests: 6, hits: 3, misses: 3, hitRate: "50.00%" },
    manifest: { count: 1, requests: 2, hits: 1, misses: 1, hitRate: "50.00%" },
    deduplication: 0,
    inflight: {
      totalRequests: 3,
      deduplicated: 0,
      savingsRate: 0,
      currentActive: 0,
      activeKeys: [],
    },
  });
  const { config, stats } = (await ask(setting, "/stats/cache")).json;
  assertEquals(config, {
    directory: setting.proxy.cacheDir,
    manifestTTL: "5m0s",
    blobTTL: "8760h0m0s",
    enabled: true,
  });
  assertEquals(stats.manifest, rest.manifest);
});

Deno.test("metrics are in the Prometheus text format, and name no repository", async () => {
  await using setting = await start();
  await pull(setting);
  await pull(setting);
  const { text, headers } = await ask(setting, "/metrics");
  assertMatch(headers.get("content-type")!, /^text\/plain; version=0\.0\.4/);
  assert(!text.includes("library"), text);
  const expected = [
    /^registry_proxy_requests_total\{registry="docker",kind="blob",status="2xx",cache="HIT"\} 3$/m,
    /^registry_proxy_requests_total\{registry="docker",kind="manifest",status="2xx",cache="MISS"\} 1$/m,
    /^registry_proxy_store_entries 4$/m,
    /^registry_proxy_upstream_up\{registry="docker"\} 1$/m,
    /^registry_proxy_request_duration_seconds_count\{registry="docker",kind="blob",cache="HIT"\} 3$/m,
    /^registry_proxy_request_duration_seconds_bucket\{registry="docker",kind="blob",cache="HIT",le="\+Inf"\} 3$/m,
    /^registry_proxy_memory_bytes \d+$/m,
    /^registry_proxy_event_loop_lag_seconds [\d.]+$/m,
  ];
  for (const line of expected) assertMatch(text, line);
  // Every sample belongs to a family that is declared before it, and no family twice.
  const families = [...text.matchAll(/^# TYPE (\S+) /gm)].map(([, name]) => name!);
  assertEquals(new Set(families).size, families.length);
  for (const [, name] of text.matchAll(/^([a-z_]+?)(?:_bucket|_sum|_count)?(?:\{| )/gm)) {
    assert(families.includes(name!) || families.includes(`${name}_count`), name);
  }
});

Deno.test("very long lists of images are paged by name, with few reads per page", async () => {
  await using setting = await start();
  await events(setting, "/api/warm", { images: ["app:1", "team/tool:2"] });
  const { cache } = setting.proxy.proxy;
  const entry = (await Array.fromAsync(cache!.index.tags())).find(({ tag }) => tag === "1")!;
  for (let n = 0; n < 10_100; n++) await cache!.index.setTag(entry, `v${n}`, entry);
  type List = { images: { name: string; platforms: string[] }[]; total?: number; next?: string };
  const list = async (query: string): Promise<List> =>
    (await ask(setting, `/api/images?${query}`)).json;
  const first = await list("sort=size");
  assertEquals([first.total, first.images.length], [10_102, 50]);
  assertEquals(first.images[0]!.name, "docker.io/library/app:1");
  const names: string[] = [];
  let last: string | undefined = "";
  while (last !== undefined) {
    const page: List = await list(`limit=500&last=${encodeURIComponent(last)}`);
    assert(page.images.length <= 500);
    names.push(...page.images.map(({ name }) => name));
    last = page.next;
  }
  assertEquals(new Set(names).size, 10_102);
  assertEquals(names.length, 10_102);
  // Searching looks at some of them at a time.
  const found: string[] = [];
  last = "";
  while (last !== undefined) {
    const page: List = await list(`q=tool&last=${encodeURIComponent(last)}`);
    assertEquals(page.total, undefined);
    found.push(...page.images.map(({ name }) => name));
    last = page.next;
  }
  assertEquals(found, ["docker.io/team/tool:2"]);
  // Any text is a place among the names, and any number of images is bounded.
  for (
    const place of [" ", "\0", "%", "'; DROP TABLE tags; --", "\u{10ffff} a b", "x".repeat(1_900)]
  ) {
    const page: List = await list(`limit=999999999&last=${encodeURIComponent(place)}`);
    assert(page.images.length <= 500, place);
    if (page.next !== undefined) assert(page.next > place, place);
  }
  assertEquals(await list("limit=0&last="), { total: 10_102, images: [] });
  assertEquals(await list("limit=0"), { total: 10_102, images: [] });
  for (const limit of ["-1", "1e3", "NaN", "0x10", "9999999999", " 5"]) {
    const { status } = await ask(setting, `/api/images?limit=${encodeURIComponent(limit)}&last=`);
    assertEquals(status, 400, limit);
  }
  const removal = await ask(setting, "/api/images?name=app", { method: "DELETE" });
  assertEquals([removal.json.tags, removal.json.images.length], [10_101, 1_000]);
  assertEquals((await list("")).images.map(({ name }) => name), ["docker.io/team/tool:2"]);
});

Deno.test("images are searched, sorted and paged, and shown down to their layers", async () => {
  await using setting = await start();
  await events(setting, "/api/warm", { images: ["app:1", "team/tool:2"] });
  await pull(setting);
  const list = async (query: string) =>
    (await ask(setting, `/api/images?${query}`)).json.images.map((image: { name: string }) =>
      image.name
    );
  const [app, tool] = ["docker.io/library/app:1", "docker.io/team/tool:2"];
  assertEquals(await list("sort=repository&order=asc"), [app, tool]);
  assertEquals(await list("sort=size&order=desc"), [app, tool]);
  assertEquals(await list("sort=size&order=asc&limit=1"), [tool]);
  assertEquals(await list("sort=platforms&order=asc"), [tool, app]);
  assertEquals(await list("sort=platforms&order=desc"), [app, tool]);
  assertEquals(await list("sort=repository&order=asc&offset=1"), [tool]);
  assertEquals(await list("q=TOOL ppc64"), [tool]);
  assertEquals(await list("q=nothing"), []);
  assertEquals((await ask(setting, "/api/images?sort=colour")).status, 400);
  assertEquals((await ask(setting, "/api/images?limit=-1")).status, 400);
  const detail = await ask(setting, "/api/image?registry=docker.io&repository=library/app&tag=1");
  const kinds = detail.json.contents.map(({ kind }: { kind: string }) => kind);
  assertEquals(kinds, ["manifest", "config", "layer", "layer"]);
  assert(detail.json.contents.every(({ isHere }: { isHere: boolean }) => isHere));
  const missing = await ask(setting, "/api/image?registry=docker.io&repository=library/app&tag=9");
  assertEquals([missing.status, missing.json], [404, { error: "Not in the cache" }]);
});

Deno.test("of an index that names a child a hundred times, and so do its children, each is opened once", async () => {
  await using setting = await start();
  const inner = makeImage({ layers: [1000], seed: 3 });
  let index: Manifest = inner;
  for (let depth = 0; depth < 3; depth++) index = makeIndex(new Array(100).fill(index));
  setting.registry.add("team/many", "1", index);
  await events(setting, "/api/warm", { images: ["team/many:1"] });
  const { json } = await ask(
    setting,
    "/api/image?registry=docker.io&repository=team/many&tag=1",
  );
  // Itself, a hundred lines in each of three indexes, config and layer.
  assertEquals(json.contents.length, 1 + 3 * 100 + 2);
});

Deno.test("warming reports each part and the result", async () => {
  await using setting = await start();
  const told = await events(setting, "/api/warm", { images: ["app:1", "nowhere:1"] });
  assertEquals(told.at(-1), { event: "done", type: "done", ok: false });
  const fetched = told.filter(({ state }) => state === "fetched").map(({ role }) => role);
  assertEquals(fetched.sort(), ["config", "layer", "layer", "manifest"]);
  const results = told.filter(({ event }) => event === "result");
  assertEquals(results.map(({ ok }) => ok), [true, false]);
  for (
    const body of [{}, { images: [] }, { images: "app" }, { images: ["app"], platforms: "no" }]
  ) {
    const answer = await ask(setting, "/api/warm", { method: "POST", body });
    assertEquals(answer.status, 400, answer.text);
  }
});

Deno.test("a tag can be refreshed, and removed with the content that only it uses", async () => {
  await using setting = await start();
  await events(setting, "/api/warm", { images: ["app:1"] });
  const where = { registry: "docker.io", repository: "library/app", tag: "1" };
  const same = await ask(setting, "/api/refresh", { method: "POST", body: where });
  assertEquals(same.json, { digest: manifestsOf(setting.image)[0]!.digest, changed: false });
  const moved = makeImage({ seed: 9 });
  setting.registry.add("library/app", "1", moved);
  const changed = await ask(setting, "/api/refresh", { method: "POST", body: where });
  assertEquals(changed.json, { digest: moved.digest, changed: true });
  const query = new URLSearchParams(where);
  const removed = await ask(setting, `/api/image?${query}`, { method: "DELETE" });
  assertEquals([removed.status, removed.json.removedTags], [200, 1]);
  assertEquals((await ask(setting, `/api/image?${query}`, { method: "DELETE" })).status, 404);
  assertEquals((await ask(setting, "/api/images")).json.total, 0);
});

Deno.test("verifying the store reports damaged content", async () => {
  await using setting = await start();
  await pull(setting);
  const { digest } = blobsOf(setting.image)[1]!;
  const hex = digest.slice("sha256:".length);
  const file = `${setting.proxy.cacheDir}/blobs/sha256/${hex.slice(0, 2)}/${hex}`;
  const bytes = await Deno.readFile(file);
  bytes[0]! ^= 1;
  await Deno.writeFile(file, bytes);
  const done = (await events(setting, "/api/verify", {})).at(-1)!;
  assertEquals([done.checked, done.wrong], [4, [digest]]);
});

Deno.test("an image's name becomes a command, an instance a client's configuration", async () => {
  await using setting = await start();
  const base = encodeURIComponent("http://proxy.lan:8080");
  const { json } = await ask(setting, `/api/command?image=ghcr.io/x/y:1&base=${base}`);
  assertEquals(json.commands[0].tool, "docker");
  assertMatch(json.commands[0].command, /^docker pull \S*ghcr\.?\S*x\/y:1$/);
  assertEquals((await ask(setting, "/api/command?image=UPPER")).status, 400);
  for (const kind of ["docker", "containerd", "podman", "buildkit", "kubernetes"]) {
    const config = await ask(setting, `/api/client-config?kind=${kind}&base=${base}`);
    assert(config.json.files.length > 0, kind);
  }
  assertEquals((await ask(setting, "/api/client-config?kind=fax")).status, 400);
});

const TOKEN = "a secret of 16+ characters";

async function logIn({ url }: Setting, token: string) {
  const headers = { authorization: `Bearer ${token}` };
  return await whole(`${url}/api/login`, { method: "POST", headers });
}

Deno.test("with a token only the page is shown without it; a login sets a cookie that scripts cannot read", async () => {
  await using setting = await start({ token: TOKEN });
  for (const path of ["/api/overview", "/metrics", "/stats", "/api/openapi.json"]) {
    assertEquals((await ask(setting, path)).status, 401, path);
  }
  const wrong = await logIn(setting, "guess");
  assertEquals([wrong.status, wrong.headers.get("set-cookie")], [401, null]);
  const right = await logIn(setting, TOKEN);
  assertEquals(right.status, 204);
  const cookie = right.headers.get("set-cookie")!;
  assertMatch(cookie, /HttpOnly; SameSite=Strict/);
  assert(!cookie.includes("secret"), "other programs of this host see it");
  const inside = await whole(`${setting.url}/api/overview`, {
    headers: { cookie: cookie.split(";")[0]! },
  });
  assertEquals(inside.status, 200);
  const bearer = { authorization: `Bearer ${TOKEN}` };
  assertEquals((await whole(`${setting.url}/metrics`, { headers: bearer })).status, 200);
});

Deno.test("wrong operator's tokens are rate limited on every path, with Retry-After", async () => {
  await using setting = await start({ token: TOKEN });
  const headers = { authorization: "Bearer guess" };
  for (let i = 0; i < 5; i++) {
    const path = i % 2 ? "/api/overview" : "/metrics";
    assertEquals((await whole(setting.url + path, { headers })).status, 401);
  }
  const answer = await whole(`${setting.url}/stats`, { headers });
  assertEquals([answer.status, answer.headers.get("retry-after")], [429, "1"]);
  assertEquals((await logIn(setting, TOKEN)).status, 429);
});

Deno.test("no body is read without the operator's token", async () => {
  await using setting = await start({ token: TOKEN });
  for (const path of ["/api/login", "/api/warm", "/api/nothing"]) {
    using conn = await Deno.connect({ hostname: "127.0.0.1", port: setting.admin.addr.port });
    // A body that never comes: who waited for it would not answer.
    const head = `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n` +
      "Content-Length: 1000\r\n\r\n";
    await conn.write(new TextEncoder().encode(head));
    const buffer = new Uint8Array(1000);
    const n = await conn.read(buffer);
    assertMatch(new TextDecoder().decode(buffer.subarray(0, n!)), /^HTTP\/1.1 401 /);
  }
});

Deno.test("invalid and cross-site commands change nothing", async () => {
  await using setting = await start();
  await pull(setting);
  const query = "registry=docker.io&repository=library/app&tag=1";
  const foreign = await fetch(`${setting.url}/api/image?${query}`, {
    method: "DELETE",
    headers: { origin: "https://evil.example" },
  });
  await foreign.body?.cancel();
  assertEquals(foreign.status, 403);
  const form = await whole(`${setting.url}/api/verify-not`, { method: "POST", body: "a=b" });
  assertEquals(form.status, 404);
  const text = await whole(`${setting.url}/api/warm`, { method: "POST", body: "{}" });
  assertEquals(text.status, 415);
  const large = await ask(setting, "/api/warm", {
    method: "POST",
    body: { x: "x".repeat(70_000) },
  });
  assertEquals(large.status, 413);
  for (
    const path of ["/../main.ts", "/%2e%2e/server.ts", "/page/index.html", "/api", "//etc/passwd"]
  ) {
    assertEquals((await whole(setting.url + path)).status, 404, path);
  }
  assertEquals((await ask(setting, "/api/overview", { method: "POST", body: {} })).status, 405);
  assertEquals((await ask(setting, "/api/images")).json.total, 1);
});

Deno.test("no answer can be sniffed as a script or framed by other sites", async () => {
  await using setting = await start();
  for (const path of ["/", "/metrics", "/stats", "/api/overview", "/api/nothing"]) {
    const { headers } = await whole(setting.url + path);
    assertEquals(headers.get("x-content-type-options"), "nosniff", path);
    assertEquals(headers.get("cross-origin-resource-policy"), "same-origin", path);
  }
  const stream = await fetch(`${setting.url}/api/events`);
  assertEquals(stream.headers.get("x-content-type-options"), "nosniff");
  await stream.body!.cancel();
  const { headers } = await whole(setting.url);
  assertMatch(
    headers.get("content-security-policy")!,
    /default-src 'none'.*frame-ancestors 'none'/,
  );
});

Deno.test("a HEAD request for events starts no stream", async () => {
  await using setting = await start();
  const head = await fetch(`${setting.url}/api/events`, { method: "HEAD" });
  assertEquals([head.status, head.headers.get("content-type")], [200, "text/event-stream"]);
});

Deno.test("the API works without a cache", async () => {
  await using setting = await start({ env: { CACHE_ENABLED: "false" } });
  await pull(setting);
  assertEquals((await ask(setting, "/api/overview")).json.cache, null);
  assertEquals((await ask(setting, "/api/images")).json, { total: 0, images: [] });
  assertEquals((await ask(setting, "/api/verify", { method: "POST", body: {} })).status, 409);
  assertEquals((await ask(setting, "/metrics")).status, 200);
  const { uptime, ...stats } = (await ask(setting, "/stats")).json;
  assertMatch(uptime, /s$/);
  assertEquals(stats, { enabled: false });
  assertEquals((await ask(setting, "/stats/cache")).json.config.enabled, false);
});

Deno.test("the description has every route, and no other", async () => {
  await using proxy = await startTestProxy();
  const api = new Api(proxy.proxy);
  api.close();
  const described = Object.entries(openapi.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`)
  ).filter((route) => !/\/api\/log(in|out)$/.test(route));
  assertEquals(described.sort(), [...api.routes.keys()].sort());
});
