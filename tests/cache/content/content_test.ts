import { assert, assertEquals, assertRejects } from "@std/assert";
import { Content } from "../../../lib/cache/content/content.ts";
import type { Fill } from "../../../lib/cache/content/fill.ts";
import { SqliteIndex } from "../../../lib/cache/index/sqlite_index.ts";
import { Stats } from "../../../lib/telemetry/stats.ts";
import { digestOf, randomBytes } from "../../support/content.ts";
import { captureLogs } from "../../support/logs.ts";
import { diskFull, MemoryStore } from "../../support/memory_store.ts";

const MINUTE = 60_000;
const KEY = { registry: "r", repository: "a/b" };
const NO_SOURCE = { open: () => Promise.reject(new Error("upstream is gone")) };

type Bytes = Uint8Array<ArrayBuffer>;

/** Content of at most `maxSize` bytes with its parts and a clock of its own. */
function setUp({ maxSize = 1_000_000 } = {}) {
  const clock = { now: 1_000_000 };
  const now = () => clock.now;
  const index = new SqliteIndex(":memory:", { now });
  const store = new MemoryStore();
  store.now = now;
  const stats = new Stats();
  const content = new Content({ index, store, maxSize, stats, now, idle: 10_000 });
  /** Starts a fill of what is `bytes` and comes as `body`. */
  const start = (bytes: Bytes, { body = bodyOf(bytes), size, source = NO_SOURCE }: {
    body?: ReadableStream<Bytes>;
    size?: number;
    source?: { open(offset: number): Promise<ReadableStream<Bytes>> };
  } = {}) =>
    content.startFill({ digest: digestOf(bytes), size, first: body, source, registry: "r" });
  /** Fills `bytes`, and waits until they are stored. */
  const fill = async (bytes: Bytes): Promise<string> => {
    const digest = digestOf(bytes);
    assert(await start(bytes, { size: bytes.byteLength }));
    await content.settled(digest);
    assert(store.content.has(digest));
    return digest;
  };
  return {
    clock,
    index,
    store,
    stats,
    content,
    start,
    fill,
    async [Symbol.asyncDispose]() {
      store.before = () => {};
      await content.close(1_000);
      index.close();
    },
  };
}

/** A body in two pieces; the second comes when `gate` opens. */
function bodyOf(bytes: Bytes, gate: Promise<unknown> = Promise.resolve()): ReadableStream<Bytes> {
  let piece = 0;
  return new ReadableStream({
    async pull(controller) {
      const half = bytes.byteLength >> 1;
      if (piece === 1) await gate;
      if (piece === 0 && half > 0) controller.enqueue(bytes.slice(0, half));
      else if (piece === 1) controller.enqueue(bytes.slice(half));
      else if (piece === 2) controller.close();
      piece++;
    },
  }, { highWaterMark: 0 });
}

function streamOf(fill: Fill): ReadableStream<Bytes> {
  return fill.stream(undefined, () => {});
}

async function bytesOf(stream: ReadableStream<Bytes>): Promise<Bytes> {
  return await new Response(stream).bytes();
}

/** All of what is stored, or undefined. */
async function read(content: Content, digest: string): Promise<Uint8Array | undefined> {
  const blob = await content.open(digest);
  if (!blob) return undefined;
  const bytes = new Uint8Array(blob.size);
  try {
    for (let done = 0; done < bytes.byteLength;) {
      const n = await blob.read(done, bytes.subarray(done));
      if (n === 0) throw new Error("cut short");
      done += n;
    }
    return bytes;
  } finally {
    blob.close();
  }
}

Deno.test("a fill that is verified becomes content, and gives back the room it had reserved", async () => {
  await using t = setUp();
  const bytes = randomBytes(1_000, 1);
  const gate = Promise.withResolvers<void>();
  const fill = await t.start(bytes, { body: bodyOf(bytes, gate.promise), size: 1_000 });
  assert(fill);
  assertEquals(t.index.totals(), { bytes: 0, entries: 0, reserved: 1_000 });
  assertEquals(t.content.filling(fill.digest), fill);
  assertEquals(await t.content.open(fill.digest), undefined);
  gate.resolve();
  assertEquals(await bytesOf(streamOf(fill)), bytes);
  await t.content.settled(fill.digest);
  assertEquals(t.index.totals(), { bytes: 1_000, entries: 1, reserved: 0 });
  assertEquals(t.content.filling(fill.digest), undefined);
  assertEquals(await read(t.content, fill.digest), bytes);
  assertEquals(t.index.pending(), []);
});

