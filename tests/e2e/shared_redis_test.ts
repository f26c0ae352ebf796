/**
 * A Redis that is there and does not do what it should: full, unable to write its disk, forgetful.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { randomOf } from "../support/content.ts";
import { redisCommand, startRedis, startS3, startSentinel } from "../support/engines.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { pull, startFleet } from "../support/fleet.ts";
import { whole } from "../support/http.ts";
import { blobsOf, makeImage } from "../support/image.ts";
import { captureLogs } from "../support/logs.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";
import { toolTest } from "../support/requirements.ts";
import { freePort } from "../support/temp.ts";
import { until } from "../support/until.ts";

const BOTH = ["redis-server", "versitygw"] as const;

/** What Redis answers to writes then. */
const REFUSALS = [
  // Its memory is full, and it may drop nothing.
  { what: "is full", on: "CONFIG SET maxmemory 1", off: "CONFIG SET maxmemory 0" },
  // A failover is under way, and writes would be lost.
  {
    what: "has lost its replicas",
    on: "CONFIG SET min-replicas-to-write 1",
    off: "CONFIG SET min-replicas-to-write 0",
  },
];

for (const { what, on, off } of REFUSALS) {
  for (const store of ["s3", "redis"] as const) {
    toolTest(
      `while a Redis ${what} clients get everything, and it is told when it is not, on ${store}`,
      {
        needs: BOTH,
        async fn() {
          const users = { alice: "a" };
          using logs = await captureLogs();
          await using fleet = await startFleet(2, { store, users });
          const [a, b] = fleet.instances as [TestProxy, TestProxy];
          const old = makeImage({ seed: 1, layers: [100_000] });
          const young = makeImage({ seed: 2, layers: [100_000] });
          fleet.registry.add("team/app", "1", old);
          fleet.registry.add("team/app", "2", young);
          fleet.registry.add("team/secret", "2", young, { readers: ["alice"] });
          await pull(a, old);
          const { index } = a.proxy.cache!;
          await until(async () => (await index.totals()).entries === 3);
          assertEquals(await redisCommand(fleet.redis.port, on), "+OK");
          // What can be read still is.
          assertEquals(new Set(await pull(b, old)), new Set(["HIT"]));
          for (const proxy of [a, b]) {
            await pull(proxy, young, { tag: "2" });
            await pull(proxy, young, { repository: "team/secret", tag: "2", basic: "alice:a" });
          }
          for (const { stats } of fleet.instances) {
            assertEquals(stats.cacheEvents.get("redis_refuses"), 1);
            assertEquals(stats.cacheEvents.get("redis_down"), 0);
          }
          assertEquals(logs.find(/^Redis takes no writes/).length, 2);
          assertEquals(await redisCommand(fleet.redis.port, off), "+OK");
          await until(() => a.stats.cacheEvents.get("redis_accepts") === 1);
          assertEquals(a.stats.cacheEvents.get("redis_up"), 0);
          // A store that was full is believed to be for a minute.
          if (store === "redis" && what === "is full") return;
          await until(async () => {
            await pull(a, young, { tag: "2" });
            const caches = new Set(await pull(b, young, { tag: "2" }));
            return caches.size === 1 && caches.has("HIT");
          });
        },
      },
    );
  }
}

toolTest("a Redis that forbids what is needed costs clients the cache, and nothing else", {
  needs: BOTH,
  async fn() {
    const users = { alice: "a" };
    await using fleet = await startFleet(2, { users });
    const image = makeImage({ layers: [100_000] });
    fleet.registry.add("team/app", "1", image);
    fleet.registry.add("team/secret", "1", image, { readers: ["alice"] });
    const forbid = "ACL SETUSER default -@scripting -set -get";
    assertEquals(await redisCommand(fleet.redis.port, forbid), "+OK");
    for (const proxy of [...fleet.instances, ...fleet.instances]) {
      await pull(proxy, image);
      await pull(proxy, image, { repository: "team/secret", basic: "alice:a" });
    }
    assertEquals(await redisCommand(fleet.redis.port, "ACL SETUSER default +@all"), "+OK");
    await until(async () => {
      const caches = new Set(await pull(fleet.instances[0]!, image));
      return caches.size === 1 && caches.has("HIT");
    });
  },
});

