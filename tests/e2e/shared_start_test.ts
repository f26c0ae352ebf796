/**
 * Instances that start while what they share is away, or does not answer.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { startRedis, startS3 } from "../support/engines.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { ANY, pull } from "../support/fleet.ts";
import { whole } from "../support/http.ts";
import { blobsOf, makeImage } from "../support/image.ts";
import { startTestProxy } from "../support/proxy.ts";
import { toolTest } from "../support/requirements.ts";
import { freePort } from "../support/temp.ts";
import { until } from "../support/until.ts";

for (const index of ["sqlite", "redis"] as const) {
  for (const how of ["is away", "does not answer"] as const) {
    for (const what of index === "sqlite" ? ["S3"] as const : ["S3", "Redis"] as const) {
      toolTest(
        `an instance with ${index} that starts while ${what} ${how} serves, and caches when it is back`,
        {
          needs: ["redis-server", "versitygw"],
          async fn() {
            await using redis = await startRedis();
            await using s3 = await startS3();
            await using registry = await startFakeRegistry({ auth: "token" });
            const engine = what === "S3" ? s3 : redis;
            if (how === "is away") await engine.kill();
            else engine.signal("SIGSTOP");
            await using proxy = await startTestProxy({
              upstreams: { docker: registry },
              env: {
                CACHE_STORE: s3.url,
                ...index === "redis" ? { CACHE_INDEX: redis.url } : {},
                ...s3.env,
                HOST: "127.0.0.1",
                PORT: String(freePort()),
              },
            });
            const image = makeImage({ layers: [100_000] });
            registry.add("team/app", "1", image);
            await pull(proxy, image);
            if (how === "is away") await engine.start();
            else engine.signal("SIGCONT");
            await until(async () => {
              const caches = new Set(await pull(proxy, image));
              return caches.size === 1 && caches.has("HIT");
            }, 30_000);
            await until(async () => (await proxy.proxy.cache!.index.totals()).entries === 3);
          },
        },
      );
    }
  }
}

toolTest(
  "an index that was lost while S3 is away is filled from it when it is back, also by the next process",
  {
    needs: ["versitygw"],
    async fn() {
      await using s3 = await startS3();
      await using registry = await startFakeRegistry({ auth: "token" });
      await using proxy = await startTestProxy({
        upstreams: { docker: registry },
        env: { CACHE_STORE: s3.url, ...s3.env },
      });
      const image = makeImage({ layers: [100_000] });
      registry.add("team/app", "1", image);
      await pull(proxy, image);
      const entries = async () => (await proxy.proxy.cache!.index.totals()).entries;
      await until(async () => await entries() === 3);
      await proxy.restart({
        async between() {
          for await (const { name } of Deno.readDir(proxy.cacheDir)) {
            if (name.startsWith("index.sqlite")) await Deno.remove(`${proxy.cacheDir}/${name}`);
          }
          await s3.kill();
        },
      });
      assertEquals(await entries(), 0);
      await proxy.restart();
      assertEquals(await entries(), 0);
      await s3.start();
      const { digest } = blobsOf(image)[1]!;
      const downloads = () =>
        registry.count({ kind: "blob", method: "GET", reference: digest, status: 200 });
      const before = downloads();
      // Whoever asks for anything finds out that it is back.
      await until(async () => {
        await whole(`${proxy.url}/v2/team/app/manifests/1`, { headers: ANY });
        return await entries() === 3;
      });
      await pull(proxy, image);
      // Upstream shows a part of what is here, as the proof of access.
      assertEquals(downloads(), before);
    },
  },
);
