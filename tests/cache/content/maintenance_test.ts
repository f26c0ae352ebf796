import { assertEquals } from "@std/assert";
import { Content } from "../../../lib/cache/content/content.ts";
import type { Backends } from "../../../lib/cache/backends.ts";
import { SqliteIndex } from "../../../lib/cache/index/sqlite_index.ts";
import { Maintenance } from "../../../lib/cache/content/maintenance.ts";
import { Stats } from "../../../lib/telemetry/stats.ts";
import { digestOf, randomBytes } from "../../support/content.ts";
import { MemoryStore } from "../../support/memory_store.ts";
import { until } from "../../support/until.ts";

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

/** A cache whose content was stored a day apart, oldest first, and what keeps it. */
async function setUp({ maxSize = 1_000 } = {}) {
  const clock = { now: 1_000 * DAY };
  const now = () => clock.now;
  const index = new SqliteIndex(":memory:", { now });
  const store = new MemoryStore();
  store.now = now;
  const content = new Content({ index, store, maxSize: 1_000, stats: new Stats(), now, idle: 1 });
  const digests: string[] = [];
  for (let n = 0; n < 4; n++) {
    const bytes = randomBytes(100, n);
    digests.push(digestOf(bytes));
    await content.put(digests[n]!, bytes);
    clock.now += DAY;
  }
  await content.space.flush();
  const kept = new Content({ index, store, maxSize, stats: new Stats(), now, idle: 1 });
  const engines: Backends = {
    store,
    index,
    wasKilled: false,
    // What is being hashed is not evicted.
    leader: { isOurs: () => Promise.resolve(false) },
    close: () => Promise.resolve(),
  };
  const here = () => digests.filter((digest) => index.blob(digest) !== undefined);
  return { clock, content: kept, engines, digests, here, [Symbol.dispose]: () => index.close() };
}

/** What is to be done again and again, by how often, ms: done when the test says so. */
function captureIntervals() {
  const { setInterval } = globalThis;
  const every = new Map<number | undefined, () => void>();
  const capture = (work: () => void, ms?: number) => {
    every.set(ms, work);
    return setInterval(() => {}, 2 ** 31 - 1);
  };
  globalThis.setInterval = capture as typeof setInterval;
  return { every, [Symbol.dispose]: () => void (globalThis.setInterval = setInterval) };
}

Deno.test("what is not used for CACHE_BLOB_TTL leaves every ten minutes, and what is used is noted sooner", async () => {
  using t = await setUp();
  using intervals = captureIntervals();
  const { content, engines } = t;
  const upkeep = new Maintenance({ content, engines, blobTtl: 2.5 * DAY });
  upkeep.start();
  t.content.space.use(t.digests[0]!);
  intervals.every.get(5_000)!();
  await until(async () => (await engines.index.blob(t.digests[0]!))!.usedAt === t.clock.now);
  intervals.every.get(10 * MINUTE)!();
  await until(() => t.here().length < 4);
  await upkeep.stop();
  assertEquals(t.here(), [t.digests[0], t.digests[2], t.digests[3]]);
});

Deno.test("what is more than the cap all at once, as after an index came back, leaves within a minute", async () => {
  using t = await setUp();
  using intervals = captureIntervals();
  const { content, engines } = t;
  const upkeep = new Maintenance({ content, engines, blobTtl: 365 * DAY });
  upkeep.start();
  const { now } = t.clock;
  const row = { size: 800, createdAt: now, usedAt: now, verifiedAt: now };
  await engines.index.restoreBlobs([{ ...row, digest: digestOf("found") }]);
  assertEquals((await engines.index.totals()).bytes, 1_200);
  intervals.every.get(MINUTE)!();
  await upkeep.stop();
  assertEquals((await engines.index.totals()).bytes, 1_000);
});

Deno.test("of what is more than the cap as much leaves as may, and nothing that is in use", async () => {
  using t = await setUp({ maxSize: 50 });
  using _ = captureIntervals();
  const { content, engines } = t;
  const unpin = content.space.pin(t.digests[0]!);
  const upkeep = new Maintenance({ content, engines, blobTtl: 365 * DAY });
  upkeep.start();
  await upkeep.stop();
  assertEquals(t.here(), [t.digests[0]]);
  unpin();
});

Deno.test("a cap that was lowered is kept from the start on", async () => {
  using t = await setUp({ maxSize: 250 });
  using _ = captureIntervals();
  const { content, engines } = t;
  const upkeep = new Maintenance({ content, engines, blobTtl: 365 * DAY });
  upkeep.start();
  await upkeep.stop();
  assertEquals(t.here(), t.digests.slice(2));
});

Deno.test("after a crash store and index are compared as often as else, once what has no row was entered", async () => {
  using t = await setUp();
  using _ = captureIntervals();
  const [lost = "", gone = ""] = t.digests;
  const { content, engines } = t;
  await engines.index.removeBlob(lost); // by a power failure, with the note that told of it
  const store = engines.store as MemoryStore;
  store.content.delete(gone);
  t.clock.now = Date.now() + DAY;
  const entering = Promise.withResolvers<void>();
  let lists = 0;
  const held: Backends = {
    ...engines,
    wasKilled: true,
    leader: undefined,
    store: Object.assign(Object.create(store), {
      async *list() {
        if (++lists === 1) await entering.promise;
        yield* store.list();
      },
    }),
  };
  const upkeep = new Maintenance({ content, engines: held, blobTtl: 3650 * DAY, compareEvery: 1 });
  upkeep.start();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assertEquals(lists, 1, "compared before what has no row was entered");
  assertEquals(t.here(), t.digests.slice(1));
  entering.resolve();
  await until(() => !t.here().includes(gone));
  await upkeep.stop();
  assertEquals(t.here(), [lost, ...t.digests.slice(2)]);
});
