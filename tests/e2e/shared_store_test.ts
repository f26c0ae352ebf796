import { assert, assertEquals, assertRejects } from "@std/assert";
import { BlobReplacedError } from "../../lib/cache/store/blob_store.ts";
import { Content } from "../../lib/cache/content/content.ts";
import { FileStore } from "../../lib/cache/store/file_store.ts";
import { Redis } from "../../lib/cache/store/redis.ts";
import { RedisIndex } from "../../lib/cache/index/redis_index.ts";
import { RedisStore } from "../../lib/cache/store/redis_store.ts";
import { parseRedisUrl } from "../../lib/config/engine_url.ts";
import { Stats } from "../../lib/telemetry/stats.ts";
import { digestOf, randomBytes } from "../support/content.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { startFakeS3 } from "../support/fake_s3.ts";
import { pull } from "../support/fleet.ts";
import { makeImage } from "../support/image.ts";
import { startTestProxy } from "../support/proxy.ts";
import { until } from "../support/until.ts";
import { redisCommand, startRedis } from "../support/engines.ts";
import { toolTest } from "../support/requirements.ts";
import { freePort, tempDir } from "../support/temp.ts";

const MIB = 2 ** 20;

/** Content of a Redis store on a Redis of its own. */
async function setUp({ maxSize = 100 * MIB } = {}) {
  const stack = new AsyncDisposableStack();
  const server = stack.use(await startRedis());
  const dir = stack.use(await tempDir());
  const redis = await Redis.connect({
    location: parseRedisUrl(server.url),
    onDown: () => {},
    onUp: () => {},
  });
  stack.defer(() => redis.close());
  const store = new RedisStore(redis, { drafts: new FileStore(dir.path), maxSize });
  const index = new RedisIndex(redis, { instance: "one" });
  stack.defer(() => index.close());
  const stats = new Stats();
  const content = new Content({ store, index, stats, maxSize, idle: 5_000 });
  stack.defer(() => content.close(0));
  /** The number of keys whose names match. */
  const count = async (pattern: string) => {
    const lua = `return #redis.call('KEYS',ARGV[1])`;
    return Number((await redisCommand(server.port, `EVAL "${lua}" 0 ${pattern}`)).slice(1));
  };
  return { redis, store, content, stats, count, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

toolTest(
  "a slow reader of content that is removed and stored again reads on, and condemns nothing",
  {
    needs: ["redis-server"],
    async fn() {
      await using t = await setUp();
      const bytes = randomBytes(3 * MIB, 1);
      const digest = digestOf(bytes);
      assert(await t.content.put(digest, bytes));
      const blob = (await t.content.open(digest))!;
      const read = new Uint8Array(bytes.byteLength);
      let at = await blob.read(0, read.subarray(0, 1_000));
      // Another instance evicts it and fetches it again.
      await t.store.remove(digest);
      const draft = await t.store.begin(digest);
      await draft.write(bytes);
      await draft.commit();
      while (at < read.byteLength) at += await blob.read(at, read.subarray(at));
      assertEquals(read, bytes);
      // Its own chunks are gone by and by; the new content has nothing to do with that.
      for (let n = 0; n < 6; n++) {
        await t.redis.command("UNLINK", t.redis.key(`C:${blob.version}:${n}`));
      }
      await assertRejects(() => blob.read(0, read), BlobReplacedError);
      blob.close();
      assertEquals(t.stats.cacheEvents.get("evicted_damaged"), 0);
      assertEquals(await t.content.read(digest), bytes);
    },
  },
);

toolTest("content of which a chunk is lost is set aside, and nothing that took its place", {
  needs: ["redis-server"],
  async fn() {
    await using t = await setUp();
    const bytes = randomBytes(3 * MIB, 1);
    const digest = digestOf(bytes);
    assert(await t.content.put(digest, bytes));
    const blob = (await t.content.open(digest))!;
    assertEquals(await t.store.quarantine(digest, "another"), false);
    await t.redis.command("UNLINK", t.redis.key(`C:${blob.version}:2`));
    await assertRejects(() => blob.read(MIB, new Uint8Array(10)));
    blob.close();
    assertEquals(t.stats.cacheEvents.get("evicted_damaged"), 1);
    assertEquals([await t.store.stat(digest), await t.content.row(digest)], [undefined, undefined]);
  },
});

toolTest("chunks that stay for readers end by themselves, and take a small part of the cap", {
  needs: ["redis-server"],
  async fn() {
    const maxSize = 64 * MIB;
    await using t = await setUp({ maxSize });
    for (let n = 0; n < 8; n++) {
      const bytes = randomBytes(MIB / 2, n);
      assert(await t.content.put(digestOf(bytes), bytes));
      await t.store.remove(digestOf(bytes));
    }
    // A 32nd of the cap: four chunks of half a MiB.
    assertEquals(await t.count("*C:*"), 4);
    const retired = await t.redis.command("ZRANGE", t.redis.key("R"), "0", "-1") as string[];
    assertEquals(retired.length, 4);
    for (const generation of retired) {
      const name = t.redis.key(`C:${generation}:0`);
      const life = Number(await t.redis.command("TTL", name));
      assert(life > 0 && life <= 300, String(life));
    }
    // What is larger than all of that goes at once.
    const large = randomBytes(3 * MIB, 9);
    assert(await t.content.put(digestOf(large), large));
    await t.store.remove(digestOf(large));
    assertEquals(await t.count("*C:*"), 0);
  },
});

for (const engine of ["s3", "redis"] as const) {
  toolTest(
    `what rots in ${engine} is found by the one instance that looks at every byte, and fetched again`,
    {
      needs: ["redis-server"],
      async fn() {
        await using stack = new AsyncDisposableStack();
        const redis = stack.use(await startRedis());
        const s3 = stack.use(await startFakeS3());
        const registry = stack.use(await startFakeRegistry({ auth: "token" }));
        const image = makeImage({ layers: [300_000] });
        registry.add("team/app", "1", image);
        const env = {
          CACHE_STORE: engine === "s3" ? s3.setting : redis.url,
          CACHE_INDEX: redis.url,
          AWS_ACCESS_KEY_ID: "access",
          AWS_SECRET_ACCESS_KEY: "secret",
        };
        const start = async () =>
          await startTestProxy({
            upstreams: { docker: registry },
            env: { ...env, HOST: "127.0.0.1", PORT: String(await freePort()) },
          });
        const first = await start();
        await pull(first, image);
        const { cache } = first.proxy;
        await until(async () => (await cache!.index.totals()).entries === 3);
        const digest = image.blobs.find(({ size }) => size >= 300_000)!.digest;
        for await (const row of cache!.index.blobs()) {
          await cache!.index.setVerified(row.digest, Date.now() - 8 * 24 * 60 * 60_000);
        }
        if (engine === "s3") s3.spoil(digest, "flip");
        else {
          const blob = (await cache!.store.open(digest))!;
          const key = `{${parseRedisUrl(redis.url).prefix}}:C:${blob.version}:0`;
          await redisCommand(redis.port, `SETRANGE ${key} 1000 rotten`);
        }
        await first.close();
        const [one, two] = await Promise.all([start(), start()]);
        stack.use(one);
        stack.use(two);
        const found = () =>
          [one, two].map(({ stats }) => stats.cacheEvents.get("evicted_damaged")).toSorted();
        await until(() => found()[1] === 1);
        assertEquals(found(), [0, 1]);
        for (const instance of [one, two]) {
          await pull(instance, image);
          // A client has the last byte before the content is published.
          await instance.proxy.cache!.content.settled(digest);
        }
        // A part may be asked for as a proof.
        const whole = { kind: "blob", method: "GET", reference: digest, status: 200 } as const;
        assertEquals(registry.count(whole), 2);
      },
    },
  );
}
