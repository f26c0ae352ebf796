/**
 * Four instances as processes of their own, 200 clients, and somebody who kills or stops instances, Redis and the store
 * at random: nobody ever completes a wrong byte, and everybody gets everything in the end.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { randomOf } from "../support/content.ts";
import { startRedis, startS3 } from "../support/engines.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { blobsOf, type Image, makeImage, makeLargeLayer, manifestsOf } from "../support/image.ts";
import { type ProxyProcess, startProxy } from "../support/proxy_process.ts";
import { toolTest } from "../support/requirements.ts";
import { freePort } from "../support/temp.ts";

const INSTANCES = 4;
const CLIENTS = 200;
const KILLS = 12;
/** A client behind a load balancer tries again elsewhere. */
const ATTEMPTS = 60;

const ACCEPT = { accept: "application/vnd.oci.image.manifest.v1+json" };

toolTest("instances, Redis and store are killed at random, and 200 clients get every byte right", {
  needs: ["redis-server", "versitygw"],
  async fn() {
    const seed = Number(
      Deno.env.get("CHAOS_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0],
    );
    const random = randomOf(seed);
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
    await using stack = new AsyncDisposableStack();
    const redis = stack.use(await startRedis());
    const s3 = stack.use(await startS3());
    const registry = stack.use(await startFakeRegistry());
    const images = Array.from(
      { length: 8 },
      (_, i) => makeImage({ seed: i + 1, layers: [20_000, makeLargeLayer(3 * 2 ** 20, i + 1)] }),
    );
    images.forEach((image, i) => registry.add(`team/app${i}`, "1", image));
    registry.faults.add({ kind: "blob" }, { rate: 8 * 2 ** 20 });

    const dirs = await Promise.all(
      Array.from({ length: INSTANCES }, () => Deno.makeTempDir({ prefix: "chaos-" })),
    );
    stack.defer(async () => {
      for (const dir of dirs) await Deno.remove(dir, { recursive: true });
    });
    const ports = Array.from({ length: INSTANCES }, () => freePort());
    const start = (i: number) =>
      startProxy({
        env: {
          CACHE_STORE: s3.url,
          CACHE_INDEX: redis.url,
          ...s3.env,
          UPSTREAM_DOCKER: registry.url,
          PORT: String(ports[i]),
          CACHE_DIR: dirs[i]!,
        },
      });
    const instances: ProxyProcess[] = await Promise.all(dirs.map((_dir, i) => start(i)));
    stack.defer(async () => {
      await Promise.all(instances.map((instance) => instance.kill()));
    });

    /** Everything of one image, each piece from whichever instance answers. */
    async function pull(image: Image, repository: string): Promise<void> {
      const get = async (path: string, digest: string) => {
        for (let attempt = 1;; attempt++) {
          const url = `http://127.0.0.1:${pick(ports)}/v2/${repository}/${path}`;
          try {
            const answer = await whole(url, { headers: ACCEPT });
            if (answer.status === 200) {
              assertEquals(answer.digest, digest, `Wrong bytes; CHAOS_SEED=${seed}`);
              return;
            }
            assert(answer.status >= 500, `${answer.status} ${answer.text}`);
          } catch (error) {
            if (!(error instanceof TypeError)) throw error; // its instance was killed
          }
          assert(attempt < ATTEMPTS, `${url} in ${ATTEMPTS} attempts; CHAOS_SEED=${seed}`);
          await new Promise((resolve) => setTimeout(resolve, 100 + random() * 200));
        }
      };
      await get("manifests/1", manifestsOf(image)[0]!.digest);
      for (const { digest } of blobsOf(image)) await get(`blobs/${digest}`, digest);
    }

    let isOver = false;
    const clients = Promise.all(Array.from({ length: CLIENTS }, async (_, i) => {
      await new Promise((resolve) => setTimeout(resolve, i * 40));
      await pull(images[i % images.length]!, `team/app${i % images.length}`);
    })).finally(() => isOver = true);

    for (let kill = 0; kill < KILLS && !isOver; kill++) {
      await new Promise((resolve) => setTimeout(resolve, 200 + random() * 600));
      const victim = pick(["instance", "instance", "redis", "store", "pause"]);
      if (victim === "pause") {
        // It neither answers nor refuses.
        const pid = pick([redis.pid, s3.pid, ...instances.map((instance) => instance.pid)]);
        Deno.kill(pid, "SIGSTOP");
        await new Promise((resolve) => setTimeout(resolve, random() * 3_000));
        Deno.kill(pid, "SIGCONT");
      } else if (victim === "instance") {
        const i = Math.floor(random() * INSTANCES);
        await instances[i]!.kill();
        instances[i] = await start(i);
      } else {
        const engine = victim === "redis" ? redis : s3;
        await engine.kill();
        await new Promise((resolve) => setTimeout(resolve, random() * 1_500));
        await engine.start();
      }
    }
    await clients;

    // Quiet again: every instance serves everything, and soon all of it from the cache.
    registry.faults.clear();
    const limit = performance.now() + 40_000;
    for (const port of ports) {
      for (const [i, image] of images.entries()) {
        for (const { digest } of blobsOf(image)) {
          while (true) {
            const answer = await whole(`http://127.0.0.1:${port}/v2/team/app${i}/blobs/${digest}`);
            assertEquals([answer.status, answer.digest], [200, digest]);
            if (answer.headers.get("x-cache") === "HIT") break;
            assert(performance.now() < limit, `${digest} is not kept; CHAOS_SEED=${seed}`);
            await new Promise((resolve) => setTimeout(resolve, 200));
          }
        }
      }
    }
    // What was dead left no drafts behind.
    for (const dir of dirs) {
      const parts = await Array.fromAsync(Deno.readDir(`${dir}/fills`));
      assertEquals(parts.map(({ name }) => name), []);
    }
  },
});
