import { assert, assertEquals } from "@std/assert";
import { WarmScheduler } from "../../lib/warm/scheduler.ts";
import type { WarmedImage } from "../../lib/warm/warm.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { makeImage, makeIndex } from "../support/image.ts";
import { captureLogs } from "../support/logs.ts";
import { startTestProxy } from "../support/proxy.ts";
import { until } from "../support/until.ts";

const KEPT = /^Keeping \{image\} warm/;

Deno.test("WARM_IMAGES are downloaded after the start, and served while upstream is down", async () => {
  using logs = await captureLogs();
  await using docker = await startFakeRegistry();
  const index = makeIndex([1, 2].map((seed) => makeImage({ seed })));
  docker.add("library/app", "1", index);
  await using proxy = await startTestProxy({
    upstreams: { docker },
    env: { WARM_IMAGES: "app:1" },
  });
  await until(() => logs.find(KEPT).length === 1);
  await docker.close();
  const base = `${proxy.url}/v2/library/app`;
  assertEquals((await whole(`${base}/manifests/1`)).digest, index.digest);
  for (const child of index.children) {
    assertEquals((await whole(`${base}/manifests/${child.digest}`)).digest, child.digest);
    for (const { digest } of child.blobs) {
      assertEquals((await whole(`${base}/blobs/${digest}`)).digest, digest);
    }
  }
});

Deno.test("warm images are refreshed every WARM_INTERVAL", async () => {
  using logs = await captureLogs();
  await using docker = await startFakeRegistry();
  docker.add("library/app", "1", makeImage({ seed: 1 }));
  const env = { WARM_IMAGES: "app:1", WARM_INTERVAL: "1s" };
  await using proxy = await startTestProxy({ upstreams: { docker }, env });
  await until(() => logs.find(KEPT).length === 1);
  const moved = makeImage({ seed: 2 });
  docker.add("library/app", "1", moved);
  await until(() => logs.find(KEPT).length === 2);
  await docker.close();
  for (const { digest } of moved.blobs) {
    const blob = await whole(`${proxy.url}/v2/library/app/blobs/${digest}`);
    assertEquals(blob.digest, digest);
  }
});

Deno.test("only the platforms of WARM_PLATFORMS are kept warm", async () => {
  using logs = await captureLogs();
  await using docker = await startFakeRegistry();
  const [amd64, s390x] = ["amd64", "s390x"].map((architecture, seed) =>
    makeImage({ platform: { os: "linux", architecture }, seed })
  );
  docker.add("library/app", "1", makeIndex([amd64!, s390x!]));
  const env = { WARM_IMAGES: "app:1", WARM_PLATFORMS: "linux/s390x" };
  await using _proxy = await startTestProxy({ upstreams: { docker }, env });
  await until(() => logs.find(KEPT).length === 1);
  assertEquals(docker.blobGets(s390x!.layers[0]!.digest), 1);
  assertEquals(docker.blobGets(amd64!.layers[0]!.digest), 0);
});

/** What is exempt from eviction after each of `rounds`, in which warming one image came to this. */
async function keptAfter(
  rounds: readonly Partial<WarmedImage>[][],
  { maxSize }: { maxSize: number },
): Promise<string[][]> {
  const images = rounds[0]!.map((_result, i) => `image${i}`);
  const left = rounds.flat();
  const kept: string[][] = [];
  const done = Promise.withResolvers<void>();
  const keeper = new WarmScheduler({
    config: { customDomain: "localhost", registries: [] },
    cache: undefined,
    ready: Promise.resolve(),
  }, {
    settings: { images, platforms: "all", interval: 0 },
    maxSize,
    keep: (digests) => void kept.push([...digests]),
    warm: async (_proxy, [image = ""]) => {
      const next = left.shift();
      if (!next) {
        done.resolve();
        return await new Promise(() => {});
      }
      const blank = { ok: true, size: 0, fetched: 0, failures: [], digests: [], lists: [] };
      return [{ image, ...blank, ...next }];
    },
  });
  // Its own timer keeps no process running; in the program the listener does.
  const running = setInterval(() => {}, 1_000);
  keeper.start();
  await done.promise;
  keeper.stop();
  clearInterval(running);
  return kept.filter((_digests, i) => (i + 1) % images.length === 0);
}

Deno.test("a warm image's content is exempt from eviction until the image no longer uses it", async () => {
  const rounds = [
    [{ digests: ["a", "b"], lists: ["of a"] }, { digests: ["c"] }],
    [{ digests: ["a"], lists: ["of a"] }, {}],
  ];
  const kept = await keptAfter(rounds, { maxSize: 1000 });
  assertEquals(kept, [["a", "b", "of a", "c"], ["a", "of a"]]);
});

Deno.test("an incomplete image also keeps its earlier content", async () => {
  const failures = [{ role: "layer", reference: "c", error: "away" } as const];
  const rounds = [[{ digests: ["a", "b"] }], [{ digests: ["a", "d"], ok: false, failures }]];
  assertEquals(await keptAfter(rounds, { maxSize: 1000 }), [["a", "b"], ["a", "b", "d"]]);
});

Deno.test("WARM_IMAGES never occupy more than four fifths of the cache", async () => {
  const rounds = [[{ digests: ["a"], size: 500 }, { digests: ["b"], size: 400 }, {
    digests: ["c"],
    size: 300,
  }]];
  assertEquals(await keptAfter(rounds, { maxSize: 1000 }), [["a", "c"]]);
});

Deno.test("an unavailable image is logged, and the others are warmed", async () => {
  using logs = await captureLogs();
  await using docker = await startFakeRegistry();
  docker.add("library/app", "1", makeImage());
  const env = { WARM_IMAGES: "missing:1,app:1" };
  await using _proxy = await startTestProxy({ upstreams: { docker }, env });
  await until(() => logs.find(KEPT).length === 1);
  const [told] = logs.find(/is incomplete/);
  assertEquals(told?.properties["image"], "docker.io/library/missing:1");
});

Deno.test("nothing is warmed with OFFLINE", async () => {
  await using docker = await startFakeRegistry();
  docker.add("library/app", "1", makeImage());
  const env = { WARM_IMAGES: "app:1", OFFLINE: "true" };
  await using proxy = await startTestProxy({ upstreams: { docker }, env });
  assertEquals((await whole(`${proxy.url}/v2/library/app/manifests/1`)).status, 404);
  assert(docker.log.length === 0);
});