Deno.test("of a fill with wrong bytes nothing is kept, and its client's stream breaks", async () => {
  await using t = setUp();
  const bytes = randomBytes(1_000, 1);
  const wrong = bytes.slice();
  wrong[700]! ^= 1;
  const fill = await t.start(bytes, { body: bodyOf(wrong), size: 1_000 });
  await assertRejects(() => bytesOf(streamOf(fill!)));
  await t.content.settled(fill!.digest);
  assertEquals(t.index.totals(), { bytes: 0, entries: 0, reserved: 0 });
  assertEquals(t.store.content.size, 0);
  assertEquals(t.stats.cacheEvents.get("mismatch"), 1);
});

Deno.test("a fill that finds no room is not started, and its body is still the caller's", async () => {
  await using t = setUp({ maxSize: 1_500 });
  const [one, two] = [randomBytes(1_000, 1), randomBytes(1_000, 2)];
  const gate = Promise.withResolvers<void>();
  const running = await t.start(one, { body: bodyOf(one, gate.promise), size: 1_000 });
  const body = bodyOf(two);
  assertEquals(await t.start(two, { body, size: 1_000 }), undefined);
  assertEquals(await bytesOf(body), two);
  assertEquals(t.stats.cacheEvents.get("no_room"), 1);
  gate.resolve();
  await t.content.settled(running!.digest);
});

Deno.test("a fill of unknown length grows within the cap, or is passed on to its clients and not kept", async () => {
  await using t = setUp({ maxSize: 1_500 });
  const [small, large] = [randomBytes(1_000, 1), randomBytes(4_000, 2)];
  const kept = await t.start(small);
  assertEquals(await bytesOf(streamOf(kept!)), small);
  await t.content.settled(kept!.digest);
  assertEquals(t.index.totals(), { bytes: 1_000, entries: 1, reserved: 0 });
  t.clock.now += MINUTE;
  const passed = await t.start(large, {
    source: { open: (offset) => Promise.resolve(bodyOf(large.slice(offset))) },
  });
  assertEquals(await bytesOf(streamOf(passed!)), large);
  await t.content.settled(passed!.digest);
  assertEquals(t.store.content.has(passed!.digest), false);
  assertEquals(t.index.totals().reserved, 0);
  assertEquals(t.stats.cacheEvents.get("no_room"), 1);
  assertEquals(t.stats.cacheEvents.get("disk_error"), 0);
});

Deno.test("two who start the same fill at once share one, and the second's body is let go", async () => {
  await using t = setUp();
  const bytes = randomBytes(1_000, 1);
  let cancelled = 0;
  const body = () => new ReadableStream<Bytes>({ cancel: () => void cancelled++ });
  const gate = Promise.withResolvers<void>();
  const fills = await Promise.all([
    t.start(bytes, { body: bodyOf(bytes, gate.promise), size: 1_000 }),
    t.start(bytes, { body: body(), size: 1_000 }),
    t.start(bytes, { body: body(), size: 1_000 }),
  ]);
  fills.push(await t.start(bytes, { body: body(), size: 1_000 }));
  assertEquals(new Set(fills).size, 1);
  assertEquals(cancelled, 3);
  gate.resolve();
  assertEquals(await bytesOf(streamOf(fills[0]!)), bytes);
});

Deno.test("who joined a fill and is late still reads it, whatever needs room meanwhile", async () => {
  await using t = setUp({ maxSize: 1_500 });
  const bytes = randomBytes(1_000, 1);
  const fill = await t.start(bytes, { size: 1_000 });
  const late = streamOf(fill!);
  await t.content.settled(fill!.digest);
  t.clock.now += MINUTE;
  assertEquals(await t.start(randomBytes(1_000, 2), { size: 1_000 }), undefined);
  assertEquals(await bytesOf(late), bytes);
  await t.fill(randomBytes(1_000, 2));
  assertEquals(t.store.content.has(fill!.digest), false);
});

Deno.test("content that is being read is not evicted before its reader closes it", async () => {
  await using t = setUp({ maxSize: 1_500 });
  const digest = await t.fill(randomBytes(1_000, 1));
  t.clock.now += MINUTE;
  const blob = await t.content.open(digest);
  t.clock.now += MINUTE;
  assertEquals(await t.start(randomBytes(1_000, 2), { size: 1_000 }), undefined);
  blob!.close();
  await t.fill(randomBytes(1_000, 2));
  assertEquals(await t.content.open(digest), undefined);
});

