import { assert, assertEquals, assertMatch } from "@std/assert";
import { type FakeRegistry, startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { makeImage } from "../support/image.ts";
import { captureLogs } from "../support/logs.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";
import { until } from "../support/until.ts";

async function startBoth(env: Record<string, string> = {}, options: { auth?: "token" } = {}) {
  const users = { a: "secret-a", b: "secret-b" };
  const docker = await startFakeRegistry({ ...options, users });
  const upstreams = { docker, "docker-staging": docker };
  const proxy = await startTestProxy({ upstreams, env });
  return {
    docker,
    proxy,
    async [Symbol.asyncDispose]() {
      await proxy.close();
      await docker.close();
    },
  };
}

/** Holds an image as `library/<name>:1`. */
function hold(docker: FakeRegistry, name: string, seed = 1) {
  const image = makeImage({ seed, layers: [3000] });
  docker.add(`library/${name}`, "1", image);
  return image;
}

const manifest = (proxy: TestProxy, name: string, headers: HeadersInit = {}) =>
  whole(`${proxy.url}/v2/library/${name}/manifests/1`, { headers });

Deno.test("a repository that is denied is 403 DENIED, by each of its registry's names, and upstream hears nothing", async () => {
  await using both = await startBoth({ DENY_REPOS: "docker.io/library/evil" });
  const { docker, proxy } = both;
  hold(docker, "evil");
  hold(docker, "good");
  for (
    const path of [
      "/v2/library/evil/manifests/1",
      "/v2/docker.io/library/evil/manifests/1",
      "/v2/docker-staging/library/evil/tags/list",
      `/v2/library/evil/blobs/sha256:${"a".repeat(64)}`,
      "/v2/library/evil/manifests/1?ns=docker.io",
    ]
  ) {
    const { status, json } = await whole(proxy.url + path);
    assertEquals([path, status, json.errors[0].code], [path, 403, "DENIED"]);
  }
  assertEquals(docker.log.length, 0);
  assertEquals(proxy.stats.rejected.get("repository"), 5);
  assertEquals((await manifest(proxy, "good")).status, 200);
});

Deno.test("with ALLOW_REPOS nothing else is served, and a deny rule wins", async () => {
  await using both = await startBoth({
    ALLOW_REPOS: "docker.io/library/*",
    DENY_REPOS: "docker.io/library/evil",
  });
  const { docker, proxy } = both;
  for (const name of ["evil", "good"]) hold(docker, name);
  docker.add("other/app", "1", makeImage());
  const statuses = await Promise.all(
    ["library/good", "library/evil", "other/app"].map(async (name) =>
      (await whole(`${proxy.url}/v2/${name}/manifests/1`)).status
    ),
  );
  assertEquals(statuses, [200, 403, 403]);
});

Deno.test("a client outside of ALLOW_CLIENTS gets 403 everywhere but at /health", async () => {
  await using both = await startBoth({ ALLOW_CLIENTS: "192.0.2.0/24", TRUST_PROXY: "true" });
  const { docker, proxy } = both;
  hold(docker, "app");
  const inside = { "x-forwarded-for": "192.0.2.7" };
  assertEquals((await manifest(proxy, "app", inside)).status, 200);
  assertEquals((await manifest(proxy, "app")).status, 403);
  assertEquals((await whole(`${proxy.url}/v2/`)).status, 403);
  assertEquals((await whole(`${proxy.url}/health`)).status, 200);
  // Whatever the client writes left of what the proxy in front wrote.
  const spoofed = { "x-forwarded-for": "192.0.2.7, 198.51.100.1" };
  assertEquals((await manifest(proxy, "app", spoofed)).status, 403);
});

Deno.test("X-Forwarded-For of a peer that is no trusted proxy is not believed", async () => {
  await using both = await startBoth({ ALLOW_CLIENTS: "192.0.2.0/24", TRUST_PROXY: "10.0.0.0/8" });
  const { docker, proxy } = both;
  hold(docker, "app");
  const claimed = { "x-forwarded-for": "192.0.2.7" };
  assertEquals((await manifest(proxy, "app", claimed)).status, 403);
});

Deno.test("misses beyond the rate are 429 with Retry-After before upstream is asked; hits go on", async () => {
  await using both = await startBoth({ RATE_LIMIT: "misses=2/1h" });
  const { docker, proxy } = both;
  for (const name of ["a", "b", "c"]) hold(docker, name);
  assertEquals((await manifest(proxy, "a")).status, 200);
  assertEquals((await manifest(proxy, "b")).status, 200);
  const before = docker.log.length;
  const refused = await manifest(proxy, "c");
  assertEquals([refused.status, refused.json.errors[0].code], [429, "TOOMANYREQUESTS"]);
  const seconds = Number(refused.headers.get("retry-after"));
  assert(seconds > 1700 && seconds <= 1800, `${seconds} is half of an hour`);
  assertEquals(docker.log.length, before);
  for (let i = 0; i < 5; i++) assertEquals((await manifest(proxy, "a")).status, 200);
  assertEquals(proxy.stats.rejected.get("rate_misses"), 1);
});

Deno.test("blobs and tag lists are misses too where they are asked of upstream", async () => {
  await using both = await startBoth({ RATE_LIMIT: "misses=1/1h" });
  const { docker, proxy } = both;
  const image = hold(docker, "app");
  assertEquals((await manifest(proxy, "app")).status, 200);
  const blob = `${proxy.url}/v2/library/app/blobs/${image.layers[0]!.digest}`;
  assertEquals((await whole(blob)).status, 429);
  assertEquals((await whole(`${proxy.url}/v2/library/app/tags/list`)).status, 429);
  assertEquals(docker.blobGets(image.layers[0]!.digest), 0);
});

Deno.test("hits beyond their own rate are 429; misses have theirs", async () => {
  await using both = await startBoth({ RATE_LIMIT: "hits=2/1h" });
  const { docker, proxy } = both;
  for (const name of ["a", "b"]) hold(docker, name);
  await manifest(proxy, "a");
  const statuses = [];
  for (let i = 0; i < 3; i++) statuses.push((await manifest(proxy, "a")).status);
  assertEquals(statuses, [200, 200, 429]);
  assertEquals((await manifest(proxy, "b")).status, 200);
  assertEquals(proxy.stats.rejected.get("rate_hits"), 1);
});

Deno.test("of a burst exactly the budget is let through, and failures count", async () => {
  await using both = await startBoth({ RATE_LIMIT: "misses=3/1h" });
  const { docker, proxy } = both;
  const statuses = await Promise.all(
    Array.from({ length: 20 }, async (_, i) => (await manifest(proxy, `none${i}`)).status),
  );
  assertEquals(statuses.sort(), [404, 404, 404, ...Array<number>(17).fill(429)]);
  const asked = docker.log.filter(({ kind }) => kind === "manifest");
  assertEquals(new Set(asked.map(({ repository }) => repository)).size, 3);
  assertEquals(proxy.stats.rejected.get("rate_misses"), 17);
});

Deno.test("ping, tokens and the catalogue count as misses", async () => {
  for (const path of ["/v2/", "/v2/_catalog", "/v2/auth?scope=repository:library/app:pull"]) {
    await using both = await startBoth({ RATE_LIMIT: "misses=2/1h" }, { auth: "token" });
    const get = async () => (await whole(both.proxy.url + path)).status;
    assertEquals([await get() === 429, await get() === 429, await get()], [false, false, 429]);
  }
});

Deno.test("a client that is let into nothing is counted the same, whether a private blob is here or not", async () => {
  const sequences = [];
  for (const isHere of [true, false]) {
    await using both = await startBoth({ RATE_LIMIT: "misses=4/1h", TRUST_PROXY: "true" }, {
      auth: "token",
    });
    const { docker, proxy } = both;
    const image = hold(docker, "app");
    const [layer] = image.layers;
    docker.setAccess("library/app", ["a"]);
    const url = `${proxy.url}/v2/library/app/blobs/${layer!.digest}`;
    if (isHere) {
      const authorization = `Basic ${btoa("a:secret-a")}`;
      const own = await whole(url, {
        headers: { authorization, "x-forwarded-for": "192.0.2.9" },
      });
      assertEquals(own.status, 200);
      await proxy.proxy.cache!.content.settled(layer!.digest);
    }
    const statuses = [];
    for (let i = 0; i < 6; i++) statuses.push((await whole(url)).status);
    sequences.push(statuses);
  }
  assertEquals(sequences[0], sequences[1]);
  assertEquals(sequences[0], [401, 401, 401, 401, 429, 429]);
});

Deno.test("a hit that is turned away leaves nothing open", async () => {
  await using both = await startBoth({ RATE_LIMIT: "hits=1/1h" });
  const { docker, proxy } = both;
  const image = makeImage({ layers: [300_000] });
  docker.add("library/app", "1", image);
  const url = `${proxy.url}/v2/library/app/blobs/${image.layers[0]!.digest}`;
  const statuses = [];
  for (let i = 0; i < 4; i++) statuses.push((await whole(url)).status);
  assertEquals(statuses, [200, 200, 429, 429]);
  await until(() => proxy.proxy.cache!.content.space.pinned === 0);
});

Deno.test("clients have budgets of their own; one with IPv6 cannot change address within its /64", async () => {
  await using both = await startBoth({ RATE_LIMIT: "misses=1/1h", TRUST_PROXY: "true" });
  const { docker, proxy } = both;
  for (const name of ["a", "b", "c"]) hold(docker, name);
  const from = (address: string) => ({ "x-forwarded-for": address });
  assertEquals((await manifest(proxy, "a", from("2001:db8:1:2::1"))).status, 200);
  assertEquals((await manifest(proxy, "b", from("2001:db8:1:2:ffff::9"))).status, 429);
  assertEquals((await manifest(proxy, "b", from("2001:db8:1:3::1"))).status, 200);
  assertEquals((await manifest(proxy, "c", from("192.0.2.1"))).status, 200);
});

Deno.test("IPv4 clients of a listener for IPv6 too have budgets of their own", async () => {
  await using both = await startBoth({ RATE_LIMIT: "misses=1/1h" });
  const { docker, proxy } = both;
  for (const name of ["a", "b"]) hold(docker, name);
  const from = async (address: string, name: string) => {
    const request = new Request(`${proxy.url}/v2/library/${name}/manifests/1`);
    const remoteAddr = { transport: "tcp", hostname: `::ffff:${address}`, port: 1 } as const;
    const response = await proxy.proxy.fetch(request, { remoteAddr });
    await response.body?.cancel();
    return response.status;
  };
  assertEquals(await from("192.0.2.1", "a"), 200);
  assertEquals(await from("192.0.2.1", "b"), 429);
  assertEquals(await from("192.0.2.2", "b"), 200);
});

Deno.test("no more downloads run at once than MAX_CONCURRENT_FILLS, and all get theirs", async () => {
  await using both = await startBoth({ MAX_CONCURRENT_FILLS: "2" });
  const { docker, proxy } = both;
  const images = [1, 2, 3, 4, 5, 6].map((seed) => hold(docker, `app${seed}`, seed));
  // Each stands still after its first byte until it is let go.
  const held = docker.faults.add({ kind: "blob" }, { stallAt: 1, stallFor: 200 });
  let most = 0;
  const watching = setInterval(() => {
    const open = docker.log.filter(({ kind, end }) => kind === "blob" && end === undefined);
    most = Math.max(most, open.length);
  }, 5);
  const pulls = images.map((image, i) => {
    const [layer] = image.layers;
    return whole(`${proxy.url}/v2/library/app${i + 1}/blobs/${layer!.digest}`)
      .then(({ digest }) => assertEquals(digest, layer!.digest));
  });
  await Promise.all(pulls);
  clearInterval(watching);
  assertEquals([most, held.hits], [2, 6]);
  const { queues: { fills }, cache } = proxy.proxy;
  await until(() => [...cache!.content.fills].length === 0);
  assertEquals([fills.running, fills.waiting], [0, 0]);
});

Deno.test("who asks for what another waits for has a turn of their own, and begins it for both", async () => {
  await using both = await startBoth({ TRUST_PROXY: "true" });
  const { docker, proxy } = both;
  const { fills } = proxy.proxy.queues;
  const leaving = new AbortController();
  const layer = (name: string, client: string, signal?: AbortSignal) => {
    const image = hold(docker, name, Number(name.slice(3)));
    const url = `${proxy.url}/v2/library/${name}/blobs/${image.layers[0]!.digest}`;
    return whole(url, { headers: { "x-forwarded-for": client }, signal });
  };
  // One client takes all the places that one may have, and waits for one more.
  const held = docker.faults.add({ kind: "blob" }, { stallAt: 1 });
  const busy = Array.from(
    { length: 17 },
    (_, i) => layer(`app${i}`, "203.0.113.1", leaving.signal).catch(() => {}),
  );
  await until(() => held.hits === 16 && fills.waiting === 1);
  docker.faults.clear();
  const name = "app16";
  const others = await Promise.all([
    layer(name, "203.0.113.2", AbortSignal.timeout(20_000)),
    layer(name, "203.0.113.3", AbortSignal.timeout(20_000)),
  ]);
  assertEquals(others.map(({ status }) => status), [200, 200]);
  assertEquals(docker.count({ kind: "blob", repository: `library/${name}` }), 1);
  assertEquals(fills.waiting, 0);
  leaving.abort();
  await Promise.all(busy);
});

Deno.test("the place of a download that fails, or is refused, is free again", async () => {
  await using both = await startBoth({ MAX_CONCURRENT_FILLS: "1" });
  const { docker, proxy } = both;
  const image = hold(docker, "app");
  const missing = `${proxy.url}/v2/library/app/blobs/sha256:${"b".repeat(64)}`;
  assertEquals((await whole(missing)).status, 404);
  docker.faults.add({ kind: "blob" }, { corruptAt: 10 }, { times: 1 });
  const url = `${proxy.url}/v2/library/app/blobs/${image.layers[0]!.digest}`;
  // Told by a status or by a connection that breaks, as far as the body had come.
  const status = await whole(url).then((answer) => answer.status, () => "broken");
  assert(status === 502 || status === "broken", `${status}`);
  assertEquals((await whole(url)).digest, image.layers[0]!.digest);
});

Deno.test("429 of upstream's with nothing cached reaches the client with upstream's Retry-After", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  hold(docker, "app");
  for (
    const [said, told] of [
      [4711, "4711"],
      ["Wed, 21 Oct 2099 07:28:00 GMT", "Wed, 21 Oct 2099 07:28:00 GMT"],
      ["soon", "60"],
      [undefined, "60"],
    ] as const
  ) {
    docker.control.limited = { retryAfter: said };
    const answer = await manifest(proxy, "app");
    assertEquals([answer.status, answer.headers.get("retry-after")], [429, told]);
  }
});

