import { assert, assertEquals } from "@std/assert";
import type { LinkKey, TagPageOptions } from "../../../lib/cache/index/index.ts";
import { type HeldImage, Inventory, type Selection } from "../../../lib/cache/content/inventory.ts";
import { removeImages } from "../../../lib/cache/content/removal.ts";
import { parsePlatforms } from "../../../lib/oci/platform.ts";
import { warm } from "../../../lib/warm/warm.ts";
import { type FakeRegistry, startFakeRegistry } from "../../support/fake_registry.ts";
import { whole } from "../../support/http.ts";
import {
  makeImage,
  makeIndex,
  makeLayer,
  type Manifest,
  manifestsOf,
} from "../../support/image.ts";
import { startTestProxy, type TestProxy } from "../../support/proxy.ts";

const AMD64 = { os: "linux", architecture: "amd64" };
const ARM64 = { os: "linux", architecture: "arm64", variant: "v8" };

async function startBoth() {
  const docker = await startFakeRegistry();
  const proxy = await startTestProxy({ upstreams: { docker } });
  return {
    docker,
    proxy,
    async [Symbol.asyncDispose]() {
      await proxy.close();
      await docker.close();
    },
  };
}

function sourceOf({ proxy, config }: TestProxy) {
  const { store, index, content } = proxy.cache!;
  const remove = (digest: string) => content.remove(digest, "removed");
  return { store, index, registries: config.registries, remove };
}

async function list(proxy: TestProxy, selection?: Selection): Promise<HeldImage[]> {
  const images = await Array.fromAsync(new Inventory(sourceOf(proxy)).images(selection));
  return images.sort((a, b) => a.name.localeCompare(b.name));
}

const of = (docker: FakeRegistry, tag?: string): Selection => ({
  registry: docker.host,
  repository: "library/app",
  ...tag !== undefined && { tag },
});

Deno.test("an image is listed with its platforms, its size, and whether it is whole", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  const images = [AMD64, ARM64].map((platform, i) => makeImage({ platform, seed: i + 1 }));
  const index = makeIndex(images);
  docker.add("library/app", "1", index);
  await warm(proxy.proxy, ["app:1"], { platforms: parsePlatforms("linux/arm64") });
  const [part] = await list(proxy);
  assertEquals(
    [part!.name, part!.digest, part!.mediaType, part!.platforms, part!.isWhole],
    ["docker.io/library/app:1", index.digest, index.mediaType, ["linux/arm64/v8"], false],
  );
  const sizeOf = (image: typeof images[number]) =>
    image.size + image.blobs.reduce((sum, { size }) => sum + size, 0);
  assertEquals(part!.size, index.size + sizeOf(images[1]!));

  await warm(proxy.proxy, ["app:1"]);
  const [all] = await list(proxy);
  assertEquals([all!.platforms, all!.isWhole], [["linux/amd64", "linux/arm64/v8"], true]);
});

Deno.test("of an image without an index the config tells the platform", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  docker.add("library/app", "1", makeImage({ platform: ARM64 }));
  await warm(proxy.proxy, ["app:1"]);
  assertEquals((await list(proxy)).map(({ platforms }) => platforms), [["linux/arm64/v8"]]);
});

Deno.test("an image that says it runs on nothing has no platform", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  docker.add("library/app", "1", makeImage({ platform: { os: "", architecture: "" } }));
  await warm(proxy.proxy, ["app:1"]);
  assertEquals((await list(proxy)).map(({ platforms }) => platforms), [[]]);
});

Deno.test("an index that names a child a hundred times, and so do its children, is looked at once", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  let index: Manifest = makeImage({ platform: AMD64 });
  for (let depth = 0; depth < 3; depth++) index = makeIndex(new Array(100).fill(index));
  docker.add("library/app", "1", index);
  await warm(proxy.proxy, ["app:1"]);
  let lookups = 0;
  const source = sourceOf(proxy);
  const counted = {
    ...source,
    index: {
      tags: () => source.index.tags(),
      tagPage: (options: TagPageOptions) => source.index.tagPage(options),
      link: (key: LinkKey) => source.index.link(key),
      blob(digest: string) {
        // Looked at each time, these would be millions.
        assert(++lookups < 1_000);
        return source.index.blob(digest);
      },
    },
  };
  const [image] = await Array.fromAsync(new Inventory(counted).images());
  assertEquals([image!.platforms, image!.isWhole], [["linux/amd64"], true]);
});

Deno.test("a tag whose manifest was only asked about is listed as not whole", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  docker.add("library/app", "1", makeImage());
  await whole(`${proxy.url}/v2/library/app/manifests/1`, { method: "HEAD" });
  const [image] = await list(proxy);
  assertEquals([image!.isWhole, image!.size, image!.mediaType, image!.usedAt], [
    false,
    0,
    "",
    undefined,
  ]);
});

