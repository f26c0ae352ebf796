import { assert, assertEquals, assertRejects } from "@std/assert";
import { BlobUnavailableError } from "../../../lib/cache/store/blob_store.ts";
import { Content } from "../../../lib/cache/content/content.ts";
import { scrub } from "../../../lib/cache/content/scrubber.ts";
import { SqliteIndex } from "../../../lib/cache/index/sqlite_index.ts";
import { verify, type VerifyProgress } from "../../../lib/cache/content/verify.ts";
import { Stats } from "../../../lib/telemetry/stats.ts";
import { store as storeIn } from "../../support/blob_store_contract.ts";
import { digestOf, randomBytes } from "../../support/content.ts";
import { MemoryStore } from "../../support/memory_store.ts";

const DAY = 24 * 60 * 60_000;
const MIB = 2 ** 20;

/** A cache with content of these sizes. */
async function setUp(sizes: readonly number[], { maxSize = 100 * MIB } = {}) {
  const clock = { now: 1_000 * DAY };
  const now = () => clock.now;
  const index = new SqliteIndex(":memory:", { now });
  const store = new MemoryStore();
  store.now = now;
  const stats = new Stats();
  const content = new Content({ index, store, maxSize, stats, now, idle: 1_000 });
  const digests: string[] = [];
  for (const [i, size] of sizes.entries()) {
    const bytes = randomBytes(size, i + 1);
    assert(await content.put(digestOf(bytes), bytes));
    digests.push(digestOf(bytes));
  }
  store.log.length = 0;
  /** Changes one byte behind everybody's back. */
  const rot = (digest: string) => {
    const { bytes } = store.content.get(digest)!;
    const changed = bytes.slice();
    changed[0]! ^= 1;
    store.content.set(digest, { bytes: changed, storedAt: 1 });
  };
  const target = { content, index, store };
  return { ...target, target, clock, stats, digests, rot, [Symbol.dispose]: () => index.close() };
}

Deno.test("verifying what is right finds nothing and notes that it was hashed", async () => {
  using t = await setUp([1_000, 0, 3 * MIB]);
  t.clock.now += DAY;
  const report = await verify(t.target);
  assertEquals(report, {
    entries: 3,
    bytes: 1_000 + 3 * MIB,
    totalEntries: 3,
    totalBytes: 1_000 + 3 * MIB,
    wrong: 0,
    found: 0,
    problems: [],
  });
  for (const digest of t.digests) assertEquals(t.index.blob(digest)?.verifiedAt, t.clock.now);
});

Deno.test("verifying tells of content that its store does not give, and goes on with the rest", async () => {
  using t = await setUp([1_000, 2_000, 3_000]);
  const [, broken] = t.digests as [string, string, string];
  t.store.fail = (operation, digest) =>
    operation === "read" && digest === broken
      ? new BlobUnavailableError("It breaks off")
      : undefined;
  const report = await verify(t.target);
  assertEquals([report.entries, report.wrong], [3, 1]);
  assertEquals(report.problems, [{ digest: broken, problem: "unreadable" }]);
  assertEquals([...t.store.aside.keys()], [broken]);
  // Once is chance.
  t.rot(t.digests[0]!);
  let failures = 1;
  t.store.fail = (operation) =>
    operation === "read" && failures-- > 0 ? new BlobUnavailableError("It breaks off") : undefined;
  assertEquals((await verify(t.target)).problems, [{ digest: t.digests[0]!, problem: "wrong" }]);
});

