import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { CacheOpenError } from "../../lib/cache/cache.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { type Image, makeImage, makeIndex, type Manifest } from "../support/image.ts";
import { until } from "../support/until.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";
import { runProxy } from "../support/proxy_process.ts";
import { freePort } from "../support/temp.ts";

const REPOSITORY = "team/app";

/** An upstream with a tagged image of two layers, and a proxy for it. */
async function setUp(env: Record<string, string> = {}) {
  const upstream = await startFakeRegistry({ auth: "token" });
  const image = makeImage({ layers: [200_000, 1_000] });
  upstream.add(REPOSITORY, "1", image);
  const proxy = await startTestProxy({ upstreams: { corp: upstream }, env });
  return {
    upstream,
    image,
    proxy,
    async [Symbol.asyncDispose]() {
      await proxy.close();
      await upstream.close();
    },
  };
}

/** Fetches content; its bytes must be right. Returns what X-Cache said. */
async function get(proxy: TestProxy, kind: "manifests" | "blobs", { reference, digest }: {
  reference?: string;
  digest: string;
}): Promise<string | null> {
  const url = `${proxy.url}/v2/corp/${REPOSITORY}/${kind}/${reference ?? digest}`;
  const answer = await whole(url);
  assertEquals([answer.status, answer.digest], [200, digest], answer.text.slice(0, 300));
  return answer.headers.get("x-cache");
}

/** Pulls an image as a client does, and waits until what is new is stored. Returns what X-Cache said. */
async function pull(proxy: TestProxy, image: Image, tag = "1"): Promise<(string | null)[]> {
  const { digest } = image;
  const said = [
    await get(proxy, "manifests", { reference: tag, digest }),
    await get(proxy, "manifests", { digest }),
  ];
  for (const { digest } of image.blobs) said.push(await get(proxy, "blobs", { digest }));
  for (const { digest } of image.blobs) await proxy.proxy.cache?.content.settled(digest);
  return said;
}

function pathOf(proxy: TestProxy, digest: string): string {
  const hex = digest.slice("sha256:".length);
  return join(proxy.cacheDir, "blobs", "sha256", hex.slice(0, 2), hex);
}

function digestsOf(image: Manifest): string[] {
  return [image.digest, ...image.blobs.map((blob) => blob.digest)];
}

/** Bytes on the disk below `blobs`. */
async function stored(proxy: TestProxy): Promise<number> {
  const entries = await Array.fromAsync(proxy.proxy.cache!.store.list());
  return entries.reduce((sum, { size }) => sum + size, 0);
}

for (
  const [what, damage] of [
    ["deleted", (path: string) => Deno.remove(path)],
    ["cut short", (path: string) => Deno.truncate(path, 100)],
    ["emptied", (path: string) => Deno.truncate(path, 0)],
    ["replaced by a folder", async (path: string) => {
      await Deno.remove(path);
      await Deno.mkdir(join(path, "x"), { recursive: true });
    }],
  ] as const
) {
  Deno.test(`files that were ${what} behind the proxy's back are fetched again, and clients get right bytes`, async () => {
    await using t = await setUp();
    await pull(t.proxy, t.image);
    await t.proxy.restart({
      between: async () => {
        for (const digest of digestsOf(t.image)) await damage(pathOf(t.proxy, digest));
      },
    });
    const again = await pull(t.proxy, t.image);
    assert(!again.slice(2).includes("HIT"), String(again));
    assertEquals(await pull(t.proxy, t.image), ["HIT", "HIT", "HIT", "HIT", "HIT"]);
    assertEquals((await t.proxy.proxy.cache!.index.totals()).bytes, await stored(t.proxy));
  });
}

