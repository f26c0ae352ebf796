import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { OciError } from "../../lib/oci/error.ts";
import type { Platforms } from "../../lib/oci/platform.ts";
import { warm, type WarmProgress } from "../../lib/warm/warm.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake_registry.ts";
import { startFakeStorage } from "../support/fake_storage.ts";
import { type Whole, whole } from "../support/http.ts";
import { blobsOf, makeArtifact, makeImage, makeIndex, manifestsOf } from "../support/image.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";

const AMD64 = { os: "linux", architecture: "amd64" };
const ARM64 = { os: "linux", architecture: "arm64", variant: "v8" };
const ARM = { os: "linux", architecture: "arm", variant: "v7" };

/** An index of three platforms, with a layer that two of them share. */
function makeMultiArch() {
  const images = [AMD64, ARM64, ARM].map((platform, i) =>
    makeImage({ platform, layers: [2000, 90_000 + i], seed: i + 1 })
  );
  return { images, index: makeIndex(images) };
}

async function startBoth(env: Record<string, string> = {}) {
  const docker = await startFakeRegistry();
  const proxy = await startTestProxy({ upstreams: { docker }, env });
  return {
    docker,
    proxy,
    async [Symbol.asyncDispose]() {
      await proxy.close();
      await docker.close();
    },
  };
}

const warmAll = (proxy: TestProxy, image: string, platforms?: Platforms) =>
  warm(proxy.proxy, [image], { platforms }).then(([result]) => result!);

const get = (proxy: TestProxy, path: string): Promise<Whole> =>
  whole(`${proxy.url}/v2/library/app/${path}`);

/** Upstream is gone: no connection is accepted any more. */
const takeDown = (docker: FakeRegistry) => docker.close();

/** What oras asks about to see whether a registry lists referrers. */
const NOTHING = `sha256:${"0".repeat(64)}`;

Deno.test("the result of warming includes the content of referrer lists", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  docker.add("library/app", "1", makeImage());
  const { lists, digests } = await warmAll(proxy, "app:1");
  assert(lists.length > 0);
  for (const list of lists) {
    assert(!digests.includes(list));
    assert(await proxy.proxy.cache!.content.row(list));
  }
});

Deno.test("a warmed index is closed: with upstream gone, everything it refers to is served", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  const { index } = makeMultiArch();
  docker.add("library/app", "1", index);
  const result = await warmAll(proxy, "app:1");
  assertEquals([result.image, result.ok, result.failures], ["docker.io/library/app:1", true, []]);
  assertEquals(result.digest, index.digest);
  await takeDown(docker);

  assertEquals((await get(proxy, "manifests/1")).digest, index.digest);
  for (const { digest } of manifestsOf(index)) {
    assertEquals((await get(proxy, `manifests/${digest}`)).digest, digest);
  }
  for (const { digest } of blobsOf(index)) {
    assertEquals((await get(proxy, `blobs/${digest}`)).digest, digest);
  }
});

Deno.test("only the wanted platforms' children are fetched, of each with all variants", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  const { images: [amd64, arm64, arm], index } = makeMultiArch();
  docker.add("library/app", "1", index);
  const result = await warmAll(proxy, "app:1", ["linux/amd64", "linux/arm64"]);
  assert(result.ok);
  for (const image of [amd64!, arm64!]) {
    for (const { digest } of image.blobs) assertEquals(docker.blobGets(digest), 1);
  }
  assertEquals(docker.count({ kind: "manifest", reference: arm!.digest }), 0);
  for (const { digest } of arm!.blobs) assertEquals(docker.blobGets(digest), 0);
});

Deno.test("a platform that an index does not have is a failure", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  docker.add("library/app", "1", makeMultiArch().index);
  const result = await warmAll(proxy, "app:1", ["linux/s390x"]);
  assertEquals(result.ok, false);
  assertMatch(result.failures[0]!.error, /none of linux\/s390x/);
});

Deno.test("warming again asks what the tag means now and fetches nothing that is here", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  docker.add("library/app", "1", makeImage({ seed: 1 }));
  await warmAll(proxy, "app:1");
  const [pulls, blobs] = [docker.pulls, docker.count({ kind: "blob" })];
  const again = await warmAll(proxy, "app:1");
  assertEquals([again.ok, again.fetched], [true, 0]);
  assertEquals([docker.pulls, docker.count({ kind: "blob" })], [pulls, blobs]);

  const moved = makeImage({ seed: 2 });
  docker.add("library/app", "1", moved);
  const third = await warmAll(proxy, "app:1");
  assertEquals([third.ok, third.digest], [true, moved.digest]);
  assertEquals((await get(proxy, "manifests/1")).digest, moved.digest);
});

