import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  BlobReplacedError,
  BlobUnavailableError,
  UnreachableError,
} from "../../../../lib/cache/store/blob_store.ts";
import { Content } from "../../../../lib/cache/content/content.ts";
import { FileStore } from "../../../../lib/cache/store/file_store.ts";
import { S3Objects } from "../../../../lib/cache/store/s3/objects.ts";
import { S3Store } from "../../../../lib/cache/store/s3/store.ts";
import { SqliteIndex } from "../../../../lib/cache/index/sqlite_index.ts";
import { checkEngines, parseStoreSetting } from "../../../../lib/config/engine_url.ts";
import { Stats } from "../../../../lib/telemetry/stats.ts";
import { store as put, stored, testBlobStore } from "../../../support/blob_store_contract.ts";
import { digestOf, randomBytes } from "../../../support/content.ts";
import { type FakeS3, objectKey as keyOf, s3Error, startFakeS3 } from "../../../support/fake_s3.ts";
import { tempDir } from "../../../support/temp.ts";
import { until } from "../../../support/until.ts";

/** Long enough that a part of it is sent before it breaks. */
const LONG = 300_000;

function openStore(s3: FakeS3, dir: string, { idle = 5_000 } = {}) {
  const { store } = checkEngines({
    CACHE_STORE: parseStoreSetting(s3.setting),
    STORE_REDIRECT: false,
    AWS_ACCESS_KEY_ID: "access",
    AWS_SECRET_ACCESS_KEY: "secret",
  }, []);
  assert(store.engine === "s3");
  const events: string[] = [];
  const objects = new S3Objects(store, {
    onDown: () => void events.push("down"),
    onUp: () => void events.push("up"),
  });
  const clock = { ahead: 3_600_000 };
  const later = () => Date.now() + clock.ahead;
  return {
    events,
    clock,
    store: new S3Store({ objects, drafts: new FileStore(dir), idle, now: later }),
  };
}

