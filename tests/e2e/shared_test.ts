/**
 * Several instances in this process, on a real Redis and a real S3 server.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { FileStore } from "../../lib/cache/store/file_store.ts";
import { S3Objects } from "../../lib/cache/store/s3/objects.ts";
import { S3Store } from "../../lib/cache/store/s3/store.ts";
import { startRedis, startS3 } from "../support/engines.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { ANY, pull, startFleet, token, watchRedis } from "../support/fleet.ts";
import { whole } from "../support/http.ts";
import { blobsOf, makeImage, makeLargeLayer, manifestsOf } from "../support/image.ts";
import { captureLogs } from "../support/logs.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";
import { startProxy } from "../support/proxy_process.ts";
import { toolTest } from "../support/requirements.ts";
import { freePort } from "../support/temp.ts";
import { until } from "../support/until.ts";

for (const store of ["s3", "redis"] as const) {
  const needs = store === "s3" ? ["redis-server", "versitygw"] as const : ["redis-server"] as const;

  toolTest(`what one instance has pulled every instance serves, from ${store}`, {
    needs,
    async fn() {
      await using fleet = await startFleet(2, { store });
      const [a, b] = fleet.instances as [TestProxy, TestProxy];
      const image = makeImage({ layers: [1000, 200_000, makeLargeLayer(20 * 2 ** 20)] });
      fleet.registry.add("team/app", "1", image);
      assertEquals(new Set(await pull(a, image)), new Set(["MISS"]));
      await until(async () => (await a.proxy.cache!.index.totals()).entries === 5);
      const pulls = fleet.registry.pulls;
      assertEquals(new Set(await pull(b, image)), new Set(["HIT"]));
      assertEquals(fleet.registry.pulls, pulls);
      for (const { digest } of blobsOf(image)) assertEquals(fleet.registry.blobGets(digest), 1);
      const { digest, size } = blobsOf(image).at(-1)!;
      const range = await whole(`${b.url}/v2/team/app/blobs/${digest}`, {
        headers: { range: `bytes=${size - 10}-` },
      });
      assertEquals([range.status, range.bytes.byteLength], [206, 10]);
    },
  });

  toolTest(`200 clients at four instances cost upstream one GET of each digest, on ${store}`, {
    needs,
    async fn() {
      await using fleet = await startFleet(4, { store });
      const image = makeImage({ layers: [50_000, makeLargeLayer(4 * 2 ** 20)] });
      fleet.registry.add("team/app", "1", image);
      const large = blobsOf(image).at(-1)!.digest;
      // Slow enough that every instance comes while it runs.
      fleet.registry.faults.add({ kind: "blob", reference: large }, { rate: 4 * 2 ** 20 });
      await Promise.all(
        Array.from({ length: 200 }, (_, i) => pull(fleet.instances[i % 4]!, image)),
      );
      // Who joins another's download proves its access with a part of it.
      for (const { digest } of blobsOf(image)) {
        const whole = { method: "GET", kind: "blob", reference: digest, status: 200 } as const;
        assertEquals(fleet.registry.count(whole), 1);
      }
      assertEquals(fleet.registry.pulls, 1);
    },
  });
}

const BOTH = ["redis-server", "versitygw"] as const;

toolTest("a private image is served by another instance to who was let in, and to nobody else", {
  needs: BOTH,
  async fn() {
    const users = { alice: "a", bob: "b" };
    await using fleet = await startFleet(2, { users });
    const [a, b] = fleet.instances as [TestProxy, TestProxy];
    const image = makeImage({ layers: [100_000] });
    fleet.registry.add("team/secret", "1", image, { readers: ["alice"] });
    const where = { repository: "team/secret" };
    await pull(a, image, { ...where, basic: "alice:a" });
    const { digest } = blobsOf(image)[1]!;
    const url = `${b.url}/v2/team/secret/blobs/${digest}`;
    assertEquals((await whole(url)).status, 401);
    const bobs = await whole(url, {
      headers: { authorization: `Bearer ${await token(b, "team/secret", "bob:b")}` },
    });
    assertEquals(bobs.status, 401);
    assertEquals(new Set(await pull(b, image, { ...where, basic: "alice:a" })), new Set(["HIT"]));
    assertEquals(fleet.registry.blobGets(digest), 1);
  },
});

toolTest("a hit costs Redis one command, whoever asks for whatever in whatever way", {
  needs: BOTH,
  async fn() {
    const users = { alice: "a" };
    for (const STORE_REDIRECT of ["false", "true"]) {
      await using fleet = await startFleet(2, { users, env: { STORE_REDIRECT } });
      const [a, b] = fleet.instances as [TestProxy, TestProxy];
      const image = makeImage({ layers: [1000, 200_000] });
      const { digest } = manifestsOf(image)[0]!;
      const paths = [`manifests/1`, `manifests/${digest}`].concat(
        blobsOf(image).map((blob) => `blobs/${blob.digest}`),
      );
      fleet.registry.add("team/app", "1", image);
      fleet.registry.add("team/secret", "1", image, { readers: ["alice"] });
      for (const [repository, basic] of [["team/app"], ["team/secret", "alice:a"]] as const) {
        await using commands = await watchRedis(fleet.redis.port);
        for (const proxy of [a, b]) {
          const bearer = `Bearer ${await token(proxy, repository, basic)}`;
          const headers = { ...ANY, authorization: bearer };
          const ask = async (method: string, path: string) => {
            const url = `${proxy.url}/v2/${repository}/${path}`;
            const answer = await fetch(url, { method, headers, redirect: "manual" });
            await answer.arrayBuffer();
            return `${answer.headers.get("x-cache")}`;
          };
          // Small content is then in memory, and grants that others got are known here.
          for (const path of paths) await ask("GET", path);
          await proxy.proxy.cache!.content.settled(blobsOf(image).at(-1)!.digest);
          for (const path of paths) {
            for (const method of ["GET", "HEAD"]) {
              await until(async () => await ask(method, path) === "HIT");
              await commands.quiet();
              commands.seen.length = 0;
              assertEquals(await ask(method, path), "HIT");
              await until(() => commands.seen.length > 0);
              await commands.quiet();
              assertEquals(commands.seen, ["EVALSHA"], `${method} ${path}`);
            }
          }
        }
      }
    }
  },
});

toolTest("a removal at one instance is seen by the others at once", {
  needs: BOTH,
  async fn() {
    await using fleet = await startFleet(2);
    const [a, b] = fleet.instances as [TestProxy, TestProxy];
    const image = makeImage({ layers: [100_000] });
    fleet.registry.add("team/app", "1", image);
    await pull(a, image);
    const { digest } = blobsOf(image)[1]!;
    await until(async () => await a.proxy.cache!.index.blob(digest) !== undefined);
    assertEquals(new Set(await pull(b, image)), new Set(["HIT"]));
    await b.proxy.cache!.content.remove(digest, "removed");
    await b.proxy.cache!.content.remove(manifestsOf(image)[0]!.digest, "removed");
    const caches = await pull(a, image);
    assertEquals(caches, ["MISS", "HIT", "MISS"]);
  },
});

toolTest(
  "with STORE_REDIRECT a hit is fetched from the store itself, and by the proxy when that is gone",
  {
    needs: BOTH,
    async fn() {
      await using fleet = await startFleet(1, { env: { STORE_REDIRECT: "true" } });
      const [proxy] = fleet.instances as [TestProxy];
      const image = makeImage({ layers: [100_000] });
      fleet.registry.add("team/app", "1", image);
      await pull(proxy, image);
      const { digest } = blobsOf(image)[1]!;
      await until(async () => await proxy.proxy.cache!.index.blob(digest) !== undefined);
      const url = `${proxy.url}/v2/team/app/blobs/${digest}`;
      const redirect = await whole(url);
      assertEquals([redirect.status, redirect.headers.get("x-cache")], [307, "HIT"]);
      const location = redirect.headers.get("location")!;
      assert(location.startsWith(`http://127.0.0.1:${fleet.s3!.port}/`), location);
      assertEquals((await whole(location)).digest, digest);
      const range = await whole(location, { headers: { range: "bytes=0-9" } });
      assertEquals(range.bytes.byteLength, 10);
    },
  },
);

toolTest("while Redis is gone every instance serves, and they are one again when it is back", {
  needs: BOTH,
  async fn() {
    using logs = await captureLogs();
    await using fleet = await startFleet(2);
    const [a, b] = fleet.instances as [TestProxy, TestProxy];
    const old = makeImage({ seed: 1, layers: [100_000] });
    const young = makeImage({ seed: 2, layers: [100_000, makeLargeLayer(12 * 2 ** 20)] });
    fleet.registry.add("team/app", "1", old);
    fleet.registry.add("team/app", "2", young);
    await pull(a, old);
    await until(async () => (await a.proxy.cache!.index.totals()).entries === 3);
    assertEquals(new Set(await pull(b, old)), new Set(["HIT"]));
    const large = blobsOf(young).at(-1)!.digest;
    fleet.registry.faults.add({ kind: "blob", reference: large }, { rate: 12 * 2 ** 20 });
    // Killed in the middle of a pull.
    const pulling = pull(a, young, { tag: "2" });
    await until(() => fleet.registry.blobGets(large) === 1);
    await fleet.redis.kill();
    await pulling;
    assertEquals(new Set(await pull(a, old)), new Set(["HIT"]));
    assertEquals(new Set(await pull(b, old)), new Set(["HIT"]));
    await pull(b, young, { tag: "2" });
    for (const { stats } of fleet.instances) assertEquals(stats.cacheEvents.get("redis_down"), 1);
    await fleet.redis.start();
    await until(() =>
      fleet.instances.every(({ stats }) => stats.cacheEvents.get("redis_up") === 1)
    );
    // What was filled without it is known to both.
    const index = b.proxy.cache!.index;
    await until(async () => (await index.totals()).entries === 7);
    const gets = fleet.registry.blobGets(large);
    assertEquals(new Set(await pull(b, young, { tag: "2" })), new Set(["HIT"]));
    assertEquals(fleet.registry.blobGets(large), gets);
    // Of each instance one line each, however much was asked meanwhile.
    assertEquals([logs.find(/^Redis is gone/).length, logs.find(/^Redis is back/).length], [2, 2]);
  },
});

toolTest("a Redis that neither answers nor refuses holds nobody up for long", {
  needs: BOTH,
  async fn() {
    await using fleet = await startFleet(1);
    const [proxy] = fleet.instances as [TestProxy];
    const image = makeImage({ layers: [100_000] });
    fleet.registry.add("team/app", "1", image);
    await pull(proxy, image);
    fleet.redis.signal("SIGSTOP");
    try {
      await pull(proxy, image);
      await pull(proxy, image);
    } finally {
      fleet.redis.signal("SIGCONT");
    }
    await until(() => proxy.stats.cacheEvents.get("redis_up") === 1);
  },
});

toolTest("a Redis that comes back empty is filled from the store", {
  needs: BOTH,
  async fn() {
    await using fleet = await startFleet(1);
    const [proxy] = fleet.instances as [TestProxy];
    const image = makeImage({ layers: [100_000] });
    fleet.registry.add("team/app", "1", image);
    await pull(proxy, image);
    const { index } = proxy.proxy.cache!;
    await until(async () => (await index.totals()).entries === 3);
    await fleet.redis.kill();
    await fleet.redis.wipe();
    await whole(`${proxy.url}/v2/team/app/manifests/1`, { headers: ANY });
    await fleet.redis.start();
    await until(async () => (await index.totals()).entries === 3);
    const gets = fleet.registry.blobGets(blobsOf(image)[1]!.digest);
    await pull(proxy, image);
    assertEquals(fleet.registry.blobGets(blobsOf(image)[1]!.digest), gets);
  },
});

toolTest("while the store is gone clients get everything from upstream, and hits when it is back", {
  needs: BOTH,
  async fn() {
    using logs = await captureLogs();
    await using fleet = await startFleet(1);
    const [proxy] = fleet.instances as [TestProxy];
    const old = makeImage({ seed: 1, layers: [100_000] });
    const young = makeImage({ seed: 2, layers: [100_000] });
    fleet.registry.add("team/app", "1", old);
    fleet.registry.add("team/app", "2", young);
    await pull(proxy, old);
    const { index } = proxy.proxy.cache!;
    await until(async () => (await index.totals()).entries === 3);
    await fleet.s3!.kill();
    await pull(proxy, old);
    await pull(proxy, young, { tag: "2" });
    assertEquals(proxy.stats.cacheEvents.get("store_down"), 1);
    assertEquals((await index.totals()).entries, 3);
    await fleet.s3!.start();
    await until(async () => {
      await pull(proxy, young, { tag: "2" });
      return (await index.totals()).entries === 6;
    });
    assertEquals(proxy.stats.cacheEvents.get("store_up"), 1);
    assertEquals(new Set(await pull(proxy, old)), new Set(["HIT"]));
    assertEquals(new Set(await pull(proxy, young, { tag: "2" })), new Set(["HIT"]));
    const lines = [/^The store is gone/, /^The store is back/].map((text) =>
      logs.find(text).length
    );
    assertEquals(lines, [1, 1]);
  },
});

toolTest(
  "an instance killed in the middle of a fill loses nobody a byte, and leaves nothing behind",
  {
    needs: BOTH,
    async fn() {
      await using stack = new AsyncDisposableStack();
      const redis = stack.use(await startRedis());
      const s3 = stack.use(await startS3());
      const registry = stack.use(await startFakeRegistry({ auth: "token" }));
      const env = { CACHE_STORE: s3.url, CACHE_INDEX: redis.url, ...s3.env };
      const upstream = { UPSTREAM_DOCKER: registry.url };
      const owner = stack.use(await startProxy({ env: { ...env, ...upstream } }));
      const other = stack.use(
        await startTestProxy({
          upstreams: { docker: registry },
          env: { ...env, HOST: "127.0.0.1", PORT: String(freePort()) },
        }),
      );
      const image = makeImage({ layers: [makeLargeLayer(40 * 2 ** 20)] });
      registry.add("team/app", "1", image);
      const { digest } = blobsOf(image)[1]!;
      registry.faults.add({ kind: "blob", reference: digest }, { rate: 20 * 2 ** 20 });
      // As clients begin: by that both know that everybody may read the repository.
      for (const { url } of [owner, other]) {
        await whole(`${url}/v2/team/app/manifests/1`, { headers: ANY });
      }
      const path = `/v2/team/app/blobs/${digest}`;
      const first = whole(owner.url + path).catch(() => undefined); // it dies with its instance
      await until(() => registry.blobGets(digest) === 1);
      const second = whole(other.url + path);
      await until(() =>
        [...other.proxy.cache!.content.fills].some((fill) => fill.received > 2 ** 20)
      );
      const location = other.config.cache!.store;
      assert(location.engine === "s3");
      const objects = new S3Objects(location);
      const uploads = async () => (await Array.fromAsync(objects.uploads.list("blobs/"))).length;
      await until(async () => await uploads() === 1);
      await owner.kill();
      await first;
      assertEquals((await second).digest, digest);
      // Taken up where it broke, by the one that followed; a proof of access asks for a part too.
      const parts = { method: "GET", kind: "blob", reference: digest, status: 206 } as const;
      assert(registry.count(parts) >= 1);
      assertEquals(registry.count({ ...parts, status: 200 }), 1);
      await until(async () => await other.proxy.cache!.index.blob(digest) !== undefined);
      // What the dead one had promised ends with its lease.
      await until(async () => (await other.proxy.cache!.index.totals()).reserved === 0);
      assertEquals((await whole(other.url + path)).headers.get("x-cache"), "HIT");
      // And what it had sent ahead to the store, which an instance looks for once a minute, goes.
      const left = new S3Store({
        objects,
        drafts: new FileStore(other.cacheDir),
        idle: 5_000,
        now: () => Date.now() + 2 * 60_000,
      });
      assertEquals(await uploads(), 1);
      await left.sweep();
      assertEquals(await uploads(), 0);
      assertEquals((await whole(other.url + path)).digest, digest);
    },
  },
);

toolTest("a client's budget and a registry's quota are the same at every instance", {
  needs: BOTH,
  async fn() {
    await using fleet = await startFleet(2, { env: { RATE_LIMIT: "misses=4/1h" } });
    const [a, b] = fleet.instances as [TestProxy, TestProxy];
    fleet.registry.control.quota = { limit: 100, window: 3600, remaining: 50 };
    const images = [1, 2, 3].map((seed) => makeImage({ seed, layers: [1000] }));
    images.forEach((image, i) => fleet.registry.add(`team/app${i}`, "1", image));
    const ask = async (proxy: TestProxy, i: number) =>
      (await whole(`${proxy.url}/v2/team/app${i}/blobs/${blobsOf(images[i]!)[1]!.digest}`)).status;
    // The manifest tells of the quota; both instances hear of it.
    await whole(`${a.url}/v2/team/app0/manifests/1`, { headers: ANY });
    await until(() => b.proxy.quotas.entries().length === 1);
    assertEquals(b.proxy.quotas.entries()[0]!.remaining, a.proxy.quotas.entries()[0]!.remaining);
    const first = [await ask(a, 0), await ask(b, 1), await ask(a, 2)];
    assertEquals(first, [200, 200, 200]);
    const config = blobsOf(images[0]!)[0]!.digest;
    const refused = await whole(`${b.url}/v2/team/app0/blobs/${config}`);
    assertEquals(refused.status, 429);
    assert(Number(refused.headers.get("retry-after")) > 60);
  },
});
