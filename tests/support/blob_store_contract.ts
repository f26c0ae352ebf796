/**
 * What every {@linkcode BlobStore} does, whatever the engine: the same tests for each.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { createHash } from "node:crypto";
import fc from "fast-check";
import type { BlobStore, ByteReader } from "../../lib/cache/store/blob_store.ts";
import { digestOf, randomBytes } from "./content.ts";
import { type Tool, toolTest } from "./requirements.ts";

/** A store to try, empty. */
export interface StoreUnderTest extends AsyncDisposable {
  readonly store: BlobStore;
  /** The same store as the next process finds it, once this one has died. */
  reopen(): Promise<BlobStore>;
}

/** All that `reader` gives from `offset` on, in reads of `step` bytes. */
async function drain(
  reader: ByteReader,
  { offset = 0, step = 64 * 1024 } = {},
): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  while (true) {
    const buffer = new Uint8Array(step);
    const n = await reader.read(offset, buffer);
    if (n === 0) break;
    parts.push(buffer.subarray(0, n));
    offset += n;
  }
  return new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer());
}

/** Stores `bytes`; returns their digest. */
export async function store(to: BlobStore, bytes: Uint8Array): Promise<string> {
  const digest = digestOf(bytes);
  const draft = await to.begin(digest);
  await draft.write(bytes);
  await draft.commit();
  return digest;
}

/** What is stored, or undefined. */
export async function stored(from: BlobStore, digest: string): Promise<Uint8Array | undefined> {
  const blob = await from.open(digest);
  if (!blob) return undefined;
  const bytes = await drain(blob);
  blob.close();
  assertEquals(bytes.byteLength, blob.size);
  return bytes;
}

async function listed(from: BlobStore): Promise<Map<string, number>> {
  const entries = await Array.fromAsync(from.list());
  return new Map(entries.map(({ digest, size }) => [digest, size]));
}

