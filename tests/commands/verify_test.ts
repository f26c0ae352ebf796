import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { openEmbedded } from "../../lib/cache/backends.ts";
import { runVerify } from "../../lib/commands/verify.ts";
import { parseConfig } from "../../lib/config/config.ts";
import { startAdmin } from "../../lib/admin/server.ts";
import { store } from "../support/blob_store_contract.ts";
import { randomBytes } from "../support/content.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { makeImage } from "../support/image.ts";
import { startTestProxy } from "../support/proxy.ts";
import { freePort, tempDir } from "../support/temp.ts";

/** Runs `verify` on `dir`; what it printed, and its exit code. */
async function run(dir: string, { json = false, env = {} } = {}) {
  const lines: string[] = [];
  const errors: string[] = [];
  const progress: string[] = [];
  const code = await runVerify({
    config: parseConfig({ CACHE_DIR: dir, ...env }),
    json,
    print: (line) => void lines.push(line),
    printError: (line) => void errors.push(line),
    printProgress: (line) => void progress.push(line),
  });
  return { code, lines, errors, progress };
}

/** Two entries, of which the second is wrong. */
async function withDamage(dir: string): Promise<string> {
  const { store: files, index } = await openEmbedded(dir, { onDamaged() {} });
  await store(files, randomBytes(1_000, 1));
  const digest = await store(files, randomBytes(2_000, 2));
  await index.close();
  const hex = digest.slice("sha256:".length);
  await Deno.writeFile(join(dir, "blobs", "sha256", hex.slice(0, 2), hex), randomBytes(2_000, 3));
  return digest;
}

Deno.test("verify reports intact content and exits 0", async () => {
  await using dir = await tempDir();
  const { store: files, index } = await openEmbedded(dir.path, { onDamaged() {} });
  await store(files, randomBytes(3_000, 1));
  await index.close();
  const { code, lines, progress } = await run(dir.path);
  assertEquals(code, 0);
  assertEquals(lines, [
    "Found 1 stored entries that were missing from the index",
    "Verified 1 entries, 2.9 KiB: all right",
  ]);
  assertMatch(progress[0]!, /^100%, 2.9 KiB of 2.9 KiB, /);
  assertEquals((await run(dir.path)).lines, ["Verified 1 entries, 2.9 KiB: all right"]);
});

Deno.test("verify names damaged content, moves it to quarantine and exits 1", async () => {
  await using dir = await tempDir();
  const digest = await withDamage(dir.path);
  const { code, lines } = await run(dir.path);
  assertEquals(code, 1);
  assertEquals(lines[0], `${digest}: wrong`);
  assertStringIncludes(lines.at(-1)!, "1 wrong, moved to quarantine");
  assertEquals(
    (await Deno.stat(join(dir.path, "quarantine", digest.replace(":", "-")))).size,
    2_000,
  );
  assertEquals((await run(dir.path)).code, 0);
});

Deno.test("verify --json prints one object", async () => {
  await using dir = await tempDir();
  const digest = await withDamage(dir.path);
  const { code, lines } = await run(dir.path, { json: true });
  assertEquals([code, lines.length], [1, 1]);
  const report = JSON.parse(lines[0]!);
  assertEquals([report.entries, report.wrong, report.bytes], [2, 1, 3_000]);
  assertEquals(report.problems, [{ digest, problem: "wrong" }]);
});

Deno.test("a running instance verifies its own cache", async () => {
  const upstream = await startFakeRegistry();
  const image = makeImage({ layers: [100_000] });
  upstream.add("a/b", "1", image);
  const proxy = await startTestProxy({ upstreams: { corp: upstream } });
  const listener = startAdmin(proxy.proxy, { host: "127.0.0.1", port: 0, isWanted: true });
  try {
    for (const { digest } of image.blobs) {
      await whole(`${proxy.url}/v2/corp/a/b/blobs/${digest}`);
      await proxy.proxy.cache!.content.settled(digest);
    }
    const { digest } = image.layers[0]!;
    const hex = digest.slice("sha256:".length);
    const path = join(proxy.cacheDir, "blobs", "sha256", hex.slice(0, 2), hex);
    const env = { ADMIN_ADDR: `127.0.0.1:${listener.addr.port}` };
    const right = await run(proxy.cacheDir, { env });
    assertEquals([right.code, right.errors], [0, []]);
    assertMatch(right.lines[0]!, /^Verified 2 entries, .*: all right$/);
    await Deno.writeFile(path, randomBytes(image.layers[0]!.size, 9));
    const wrong = await run(proxy.cacheDir, { env, json: true });
    assertEquals(wrong.code, 1);
    const report = JSON.parse(wrong.lines[0]!);
    assertEquals(report.problems, [{ digest, problem: "wrong" }]);
    assertEquals([report.entries, report.wrong, report.found], [2, 1, 0]);
    assertEquals(await proxy.proxy.cache!.content.row(digest), undefined);
  } finally {
    await listener.close();
    await proxy.close();
    await upstream.close();
  }
});

Deno.test("verify reports an unreachable instance and changes nothing", async () => {
  await using dir = await tempDir();
  const digest = await withDamage(dir.path);
  const running = await openEmbedded(dir.path, { onDamaged() {} });
  const off = await run(dir.path, { env: { ADMIN_ADDR: "off" } });
  assertEquals([off.code, off.lines], [1, []]);
  assertMatch(
    off.errors[0]!,
    /^Another process is using .*, and ADMIN_ADDR is off, so the instance cannot/,
  );
  const away = await run(dir.path, { env: { ADMIN_ADDR: `127.0.0.1:${freePort()}` } });
  assertEquals([away.code, away.lines], [1, []]);
  assertMatch(
    away.errors[0]!,
    /^Another process is using .*, and it cannot be reached: No instance/,
  );
  assert(await running.store.stat(digest));
  await running.index.close();
});

Deno.test("verify rebuilds a damaged index and continues", async () => {
  await using dir = await tempDir();
  const { store: files, index } = await openEmbedded(dir.path, { onDamaged() {} });
  for (let seed = 1; seed <= 300; seed++) await store(files, randomBytes(10, seed));
  await index.close();
  assertEquals((await run(dir.path)).code, 0);
  const path = join(dir.path, "index.sqlite");
  const bytes = await Deno.readFile(path);
  await Deno.writeFile(path, bytes.fill(0xAA, bytes.byteLength - 12 * 4096));
  const { code, lines, errors } = await run(dir.path);
  assertEquals([code, lines, errors], [
    0,
    ["Verified 300 entries, 2.9 KiB: all right"],
    ["The index is damaged, rebuilding it"],
  ]);
});

Deno.test("verify without a cache, or with a failing disk, says why and exits 1", async () => {
  await using dir = await tempDir();
  const off = await run(dir.path, { env: { CACHE_ENABLED: "false" } });
  assertEquals([off.code, off.errors], [1, ["Nothing to verify: the cache is off"]]);
  await Deno.writeTextFile(join(dir.path, "file"), "");
  const { code, errors } = await run(join(dir.path, "file", "cache"));
  assertEquals(code, 1);
  assertMatch(errors[0]!, /^Cannot open cache: /);
});
