/**
 * Instances whose index is lost while the store keeps what it has.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { RedisLeases } from "../../lib/cache/cluster/lease.ts";
import { peerHasNothing } from "../../lib/cache/cluster/peer.ts";
import { Content } from "../../lib/cache/content/content.ts";
import { Maintenance } from "../../lib/cache/content/maintenance.ts";
import { openShared } from "../../lib/cache/shared_backends.ts";
import { Redis } from "../../lib/cache/store/redis.ts";
import { parseConfig } from "../../lib/config/config.ts";
import { parseRedisUrl } from "../../lib/config/engine_url.ts";
import { Stats } from "../../lib/telemetry/stats.ts";
import { bytesOf, digestOf, randomBytes } from "../support/content.ts";
import { redisCommand, startRedis } from "../support/engines.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { objectKey, startFakeS3 } from "../support/fake_s3.ts";
import { ANY, pull, startFleet } from "../support/fleet.ts";
import { whole } from "../support/http.ts";
import { makeImage } from "../support/image.ts";
import { captureLogs } from "../support/logs.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";
import { toolTest } from "../support/requirements.ts";
import { tempDir } from "../support/temp.ts";
import { until } from "../support/until.ts";

const CREDENTIALS = { AWS_ACCESS_KEY_ID: "access", AWS_SECRET_ACCESS_KEY: "secret" };

/** What one instance does by itself, on an S3 service, with its index in Redis or in SQLite. */
async function startKeeper(index?: string) {
  const stack = new AsyncDisposableStack();
  const s3 = stack.use(await startFakeS3());
  const dir = stack.use(await tempDir());
  const { cache } = parseConfig({
    CACHE_DIR: dir.path,
    CACHE_STORE: s3.setting,
    ...index ? { CACHE_INDEX: index } : {},
    ...CREDENTIALS,
  });
  const stats = new Stats();
  const rebuilt: number[] = [];
  const events = { onDamaged() {}, onRebuilt: () => void rebuilt.push(Date.now()) };
  const engines = await openShared(cache!, { events, stats, idle: 5_000 });
  stack.defer(() => engines.close());
  const { store } = engines;
  const content = new Content({
    store,
    index: engines.index,
    stats,
    maxSize: 10 ** 7,
    idle: 5_000,
  });
  stack.defer(() => content.close(0));
  const upkeep = new Maintenance({ content, engines, blobTtl: 10 ** 10 });
  const digests: string[] = [];
  for (let n = 0; n < 5; n++) {
    const bytes = randomBytes(1_000, n);
    digests.push(digestOf(bytes));
    assert(await content.put(digests[n]!, bytes));
  }
  // Everything is old enough to be compared.
  const options = { now: () => Date.now() + 60 * 60_000, wait: () => Promise.resolve() };
  return {
    ...{ s3, engines, rebuilt },
    compare: () => upkeep.compare(options),
    stored: () => digests.filter((digest) => s3.objects.has(objectKey(digest))).length,
    entries: async () => (await engines.index.totals()).entries,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

toolTest("a Redis that was flushed a moment ago costs the store nothing", {
  needs: ["redis-server"],
  async fn() {
    await using redis = await startRedis({ persistent: false });
    await using keeper = await startKeeper(redis.url);
    await keeper.compare();
    assertEquals([await keeper.entries(), keeper.stored()], [5, 5]);
    assertEquals(await redisCommand(redis.port, "FLUSHALL"), "+OK");
    assertEquals(await keeper.entries(), 0);
    await keeper.compare();
    assertEquals(keeper.stored(), 5);
    // The same when it comes back with nothing; then it is filled again.
    await redis.kill();
    await redis.start();
    await until(async () => await keeper.entries() === 5);
    assertEquals(keeper.rebuilt.length, 1);
    await until(() => keeper.engines.isIndexWhole!());
    await keeper.compare();
    assertEquals([await keeper.entries(), keeper.stored()], [5, 5]);
  },
});

Deno.test("an index that turns out damaged while S3 is away is filled when that is back, and costs the store nothing", async () => {
  await using keeper = await startKeeper();
  const { s3, engines } = keeper;
  await until(() => engines.isIndexWhole!());
  const outage = s3.faults.add({}, { hangUp: true });
  await engines.repair!();
  assertEquals([await engines.isIndexWhole!(), await keeper.entries()], [false, 0]);
  outage.remove();
  await keeper.compare();
  assertEquals(keeper.stored(), 5);
  await until(async () => {
    await engines.store.stat(digestOf(randomBytes(1_000, 0))).catch(() => {}); // not yet
    return await engines.isIndexWhole!();
  });
  assertEquals(await keeper.entries(), 5);
  await keeper.compare();
  assertEquals([await keeper.entries(), keeper.stored()], [5, 5]);
});

toolTest(
  "OFFLINE with a lost Redis says at the start what to do, and pulling without it mends that",
  {
    needs: ["redis-server", "versitygw"],
    async fn() {
      using logs = await captureLogs();
      await using fleet = await startFleet(2);
      const [a, b] = fleet.instances as [TestProxy, TestProxy];
      const image = makeImage({ layers: [200_000] });
      fleet.registry.add("team/app", "1", image);
      await pull(a, image);
      const entries = async () => (await a.proxy.cache!.index.totals()).entries;
      await until(async () => await entries() === 3);
      const told = () => logs.find(/^The index knows no tag of the/);
      const offline = { OFFLINE: "true" };
      await a.restart({ env: offline });
      assertEquals(await pull(a, image), ["HIT", "HIT", "HIT"]);
      assertEquals(told().length, 0);
      await a.restart({
        env: offline,
        between: async () => void await redisCommand(fleet.redis.port, "FLUSHALL"),
      });
      await until(() => told().length === 1);
      assertEquals(told()[0]!.properties.entries, 3);
      const url = `${a.url}/v2/team/app/manifests/1`;
      assertEquals((await whole(url)).status, 404);
      // Another instance may ask.
      const downloads = () => fleet.registry.count({ kind: "blob", method: "GET", status: 200 });
      const before = downloads();
      await pull(b, image);
      assertEquals(await pull(a, image), ["HIT", "HIT", "HIT"]);
      // The config is small: all of it is its proof.
      assertEquals(downloads(), before + 1);
    },
  },
);

toolTest(
  "an instance that reads flipped bytes of another's download from the store sets them aside, and upstream is not blamed",
  {
    needs: ["redis-server"],
    async fn() {
      await using redis = await startRedis();
      await using s3 = await startFakeS3();
      await using registry = await startFakeRegistry({ auth: "token" });
      await using proxy = await startTestProxy({
        upstreams: { docker: registry },
        env: { CACHE_STORE: s3.setting, CACHE_INDEX: redis.url, ...CREDENTIALS },
      });
      const image = makeImage({ layers: [1_000_000] });
      registry.add("team/app", "1", image);
      const layer = image.layers[0]!;
      const { content, index } = proxy.proxy.cache!;
      const location = parseRedisUrl(redis.url);
      const connection = await Redis.connect({ location, onDown() {}, onUp() {} });
      await using peer = Deno.serve(
        { hostname: "127.0.0.1", port: 0, onListen() {} },
        () => peerHasNothing(),
      );
      const self = { url: `http://127.0.0.1:${peer.addr.port}`, key: "key" };
      const leases = new RedisLeases(connection, self);
      try {
        await whole(`${proxy.url}/v2/team/app/manifests/1`, { headers: ANY });
        const taken = await leases.acquire(layer.digest);
        assert("lease" in taken);
        const url = `${proxy.url}/v2/team/app/blobs/${layer.digest}`;
        const reading = whole(url);
        // The other one is done while this one waits for its first byte.
        await until(() => registry.count({ kind: "blob", reference: layer.digest }) > 0);
        const bytes = bytesOf(layer).slice();
        bytes[500_000]! ^= 1;
        const at = Date.now();
        s3.objects.set(objectKey(layer.digest), { bytes, at });
        const { digest, size } = layer;
        await index.addBlob({ digest, size, createdAt: at, usedAt: at, verifiedAt: at });
        // It is broken off, refused, or passed through from upstream; wrong bytes are never completed.
        const answer = await reading.catch(() => undefined);
        if (answer?.status === 200) assertEquals(answer.digest, layer.digest);
        else assertEquals(answer?.status ?? 502, 502);
        await until(() => proxy.stats.cacheEvents.get("evicted_damaged") === 1);
        assertEquals(proxy.stats.cacheEvents.get("mismatch"), 0);
        await taken.lease.release();
        await content.settled(layer.digest);
        assertEquals((await whole(url)).digest, layer.digest);
      } finally {
        connection.close();
      }
    },
  },
);
