import { assert, assertEquals, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { DatabaseSync } from "node:sqlite";
import { IndexCorruptError, IndexLockedError } from "../../lib/cache/sqlite_file.ts";
import { SqliteIndex } from "../../lib/cache/sqlite_index.ts";
import { testIndex } from "../support/index_contract.ts";
import { tempDir } from "../support/temp.ts";

testIndex("SqliteIndex", {
  make: async () => {
    const dir = await tempDir();
    const index = new SqliteIndex(join(dir.path, "index.sqlite"));
    return {
      index,
      async [Symbol.asyncDispose]() {
        index.close();
        await dir[Symbol.asyncDispose]();
      },
    };
  },
});

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
  first.unsettle("sha256:" + "b".repeat(64));
  assert(first.reserve(10, 100));
  first.close();
  const second = new SqliteIndex(path);
  assert(!second.isNew);
  assertEquals(second.blob(ROW.digest), ROW);
  assertEquals(second.unsettled(), ["sha256:" + "b".repeat(64)]);
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
  const whole = new SqliteIndex(path);
  const digestOf = (n: number) => `sha256:${n.toString(16).padStart(64, "0")}`;
  for (let n = 0; n < 2_000; n++) whole.addBlob({ ...ROW, digest: digestOf(n) });
  whole.close();
  const bytes = await Deno.readFile(path);
  bytes.fill(0xAA, 2 * 4096); // the header and the schema stay
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
    index.unsettle(ROW.digest);
    index.settle(ROW.digest);
    [...index.tags(), ...index.blobs()];
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
