/**
 * A Redis that is there and does not do what it should: full, unable to write its disk, forgetful.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { redisCommand } from "../support/engines.ts";
import { pull, startFleet } from "../support/fleet.ts";
import { makeImage } from "../support/image.ts";
import type { TestProxy } from "../support/proxy.ts";
import { toolTest } from "../support/requirements.ts";
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
          assertEquals(await redisCommand(fleet.redis.port, off), "+OK");
          await until(() => a.stats.cacheEvents.get("redis_up") === 1);
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