for (
  const [what, damage] of [
    ["missing", (path: string) => Deno.remove(path)],
    ["empty", (path: string) => Deno.truncate(path, 0)],
    ["no database", (path: string) => Deno.writeTextFile(path, "what is this? ".repeat(1_000))],
    ["damaged in the middle", async (path: string) => {
      const bytes = await Deno.readFile(path);
      await Deno.writeFile(path, bytes.fill(0x55, 8192));
    }],
  ] as const
) {
  Deno.test(`an index that is ${what} is made again: tags are asked for, content is not downloaded again`, async () => {
    await using t = await setUp();
    await pull(t.proxy, t.image);
    await t.proxy.restart({ between: () => damage(join(t.proxy.cacheDir, "index.sqlite")) });
    const asked = t.upstream.log.length;
    await pull(t.proxy, t.image);
    assert(t.upstream.log.length > asked, "whether it is still so was not asked");
    assert(t.proxy.stats.bytesFromUpstream < 100_000, `${t.proxy.stats.bytesFromUpstream} bytes`);
    // What was noted in the damaged index while it was made again may have gone with it.
    await until(async () => (await pull(t.proxy, t.image)).every((cache) => cache === "HIT"));
    t.upstream.control.failWith = 503;
    assertEquals(await pull(t.proxy, t.image), ["HIT", "HIT", "HIT", "HIT", "HIT"]);
  });
}

Deno.test("a file that changed while the index was lost is found out before it is served", async () => {
  await using t = await setUp();
  await pull(t.proxy, t.image);
  const [layer] = t.image.layers;
  await t.proxy.restart({
    between: async () => {
      await Deno.remove(join(t.proxy.cacheDir, "index.sqlite"));
      await Deno.truncate(pathOf(t.proxy, layer!.digest), 5_000);
    },
  });
  await pull(t.proxy, t.image);
  assertEquals(await pull(t.proxy, t.image), ["HIT", "HIT", "HIT", "HIT", "HIT"]);
  assertEquals((await Deno.stat(pathOf(t.proxy, layer!.digest))).size, layer!.size);
});

Deno.test({
  name:
    "while no draft can be written, clients are served from upstream, and the cache goes on when it can",
  ignore: Deno.build.os !== "linux",
  fn: async () => {
    await using t = await setUp();
    const fills = join(t.proxy.cacheDir, "fills");
    for (const digest of digestsOf(t.image)) {
      for (let n = 1; n <= 20; n++) {
        await Deno.symlink("/dev/full", join(fills, `${digest.slice("sha256:".length)}.${n}.part`));
      }
    }
    assert(!(await pull(t.proxy, t.image)).includes("HIT"));
    assert(t.proxy.stats.cacheEvents.get("disk_error") > 0);
    assertEquals(await stored(t.proxy), 0);
    await t.proxy.restart(); // which sweeps
    await pull(t.proxy, t.image);
    assertEquals(await pull(t.proxy, t.image), ["HIT", "HIT", "HIT", "HIT", "HIT"]);
  },
});

Deno.test("while the index fails, clients are served", async () => {
  await using t = await setUp();
  await pull(t.proxy, t.image);
  const { index } = t.proxy.proxy.cache!;
  const failing = () => {
    throw new Error("disk I/O error");
  };
  const names = [
    "blob",
    "addBlob",
    "removeBlob",
    "touch",
    "totals",
    "reserve",
    "link",
    "addLink",
  ] as const;
  const more = ["tag", "setTag", "removeTag", "publicSince", "setPublic", "markPending"] as const;
  const kept = Object.fromEntries([...names, ...more].map((name) => [name, index[name]]));
  Object.assign(index, Object.fromEntries([...names, ...more].map((name) => [name, failing])));
  const other = makeImage({ layers: [50_000], seed: 2 });
  t.upstream.add(REPOSITORY, "2", other);
  await pull(t.proxy, other, "2");
  await pull(t.proxy, t.image);
  Object.assign(index, kept);
  await pull(t.proxy, other, "2");
  assertEquals(await pull(t.proxy, other, "2"), ["HIT", "HIT", "HIT", "HIT"]);
});