for (
  const [what, damage] of [
    ["cut short", (bytes: Uint8Array) => bytes.slice(0, 500)],
    ["too long", (bytes: Uint8Array) => new Uint8Array(bytes.byteLength + 1)],
    ["deleted", () => undefined],
  ] as const
) {
  Deno.test(`content that was ${what} behind our back is forgotten with its links and tags, and filled again`, async () => {
    await using t = setUp();
    const bytes = randomBytes(1_000, 1);
    const digest = await t.fill(bytes);
    t.index.addLink({ ...KEY, digest, kind: "blob" }, { mediaType: "" });
    t.index.setTag(KEY, "latest", { digest, checkedAt: 1 });
    const damaged = damage(bytes);
    if (damaged) t.store.content.set(digest, { bytes: damaged, storedAt: 1 });
    else t.store.content.delete(digest);
    assertEquals(await t.content.open(digest), undefined);
    assertEquals(await t.content.row(digest), undefined);
    assertEquals(t.index.link({ ...KEY, digest, kind: "blob" }), undefined);
    assertEquals(t.index.tag(KEY, "latest"), undefined);
    assertEquals(t.store.aside.has(digest), damaged !== undefined);
    await t.fill(bytes);
    assertEquals(await read(t.content, digest), bytes);
    assertEquals(t.index.totals().bytes, 1_000);
  });
}

Deno.test("content that was removed after its row was read is not here, and not damaged", async () => {
  await using it = setUp();
  const digest = await it.fill(randomBytes(3_000, 1));
  const row = await it.content.row(digest);
  await it.content.remove(digest, "removed"); // by another instance, as far as who has the row knows
  using logs = await captureLogs();
  assertEquals(await it.content.open(digest, row), undefined);
  assertEquals(await it.content.read(digest, row), undefined);
  assertEquals(logs.records, []);
  assertEquals(it.stats.cacheEvents.get("evicted_damaged"), 0);
});

Deno.test("content that cannot be read breaks its reader, and is filled again for the next", async () => {
  await using t = setUp();
  const bytes = randomBytes(1_000, 1);
  const digest = await t.fill(bytes);
  t.store.fail = (operation) =>
    operation === "read" ? new Error("Input/output error (os error 5)") : undefined;
  await assertRejects(() => read(t.content, digest), Error, "Input/output error");
  t.store.fail = () => undefined;
  assertEquals(await t.content.open(digest), undefined);
  await t.fill(bytes);
  assertEquals(await read(t.content, digest), bytes);
});

Deno.test("content that cannot be opened is filled again, but not because too many files are open", async () => {
  await using t = setUp();
  const digest = await t.fill(randomBytes(1_000, 1));
  let error: Error | undefined = Object.assign(new Error("Too many open files"), {
    code: "EMFILE",
  });
  t.store.fail = (operation) => operation === "open" ? error : undefined;
  assertEquals(await t.content.open(digest), undefined);
  assert(await t.content.row(digest));
  error = new Deno.errors.PermissionDenied("Permission denied");
  assertEquals(await t.content.open(digest), undefined);
  assertEquals(await t.content.row(digest), undefined);
});

Deno.test("content found without a row is hashed once before anybody is told of it", async () => {
  await using t = setUp();
  const [right, wrong] = [randomBytes(1_000, 1), randomBytes(1_000, 2)];
  const [rightDigest, wrongDigest] = [digestOf(right), digestOf(wrong)];
  wrong[5]! ^= 1;
  for (const [digest, bytes] of [[rightDigest, right], [wrongDigest, wrong]] as const) {
    t.store.content.set(digest, { bytes, storedAt: 1 });
    t.index.restoreBlobs([{ digest, size: 1_000, createdAt: 1, usedAt: 1, verifiedAt: 0 }]);
  }
  const rows = await Promise.all(Array.from({ length: 20 }, () => t.content.row(rightDigest)));
  assert(rows.every((row) => row?.verifiedAt === t.clock.now));
  assertEquals(t.store.log.filter((line) => line === `open ${rightDigest}`).length, 1);
  assertEquals(await read(t.content, rightDigest), right);
  assertEquals(await t.content.row(wrongDigest), undefined);
  assertEquals(await t.content.open(wrongDigest), undefined);
  assert(t.store.aside.has(wrongDigest));
});

Deno.test("a manifest that changed on the disk without changing its size is not served", async () => {
  await using t = setUp();
  const bytes = randomBytes(1_000, 1);
  const digest = await t.fill(bytes);
  const changed = bytes.slice();
  changed[5]! ^= 1;
  t.store.content.set(digest, { bytes: changed, storedAt: 1 });
  assertEquals(await t.content.read(digest), undefined);
  assertEquals(await t.content.row(digest), undefined);
  assert(await t.content.put(digest, bytes));
  assertEquals(await t.content.read(digest), bytes);
});