Deno.test("verifying finds each kind of damage, moves it aside, and leaves the rest alone", async () => {
  using t = await setUp([1_000, 2_000, 3_000, 4_000, 5_000]);
  const [right, rotten, short, missing, unreadable] = t.digests as [
    string,
    string,
    string,
    string,
    string,
  ];
  t.rot(rotten);
  t.store.content.set(short, { bytes: new Uint8Array(10), storedAt: 1 });
  t.store.content.delete(missing);
  t.store.fail = (operation, digest) =>
    operation === "read" && digest === unreadable ? new Error("Input/output error") : undefined;
  const report = await verify(t.target);
  assertEquals(report.wrong, 4);
  assertEquals(
    new Map(report.problems.map(({ digest, problem }) => [digest, problem])),
    new Map([
      [rotten, "wrong"],
      [short, "wrong"],
      [missing, "missing"],
      [unreadable, "unreadable"],
    ]),
  );
  assertEquals((await Array.fromAsync(t.index.blobs())).map((row) => row.digest), [right]);
  assertEquals([...t.store.aside.keys()].sort(), [rotten, short, unreadable].sort());
  assertEquals(t.index.totals(), { bytes: 1_000, entries: 1, reserved: 0 });
  assertEquals((await verify(t.target)).wrong, 0);
});

Deno.test("content that the index does not know is found, hashed, and kept where it is right and there is room", async () => {
  using t = await setUp([1_000], { maxSize: 5_000 });
  const right = await storeIn(t.store, randomBytes(2_000, 8));
  const rotten = await storeIn(t.store, randomBytes(1_000, 9));
  t.rot(rotten);
  const report = await verify(t.target);
  assertEquals([report.found, report.wrong], [2, 1]);
  assertEquals(
    (await Array.fromAsync(t.index.blobs())).map((row) => row.digest).sort(),
    [t.digests[0]!, right].sort(),
  );
  t.clock.now += DAY;
  await storeIn(t.store, randomBytes(2_500, 10));
  await verify(t.target);
  assert(t.index.totals().bytes <= 5_000);
  assertEquals(t.index.totals().bytes, t.store.bytes);
});

Deno.test("progress grows to the end, and a signal ends it", async () => {
  using t = await setUp([3 * MIB, 2 * MIB, 10]);
  const seen: VerifyProgress[] = [];
  await verify(t.target, { onProgress: (progress) => void seen.push(progress) });
  assertEquals(seen.map((p) => p.bytes), seen.map((p) => p.bytes).sort((a, b) => a - b));
  assertEquals(seen.at(-1), {
    entries: 3,
    bytes: 5 * MIB + 10,
    totalEntries: 3,
    totalBytes: 5 * MIB + 10,
    wrong: 0,
  });
  const ending = new AbortController();
  const verifying = verify(t.target, {
    signal: ending.signal,
    onProgress: () => ending.abort(new Error("enough")),
  });
  await assertRejects(() => verifying, Error, "enough");
  assertEquals(t.index.totals().entries, 3);
});

Deno.test("a report of very many problems stays small and counts them all", async () => {
  using t = await setUp([]);
  const rows = Array.from({ length: 1_500 }, (_, n) => ({
    digest: `sha256:${n.toString(16).padStart(64, "0")}`,
    size: 1,
    createdAt: 1,
    usedAt: 1,
    verifiedAt: 1,
  }));
  t.index.restoreBlobs(rows);
  const report = await verify(t.target);
  assertEquals([report.wrong, report.problems.length], [1_500, 1_000]);
  assertEquals(t.index.totals().entries, 0);
});

/** Runs the background pass until it would wait for more than an hour in all; returns what it waited. */
async function walk(
  t: Awaited<ReturnType<typeof setUp>>,
  { isSuspect = false, limit = 60 * 60_000, isOurs }: {
    isSuspect?: boolean;
    limit?: number;
    isOurs?: () => Promise<boolean>;
  } = {},
): Promise<number> {
  const ending = new AbortController();
  let waited = 0;
  await scrub(t.target, {
    signal: ending.signal,
    isSuspect,
    isOurs,
    now: () => t.clock.now,
    wait: (ms) => {
      waited += ms;
      t.clock.now += ms;
      if (waited > limit) ending.abort();
      return Promise.resolve();
    },
  });
  return waited;
}

