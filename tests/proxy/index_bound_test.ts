import { assert, assertEquals } from "@std/assert";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { blobsOf, makeImage } from "../support/image.ts";
import { startTestProxy } from "../support/proxy.ts";
import { until } from "../support/until.ts";

Deno.test("a client that asks for every tag of an image fills no index, and what others use stays cached", async () => {
  await using docker = await startFakeRegistry();
  const image = makeImage({ layers: [1_000] });
  const tags = Array.from({ length: 2_000 }, (_, n) => `v${n}`);
  for (const tag of tags) docker.add("library/app", tag, image);
  docker.add("library/other", "1", image);
  // For tags 100,000 bytes, and 25,000 for one repository.
  await using proxy = await startTestProxy({
    upstreams: { docker },
    env: { CACHE_INDEX_SIZE: "1MB" },
  });
  const { index } = proxy.proxy.cache!;
  const head = async (path: string) => await whole(`${proxy.url}/v2/${path}`, { method: "HEAD" });
  const layer = blobsOf(image)[0]!.digest;
  await whole(`${proxy.url}/v2/library/other/manifests/1`);
  await whole(`${proxy.url}/v2/library/other/blobs/${layer}`);
  for (let from = 0; from < tags.length; from += 50) {
    const answers = await Promise.all(
      tags.slice(from, from + 50).map((tag) => head(`library/app/manifests/${tag}`)),
    );
    for (const { status } of answers) assertEquals(status, 200);
  }
  await until(async () => await index.tagCount() < 100);
  assert(await index.tagCount() > 10);
  const manifest = await whole(`${proxy.url}/v2/library/other/manifests/1`);
  assertEquals(manifest.headers.get("x-cache"), "HIT");
  const blob = await whole(`${proxy.url}/v2/library/other/blobs/${layer}`);
  assertEquals(blob.headers.get("x-cache"), "HIT");
});
