import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { FileStore } from "../../../lib/cache/store/file_store.ts";
import { SqliteFile } from "../../../lib/cache/index/sqlite_file.ts";
import { startAdmin } from "../../../lib/admin/server.ts";
import { store } from "../../support/blob_store_contract.ts";
import { randomBytes } from "../../support/content.ts";
import { startFakeRegistry } from "../../support/fake_registry.ts";
import { whole } from "../../support/http.ts";
import { makeImage } from "../../support/image.ts";
import { captureLogs } from "../../support/logs.ts";
import { startTestProxy } from "../../support/proxy.ts";
import { tempDir } from "../../support/temp.ts";
import { until } from "../../support/until.ts";

const HAS_MODES = Deno.build.os !== "windows";

/** Works with a umask that takes nothing from anybody. */
async function unmasked<T>(work: () => T | Promise<T>): Promise<T> {
  const before = Deno.umask(0);
  try {
    return await work();
  } finally {
    Deno.umask(before);
  }
}

/** `path mode`, octal, of `dir` and all that is in it. */
async function modesIn(dir: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const look = async (path: string): Promise<void> => {
    const { mode, isDirectory } = await Deno.stat(path);
    found.set(path.slice(dir.length), (mode! & 0o777).toString(8));
    if (!isDirectory) return;
    for await (const { name } of Deno.readDir(path)) await look(join(path, name));
  };
  await look(dir);
  return found;
}

Deno.test({
  name: "whatever the umask is, nobody else can read what the cache writes",
  ignore: !HAS_MODES,
  fn: () =>
    unmasked(async () => {
      await using parent = await tempDir();
      const dir = join(parent.path, "made", "cache");
      await using docker = await startFakeRegistry();
      const image = makeImage({ layers: [1000, 300_000] });
      docker.add("library/app", "1", image);
      await using proxy = await startTestProxy({ upstreams: { docker }, env: { CACHE_DIR: dir } });
      const admin = startAdmin(proxy.proxy, { host: "127.0.0.1", port: 0, isWanted: true });
      await whole(`${proxy.url}/v2/library/app/manifests/1`);
      await whole(`${proxy.url}/v2/library/app/blobs/${image.layers[0]!.digest}`);
      const stall = docker.faults.add({ kind: "blob" }, { stallAt: 1000 });
      const leave = new AbortController();
      const { signal } = leave;
      const path = `${proxy.url}/v2/library/app/blobs/${image.layers[1]!.digest}`;
      const pending = await fetch(path, { signal });
      await until(async () => (await modesIn(dir)).size >= 9);
      const aside = new FileStore(join(parent.path, "aside"));
      await aside.quarantine(await store(aside, randomBytes(100, 1)));
      await admin.close(); // writes the history
      const modes = await modesIn(parent.path);
      for (const [path, mode] of modes) {
        const { isDirectory } = await Deno.stat(parent.path + path);
        assertEquals([path, mode], [path, isDirectory ? "700" : "600"]);
      }
      const names = [...modes.keys()].join("\n");
      for (
        const kind of ["index.sqlite", "-wal", "history.json", ".part", "quarantine/", "blobs/"]
      ) {
        assert(names.includes(kind), `${kind} is missing:\n${names}`);
      }
      stall.remove();
      leave.abort();
      await pending.body?.cancel().catch(() => {});
    }),
});

Deno.test({
  name: "what is open to others in a cache's directory is closed when it is opened, and told once",
  ignore: !HAS_MODES,
  fn: async () => {
    await using dir = await tempDir();
    await store(new FileStore(dir.path), randomBytes(100, 1));
    new SqliteFile(join(dir.path, "index.sqlite"), { schema: "SELECT 1", version: 1 }).close();
    await Deno.writeTextFile(join(dir.path, "history.json"), "{}");
    const wide = ["", "blobs", "blobs/sha256", "fills", "index.sqlite", "history.json"];
    for (const name of wide) await Deno.chmod(join(dir.path, name), 0o755);
    using logs = await captureLogs();
    new FileStore(dir.path);
    new FileStore(dir.path);
    for (const name of wide) {
      const mode = (await Deno.stat(join(dir.path, name))).mode! & 0o777;
      assertEquals([name, mode.toString(8)], [name, /\./.test(name) ? "600" : "700"]);
    }
    assertEquals(logs.find(/^Others could read the cache/).length, 1);
    assertEquals(logs.find(/^Others may read/).length, 0);
  },
});

Deno.test({
  name:
    "a directory that holds other things too stays as it is, and only what is the cache's own is closed",
  ignore: !HAS_MODES,
  fn: async () => {
    await using dir = await tempDir();
    await Deno.chmod(dir.path, 0o755);
    await Deno.mkdir(join(dir.path, "blobs"), { mode: 0o755 });
    await Deno.mkdir(join(dir.path, "of somebody else"), { mode: 0o755 });
    new FileStore(dir.path);
    const mode = async (name: string) => ((await Deno.stat(join(dir.path, name))).mode! & 0o777);
    assertEquals(await mode(""), 0o755);
    assertEquals(await mode("of somebody else"), 0o755);
    assertEquals(await mode("blobs"), 0o700);
  },
});