/** Registers the tests of a store that `make` makes; each gets one of its own. */
export function testBlobStore(
  name: string,
  { make, needs = [] }: { make: () => Promise<StoreUnderTest>; needs?: readonly Tool[] },
): void {
  const test = (does: string, fn: (under: StoreUnderTest) => Promise<void>) =>
    toolTest(`${name}: ${does}`, {
      needs,
      fn: async () => {
        await using under = await make();
        await fn(under);
      },
    });
  const some = randomBytes(10_000, 1);
  const more = randomBytes(300_000, 2);

  test("what is not here is neither opened nor told, and can be removed", async ({ store: s }) => {
    const digest = digestOf(some);
    assertEquals(await s.open(digest), undefined);
    assertEquals(await s.stat(digest), undefined);
    assertEquals(await listed(s), new Map());
    await s.remove(digest);
    await s.quarantine(digest);
    assertEquals(await s.purge(Infinity), 0);
  });

  test("a draft is nobody's content before it is committed", async ({ store: s }) => {
    const digest = digestOf(some);
    const draft = await s.begin(digest);
    await draft.write(some);
    assertEquals(await s.open(digest), undefined);
    assertEquals(await s.stat(digest), undefined);
    assertEquals(await listed(s), new Map());
    await draft.commit();
    assertEquals(await stored(s, digest), some);
  });

  test("committed content has its bytes, its size and its time", async ({ store: s }) => {
    const before = Date.now() - 60_000;
    const digests = [await store(s, some), await store(s, more)];
    assertEquals(await stored(s, digests[0]!), some);
    assertEquals(await stored(s, digests[1]!), more);
    const entry = await s.stat(digests[1]!);
    assertEquals([entry?.digest, entry?.size], [digests[1], more.byteLength]);
    assert(entry!.storedAt > before && entry!.storedAt < Date.now() + 60_000);
    assertEquals(await listed(s), new Map([[digests[0]!, 10_000], [digests[1]!, 300_000]]));
  });

  test("content is read from any offset, forward and back, and ends at its end", async ({ store: s }) => {
    const blob = (await s.open(await store(s, more)))!;
    for (const offset of [0, 200_000, 5, 299_999, 100_000]) {
      const buffer = new Uint8Array(1_000);
      const n = await blob.read(offset, buffer);
      assert(n > 0);
      assertEquals(buffer.subarray(0, n), more.subarray(offset, offset + n));
    }
    assertEquals(await blob.read(300_000, new Uint8Array(10)), 0);
    assertEquals(await drain(blob, { offset: 299_000 }), more.subarray(299_000));
    blob.close();
  });

  test("readers follow a draft while it grows, each at its own offset", async ({ store: s }) => {
    const draft = await s.begin(digestOf(more));
    const early = await draft.reader();
    await draft.write(more.subarray(0, 100_000));
    assertEquals(await drain(early), more.subarray(0, 100_000));
    const late = await draft.reader();
    await draft.write(more.subarray(100_000));
    assertEquals(await drain(early, { offset: 100_000 }), more.subarray(100_000));
    assertEquals(await drain(late, { step: 7_777 }), more);
    early.close();
    late.close();
    await draft.discard();
  });

  test("a draft stays readable after it was committed, for who has it open and who has not", async ({ store: s }) => {
    const draft = await s.begin(digestOf(more));
    const open = await draft.reader();
    await draft.write(more);
    assertEquals(await drain(open, { offset: 250_000 }), more.subarray(250_000));
    await draft.commit();
    assertEquals(await drain(open), more);
    const late = await draft.reader();
    assertEquals(await drain(late), more);
    open.close();
    late.close();
  });

  test("a discarded draft leaves nothing, and does not disturb who reads it", async ({ store: s }) => {
    const draft = await s.begin(digestOf(some));
    await draft.write(some);
    const open = await draft.reader();
    assertEquals(await open.read(0, new Uint8Array(10)), 10);
    await draft.discard();
    assertEquals(await drain(open), some);
    open.close();
    await draft.discard();
    assertEquals(await listed(s), new Map());
    assertEquals(await s.open(digestOf(some)), undefined);
  });

  test("content that comes again takes the place of what was there", async ({ store: s }) => {
    const digest = await store(s, some);
    const again = await s.begin(digest);
    await again.write(some);
    await again.commit();
    assertEquals(await stored(s, digest), some);
    assertEquals((await listed(s)).size, 1);
  });

  test("two drafts of one digest do not mix", async ({ store: s }) => {
    const digest = digestOf(more);
    const [one, two] = [await s.begin(digest), await s.begin(digest)];
    for (let at = 0; at < more.byteLength; at += 50_000) {
      await one.write(more.subarray(at, at + 50_000));
      if (at < 200_000) await two.write(more.subarray(at, at + 50_000));
    }
    await one.commit();
    await two.discard();
    assertEquals(await stored(s, digest), more);
  });

  test("empty content is content", async ({ store: s }) => {
    const digest = await store(s, new Uint8Array());
    assertEquals(await stored(s, digest), new Uint8Array());
    assertEquals(await listed(s), new Map([[digest, 0]]));
  });

  test("digests of sha512 are kept apart from those of sha256", async ({ store: s }) => {
    const digest = "sha512:" + createHash("sha512").update(some).digest("hex");
    const draft = await s.begin(digest);
    await draft.write(some);
    await draft.commit();
    assertEquals(await stored(s, digest), some);
    assertEquals(await listed(s), new Map([[digest, 10_000]]));
    assertEquals(await s.open(digestOf(some)), undefined);
  });

  test("removed content is gone, and who reads it gets no other bytes", async ({ store: s }) => {
    const digest = await store(s, more);
    await store(s, some);
    const open = (await s.open(digest))!;
    assertEquals(await open.read(0, new Uint8Array(100)), 100);
    await s.remove(digest);
    assertEquals(await s.open(digest), undefined);
    assertEquals(await s.stat(digest), undefined);
    assertEquals(await listed(s), new Map([[digestOf(some), 10_000]]));
    const rest = await drain(open, { offset: 100 }).catch(() => undefined);
    if (rest) assertEquals(rest, more.subarray(100, 100 + rest.byteLength));
    open.close();
  });

  test("what is in quarantine is not content, takes room, and goes when it is old", async ({ store: s }) => {
    const digest = await store(s, some);
    await s.quarantine(digest);
    assertEquals(await s.open(digest), undefined);
    assertEquals(await s.stat(digest), undefined);
    assertEquals(await listed(s), new Map());
    assertEquals(await s.purge(Date.now() - 60_000), some.byteLength);
    await store(s, some);
    assertEquals(await stored(s, digest), some);
    await s.quarantine(digest);
    assertEquals(await s.purge(Date.now() - 60_000), some.byteLength);
    assertEquals(await s.purge(Infinity), 0);
    assertEquals(await s.open(digest), undefined);
  });

  test("what a process that died had not committed is swept, and the rest stays", async ({ store: s, reopen }) => {
    const digest = await store(s, some);
    const draft = await s.begin(digestOf(more));
    await draft.write(more);
    const next = await reopen();
    await next.sweep();
    assertEquals(await listed(next), new Map([[digest, 10_000]]));
    assertEquals(await stored(next, digest), some);
    await draft.discard();
  });

  test("what is no digest is refused, and names nothing", async ({ store: s }) => {
    for (
      const digest of [
        "",
        "latest",
        "sha256:../../../../etc/passwd",
        "../sha256:" + "a".repeat(64),
        "sha256:" + "A".repeat(64),
        "sha256:" + "a".repeat(63),
        "md5:" + "a".repeat(32),
      ]
    ) {
      await assertRejects(async () => await s.open(digest), TypeError);
      await assertRejects(async () => await s.stat(digest), TypeError);
      await assertRejects(async () => await s.begin(digest), TypeError);
      await assertRejects(async () => await s.remove(digest), TypeError);
      await assertRejects(async () => await s.quarantine(digest), TypeError);
    }
  });

  test("content larger than any buffer comes back whole", async ({ store: s }) => {
    const large = randomBytes(20_000_001, 3);
    const draft = await s.begin(digestOf(large));
    const reader = await draft.reader();
    let read = 0;
    for (let at = 0; at < large.byteLength; at += 1_234_567) {
      await draft.write(large.subarray(at, at + 1_234_567));
      const tail = await drain(reader, { offset: read, step: 2 ** 20 });
      assertEquals(digestOf(tail), digestOf(large.subarray(read, read + tail.byteLength)));
      read += tail.byteLength;
    }
    reader.close();
    assertEquals(read, large.byteLength);
    await draft.commit();
    const blob = (await s.open(digestOf(large)))!;
    assertEquals(blob.size, large.byteLength);
    assertEquals(digestOf(await drain(blob, { step: 2 ** 20 })), digestOf(large));
    blob.close();
  });

  test("bytes come back as they were written, in pieces of any size", async ({ store: s }) => {
    const pieces = fc.array(fc.uint8Array({ maxLength: 3_000 }), { maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(pieces, fc.integer({ min: 1, max: 5_000 }), async (written, step) => {
        const whole = new Uint8Array(await new Blob(written as BlobPart[]).arrayBuffer());
        const draft = await s.begin(digestOf(whole));
        for (const piece of written) await draft.write(piece);
        await draft.commit();
        const blob = (await s.open(digestOf(whole)))!;
        assertEquals(await drain(blob, { step }), whole);
        blob.close();
        await s.remove(digestOf(whole));
      }),
      { numRuns: 25 },
    );
    assertEquals(await listed(s), new Map());
  });
}
