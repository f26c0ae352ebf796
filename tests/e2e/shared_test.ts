/**
 * Several instances in this process, on a real Redis and a real S3 server.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { type Engine, startRedis, startS3 } from "../support/engines.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { blobsOf, type Image, makeImage, makeLargeLayer, manifestsOf } from "../support/image.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";
import { toolTest } from "../support/requirements.ts";
import { freePort } from "../support/temp.ts";

interface Fleet extends AsyncDisposable {
  readonly registry: FakeRegistry;
  readonly redis: Engine;
  readonly s3: Engine | undefined;
  readonly instances: readonly TestProxy[];
}

async function startFleet(
  count: number,
  options: {
    store?: "s3" | "redis";
    env?: Readonly<Record<string, string>>;
    auth?: "none" | "token";
    users?: Readonly<Record<string, string>>;
  } = {},
): Promise<Fleet> {
  const { store = "s3", auth = "token", users } = options;
  const stack = new AsyncDisposableStack();
  const redis = stack.use(await startRedis());
  const s3 = store === "s3" ? stack.use(await startS3()) : undefined;
  const registry = stack.use(await startFakeRegistry({ auth, users }));
  const instances: TestProxy[] = [];
  for (let i = 0; i < count; i++) {
    const env = {
      CACHE_STORE: s3?.url ?? redis.url,
      CACHE_INDEX: redis.url,
      HOST: "127.0.0.1",
      PORT: String(await freePort()),
      ...s3?.env,
      ...options.env,
    };
    instances.push(stack.use(await startTestProxy({ upstreams: { docker: registry }, env })));
  }
  return { registry, redis, s3, instances, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

const ANY = { accept: "application/vnd.oci.image.manifest.v1+json" };

async function token(proxy: TestProxy, repository: string, basic?: string): Promise<string> {
  const headers: Record<string, string> = basic ? { authorization: `Basic ${btoa(basic)}` } : {};
  const scope = `repository:${repository}:pull`;
  const answer = await whole(`${proxy.url}/v2/auth?service=x&scope=${scope}`, { headers });
  assertEquals(answer.status, 200, answer.text);
  return answer.json.token;
}

/** Pulls everything of `image` through `proxy` and compares every byte. */
async function pull(
  proxy: TestProxy,
  image: Image,
  { repository = "team/app", tag = "1", basic }: {
    repository?: string;
    tag?: string;
    basic?: string;
  } = {},
): Promise<string[]> {
  const headers = { ...ANY, authorization: `Bearer ${await token(proxy, repository, basic)}` };
  const manifest = await whole(`${proxy.url}/v2/${repository}/manifests/${tag}`, { headers });
  assertEquals([manifest.status, manifest.digest], [200, manifestsOf(image)[0]!.digest]);
  const caches = [manifest.headers.get("x-cache")!];
  for (const { digest } of blobsOf(image)) {
    const blob = await whole(`${proxy.url}/v2/${repository}/blobs/${digest}`, { headers });
    assertEquals([blob.status, blob.digest], [200, digest]);
    caches.push(blob.headers.get("x-cache")!);
  }
  return caches;
}

/** Waits until `condition` holds. */
async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const limit = performance.now() + 15_000;
  while (!await condition()) {
    assert(performance.now() < limit, "It did not come true in 15 s");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

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
      const image = makeImage({ layers: [50_000, makeLargeLayer(16 * 2 ** 20)] });
      fleet.registry.add("team/app", "1", image);
      const large = blobsOf(image).at(-1)!.digest;
      // Slow enough that every instance comes while it runs.
      fleet.registry.faults.add({ kind: "blob", reference: large }, { rate: 16 * 2 ** 20 });
      await Promise.all(
        Array.from({ length: 200 }, (_, i) => pull(fleet.instances[i % 4]!, image)),
      );
      for (const { digest } of blobsOf(image)) assertEquals(fleet.registry.blobGets(digest), 1);
      assertEquals(fleet.registry.pulls, 1);
    },
  });
}