Deno.test("lists of referrers are no images", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  const image = makeImage();
  docker.add("library/app", "1", image);
  await warm(proxy.proxy, ["app:1"]);
  await whole(`${proxy.url}/v2/library/app/referrers/${image.digest}`);
  assertEquals((await list(proxy)).map(({ tag }) => tag), ["1"]);
});

Deno.test("looking at images is no use of them", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  docker.add("library/app", "1", makeImage());
  await warm(proxy.proxy, ["app:1"]);
  const { space } = proxy.proxy.cache!.content;
  await space.flush();
  const before = await Array.fromAsync(proxy.proxy.cache!.index.blobs());
  await list(proxy);
  await space.flush();
  assertEquals(await Array.fromAsync(proxy.proxy.cache!.index.blobs()), before);
});

Deno.test("a removed tag takes with it what no other tag needs, and is fetched again when asked for", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  const shared = makeLayer(new Uint8Array(50));
  const [one, two] = [1, 2].map((seed) => makeImage({ seed, layers: [shared, 1000] }));
  docker.add("library/app", "1", one!);
  docker.add("library/app", "3", two!);
  await warm(proxy.proxy, ["app:1", "app:3"]);
  const removal = await removeImages(sourceOf(proxy), of(docker, "1"));
  assertEquals(removal.images, ["docker.io/library/app:1"]);
  assertEquals((await list(proxy)).map(({ name, isWhole }) => [name, isWhole]), [
    ["docker.io/library/app:3", true],
  ]);
  const { index } = proxy.proxy.cache!;
  const gone = [one!.digest, ...one!.blobs.map(({ digest }) => digest)]
    .filter((digest) => !two!.blobs.some((blob) => blob.digest === digest));
  for (const digest of gone) assertEquals(await index.blob(digest), undefined);
  assertEquals(removal.entries, gone.length);
  assertEquals((await index.blob(shared.digest)) !== undefined, true);

  const again = await whole(`${proxy.url}/v2/library/app/manifests/1`);
  assertEquals([again.digest, again.headers.get("x-cache")], [one!.digest, "MISS"]);
});

Deno.test("a removed tag takes with it the signatures of what leaves, and no others", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  const [one, two, shared] = [1, 2, 3].map((seed) => makeImage({ seed }));
  const signature = (of: Manifest, suffix = ".sig") => of.digest.replace(":", "-") + suffix;
  docker.add("library/app", "1", one!);
  docker.add("library/app", "2", two!);
  docker.add("library/app", "index", makeIndex([shared!]));
  docker.add("library/app", "child", shared!);
  docker.add("library/other", "1", one!);
  let seed = 10;
  const sign = (of: Manifest, suffix?: string) => {
    const image = makeImage({ seed: seed++, layers: [100] });
    docker.add("library/app", signature(of, suffix), image);
    return image;
  };
  const signed = sign(one!);
  sign(one!, ".att");
  sign(signed); // a signature of the signature
  sign(two!);
  sign(shared!);
  await warm(proxy.proxy, ["app:1", "app:2", "app:index", "app:child", "other:1"]);
  assertEquals((await list(proxy)).length, 10);

  const removal = await removeImages(sourceOf(proxy), of(docker, "1"));
  assertEquals(
    removal.images.toSorted(),
    ["1", signature(one!), signature(one!, ".att"), signature(signed)]
      .map((tag) => `docker.io/library/app:${tag}`).toSorted(),
  );
  // What another tag of the repository refers to keeps its signatures.
  await removeImages(sourceOf(proxy), of(docker, "child"));
  assertEquals(
    (await list(proxy)).map(({ name }) => name),
    [
      "docker.io/library/app:2",
      "docker.io/library/app:index",
      ...[signature(two!), signature(shared!)].map((tag) => `docker.io/library/app:${tag}`).sort(),
      "docker.io/library/other:1",
    ],
  );
});

Deno.test("a removed repository takes all of its tags, and those of another stay", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  const index = makeIndex([makeImage({ seed: 1 }), makeImage({ seed: 2 })]);
  docker.add("library/app", "1", makeImage({ seed: 3 }));
  docker.add("library/app", "2", index);
  docker.add("library/other", "2", index);
  await warm(proxy.proxy, ["app:1", "app:2", "other:2"]);
  const removal = await removeImages(sourceOf(proxy), of(docker));
  assertEquals(removal.images.length, 2);
  assertEquals((await list(proxy)).map(({ name, isWhole }) => [name, isWhole]), [
    ["docker.io/library/other:2", true],
  ]);
  for (const { digest } of manifestsOf(index)) {
    const answer = await whole(`${proxy.url}/v2/library/other/manifests/${digest}`);
    assertEquals(answer.headers.get("x-cache"), "HIT");
  }
});

Deno.test("what is not here is not removed", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  const removal = await removeImages(sourceOf(proxy), of(docker, "1"));
  assertEquals(removal, { images: [], tags: 0, entries: 0, bytes: 0 });
});
