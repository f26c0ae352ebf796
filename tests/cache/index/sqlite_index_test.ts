import { assert, assertEquals, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { DatabaseSync } from "node:sqlite";
import { IndexCorruptError, IndexLockedError } from "../../../lib/cache/index/sqlite_file.ts";
import { SqliteIndex } from "../../../lib/cache/index/sqlite_index.ts";
import { SMALL_INDEX, testIndex } from "../../support/index_contract.ts";
import { tempDir } from "../../support/temp.ts";

async function makeIndex(size?: number) {
  const dir = await tempDir();
  const index = new SqliteIndex(join(dir.path, "index.sqlite"), { size });
  return {
    index,
    async [Symbol.asyncDispose]() {
      index.close();
      await dir[Symbol.asyncDispose]();
    },
  };
}

testIndex("SqliteIndex", { make: () => makeIndex(), makeSmall: () => makeIndex(SMALL_INDEX) });

const ROW = {
  digest: "sha256:" + "a".repeat(64),
  size: 5,
  createdAt: 1,
  usedAt: 1,
  verifiedAt: 1,
};

Deno.test("SqliteIndex: what was entered is there after it is opened again, promises are not", async () => {
  await using dir = await tempDir();
  const path = join(dir.path, "index.sqlite");
  const first = new SqliteIndex(path);
  assert(first.isNew);
  first.addBlob(ROW);
  first.markPending("sha256:" + "b".repeat(64));
  assert(first.reserve(10, 100));
  first.close();
  const second = new SqliteIndex(path);
  assert(!second.isNew);
  assertEquals(second.blob(ROW.digest), ROW);
  assertEquals(second.pending(), ["sha256:" + "b".repeat(64)]);
  assertEquals(second.totals(), { bytes: 5, entries: 1, reserved: 0 });
  second.close();
});

Deno.test("SqliteIndex: a file that another has open is refused as locked, not as damaged", async () => {
  await using dir = await tempDir();
  const path = join(dir.path, "index.sqlite");
  const first = new SqliteIndex(path);
  assertThrows(() => new SqliteIndex(path), IndexLockedError);
  first.close();
  new SqliteIndex(path).close();
});

Deno.test("SqliteIndex: a file that is no index, or one of another version, is refused as damaged", async () => {
  await using dir = await tempDir();
  const path = join(dir.path, "index.sqlite");
  await Deno.writeTextFile(
    path,
    "This is not a database, and longer than its header would be. ".repeat(9),
  );
  assertThrows(() => new SqliteIndex(path), IndexCorruptError);
  await Deno.remove(path);
  const other = new DatabaseSync(path);
  other.exec("PRAGMA user_version = 99");
  other.close();
  assertThrows(() => new SqliteIndex(path), IndexCorruptError, "version 99");
});

Deno.test("SqliteIndex: damage found in use is told once, and the file can be replaced while it is open", async () => {
  await using dir = await tempDir();
  const path = join(dir.path, "index.sqlite");
  const empty = new SqliteIndex(join(dir.path, "empty.sqlite"));
  empty.close();
  const { size: spared } = await Deno.stat(join(dir.path, "empty.sqlite"));
  const whole = new SqliteIndex(path);
  const digestOf = (n: number) => `sha256:${n.toString(16).padStart(64, "0")}`;
  for (let n = 0; n < 2_000; n++) whole.addBlob({ ...ROW, digest: digestOf(n) });
  whole.close();
  const bytes = await Deno.readFile(path);
  bytes.fill(0xAA, spared); // the header and the schema stay
  await Deno.writeFile(path, bytes);

  let told = 0;
  const index = new SqliteIndex(path, { onDamaged: () => told++ });
  assertThrows(() => index.blob(digestOf(1_234)), IndexCorruptError);
  assertThrows(() => index.addBlob(ROW), IndexCorruptError);
  assertEquals(told, 1);
  index.replace(`${path}.damaged`);
  assertEquals(index.blob(digestOf(1_234)), undefined);
  index.addBlob(ROW);
  assertEquals(index.totals().entries, 1);
  assertEquals((await Deno.stat(`${path}.damaged`)).size, bytes.byteLength);
  index.close();
});

Deno.test("SqliteIndex: no question asked for a request or an admission reads a whole table", async () => {
  await using dir = await tempDir();
  const path = join(dir.path, "index.sqlite");
  const asked = new Set<string>();
  const { prepare } = DatabaseSync.prototype;
  DatabaseSync.prototype.prepare = function (sql: string) {
    asked.add(sql);
    return prepare.call(this, sql);
  };
  const index = new SqliteIndex(path);
  const key = { registry: "r", repository: "a/b" };
  try {
    asked.clear();
    index.blob(ROW.digest);
    index.addBlob(ROW);
    index.restoreBlobs([ROW]);
    index.touch(new Map([[ROW.digest, 2]]));
    index.setVerified(ROW.digest, 2);
    index.leastRecent(10);
    index.leastRecent(10, { before: 5, skip: 1 });
    index.leastVerified(1);
    index.reserve(1, 100);
    index.link({ ...key, digest: ROW.digest, kind: "blob" });
    index.addLink({ ...key, digest: ROW.digest, kind: "blob" }, { mediaType: "" });
    index.tag(key, "latest");
    index.setTag(key, "latest", { digest: ROW.digest, checkedAt: 1 });
    index.removeTag(key, "latest");
    index.publicSince(key);
    index.setPublic(key, 1);
    index.setPublic(key, undefined);
    for (let cursor = index.prune(0); cursor !== undefined;) cursor = index.prune(0, cursor);
    index.removeBlob(ROW.digest);
    index.markPending(ROW.digest);
    index.clearPending(ROW.digest);
    await Array.fromAsync(index.tags());
    await Array.fromAsync(index.blobs());
  } finally {
    DatabaseSync.prototype.prepare = prepare;
    index.close();
  }
  const db = new DatabaseSync(path);
  for (const sql of asked) {
    const plan = db.prepare(`EXPLAIN QUERY PLAN ${sql}`).all().map((step) =>
      String(step["detail"])
    );
    const scans = plan.filter((step) =>
      /^SCAN (?!totals)(?!.*USING (COVERING )?INDEX)|TEMP B-TREE/.test(step)
    );
    assertEquals(scans, [], `${sql}\n${plan.join("\n")}`);
  }
  assert(asked.size >= 20, `only ${asked.size} statements seen`);
  db.close();
});

/** The tables as version 1 had them, with a tag, a link and a mark. */
const VERSION_1 = `
  CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER NOT NULL, created_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL, verified_at INTEGER NOT NULL) WITHOUT ROWID;
  CREATE INDEX blobs_by_use ON blobs (used_at);
  CREATE INDEX blobs_by_verification ON blobs (verified_at);
  CREATE TABLE links (registry TEXT NOT NULL, repository TEXT NOT NULL, digest TEXT NOT NULL, kind TEXT NOT NULL,
    media_type TEXT NOT NULL, noted_at INTEGER NOT NULL,
    PRIMARY KEY (registry, repository, digest, kind)) WITHOUT ROWID;
  CREATE INDEX links_by_digest ON links (digest);
  CREATE TABLE tags (registry TEXT NOT NULL, repository TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL,
    checked_at INTEGER NOT NULL, PRIMARY KEY (registry, repository, tag)) WITHOUT ROWID;
  CREATE INDEX tags_by_digest ON tags (digest);
  CREATE TABLE public_repositories (registry TEXT NOT NULL, repository TEXT NOT NULL, proved_at INTEGER NOT NULL,
    PRIMARY KEY (registry, repository)) WITHOUT ROWID;
  CREATE TABLE unsettled (digest TEXT PRIMARY KEY) WITHOUT ROWID;
  CREATE TABLE totals (id INTEGER PRIMARY KEY CHECK (id = 1), bytes INTEGER NOT NULL, entries INTEGER NOT NULL);
  INSERT INTO totals VALUES (1, 0, 0);
  CREATE TRIGGER blob_added AFTER INSERT ON blobs BEGIN
    UPDATE totals SET bytes = bytes + NEW.size, entries = entries + 1;
  END;
  CREATE TRIGGER blob_removed AFTER DELETE ON blobs BEGIN
    UPDATE totals SET bytes = bytes - OLD.size, entries = entries - 1;
  END;
  INSERT INTO blobs VALUES ('${ROW.digest}', 5, 1, 1, 1);
  INSERT INTO links VALUES ('r.example', 'a/b', '${ROW.digest}', 'manifest', 'a/b', 1);
  INSERT INTO public_repositories VALUES ('r.example', 'a/b', 1);
  WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
    INSERT INTO tags SELECT 'r.example', 'a/b', 'v' || i, '${ROW.digest}', i FROM n;
  PRAGMA user_version = 1;
`;

Deno.test("SqliteIndex: a file of the version before is taken over with all that is in it, and kept within the budgets", async () => {
  await using dir = await tempDir();
  const path = join(dir.path, "index.sqlite");
  const old = new DatabaseSync(path);
  old.exec(VERSION_1);
  old.close();
  const key = { registry: "r.example", repository: "a/b" };
  const index = new SqliteIndex(path, { size: SMALL_INDEX });
  assert(!index.isNew);
  assertEquals(index.blob(ROW.digest), ROW);
  assertEquals(index.link({ ...key, digest: ROW.digest, kind: "manifest" }), { mediaType: "a/b" });
  assertEquals(index.publicSince(key), 1);
  assertEquals(index.tagCount(), 2_000);
  await index.trim();
  assert(index.tagCount() < 300, `${index.tagCount()} tags`);
  assertEquals(index.tag(key, "v1"), undefined);
  assertEquals(index.tag(key, "v2000")?.checkedAt, 2000);
  index.close();
});

Deno.test("SqliteIndex: a removal that a crash cut short is finished later, and opens nothing until then", async () => {
  await using dir = await tempDir();
  const path = join(dir.path, "index.sqlite");
  const first = new SqliteIndex(path);
  const key = { registry: "r.example", repository: "a/b" };
  first.addBlob(ROW);
  for (let n = 0; n < 1_000; n++) first.setTag(key, `v${n}`, { digest: ROW.digest, checkedAt: 1 });
  const removal = first.removeBlob(ROW.digest);
  first.close(); // as early as a crash can be
  await removal;
  const second = new SqliteIndex(path);
  assertEquals(second.blob(ROW.digest), undefined);
  assert(second.tagCount() > 0, "nothing was left to do");
  await second.trim();
  assertEquals(second.tagCount(), 0);
  second.close();
});
