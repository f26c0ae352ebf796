import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { FileStore } from "../../../lib/cache/store/file_store.ts";
import { store, stored, testBlobStore } from "../../support/blob_store_contract.ts";
import { digestOf, randomBytes } from "../../support/content.ts";
import { tempDir } from "../../support/temp.ts";

testBlobStore("FileStore", {
  make: async () => {
    const dir = await tempDir();
    return {
      store: new FileStore(dir.path),
      reopen: () => Promise.resolve(new FileStore(dir.path)),
      [Symbol.asyncDispose]: () => dir[Symbol.asyncDispose](),
    };
  },
});

Deno.test("FileStore: content lies below blobs/, and unfinished downloads where the next start sweeps them", async () => {
  await using dir = await tempDir();
  const files = new FileStore(dir.path);
  const bytes = randomBytes(100, 1);
  const hex = (await store(files, bytes)).slice("sha256:".length);
  const path = join(dir.path, "blobs", "sha256", hex.slice(0, 2), hex);
  assertEquals(await Deno.readFile(path), bytes);
  const draft = await files.begin(digestOf(bytes));
  const [part] = await Array.fromAsync(Deno.readDir(join(dir.path, "fills")));
  assertEquals(part?.name.endsWith(".part"), true);
  await draft.discard();
});

Deno.test("FileStore: files that are not ours are neither told nor removed", async () => {
  await using dir = await tempDir();
  const files = new FileStore(dir.path);
  const digest = await store(files, randomBytes(100, 1));
  await Deno.mkdir(join(dir.path, "blobs", "lost+found", "aa"), { recursive: true });
  await Deno.mkdir(join(dir.path, "blobs", "sha256", "zz"));
  for (
    const name of ["blobs/.DS_Store", "blobs/sha256/notes", "blobs/sha256/zz/x", "fills/readme"]
  ) {
    await Deno.writeTextFile(join(dir.path, name), "x");
  }
  assertEquals((await Array.fromAsync(files.list())).map((entry) => entry.digest), [digest]);
  await files.sweep();
  assertEquals(await Deno.readTextFile(join(dir.path, "fills", "readme")), "x");
});

Deno.test("FileStore: folders that were removed under it are made again", async () => {
  await using dir = await tempDir();
  const files = new FileStore(dir.path);
  await Deno.remove(join(dir.path, "blobs"), { recursive: true });
  await Deno.remove(join(dir.path, "fills"), { recursive: true });
  const bytes = randomBytes(100, 1);
  assertEquals(await Array.fromAsync(files.list()), []);
  assertEquals(await stored(files, await store(files, bytes)), bytes);
});
