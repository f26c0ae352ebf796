/**
 * Disks that are full or read-only: clients are served all the same.
 */
import { assert, assertEquals } from "@std/assert";
import { type FakeRegistry, startFakeRegistry } from "../support/fake_registry.ts";
import { digestOfStream, whole } from "../support/http.ts";
import { type Content, generated } from "../support/content.ts";
import { makeImage } from "../support/image.ts";
import { type ProxyProcess, startProxy } from "../support/proxy_process.ts";
import { type Tool, toolTest } from "../support/requirements.ts";
import { mountTmpfs } from "../support/tmpfs.ts";

const NEEDS: readonly Tool[] = ["root"];
const MIB = 2 ** 20;

async function proxyFor(upstream: FakeRegistry, dir: string): Promise<ProxyProcess> {
  return await startProxy({
    env: { UPSTREAM_CORP: upstream.url, CACHE_DIR: dir, ALLOW_PRIVATE_NETWORKS: "true" },
  });
}

/** Fetches a blob, whose bytes must be right. Returns what X-Cache said. */
async function get(proxy: ProxyProcess, { digest }: Content): Promise<string | null> {
  const response = await fetch(`${proxy.url}/v2/corp/a/b/blobs/${digest}`);
  assertEquals(response.status, 200);
  assertEquals((await digestOfStream(response.body!)).digest, digest);
  return response.headers.get("x-cache");
}

/** Asks for a blob until it comes from the cache. */
async function becomesHit(proxy: ProxyProcess, blob: Content): Promise<void> {
  const until = performance.now() + 60_000;
  while (await get(proxy, blob) !== "HIT") {
    assert(performance.now() < until, "it is never kept");
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

/** How many log lines say that the cache has trouble. */
function complaints(proxy: ProxyProcess): number {
  return proxy.logs().filter((line) => /Cache trouble|Cannot open cache/.test(line)).length;
}

toolTest(
  "on a disk that fills up long before the cap, every client gets right bytes and new content is still kept",
  {
    needs: NEEDS,
    async fn() {
      await using disk = await mountTmpfs("64m");
      await using upstream = await startFakeRegistry();
      const large = Array.from({ length: 8 }, (_, i) => generated({ size: 15 * MIB, seed: i + 1 }));
      const small = Array.from({ length: 40 }, (_, i) => generated({ size: MIB, seed: 100 + i }));
      const huge = generated({ size: 100 * MIB, seed: 999 });
      for (const blob of [...large, ...small, huge]) upstream.addBlob("a/b", blob);
      await using proxy = await proxyFor(upstream, disk.path);
      for (let i = 0; i < large.length; i += 4) {
        const batch = [...large.slice(i, i + 4), ...small.slice(i * 5, i * 5 + 20)];
        await Promise.all(batch.map((blob) => get(proxy, blob)));
      }
      await get(proxy, huge);
      await proxy.log(/Cache trouble, .*(No space left|disk is full)/);
      // What was just filled stays for a moment; then it makes room for what comes.
      for (const blob of large.slice(0, 2)) await becomesHit(proxy, blob);
      assert(complaints(proxy) <= 3, proxy.logs().join("\n"));
      assertEquals((await whole(`${proxy.url}/health`)).status, 200);
      assertEquals(await proxy.stop(), 0);

      // And so it does after a restart, with nothing left behind.
      await using again = await proxyFor(upstream, disk.path);
      assertEquals([...Deno.readDirSync(`${disk.path}/fills`)], []);
      for (const blob of [...large, ...small]) await get(again, blob);
    },
  },
);

toolTest(
  "on a read-only disk clients are served from upstream, and the cache is there again when it can be written",
  {
    needs: NEEDS,
    async fn() {
      await using disk = await mountTmpfs("64m");
      await using upstream = await startFakeRegistry();
      const image = makeImage({ layers: [300_000] });
      upstream.add("a/b", "1", image);
      const [layer] = image.layers;
      const pull = async (proxy: ProxyProcess) => {
        const manifest = await whole(`${proxy.url}/v2/corp/a/b/manifests/1`);
        assertEquals([manifest.status, manifest.digest], [200, image.digest]);
        return [manifest.headers.get("x-cache"), await get(proxy, layer!)];
      };
      {
        await using proxy = await proxyFor(upstream, disk.path);
        assertEquals(await pull(proxy), ["MISS", "MISS"]);
        assertEquals(await pull(proxy), ["HIT", "HIT"]);
        await proxy.stop();
      }
      await disk.remount("ro");
      {
        await using proxy = await proxyFor(upstream, disk.path);
        assertEquals(await pull(proxy), ["BYPASS", "BYPASS"]);
        await proxy.log(/Cannot open cache, serving without it/);
        assertEquals(complaints(proxy), 1);
        assertEquals((await whole(`${proxy.url}/health`)).status, 200);
        await proxy.stop();
      }
      await disk.remount("rw");
      await using proxy = await proxyFor(upstream, disk.path);
      assertEquals(await pull(proxy), ["HIT", "HIT"]);
    },
  },
);