Deno.test("what is attached by the referrers API comes along, and its list is served without upstream", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  const image = makeImage();
  const signature = makeArtifact(image, { artifactType: "application/vnd.test.signature" });
  const sbom = makeArtifact(image, { artifactType: "application/vnd.test.sbom", seed: 2 });
  docker.add("library/app", "1", image);
  docker.add("library/app", undefined, signature);
  docker.add("library/app", undefined, sbom);
  assert((await warmAll(proxy, "app:1")).ok);
  await takeDown(docker);

  const list = await get(proxy, `referrers/${image.digest}`);
  assertEquals([list.status, list.headers.get("x-cache")], [200, "STALE"]);
  const none = await get(proxy, `referrers/${NOTHING}`);
  assertEquals([none.status, none.json.manifests], [200, []]);
  const digests = list.json.manifests.map(({ digest }: { digest: string }) => digest);
  assertEquals(digests.sort(), [signature.digest, sbom.digest].sort());
  for (const { digest, blobs } of [signature, sbom]) {
    assertEquals((await get(proxy, `manifests/${digest}`)).digest, digest);
    for (const blob of blobs) {
      assertEquals((await get(proxy, `blobs/${blob.digest}`)).digest, blob.digest);
    }
  }
  const type = "application/vnd.test.sbom";
  const filtered = await get(proxy, `referrers/${image.digest}?artifactType=${type}`);
  assertEquals(filtered.json.manifests.length, 1);
  assertEquals(filtered.headers.get("oci-filters-applied"), "artifactType");
});

Deno.test("without the referrers API the fallback tag is warmed, and clients are still told to look for it", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  docker.control.referrers = "missing";
  const image = makeImage();
  const sbom = makeArtifact(image);
  const tag = image.digest.replace(":", "-");
  docker.add("library/app", "1", image);
  docker.add("library/app", tag, makeIndex([sbom]));
  assert((await warmAll(proxy, "app:1")).ok);
  await takeDown(docker);

  assertEquals((await get(proxy, `referrers/${image.digest}`)).status, 404);
  // Who wants to know first whether there is such an API is told so too.
  assertEquals((await get(proxy, `referrers/${NOTHING}`)).status, 404);
  assertEquals((await get(proxy, `manifests/${tag}`)).status, 200);
  assertEquals((await get(proxy, `manifests/${sbom.digest}`)).digest, sbom.digest);
});

Deno.test("what is not attached to a warmed image is known to be nowhere while upstream is away", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  docker.control.referrers = "missing";
  const image = makeImage();
  docker.add("library/app", "1", image);
  assert((await warmAll(proxy, "app:1")).ok);
  await takeDown(docker);
  const tag = image.digest.replace(":", "-");
  for (const suffix of ["", ".sig", ".att", ".sbom"]) {
    assertEquals((await get(proxy, `manifests/${tag}${suffix}`)).status, 404, suffix);
  }
  // Of anything else nobody knows.
  assertEquals((await get(proxy, "manifests/2")).status, 502);
  assertEquals((await get(proxy, `manifests/${tag}.other`)).status, 502);
  assertEquals((await get(proxy, `manifests/sha256-${"0".repeat(64)}.sig`)).status, 502);
});

Deno.test("a signature that comes later is found, and what is gone with its image is not remembered", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  const image = makeImage();
  docker.add("library/app", "1", image);
  const tag = `${image.digest.replace(":", "-")}.sig`;
  const status = async () => (await get(proxy, `manifests/${tag}`)).status;
  await warmAll(proxy, "app:1");
  assertEquals(await status(), 404);
  docker.add("library/app", tag, makeImage({ seed: 9 }));
  assertEquals(await status(), 200);
  docker.untag("library/app", tag);
  const { cache } = proxy.proxy;
  await cache!.content.remove(image.digest, "removed");
  const tags = await Array.fromAsync(cache!.index.tags());
  assertEquals(tags.filter(({ tag }) => tag.startsWith("referrers/absent/")), []);
});

for (const suffix of [".sig", ".att", ".sbom"]) {
  Deno.test(`cosign's ${suffix} tag is warmed with its content`, async () => {
    await using both = await startBoth();
    const { docker, proxy } = both;
    const image = makeImage();
    const attached = makeArtifact(undefined, { seed: 7 });
    docker.add("library/app", "1", image);
    docker.add("library/app", image.digest.replace(":", "-") + suffix, attached);
    assert((await warmAll(proxy, "app:1")).ok);
    await takeDown(docker);
    const tag = image.digest.replace(":", "-") + suffix;
    assertEquals((await get(proxy, `manifests/${tag}`)).digest, attached.digest);
    for (const { digest } of attached.blobs) {
      assertEquals((await get(proxy, `blobs/${digest}`)).digest, digest);
    }
  });
}