Deno.test("the background pass hashes nothing for a week, and everything then", async () => {
  using t = await setUp([1_000, 2_000]);
  t.rot(t.digests[1]!);
  t.clock.now += 6 * DAY;
  await walk(t);
  assertEquals(t.store.log, []);
  t.clock.now += DAY;
  await walk(t);
  assertEquals([...t.store.aside.keys()], [t.digests[1]]);
  assertEquals((await Array.fromAsync(t.index.blobs())).map((row) => row.digest), [t.digests[0]]);
  t.store.log.length = 0;
  await walk(t);
  assertEquals(t.store.log, []);
});

Deno.test("the background pass reads a MiB in a second, or a large store in about half a week", async () => {
  using t = await setUp([10 * MIB]);
  t.clock.now += 8 * DAY;
  const before = t.clock.now;
  await walk(t, { limit: 9_500 });
  assert(t.clock.now - before >= 9_500);
  assertEquals(t.index.leastVerified(1)[0]!.verifiedAt, 1_000 * DAY);
  await walk(t, { limit: 11_000 });
  assert(t.index.leastVerified(1)[0]!.verifiedAt > before);
  // 10 TiB that are fresh, and a MiB that is due.
  t.clock.now += 8 * DAY;
  const { now } = t.clock;
  const size = 10 * 2 ** 40;
  t.index.addBlob({ digest: digestOf("x"), size, createdAt: now, usedAt: now, verifiedAt: now });
  await walk(t, { limit: 700 });
  assert(t.index.leastVerified(1)[0]!.verifiedAt > before + 8 * DAY);
});

Deno.test("the background pass waits while clients are served, but not for ever", async () => {
  using t = await setUp([2 * MIB, 10]);
  t.clock.now += 8 * DAY;
  const blob = await t.content.open(t.digests[1]!);
  const before = t.clock.now;
  await walk(t, { limit: 30_000 });
  assertEquals(t.index.leastVerified(1)[0]!.verifiedAt, 1_000 * DAY);
  await walk(t, { limit: 10 * 60_000 });
  assert(t.index.leastVerified(1)[0]!.verifiedAt > before);
  blob!.close();
});

Deno.test("the background pass is made by one of several instances, and left in the middle by who loses it", async () => {
  using t = await setUp([3 * MIB]);
  t.clock.now += 8 * DAY;
  const before = t.clock.now;
  const answers: boolean[] = [];
  const isOurs = () => Promise.resolve(answers.shift() ?? false);
  await walk(t, { isOurs });
  assertEquals(t.store.log, []);
  // It is lost after the first of three MiB: that says nothing of the content.
  answers.push(true, false);
  await walk(t, { isOurs });
  assertEquals(t.store.log.map((line) => line.split(" ")[0]), ["open", "read"]);
  assertEquals([t.store.aside.size, t.stats.cacheEvents.get("disk_error")], [0, 0]);
  assertEquals(t.index.leastVerified(1)[0]!.verifiedAt, 1_000 * DAY);
  await walk(t, { isOurs: () => Promise.resolve(true) });
  assert(t.index.leastVerified(1)[0]!.verifiedAt > before);
});

Deno.test("after a power failure the background pass first compares the store with the index", async () => {
  using t = await setUp([1_000]);
  const found = await storeIn(t.store, randomBytes(2_000, 9));
  await walk(t, { isSuspect: true });
  assert(t.index.blob(found)!.verifiedAt > 0);
  assertEquals(t.index.totals().bytes, t.store.bytes);
});

Deno.test("the background pass survives a store that fails, and does not spin", async () => {
  using t = await setUp([1_000]);
  t.clock.now += 8 * DAY;
  t.store.fail = () => new Error("Input/output error");
  let attempts = 0;
  t.store.before = (operation) => void (operation === "open" && attempts++);
  await walk(t);
  assert(attempts > 0 && attempts <= 62, `${attempts} attempts in an hour`);
  assert(t.index.blob(t.digests[0]!));
});