Deno.test("while pulls are scarce a tag stays fresh for longer", async () => {
  const quota = { limit: 100, window: 21_600, remaining: 100 };
  const env = { CACHE_MANIFEST_TTL: "0s", QUOTA_MANIFEST_TTL: "1h", QUOTA_THRESHOLD: "20%" };
  await using both = await startBoth(env);
  const { docker, proxy } = both;
  docker.control.quota = quota;
  hold(docker, "app");
  const heads = () => docker.count({ kind: "manifest", method: "HEAD" });
  await manifest(proxy, "app");
  await manifest(proxy, "app");
  assertEquals(heads(), 2); // the first, and the TTL of zero
  quota.remaining = 19;
  await manifest(proxy, "app");
  assertEquals(heads(), 3); // that is how it is known
  for (let i = 0; i < 3; i++) assertEquals((await manifest(proxy, "app")).status, 200);
  assertEquals(heads(), 3);
});

Deno.test("while pulls are scarce a tag whose content is here already costs a HEAD and no pull", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  docker.control.quota = { limit: 100, window: 21_600, remaining: 10 };
  const image = hold(docker, "app");
  docker.add("library/app", "2", image);
  await manifest(proxy, "app");
  const { pulls } = docker;
  const url = `${proxy.url}/v2/library/app/manifests/2`;
  assertEquals((await whole(url)).digest, image.digest);
  assertEquals(docker.pulls, pulls);
});