toolTest("whatever keys Redis drops by itself, nobody gets wrong bytes or what is not theirs", {
  needs: BOTH,
  async fn() {
    const users = { alice: "a" };
    using logs = await captureLogs();
    await using fleet = await startFleet(2, {
      users,
      redis: ["--maxmemory-policy", "allkeys-lru"],
    });
    await until(() => logs.find(/drops keys/).length === 2);
    const images = [1, 2, 3].map((seed) => makeImage({ seed, layers: [70_000] }));
    images.forEach((image, i) => {
      fleet.registry.add(`team/app${i}`, "1", image);
      fleet.registry.add(`team/secret${i}`, "1", image, { readers: ["alice"] });
    });
    const seed = Number(Deno.env.get("SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0]);
    const random = randomOf(seed);
    for (let round = 0; round < 40; round++) {
      const i = Math.floor(random() * images.length);
      const proxy = fleet.instances[Math.floor(random() * 2)]!;
      try {
        await pull(proxy, images[i]!, { repository: `team/app${i}` });
        await pull(proxy, images[i]!, { repository: `team/secret${i}`, basic: "alice:a" });
        const { digest } = blobsOf(images[i]!)[1]!;
        const url = `${proxy.url}/v2/team/secret${i}/blobs/${digest}`;
        assertEquals((await whole(url)).status, 401);
      } catch (error) {
        throw new Error(`SEED=${seed}`, { cause: error });
      }
      for (let n = 0; n < 5; n++) await dropKey(fleet.redis.port);
    }
  },
});

/** Deletes a key of Redis' own choice. */
async function dropKey(port: number): Promise<void> {
  const script = `"redis.call('DEL',redis.call('RANDOMKEY')or'')"`;
  assertEquals(await redisCommand(port, `EVAL ${script} 0`), "$-1");
}

toolTest("a failover that loses the last writes loses nobody a byte, and instances are one again", {
  needs: BOTH,
  async fn() {
    await using stack = new AsyncDisposableStack();
    const master = stack.use(await startRedis());
    const replicaof = ["--replicaof", "127.0.0.1", String(master.port)];
    const replica = stack.use(await startRedis({ args: replicaof }));
    const sentinel = stack.use(await startSentinel(master));
    const s3 = stack.use(await startS3());
    const registry = stack.use(await startFakeRegistry({ auth: "token" }));
    const start = () =>
      startTestProxy({
        upstreams: { docker: registry },
        env: {
          CACHE_STORE: s3.url,
          CACHE_INDEX: sentinel.url,
          ...s3.env,
          HOST: "127.0.0.1",
          PORT: String(freePort()),
        },
      });
    const a = stack.use(await start());
    const b = stack.use(await start());
    const [old, young, rare] = [1, 2, 3].map((seed) => makeImage({ seed, layers: [100_000] }));
    registry.add("team/app", "1", old!);
    registry.add("team/app", "2", young!);
    registry.add("team/app", "3", rare!);
    await pull(a, old!);
    const entries = async ({ proxy }: TestProxy) => (await proxy.cache!.index.totals()).entries;
    await until(async () => await entries(a) === 3);
    // One replica has everything so far, and nothing from here on.
    assertEquals(await redisCommand(master.port, "WAIT 1 5000"), ":1");
    // The sentinel has to know of it, too.
    await until(async () => await replicasOf(sentinel.port) === 1);
    replica.signal("SIGSTOP");
    // Otherwise it finds the rest in its socket when it wakes.
    assertEquals(await redisCommand(master.port, "CLIENT KILL TYPE replica"), ":1");
    await pull(a, young!, { tag: "2" });
    await pull(a, rare!, { tag: "3" });
    await until(async () => await entries(a) === 9);
    await master.kill();
    replica.signal("SIGCONT");
    for (const proxy of [a, b]) {
      await pull(proxy, old!);
      await pull(proxy, young!, { tag: "2" });
    }
    // Who asked nothing meanwhile may not have noticed.
    const rowsOf = async ({ proxy }: TestProxy) => {
      try {
        return await Array.fromAsync(proxy.cache!.index.blobs());
      } catch {
        return []; // it is away
      }
    };
    await until(async () => (await rowsOf(a)).length >= 3 && (await rowsOf(b)).length >= 3, 30_000);
    await until(async () => {
      await pull(a, young!, { tag: "2" });
      const caches = new Set([...await pull(b, old!), ...await pull(b, young!, { tag: "2" })]);
      return caches.size === 1 && caches.has("HIT");
    }, 30_000);
    // What nobody asked for again is counted again, too.
    await until(async () => (await rowsOf(b)).length === 9);
    const { bytes, reserved } = await b.proxy.cache!.index.totals();
    const rows = await rowsOf(b);
    assertEquals([rows.length, reserved], [9, 0]);
    assertEquals(bytes, rows.reduce((sum, { size }) => sum + size, 0));
  },
});

/** How many replicas of its master a sentinel knows. */
async function replicasOf(port: number): Promise<number> {
  // The first line of an array's answer is its length.
  return Number((await redisCommand(port, "SENTINEL REPLICAS main")).slice(1));
}