Deno.test("a manifest in memory is forgotten there when it leaves the store", async () => {
  await using t = setUp();
  const bytes = randomBytes(1_000, 1);
  const digest = digestOf(bytes);
  assert(await t.content.put(digest, bytes));
  t.store.fail = (operation) => operation === "open" ? new Error("not from memory") : undefined;
  assertEquals(await t.content.read(digest), bytes);
  await t.content.space.remove(digest, "removed");
  assertEquals(await t.content.read(digest), undefined);
});

Deno.test("a manifest that finds no room, or a disk that fails, is not stored and costs no room", async () => {
  await using t = setUp({ maxSize: 1_500 });
  const [one, two] = [randomBytes(1_000, 1), randomBytes(1_000, 2)];
  assert(await t.content.put(digestOf(one), one));
  assertEquals(await t.content.put(digestOf(two), two), false);
  t.clock.now += MINUTE;
  for (const failing of ["begin", "write", "commit"] as const) {
    t.store.fail = (operation) =>
      operation === failing ? new Error("Input/output error") : undefined;
    assertEquals(await t.content.put(digestOf(two), two), false, failing);
  }
  t.store.fail = () => undefined;
  assertEquals(t.index.totals().reserved, 0);
  assertEquals(t.stats.cacheEvents.get("disk_error"), 3);
});

Deno.test("bytes that the index cannot take are not left in the store uncounted", async () => {
  await using t = setUp();
  const bytes = randomBytes(1_000, 1);
  t.index.addBlob = () => {
    throw new Error("database or disk is full");
  };
  const fill = await t.start(bytes, { size: 1_000 });
  assertEquals(await bytesOf(streamOf(fill!)), bytes);
  await t.content.settled(fill!.digest);
  assertEquals(t.store.content.size, 0);
  assertEquals(t.index.totals().reserved, 0);
});

Deno.test("after a full disk, the next content takes the place of the oldest instead of failing too", async () => {
  await using t = setUp();
  const [one, two, three] = [1, 2, 3].map((seed) => randomBytes(1_000, seed)) as [
    Bytes,
    Bytes,
    Bytes,
  ];
  const digest = await t.fill(one);
  t.clock.now += MINUTE;
  await t.fill(two);
  t.store.fail = (operation) =>
    operation === "write" && t.store.bytes >= 2_000 ? diskFull() : undefined;
  t.clock.now += MINUTE;
  const passed = await t.start(three, {
    size: 1_000,
    source: { open: (offset) => Promise.resolve(bodyOf(three.slice(offset))) },
  });
  assertEquals(await bytesOf(streamOf(passed!)), three);
  await t.content.settled(passed!.digest);
  assertEquals(t.stats.cacheEvents.get("disk_error"), 1);
  assertEquals(t.store.bytes, 2_000);
  await t.fill(three);
  assertEquals(t.store.content.has(digest), false);
});

Deno.test("the same trouble is told once a minute and counted every time", async () => {
  using logs = await captureLogs();
  await using t = setUp();
  for (let i = 0; i < 5; i++) t.content.diskTrouble(new Error("Input/output error"));
  t.clock.now += 61_000;
  t.content.diskTrouble(new Error("Input/output error"));
  assertEquals(logs.find(/Cache trouble/).length, 2);
  assertEquals(t.stats.cacheEvents.get("disk_error"), 6);
});

Deno.test("closing waits for a fill as long as it may, and writes the recency", async () => {
  await using t = setUp();
  const digest = await t.fill(randomBytes(1_000, 1));
  const bytes = randomBytes(1_000, 2);
  const gate = Promise.withResolvers<void>();
  await t.start(bytes, { body: bodyOf(bytes, gate.promise), size: 1_000 });
  t.clock.now += MINUTE;
  t.content.space.use(digest);
  const closing = t.content.close(60_000);
  gate.resolve();
  await closing;
  assertEquals(t.index.blob(digest)?.usedAt, t.clock.now);
  assertEquals(t.store.content.size, 2);
});

Deno.test("closing gives up a fill that takes longer than it may", async () => {
  await using t = setUp();
  const bytes = randomBytes(1_000, 2);
  const fill = await t.start(bytes, { body: bodyOf(bytes, new Promise(() => {})), size: 1_000 });
  await t.content.close(0);
  assertEquals([fill?.state, t.store.content.size], ["failed", 0]);
});