/** A service, and a store on it. */
async function setUp(options: { idle?: number } = {}) {
  const stack = new AsyncDisposableStack();
  const s3 = stack.use(await startFakeS3());
  const dir = stack.use(await tempDir());
  return {
    s3,
    ...openStore(s3, dir.path, options),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

testBlobStore("S3Store on a fake", {
  async make() {
    const s3 = await startFakeS3();
    const dir = await tempDir();
    return {
      store: openStore(s3, dir.path).store,
      reopen: () => Promise.resolve(openStore(s3, dir.path).store),
      async [Symbol.asyncDispose]() {
        await s3.close();
        await dir[Symbol.asyncDispose]();
      },
    };
  },
});

Deno.test("a service that is busy for a moment is asked again, and nobody notices", async () => {
  for (const status of [503, 429, 500]) {
    await using it = await setUp();
    const large = randomBytes(9 * 2 ** 20, 1);
    for (const kind of ["get", "put", "part", "upload", "list", "uploads"]) {
      it.s3.faults.add({ kind }, { status }, { times: 2 });
    }
    // The fake takes its time with large bodies.
    const contents = [randomBytes(1_000, 2), ...status === 503 ? [large] : []];
    for (const bytes of contents) {
      const digest = await put(it.store, bytes);
      assertEquals(await stored(it.store, digest), bytes);
    }
    assertEquals((await Array.fromAsync(it.store.list())).length, contents.length);
    await it.store.sweep();
    assertEquals(it.events, []);
  }
});

Deno.test("a service that stays busy is gone for a while, told once, and comes back by itself", async () => {
  await using it = await setUp();
  const bytes = randomBytes(1_000, 1);
  const digest = await put(it.store, bytes);
  const fault = it.s3.faults.add({}, { status: 503 });
  await assertRejects(() => it.store.open(digest), UnreachableError);
  const asked = it.s3.log.length;
  // It has enough to do: it is left alone meanwhile.
  await assertRejects(() => it.store.open(digest), UnreachableError);
  await assertRejects(() => it.store.stat(digest), UnreachableError);
  assertEquals(it.s3.log.length, asked);
  fault.remove();
  await until(async () => await stored(it.store, digest).catch(() => undefined) !== undefined);
  assertEquals(it.events, ["down", "up"]);
});

for (
  const [what, fault] of [
    ["broken off", { cutAt: 100_000 }],
    ["reset", { resetAt: 100_000 }],
    ["standing still", { stallAt: 100_000 }],
  ] as const
) {
  Deno.test(`an object whose body is ${what} is read on from there, a few times`, async () => {
    await using it = await setUp({ idle: 200 });
    const bytes = randomBytes(LONG, 1);
    const digest = await put(it.store, bytes);
    it.s3.faults.add({ kind: "get" }, fault, { times: 2 });
    assertEquals(await stored(it.store, digest), bytes);
    // From here on no byte comes of a new request. That is this object's trouble, and not the service's.
    it.s3.faults.add({ kind: "get", range: true }, { cutAt: 0 });
    it.s3.faults.add({ kind: "get", reference: keyOf(digest) }, fault);
    await assertRejects(() => stored(it.store, digest), BlobUnavailableError);
    assertEquals(it.events, []);
  });
}

Deno.test("an object that was replaced by another while it was read breaks its reader", async () => {
  await using it = await setUp();
  const bytes = randomBytes(LONG, 1);
  const digest = await put(it.store, bytes);
  it.s3.faults.add({ kind: "get", range: false }, { cutAt: 100_000 });
  const blob = (await it.store.open(digest))!;
  const buffer = new Uint8Array(100_000);
  let offset = await blob.read(0, buffer);
  it.s3.objects.set(keyOf(digest), { bytes: randomBytes(LONG + 1, 2), at: Date.now() });
  await assertRejects(async () => {
    while (offset < blob.size) offset += await blob.read(offset, buffer);
  }, BlobReplacedError);
  blob.close();
});

for (const fault of ["break", "stall", "status", "slow", "truncate"] as const) {
  Deno.test(`an object with the fault ${fault} costs nobody another one`, async () => {
    await using it = await setUp({ idle: 200 });
    const [bad, good] = [randomBytes(LONG, 1), randomBytes(LONG, 2)];
    for (const bytes of [bad, good]) await put(it.store, bytes);
    it.s3.spoil(digestOf(bad), fault);
    const pulls = Array.from({ length: 8 }, async (_, n) => {
      if (n % 2 === 0) return assertEquals(await stored(it.store, digestOf(good)), good);
      if (fault === "truncate") assert((await stored(it.store, digestOf(bad)))!.byteLength < LONG);
      else await assertRejects(() => stored(it.store, digestOf(bad)), BlobUnavailableError);
    });
    await Promise.all(pulls);
    assertEquals(it.events, []);
  });
}

Deno.test("a service that says nothing is found out before a request's own time is over", async () => {
  await using it = await setUp();
  const digests = await Promise.all([1, 2].map((n) => put(it.store, randomBytes(1_000, n))));
  it.s3.faults.add({}, { never: true });
  const asking = digests.map((digest) => assertRejects(() => it.store.open(digest)));
  for (const error of await Promise.all(asking)) assert(error instanceof UnreachableError);
  assertEquals(it.events, ["down"]);
});

Deno.test("a service that fails with every object is down, even if it knows what it does not have", async () => {
  await using it = await setUp();
  const all = [1, 2, 3, 4].map((n) => randomBytes(LONG, n));
  const digests = await Promise.all(all.map((bytes) => put(it.store, bytes)));
  const [one, two, three, good] = digests as [string, string, string, string];
  const failure = async (digest: string) =>
    await stored(it.store, digest).then(() => "none", (error: Error) => error.name);
  for (const digest of [one, two, three]) it.s3.spoil(digest, "status", { status: 500 });
  // As long as others are read between, it is these objects' trouble.
  for (const digest of [one, two, three, one, two, three]) {
    assertEquals(await failure(digest), "BlobUnavailableError");
    assertEquals(await failure(good), "none");
  }
  assertEquals(it.events, []);
  const failures = [];
  for (const digest of [one, two, three]) failures.push(await failure(digest));
  assertEquals(failures, ["BlobUnavailableError", "BlobUnavailableError", "UnreachableError"]);
  await until(async () => await failure(good) === "none");
  assertEquals(it.events, ["down", "up"]);
});

Deno.test("what is set aside is what was read, or nothing", async () => {
  await using it = await setUp();
  const digest = await put(it.store, randomBytes(LONG, 1));
  const blob = (await it.store.open(digest))!;
  blob.close();
  it.s3.objects.set(keyOf(digest), { bytes: randomBytes(LONG, 2), at: Date.now() });
  assertEquals(await it.store.quarantine(digest, blob.version), false);
  assert(await it.store.stat(digest));
  const other = (await it.store.open(digest))!;
  other.close();
  // The service cannot copy what it cannot read: then it is removed alone.
  it.s3.faults.add({ kind: "put" }, { status: 500 });
  assertEquals(await it.store.quarantine(digest, other.version), true);
  assertEquals(await it.store.stat(digest), undefined);
});

Deno.test("content that breaks off twice is set aside, told and counted; when the service is down, it is not", async () => {
  await using it = await setUp();
  const index = new SqliteIndex(":memory:");
  const stats = new Stats();
  const content = new Content({ index, store: it.store, maxSize: 1e9, idle: 5_000, stats });
  const bytes = randomBytes(LONG, 1);
  const digest = digestOf(bytes);
  assert(await content.put(digest, bytes));
  const read = async () => {
    const blob = (await content.open(digest))!;
    try {
      for (let at = 0; at < LONG;) at += await blob.read(at, new Uint8Array(LONG));
    } finally {
      blob.close();
    }
  };
  const outage = it.s3.faults.add({ kind: "get" }, { hangUp: true });
  for (let n = 0; n < 3; n++) assertEquals(await content.open(digest), undefined);
  outage.remove();
  await until(() => read().then(() => true, () => false));
  assertEquals(stats.cacheEvents.get("read_failed"), 0);

  it.s3.spoil(digest, "break");
  await assertRejects(read, BlobUnavailableError);
  assert(await content.row(digest));
  await assertRejects(read, BlobUnavailableError);
  assertEquals(await content.row(digest), undefined);
  const counted = ["read_failed", "evicted_damaged", "quarantined"];
  assertEquals(counted.map((event) => stats.cacheEvents.get(event)), [2, 1, 1]);
  await content.close(0);
  index.close();
});

Deno.test("what the service says of the account or the bucket says nothing of content", async () => {
  const answers = [
    [403, "AccessDenied"],
    [403, "RequestTimeTooSkewed"],
    [401, "Unauthorized"],
    [400, "ExpiredToken"],
    [404, "NoSuchBucket"],
  ] as const;
  for (const [status, code] of answers) {
    await using it = await setUp();
    const index = new SqliteIndex(":memory:");
    const stats = new Stats();
    const content = new Content({ index, store: it.store, maxSize: 1e9, idle: 5_000, stats });
    const bytes = randomBytes(LONG, 1);
    assert(await content.put(digestOf(bytes), bytes));
    const fault = it.s3.faults.add({}, { status, body: s3Error(code) });
    assertEquals(await content.open(digestOf(bytes)), undefined);
    assertEquals(stats.cacheEvents.get("evicted_damaged"), 0, code);
    assert(await content.row(digestOf(bytes)));
    assertEquals(it.events, ["down"]);
    fault.remove();
    await until(async () => {
      const blob = await content.open(digestOf(bytes));
      blob?.close();
      return blob !== undefined;
    });
    await content.close(0);
    index.close();
  }
});

Deno.test("content whose object is gone, shorter or longer is forgotten and filled again", async () => {
  for (const change of [undefined, LONG - 1, LONG + 1]) {
    await using it = await setUp();
    const index = new SqliteIndex(":memory:");
    const stats = new Stats();
    const content = new Content({ index, store: it.store, maxSize: 1e9, idle: 5_000, stats });
    const bytes = randomBytes(LONG, 1);
    const digest = digestOf(bytes);
    assert(await content.put(digest, bytes));
    if (change === undefined) it.s3.objects.delete(keyOf(digest));
    else it.s3.objects.set(keyOf(digest), { bytes: randomBytes(change, 1), at: Date.now() });
    assertEquals(await content.open(digest), undefined);
    assertEquals(await content.row(digest), undefined);
    assertEquals(it.s3.objects.has(keyOf(digest)), false);
    assert(await content.put(digest, bytes));
    assertEquals(await stored(it.store, digest), bytes);
    await content.close(0);
    index.close();
  }
});

Deno.test("everything is listed and swept, however many pages it has, or the listing fails", async () => {
  await using it = await setUp();
  const digests = Array.from({ length: 2_500 }, (_, i) => digestOf(String(i)));
  const at = Date.now();
  for (const digest of digests) it.s3.objects.set(keyOf(digest), { bytes: randomBytes(1, 1), at });
  it.s3.objects.set("registry/blobs/notes.txt", { bytes: randomBytes(1, 1), at });
  it.s3.faults.add({ kind: "list" }, { status: 503 }, { skip: 1, times: 1 });
  const listed = await Array.fromAsync(it.store.list());
  assertEquals(listed.map(({ digest }) => digest).sort(), digests.toSorted());

  // The first pages are full of downloads under way.
  digests.sort();
  digests.forEach((digest, i) =>
    it.s3.uploads.set(String(i), { key: keyOf(digest), at, parts: new Map() })
  );
  const running = new Set(digests.slice(0, 2_300));
  await it.store.sweep((digest) => running.has(digest));
  assertEquals(it.s3.uploads.size, 2_300);

  it.s3.faults.add({ kind: "list" }, { status: 503 }, { skip: 1 });
  await assertRejects(() => Array.fromAsync(it.store.list()), BlobUnavailableError);
});

Deno.test("an upload that is refused at the end is no content, and leaves nothing", async () => {
  await using it = await setUp();
  const bytes = randomBytes(9 * 2 ** 20, 1);
  it.s3.faults.add({ kind: "upload" }, { body: s3Error("InternalError") }, { skip: 1 });
  const draft = await it.store.begin(digestOf(bytes));
  await draft.write(bytes);
  await assertRejects(() => draft.commit());
  await draft.discard();
  assertEquals(it.s3.uploads.size, 0);
});

Deno.test("clients are sent to objects that are there and whole, which is looked at every half minute", async () => {
  await using it = await setUp();
  const [kept, lost, cut] = [1, 2, 3].map((n) => randomBytes(1_000, n)) as [
    Uint8Array<ArrayBuffer>,
    Uint8Array<ArrayBuffer>,
    Uint8Array<ArrayBuffer>,
  ];
  for (const bytes of [kept, lost, cut]) await put(it.store, bytes);
  const where = { size: 1_000, lifetime: 60_000 };
  it.s3.objects.delete(keyOf(digestOf(lost)));
  it.s3.spoil(digestOf(cut), "truncate");
  const asked = it.s3.log.length;
  for (let n = 0; n < 3; n++) {
    const url = await it.store.redirect(digestOf(kept), where);
    assertEquals(await (await fetch(url!)).bytes(), kept);
  }
  assertEquals(it.s3.log.length, asked + 1 + 3);
  assertEquals(await it.store.redirect(digestOf(lost), where), undefined);
  assertEquals(await it.store.redirect(digestOf(cut), where), undefined);
  it.s3.objects.delete(keyOf(digestOf(kept)));
  it.clock.ahead += 29_000;
  assert(await it.store.redirect(digestOf(kept), where));
  it.clock.ahead += 2_000;
  assertEquals(await it.store.redirect(digestOf(kept), where), undefined);
  it.s3.faults.add({}, { status: 503 });
  assertEquals(await it.store.redirect(digestOf(lost), where), undefined);
});

Deno.test("a link to the store ends no later than it may, and none is given that ends at once", async () => {
  await using it = await setUp();
  const digest = await put(it.store, randomBytes(1_000, 1));
  const secondsOf = async (lifetime: number) => {
    const url = await it.store.redirect(digest, { size: 1_000, lifetime });
    return url && Number(new URL(url).searchParams.get("X-Amz-Expires"));
  };
  assertEquals(await secondsOf(59_999), 59);
  assertEquals(await secondsOf(Infinity), 600);
  for (const lifetime of [4_000, 0, -1, -Infinity]) {
    assertEquals(await secondsOf(lifetime), undefined);
  }
});