Deno.test("each layer reports that it waits, how far it is, and that it is here", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  const image = makeImage({ layers: [3 * 2 ** 20] });
  docker.add("library/app", "1", image);
  const seen: WarmProgress[] = [];
  await warm(proxy.proxy, ["app:1"], { onProgress: (progress) => seen.push(progress) });
  const [layer] = image.layers;
  const steps = seen.filter(({ reference }) => reference === layer!.digest);
  assertEquals(steps.at(0), {
    image: "docker.io/library/app:1",
    role: "layer",
    reference: layer!.digest,
    platform: undefined,
    state: "waiting",
    received: 0,
    size: layer!.size,
  });
  assert(steps.some(({ state, received }) => state === "running" && received > 2 ** 20));
  assertEquals(steps.at(-1)?.state, "fetched");
  assertEquals(steps.at(-1)?.received, layer!.size);
  await warm(proxy.proxy, ["app:1"], { onProgress: (progress) => seen.push(progress) });
  assertEquals(seen.findLast(({ role }) => role === "layer")?.state, "here");
});

Deno.test("one missing layer fails its image and nothing else", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  const [broken, whole] = [makeImage({ seed: 1 }), makeImage({ seed: 2 })];
  docker.add("library/app", "1", broken);
  docker.add("library/app", "2", whole);
  docker.faults.add({ reference: broken.layers[0]!.digest }, { status: 404 });
  const [first, second] = await warm(proxy.proxy, ["app:1", "app:2"]);
  assertEquals(first!.ok, false);
  assertEquals(first!.failures.map(({ role, reference }) => [role, reference]), [
    ["layer", broken.layers[0]!.digest],
  ]);
  assert(second!.ok);
});

Deno.test("invalid names are results, not exceptions", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  docker.add("library/app", "1", makeImage());
  const results = await warm(proxy.proxy, ["no.such.host/x", "app:missing", "app:1"]);
  assertEquals(results.map(({ ok }) => ok), [false, false, true]);
});

Deno.test("while upstream is down, a warm image is kept and reported as not refreshed", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  docker.add("library/app", "1", makeImage());
  await warmAll(proxy, "app:1");
  docker.control.failWith = 503;
  const result = await warmAll(proxy, "app:1");
  assertEquals(result.ok, false);
  assertMatch(result.failures[0]!.error, /kept the cached version/);
});

Deno.test("storage redirects are followed even where clients are sent there themselves", async () => {
  await using storage = await startFakeStorage({ hostname: "127.0.0.2" });
  await using docker = await startFakeRegistry({ storage });
  await using proxy = await startTestProxy({
    upstreams: { docker },
    env: {
      FOLLOW_ALL_REDIRECTS: "false",
      STORAGE_HOSTS: "127.0.0.2",
      ALLOW_PRIVATE_NETWORKS: "true",
    },
  });
  const image = makeImage();
  docker.add("library/app", "1", image);
  assert((await warmAll(proxy, "app:1")).ok);
  for (const { digest } of image.blobs) {
    assertEquals((await get(proxy, `blobs/${digest}`)).headers.get("x-cache"), "HIT");
  }
});

Deno.test("a private repository is warmed with the operator's account, and still shown to nobody else", async () => {
  await using docker = await startFakeRegistry({ auth: "token", users: { op: "secret" } });
  await using proxy = await startTestProxy({
    upstreams: { docker },
    env: { UPSTREAM_DOCKER_USERNAME: "op", UPSTREAM_DOCKER_PASSWORD: "secret" },
  });
  const image = makeImage();
  docker.add("library/app", "1", image, { readers: ["op"] });
  const result = await warmAll(proxy, "app:1");
  assertEquals([result.ok, result.failures], [true, []]);
  assertEquals((await get(proxy, "manifests/1")).status, 401);
  assertEquals((await get(proxy, `blobs/${image.layers[0]!.digest}`)).status, 401);
  // Nor what it has no signatures of, and whether its registry lists them.
  await takeDown(docker);
  const tag = image.digest.replace(":", "-");
  for (
    const path of [`manifests/${tag}.sig`, `referrers/${image.digest}`, `referrers/${NOTHING}`]
  ) {
    assertEquals((await get(proxy, path)).status, 502, path);
  }
});

Deno.test("content that does not fit is a failure", async () => {
  await using both = await startBoth({ CACHE_MAX_SIZE: "64KiB" });
  const { docker, proxy } = both;
  const image = makeImage({ layers: [2 ** 20] });
  docker.add("library/app", "1", image);
  const result = await warmAll(proxy, "app:1");
  assertEquals(result.failures.map(({ role }) => role), ["layer"]);
  assertMatch(result.failures[0]!.error, /the cache is full/);
});

Deno.test("an aborted warming rejects with its reason", async () => {
  await using both = await startBoth();
  const { docker, proxy } = both;
  docker.add("library/app", "1", makeMultiArch().index);
  const controller = new AbortController();
  const warming = warm(proxy.proxy, ["app:1"], {
    signal: controller.signal,
    onProgress: () => controller.abort(new Error("Enough")),
  });
  await assertRejects(() => warming, Error, "Enough");
});

Deno.test("warming fails if the cache is off", async () => {
  await using docker = await startFakeRegistry();
  await using proxy = await startTestProxy({
    upstreams: { docker },
    env: { CACHE_ENABLED: "false" },
  });
  await assertRejects(() => warm(proxy.proxy, ["app:1"]), OciError, "cache is off");
});