Deno.test("a second proxy on the same folder is refused, and the first goes on", async () => {
  await using t = await setUp();
  await pull(t.proxy, t.image);
  const dir = t.proxy.cacheDir;
  const second = () => startTestProxy({ upstreams: { corp: t.upstream }, env: { CACHE_DIR: dir } });
  await assertRejects(second, CacheOpenError, `another process is using ${dir}`);
  const env = { HOST: "127.0.0.1", PORT: String(freePort()), CACHE_DIR: dir, ADMIN_ADDR: "off" };
  const { code, stdout, stderr } = await runProxy(["serve"], env);
  assertEquals(code, 1);
  assertStringIncludes(stdout + stderr, `Cannot open cache: another process is using ${dir}`);
  assertEquals(await pull(t.proxy, t.image), ["HIT", "HIT", "HIT", "HIT", "HIT"]);
});

Deno.test("what is larger than the cap is passed on, and the disk never holds more than the cap", async () => {
  await using t = await setUp({ CACHE_MAX_SIZE: "300KiB" });
  const sizes: number[] = [];
  for (let seed = 10; seed < 16; seed++) {
    const image = makeImage({ layers: [250_000, 400_000], seed });
    t.upstream.add(REPOSITORY, `v${seed}`, image);
    await pull(t.proxy, image, `v${seed}`);
    sizes.push(await stored(t.proxy));
  }
  assert(Math.max(...sizes) <= 300 * 1024, String(sizes));
  assert(sizes[0]! > 250_000);
  assert(t.proxy.stats.cacheEvents.get("no_room") >= 6);
});

Deno.test("a cap that was lowered is kept when the proxy starts again", async () => {
  await using t = await setUp();
  await pull(t.proxy, t.image);
  await t.proxy.restart({ env: { CACHE_MAX_SIZE: "100KiB" } });
  // What was stored a moment ago stays for a moment: who waited for it may not have come yet.
  const { content } = t.proxy.proxy.cache!;
  await until(async () => {
    await content.space.trim();
    return await stored(t.proxy) <= 100 * 1024;
  }, 10_000);
  assertEquals((await pull(t.proxy, t.image)).length, 2 + t.image.blobs.length);
  assert(await stored(t.proxy) <= 100 * 1024);
});

Deno.test("content that was evicted under an index of images is fetched again when it is asked for", async () => {
  await using t = await setUp();
  const children = ["amd64", "arm64"].map((architecture, i) =>
    makeImage({ layers: [10_000], seed: 20 + i, platform: { os: "linux", architecture } })
  ) as [Image, Image];
  const index = makeIndex(children);
  t.upstream.add(REPOSITORY, "multi", index);
  await get(t.proxy, "manifests", { reference: "multi", digest: index.digest });
  for (const child of children) {
    await get(t.proxy, "manifests", { digest: child.digest });
    await get(t.proxy, "blobs", child.layers[0]!);
  }
  const { content } = t.proxy.proxy.cache!;
  await content.settled(children[0].layers[0]!.digest);
  await content.remove(children[0].digest, "removed");
  await content.remove(children[0].layers[0]!.digest, "removed");
  const digest = index.digest;
  assertEquals(await get(t.proxy, "manifests", { reference: "multi", digest }), "HIT");
  assertEquals(await get(t.proxy, "manifests", { digest: children[0].digest }), "MISS");
  assertEquals(await get(t.proxy, "blobs", children[0].layers[0]!), "MISS");
  assertEquals(await get(t.proxy, "manifests", { digest: children[1].digest }), "HIT");
  assertEquals(await get(t.proxy, "manifests", { digest: children[0].digest }), "HIT");
});

Deno.test("what verifying found wrong is fetched again when it is asked for", async () => {
  await using t = await setUp();
  await pull(t.proxy, t.image);
  const { digest } = t.image.layers[0]!;
  const bytes = await Deno.readFile(pathOf(t.proxy, digest));
  bytes[1_000]! ^= 1;
  await Deno.writeFile(pathOf(t.proxy, digest), bytes);
  const { verify } = await import("../../lib/cache/content/verify.ts");
  const report = await verify(t.proxy.proxy.cache!);
  assertEquals(report.problems, [{ digest, problem: "wrong" }]);
  assertEquals(await get(t.proxy, "blobs", { digest }), "MISS");
  await t.proxy.proxy.cache!.content.settled(digest);
  assertEquals(await get(t.proxy, "blobs", { digest }), "HIT");
});
