/**
 * The cap of a cache that several instances share.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { redisCommand } from "../support/engines.ts";
import { pull, startFleet } from "../support/fleet.ts";
import { blobsOf, type Image, makeImage } from "../support/image.ts";
import type { TestProxy } from "../support/proxy.ts";
import { toolTest } from "../support/requirements.ts";

const CAP = 1_000_000;

for (const store of ["s3", "redis"] as const) {
  toolTest(
    `all instances together never hold more than the cap, and make room for each other, on ${store}`,
    {
      needs: ["redis-server", "versitygw"],
      async fn() {
        await using fleet = await startFleet(3, { store, env: { CACHE_MAX_SIZE: String(CAP) } });
        const images = Array.from(
          { length: 12 },
          (_, i) => makeImage({ seed: i + 1, layers: [300_000] }),
        );
        images.forEach((image, i) => fleet.registry.add(`team/app${i}`, "1", image));
        const [first] = fleet.instances as [TestProxy];
        const held = async () => {
          let bytes = 0;
          for await (const { size } of first.proxy.cache!.store.list()) bytes += size;
          return bytes;
        };
        const pullThese = async (these: readonly Image[], at: number) => {
          let isOver = false;
          const pulls = Promise.all(
            these.map((image) => {
              const i = images.indexOf(image);
              return pull(fleet.instances[(i + at) % 3]!, image, { repository: `team/app${i}` });
            }),
          ).finally(() => isOver = true);
          while (!isOver) assert(await held() <= CAP, "More than the cap is held");
          await pulls;
          for (const { proxy } of fleet.instances) {
            for (const image of images) {
              for (const { digest } of blobsOf(image)) await proxy.cache!.content.settled(digest);
            }
          }
          const bytes = await held();
          assert(bytes <= CAP && bytes > CAP / 2, `${bytes}`);
          assertEquals((await first.proxy.cache!.index.totals()).bytes, bytes);
        };
        await pullThese(images, 0);
        // What was just used stays: another instance may be sending it.
        const evicted = () =>
          fleet.instances.reduce(
            (sum, { stats }) => sum + stats.cacheEvents.get("evicted_space"),
            0,
          );
        assertEquals(evicted(), 0);
        for (const { proxy } of fleet.instances) await proxy.cache!.content.space.flush();
        // As if that were long ago.
        const age = `"for _, d in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do ` +
          `redis.call('ZADD', KEYS[1], 1, d) redis.call('HSET', KEYS[2] .. d, 'created', 1) end"`;
        const keys = "{deno-docker-proxy}:u {deno-docker-proxy}:b:";
        assertEquals(await redisCommand(fleet.redis.port, `EVAL ${age} 2 ${keys}`), "$-1");
        const isHere = (image: Image) => first.proxy.cache!.index.blob(blobsOf(image)[1]!.digest);
        const others = [];
        for (const image of images) if (!await isHere(image)) others.push(image);
        await pullThese(others, 1);
        assert(evicted() > 0);
      },
    },
  );
}
