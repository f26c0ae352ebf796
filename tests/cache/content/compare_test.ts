import { assert, assertEquals, assertRejects } from "@std/assert";
import { compare } from "../../../lib/cache/content/compare.ts";
import { Content } from "../../../lib/cache/content/content.ts";
import { RedisIndex } from "../../../lib/cache/index/redis_index.ts";
import { SqliteIndex } from "../../../lib/cache/index/sqlite_index.ts";
import { BufferedIndex } from "../../../lib/cache/index/buffered_index.ts";
import { Stats } from "../../../lib/telemetry/stats.ts";
import { digestOf, randomBytes } from "../../support/content.ts";
import { MemoryStore } from "../../support/memory_store.ts";
import { fakeRedis } from "../../support/redis.ts";

const MINUTE = 60_000;
const OOM = "OOM command not allowed when used memory > 'maxmemory'.";

function setUp() {
  const clock = { now: 1_000 * MINUTE };
  const now = () => clock.now;
  const index = new SqliteIndex(":memory:", { now });
  const store = new MemoryStore();
  store.now = now;
  const content = new Content({ index, store, maxSize: 10_000, stats: new Stats(), now, idle: 1 });
  let waits = 0;
  const wait = () => Promise.resolve(waits++);
  const target = { store, index, space: content.space };
  const put = async (n: number) => {
    const bytes = randomBytes(100, n);
    const digest = digestOf(bytes);
    assert(await content.put(digest, bytes));
    return digest;
  };
  return {
    clock,
    index,
    store,
    target,
    put,
    options: { now, wait },
    waits: () => waits,
    [Symbol.dispose]: () => index.close(),
  };
}

Deno.test("content without a row goes when it is older than the grace time, and a row without content does", async () => {
  using t = setUp();
  const kept = await t.put(1);
  const orphan = await t.put(2);
  const gone = await t.put(3);
  await t.index.removeBlob(orphan);
  t.index.markPending(orphan);
  t.store.content.delete(gone);
  assertEquals(await compare(t.target, t.options), { orphans: 0, missing: 0 });
  t.clock.now += 3 * MINUTE;
  const young = await t.put(4);
  await t.index.removeBlob(young);
  assertEquals(await compare(t.target, t.options), { orphans: 1, missing: 1 });
  assertEquals([...t.store.content.keys()].sort(), [kept, young].sort());
  assertEquals((await Array.fromAsync(t.index.blobs())).map(({ digest }) => digest), [kept]);
  assertEquals(t.index.pending(), []);
  assertEquals(t.index.totals().bytes, 100);
});

Deno.test("what an instance is at work on is left alone", async () => {
  using t = setUp();
  const orphan = await t.put(1);
  await t.index.removeBlob(orphan);
  t.clock.now += 3 * MINUTE;
  const isRunning = (digest: string) => Promise.resolve(digest === orphan);
  assertEquals(await compare(t.target, { ...t.options, isRunning }), { orphans: 0, missing: 0 });
  assert(t.store.content.has(orphan));
});

Deno.test("while an index that was lost is filled again, nothing in the store is taken for an orphan", async () => {
  using t = setUp();
  for (let n = 1; n <= 3; n++) await t.index.removeBlob(await t.put(n));
  t.clock.now += 3 * MINUTE;
  const none = { orphans: 0, missing: 0 };
  const isIndexWhole = () => Promise.resolve(false);
  assertEquals(await compare(t.target, { ...t.options, isIndexWhole }), none);
  // It is lost while it is compared.
  let isWhole = true;
  const lost = () => {
    const was = isWhole;
    isWhole = false;
    return Promise.resolve(was);
  };
  assertEquals(await compare(t.target, { ...t.options, isIndexWhole: lost }), none);
  assertEquals(t.store.content.size, 3);
  assertEquals((await compare(t.target, t.options)).orphans, 3);
});

Deno.test("a comparison goes page by page with pauses, and what breaks off loses nothing that is right", async () => {
  using t = setUp();
  const bytes = new Uint8Array(1);
  const digest = (n: number) => `sha256:${n.toString(16).padStart(64, "0")}`;
  for (let n = 0; n < 2_000; n++) {
    t.store.content.set(digest(n), { bytes, storedAt: 0 });
    const row = { digest: digest(n), size: 1, createdAt: 0, usedAt: 0, verifiedAt: 1 };
    if (n >= 100) t.index.addBlob(row);
  }
  const ending = new AbortController();
  const wait = () => {
    ending.abort();
    return Promise.resolve();
  };
  await assertRejects(() => compare(t.target, { ...t.options, wait, signal: ending.signal }));
  assertEquals(t.index.totals().entries, 1_900);
  assert(t.store.content.size < 2_000);
  assertEquals((await compare(t.target, t.options)).missing, 0);
  assertEquals(t.store.content.size, 1_900);
  assert(t.waits() >= 7, `${t.waits()} pauses`);
});

Deno.test("while the index takes no notes nothing is published, and clients are not told of a full disk", async () => {
  await using made = await fakeRedis();
  const remote = new RedisIndex(made.redis, { instance: "a", inUse: 0 });
  const index = new BufferedIndex(remote);
  const store = new MemoryStore();
  const stats = new Stats();
  const content = new Content({ index, store, maxSize: 10_000, stats, idle: 1, justFilled: 0 });
  const bytes = randomBytes(100, 1);
  made.fake.faults.refuseWrites = OOM;
  assertEquals(await content.put(digestOf(bytes), bytes), false);
  assertEquals(store.content.size, 0);
  delete made.fake.faults.refuseWrites;
  assertEquals(await content.put(digestOf(bytes), bytes), true);
  assertEquals([...store.content.keys()], [digestOf(bytes)]);
  assertEquals((await index.totals()).bytes, 100);
  await index.close();
});

Deno.test("where Redis is full, tags used longest ago make room for new content, and then content does", async () => {
  await using made = await fakeRedis();
  const { fake } = made;
  const remote = new RedisIndex(made.redis, { instance: "a", inUse: 0 });
  const index = new BufferedIndex(remote);
  const store = new MemoryStore();
  const options = { index, store, maxSize: 10_000, stats: new Stats(), idle: 1, justFilled: 0 };
  const content = new Content(options);
  const key = { registry: "r.example", repository: "a/b" };
  for (let n = 0; n < 100; n++) {
    await index.setTag(key, `v${n}`, { digest: `sha256:${"0".repeat(64)}`, checkedAt: n });
  }
  // Full until something has been removed, as a Redis at its limit is.
  const full = (until: string) => {
    fake.faults.refuseWrites = OOM;
    const run = fake.run.bind(fake);
    fake.run = (name, ...args) => {
      if (name === until) {
        delete fake.faults.refuseWrites;
        fake.run = run;
      }
      return run(name, ...args);
    };
  };
  full("HDEL");
  const first = randomBytes(100, 1);
  assertEquals(await content.put(digestOf(first), first), true);
  assert(await index.tagCount() < 100);
  // Nothing else to remove: the content used longest ago.
  while (await index.shed());
  full("DEL");
  const second = randomBytes(100, 2);
  assertEquals(await content.put(digestOf(second), second), true);
  assertEquals([...store.content.keys()], [digestOf(second)]);
  await index.close();
});
