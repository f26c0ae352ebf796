/**
 * A proxy that is killed while clients pull through it, again and again, on one cache folder.
 */
import { assert, assertEquals, AssertionError } from "@std/assert";
import { join } from "@std/path";
import { type Content, randomOf } from "../support/content.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { type Image, makeImage } from "../support/image.ts";
import { type ProxyProcess, startProxy } from "../support/proxy_process.ts";
import { tempDir } from "../support/temp.ts";
import { until } from "../support/until.ts";

const ROUNDS = 10;
const CAP = 3_000_000;

const IMAGES = Array.from(
  { length: 12 },
  (_, i) => makeImage({ layers: [20_000 * (i + 1), 300_000, 5_000], seed: i + 1 }),
);

async function proxyFor(upstream: FakeRegistry, dir: string): Promise<ProxyProcess> {
  return await startProxy({
    env: { UPSTREAM_CORP: upstream.url, CACHE_DIR: dir, CACHE_MAX_SIZE: `${CAP}` },
  });
}

/** One thing to ask for: the path, and the digest that must come. */
function pathsOf(image: Image, tag: string): { path: string; digest: string }[] {
  const base = "/v2/corp/a/b";
  const blob = ({ digest }: Content) => ({ path: `${base}/blobs/${digest}`, digest });
  return [
    { path: `${base}/manifests/${tag}`, digest: image.digest },
    { path: `${base}/manifests/${image.digest}`, digest: image.digest },
    ...image.blobs.map(blob),
  ];
}

Deno.test(`a proxy killed ${ROUNDS} times in the middle of pulls serves right bytes and keeps to its cap after each start`, async () => {
  await using dir = await tempDir();
  await using upstream = await startFakeRegistry();
  for (const [i, image] of IMAGES.entries()) upstream.add("a/b", `v${i}`, image);
  const all = IMAGES.flatMap((image, i) => pathsOf(image, `v${i}`));
  const random = randomOf(Date.now());
  let broken = 0;
  let whole200 = 0;
  for (let round = 1; round <= ROUNDS; round++) {
    const proxy = await proxyFor(upstream, dir.path);
    try {
      assertEquals([...Deno.readDirSync(join(dir.path, "fills"))], []);
      let isKilled = false;
      const clients = Array.from({ length: 6 }, async () => {
        while (!isKilled) {
          const { path, digest } = all[Math.floor(random() * all.length)]!;
          try {
            const answer = await whole(proxy.url + path);
            assertEquals([answer.status, answer.digest], [200, digest], path);
            whole200++;
          } catch (error) {
            if (!isKilled || error instanceof AssertionError) throw error;
            broken++;
          }
        }
      });
      const enough = whole200 + Math.floor(random() * 25);
      await Promise.race([until(() => whole200 >= enough), ...clients]); // the random moment
      isKilled = true;
      await proxy.kill();
      await Promise.all(clients);
    } finally {
      await proxy.kill();
    }
  }
  assert(whole200 > 50 && broken > 0, `${whole200} whole, ${broken} broken`);
  await using proxy = await proxyFor(upstream, dir.path);
  for (const { path, digest } of all) {
    assertEquals((await whole(proxy.url + path)).digest, digest, path);
  }
  assertEquals(await proxy.stop(), 0);
  let stored = 0;
  for await (const folder of Deno.readDir(join(dir.path, "blobs", "sha256"))) {
    const path = join(dir.path, "blobs", "sha256", folder.name);
    for await (const { name } of Deno.readDir(path)) {
      stored += (await Deno.stat(join(path, name))).size;
    }
  }
  assert(stored <= CAP, `${stored} bytes`);
});