Deno.test("a tag that moved while no pull is left keeps its old meaning until there is one", async () => {
  await using both = await startBoth({ CACHE_MANIFEST_TTL: "0s", QUOTA_MANIFEST_TTL: "0s" });
  const { docker, proxy } = both;
  const old = hold(docker, "app", 1);
  await manifest(proxy, "app");
  const moved = hold(docker, "app", 2);
  docker.control.limited = { retryAfter: 100 };
  for (let i = 0; i < 2; i++) {
    const stale = await manifest(proxy, "app");
    assertEquals([stale.digest, stale.headers.get("x-cache")], [old.digest, "STALE"]);
  }
  docker.control.limited = undefined;
  assertEquals((await manifest(proxy, "app")).digest, moved.digest);
});

Deno.test("what upstreams say of their quota is known by account", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  docker.control.quota = { limit: 100, window: 21_600, remaining: 57 };
  hold(docker, "app");
  await manifest(proxy, "app");
  const [quota] = proxy.proxy.quotas.entries();
  assertEquals(
    [quota!.registry, quota!.account, quota!.remaining, quota!.limit],
    [docker.host, "anonymous", 56, 100],
  );
});

Deno.test("several accounts are used in turn, and one that is refused gives way to the next", async () => {
  const file = await Deno.makeTempFile();
  try {
    await Deno.writeTextFile(file, "# two accounts\na:secret-a\n\nb:secret-b\n");
    const env = { UPSTREAM_DOCKER_CREDENTIALS_FILE: file, CACHE_MANIFEST_TTL: "0s" };
    await using both = await startBoth(env, { auth: "token" });
    const { docker, proxy } = both;
    hold(docker, "app");
    // The first proves that anybody may read it.
    for (let i = 0; i < 5; i++) await manifest(proxy, "app");
    const users = () =>
      new Set(docker.log.filter(({ kind }) => kind === "manifest").map((e) => e.user));
    assertEquals(users(), new Set([undefined, "", "a", "b"]));

    const before = docker.log.length;
    const fault = { status: 429, headers: { "retry-after": "900" } };
    docker.faults.add({ kind: "manifest" }, fault, { times: 1 });
    const answer = await manifest(proxy, "app");
    assertEquals([answer.status, answer.headers.get("x-cache")], [200, "HIT"]); // and not stale
    const [refused, served] = docker.log.slice(before);
    assertEquals([refused!.status, served!.status], [429, 200]);
    assertEquals([refused!.user, served!.user].sort(), ["a", "b"]);
    // Until its time is over the other one serves alone.
    const since = docker.log.length;
    for (let i = 0; i < 3; i++) await manifest(proxy, "app");
    const asked = docker.log.slice(since).map(({ user }) => user);
    assertEquals(asked, [served!.user, served!.user, served!.user]);
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("OFFLINE serves what is here for ever, and says of the rest that it does not exist", async () => {
  await using both = await startBoth({ CACHE_MANIFEST_TTL: "0s" });
  const { docker, proxy } = both;
  const image = hold(docker, "app");
  const blob = `${proxy.url}/v2/library/app/blobs/${image.layers[0]!.digest}`;
  await manifest(proxy, "app");
  await whole(blob);
  await proxy.restart({ grace: 10_000, env: { OFFLINE: "true" } });
  const before = docker.log.length;

  const held = await manifest(proxy, "app");
  assertEquals([held.digest, held.headers.get("x-cache")], [image.digest, "HIT"]);
  assertEquals((await whole(blob)).digest, image.layers[0]!.digest);
  for (
    const [path, code] of [
      ["manifests/other", "MANIFEST_UNKNOWN"],
      [`blobs/sha256:${"c".repeat(64)}`, "BLOB_UNKNOWN"],
      ["tags/list", "NAME_UNKNOWN"],
    ]
  ) {
    const { status, json } = await whole(`${proxy.url}/v2/library/app/${path}`);
    assertEquals([status, json.errors[0].code], [404, code!]);
    assertMatch(json.errors[0].message, /OFFLINE/);
  }
  assertEquals((await whole(`${proxy.url}/v2/`)).status, 401);
  const token = await whole(`${proxy.url}/v2/auth?scope=repository:library/app:pull`);
  assertEquals(token.status, 200);
  assertEquals(docker.log.length, before);
});

Deno.test("OFFLINE with a lost index says at each start what to do, and pulling without it mends that without downloads", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  const image = makeImage({ layers: [200_000] });
  docker.add("library/app", "1", image);
  const blob = `${proxy.url}/v2/library/app/blobs/${image.layers[0]!.digest}`;
  const pull = async () => {
    const { status, digest } = await manifest(proxy, "app");
    return [status, digest === image.digest, (await whole(blob)).status];
  };
  assertEquals(await pull(), [200, true, 200]);
  await proxy.proxy.cache!.content.settled(image.layers[0]!.digest);
  const offline = { OFFLINE: "true" };
  using logs = await captureLogs();
  const told = () => logs.find(/^The index knows no tag of the/);
  await proxy.restart({
    env: offline,
    async between() {
      await Deno.rename(`${proxy.cacheDir}/index.sqlite`, `${proxy.cacheDir}/backup`);
    },
  });
  await until(() => told().length === 1);
  assertEquals(told()[0]!.properties.entries, 2);
  assertEquals(await pull(), [404, false, 404]);
  await proxy.restart({ env: offline });
  await until(() => told().length === 2);
  // A backup brings all of it back.
  await proxy.restart({
    env: offline,
    async between() {
      await Deno.rename(`${proxy.cacheDir}/index.sqlite`, `${proxy.cacheDir}/new`);
      await Deno.rename(`${proxy.cacheDir}/backup`, `${proxy.cacheDir}/index.sqlite`);
    },
  });
  assertEquals(await pull(), [200, true, 200]);
  await proxy.restart({
    between: () => Deno.rename(`${proxy.cacheDir}/new`, `${proxy.cacheDir}/index.sqlite`),
  });
  const downloads = () => docker.count({ kind: "blob", method: "GET", status: 200 });
  const before = downloads();
  assertEquals(await pull(), [200, true, 200]);
  assertEquals(downloads(), before);
  await proxy.restart({ env: offline });
  assertEquals(await pull(), [200, true, 200]);
  assertEquals(told().length, 2);
});
