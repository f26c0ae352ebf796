import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { openEmbedded } from "../../../lib/cache/backends.ts";
import { FileStore } from "../../../lib/cache/store/file_store.ts";
import {
  openIndex,
  rebuild,
  recover,
  warnOfLostIndex,
} from "../../../lib/cache/content/recover.ts";
import { IndexLockedError } from "../../../lib/cache/index/sqlite_file.ts";
import { SqliteIndex } from "../../../lib/cache/index/sqlite_index.ts";
import { store } from "../../support/blob_store_contract.ts";
import { digestOf, randomBytes } from "../../support/content.ts";
import { captureLogs } from "../../support/logs.ts";
import { MemoryStore } from "../../support/memory_store.ts";
import { tempDir } from "../../support/temp.ts";

const KEY = { registry: "r", repository: "a/b" };

function row(digest: string, size: number) {
  return { digest, size, createdAt: 1, usedAt: 1, verifiedAt: 1 };
}

Deno.test("bytes whose row a crash prevented get one, and are to be hashed; a row whose bytes it prevented goes", async () => {
  const files = new MemoryStore();
  const index = new SqliteIndex(":memory:");
  const [appeared, left, whole] = await Promise.all(
    [1, 2, 3].map((seed) => store(files, randomBytes(100, seed))),
  ) as [string, string, string];
  index.markPending(appeared);
  index.markPending(left);
  index.markPending(whole);
  index.restoreBlobs([row(left, 100), row(whole, 100)]);
  index.addLink({ ...KEY, digest: left, kind: "blob" }, { mediaType: "" });
  await files.remove(left);
  await recover(files, index);
  assertEquals(index.blob(appeared)?.verifiedAt, 0);
  assertEquals(index.blob(left), undefined);
  assertEquals(index.link({ ...KEY, digest: left, kind: "blob" }), undefined);
  assertEquals(index.blob(whole), row(whole, 100));
  assertEquals(index.totals().bytes, files.bytes);
  assertEquals(index.pending(), []);
  index.close();
});

Deno.test("an index that is filled from the store has all of it, as old as it is, and to be hashed", async () => {
  const files = new MemoryStore();
  let at = 1_000;
  files.now = () => at++;
  for (let seed = 1; seed <= 1_200; seed++) await store(files, randomBytes(10, seed));
  const index = new SqliteIndex(":memory:");
  assertEquals(await rebuild(files, index), 1_200);
  assertEquals(index.totals(), { bytes: 12_000, entries: 1_200, reserved: 0 });
  const [oldest] = index.leastRecent(1);
  assertEquals([oldest?.usedAt, oldest?.createdAt, oldest?.verifiedAt], [1_000, 1_000, 0]);
  index.close();
});

Deno.test("an index that is missing is filled from the store; drafts are swept", async () => {
  await using dir = await tempDir();
  const files = new FileStore(dir.path);
  const digest = await store(files, randomBytes(1_000, 1));
  const draft = await files.begin(digestOf(randomBytes(10, 2)));
  await draft.write(new Uint8Array(5));
  const { index } = await openIndex(dir.path, { store: files });
  assertEquals(index.blob(digest)?.size, 1_000);
  assertEquals([...Deno.readDirSync(join(dir.path, "fills"))], []);
  index.close();
  await draft.discard();
});

