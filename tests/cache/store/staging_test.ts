import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import type { BlobWriter } from "../../../lib/cache/store/blob_store.ts";
import { Content } from "../../../lib/cache/content/content.ts";
import { BlobWriterError, Staging } from "../../../lib/cache/store/staging.ts";
import { SqliteIndex } from "../../../lib/cache/index/sqlite_index.ts";
import { Stats } from "../../../lib/telemetry/stats.ts";
import { digestOf, randomBytes } from "../../support/content.ts";
import { diskFull, MemoryStore } from "../../support/memory_store.ts";

const digest = (n: number) => digestOf(new Uint8Array([n]));

Deno.test("drafts that say their size have their room from the beginning, and give it back", async () => {
  const drafts = new Staging(new MemoryStore(), { maxSize: 100 });
  const one = await drafts.begin(digest(1), { size: 60 });
  await assertRejects(() => drafts.begin(digest(2), { size: 41 }), BlobWriterError);
  const two = await drafts.begin(digest(2), { size: 40 });
  await one.write(new Uint8Array(60));
  await one.commit();
  await two.discard();
  assertEquals(drafts.held, 0);
  assert(await drafts.begin(digest(3), { size: 100 }));
});

Deno.test("a draft that grows beyond the room of all is refused, and still gives back what it took", async () => {
  const drafts = new Staging(new MemoryStore(), { maxSize: 100 });
  const one = await drafts.begin(digest(1));
  await one.write(new Uint8Array(60));
  const two = await drafts.begin(digest(2), { size: 10 });
  await two.write(new Uint8Array(10));
  await two.write(new Uint8Array(30));
  await assertRejects(() => two.write(new Uint8Array(1)), BlobWriterError);
  await two.discard();
  await one.write(new Uint8Array(40));
  await one.discard();
  await one.discard();
  assertEquals(drafts.held, 0);
});

Deno.test("whatever becomes of drafts, what is written of them stays within the bound", async () => {
  const step = fc.record({
    draft: fc.nat(4),
    action: fc.constantFrom("begin", "write", "commit", "discard"),
    bytes: fc.nat(60),
    fails: fc.boolean(),
  });
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
    const files = new MemoryStore();
    const drafts = new Staging(files, { maxSize: 100 });
    const open = new Map<number, { draft: BlobWriter; written: number }>();
    for (const { draft: n, action, bytes, fails } of steps) {
      files.fail = () => fails ? diskFull() : undefined;
      const at = open.get(n);
      try {
        if (action === "begin" && !at) {
          open.set(n, { draft: await drafts.begin(digest(n), { size: bytes }), written: 0 });
        } else if (action === "write" && at) {
          await at.draft.write(new Uint8Array(bytes));
          at.written += bytes;
        } else if (action === "commit" && at && !fails) {
          await at.draft.commit();
          open.delete(n);
        } else if (action === "discard" && at) {
          await at.draft.discard();
          open.delete(n);
        }
      } catch (error) {
        assert(error instanceof BlobWriterError, String(error));
      }
      const written = [...open.values()].reduce((sum, { written }) => sum + written, 0);
      assert(written <= drafts.held && drafts.held <= 100);
    }
    for (const { draft } of open.values()) await draft.discard();
    assertEquals(drafts.held, 0);
  }));
});

Deno.test("a full disk under drafts makes nothing leave a store elsewhere, and clients get everything", async () => {
  for (const moment of ["begin", "write"] as const) {
    const index = new SqliteIndex(":memory:");
    const files = new MemoryStore();
    const begin = files.begin.bind(files);
    const drafts = new Staging({ begin, sweep: () => files.sweep() }, { maxSize: 1_000_000 });
    files.begin = (digest) => drafts.begin(digest);
    const stats = new Stats();
    const content = new Content({
      index,
      store: files,
      maxSize: 1_000_000,
      justFilled: 0,
      idle: 5_000,
      stats,
    });
    const old = randomBytes(1_000, 1);
    assert(await content.put(digestOf(old), old));
    files.fail = (operation) => operation === moment ? diskFull() : undefined;
    for (const seed of [2, 3]) {
      const young = randomBytes(1_000, seed);
      const body = (offset: number) => new Response(young.slice(offset)).body!;
      const fill = await content.startFill({
        digest: digestOf(young),
        size: young.byteLength,
        first: body(0),
        source: { open: (offset) => Promise.resolve(body(offset)) },
        registry: "r",
      });
      if (moment === "begin") assertEquals(fill, undefined);
      else {
        const got = await new Response(fill!.stream(undefined, () => {})).bytes();
        assertEquals(got, young);
        await content.settled(fill!.digest);
      }
    }
    assertEquals(stats.cacheEvents.get("evicted_space"), 0);
    assert(await content.row(digestOf(old)));
    await content.close(1_000);
    index.close();
  }
});