for (
  const [what, damage] of [
    ["is empty", () => new Uint8Array()],
    ["is something else", () => new TextEncoder().encode("not a database\n".repeat(1_000))],
    ["lost its end", (bytes: Uint8Array) => bytes.slice(0, bytes.byteLength >> 2)],
    ["is damaged in the middle", (bytes: Uint8Array) => bytes.fill(0xAA, 2 * 4096)],
  ] as const
) {
  Deno.test(`an index that ${what} is set aside where it is damaged, and filled from the store`, async () => {
    await using dir = await tempDir();
    const path = join(dir.path, "index.sqlite");
    const files = new FileStore(dir.path);
    const digest = await store(files, randomBytes(1_000, 1));
    const first = (await openIndex(dir.path, { store: files })).index;
    for (let n = 0; n < 500; n++) {
      first.setTag(KEY, `v${n}`, { digest, checkedAt: 1 });
      first.markPending(digestOf(new Uint8Array([n, n >> 8])));
    }
    first.close();
    await Deno.writeFile(path, damage(await Deno.readFile(path)));
    const { index } = await openIndex(dir.path, { store: files });
    assertEquals(index.totals(), { bytes: 1_000, entries: 1, reserved: 0 });
    assertEquals(index.tag(KEY, "v1"), undefined);
    index.setTag(KEY, "v1", { digest, checkedAt: 1 });
    index.close();
    const again = (await openIndex(dir.path, { store: files })).index;
    assertEquals(again.tag(KEY, "v1"), { digest, checkedAt: 1 });
    again.close();
  });
}

Deno.test("damage that is found while the index is in use is mended there: content stays, facts are asked again", async () => {
  await using dir = await tempDir();
  const path = join(dir.path, "index.sqlite");
  const files = new FileStore(dir.path);
  const digests: string[] = [];
  for (let seed = 0; seed < 300; seed++) {
    digests.push(await store(files, randomBytes(10, seed + 1)));
  }
  (await openIndex(dir.path, { store: files })).index.close();
  const bytes = await Deno.readFile(path);
  // Pages that a start does not read.
  await Deno.writeFile(path, bytes.fill(0xAA, bytes.byteLength - 12 * 4096));

  let damaged = 0;
  const engines = await openEmbedded(dir.path, { onDamaged: () => damaged++ });
  const { index } = engines;
  for (const digest of digests) {
    try {
      await index.blob(digest);
    } catch {
      break;
    }
  }
  assertEquals(damaged, 1);
  await engines.repair!();
  for (const digest of digests) assertEquals((await index.blob(digest))?.size, 10);
  assertEquals((await index.totals()).entries, 300);
  await index.addBlob(row(digestOf(new Uint8Array(1)), 1));
  await index.close();
});

Deno.test("a start tells whether the process before it closed the index", async () => {
  await using dir = await tempDir();
  const files = new FileStore(dir.path);
  const first = await openIndex(dir.path, { store: files });
  assertEquals(first.wasKilled, false);
  first.index.close();
  const second = await openIndex(dir.path, { store: files });
  assertEquals(second.wasKilled, false);
  // As a process that dies leaves them.
  await using copy = await tempDir();
  for (const name of ["index.sqlite", "index.sqlite-wal"]) {
    await Deno.copyFile(join(dir.path, name), join(copy.path, name));
  }
  second.index.close();
  const third = await openIndex(copy.path, { store: new FileStore(copy.path) });
  assertEquals(third.wasKilled, true);
  third.index.close();
});

Deno.test("an index that another has open is neither read nor set aside", async () => {
  await using dir = await tempDir();
  const files = new FileStore(dir.path);
  const { index } = await openIndex(dir.path, { store: files });
  const draft = await files.begin(digestOf(new Uint8Array(1)));
  await assertRejects(() => openIndex(dir.path, { store: files }), IndexLockedError);
  await draft.write(new Uint8Array(1));
  await draft.commit(); // not swept by the one that was refused
  assert(await files.stat(digestOf(new Uint8Array(1))));
  index.close();
});

Deno.test("that an index was lost is told where upstream is never asked, unless it knows tags", async () => {
  using logs = await captureLogs();
  const index = new SqliteIndex(":memory:");
  await warnOfLostIndex(index);
  assertEquals(logs.records.length, 0);
  index.restoreBlobs([row(digestOf(new Uint8Array(1)), 1)]);
  await warnOfLostIndex(index);
  assertEquals(logs.find(/^The index knows no tag of the {entries} stored entries/).length, 1);
  index.setTag(KEY, "1", { digest: digestOf(new Uint8Array(1)), checkedAt: 1 });
  await warnOfLostIndex(index);
  assertEquals(logs.records.length, 1);
  index.close();
});
