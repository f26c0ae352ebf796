import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { digestOf } from "../support/content.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { objectKey, startFakeS3 } from "../support/fake_s3.ts";
import { whole } from "../support/http.ts";
import { type Image, makeImage } from "../support/image.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";
import { until } from "../support/until.ts";

const REPOSITORY = "team/app";
const LARGE = 3_000_000;
const CREDENTIALS = { AWS_ACCESS_KEY_ID: "access", AWS_SECRET_ACCESS_KEY: "secret" };

/** A proxy whose store is an S3 service that can go wrong, with an image in it. */
async function setUp(env: Record<string, string> = {}) {
  const stack = new AsyncDisposableStack();
  const upstream = stack.use(await startFakeRegistry({ auth: "token", users: { ann: "a" } }));
  const s3 = stack.use(await startFakeS3());
  const image = makeImage({ layers: [LARGE, LARGE + 1] });
  upstream.add(REPOSITORY, "1", image);
  const proxy = stack.use(
    await startTestProxy({
      upstreams: { docker: upstream },
      env: { CACHE_STORE: s3.setting, ...CREDENTIALS, UPSTREAM_IDLE_TIMEOUT: "1s", ...env },
    }),
  );
  await pull(proxy, image);
  return { upstream, s3, image, proxy, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** Asks for a blob; if it is whole, its bytes are right. */
async function get(proxy: TestProxy, digest: string, headers: Record<string, string> = {}) {
  const answer = await whole(`${proxy.url}/v2/${REPOSITORY}/blobs/${digest}`, { headers });
  if (answer.status === 200) assertEquals(answer.digest, digest);
  return answer;
}

async function pull(proxy: TestProxy, image: Image): Promise<void> {
  await whole(`${proxy.url}/v2/${REPOSITORY}/manifests/1`);
  for (const { digest } of image.blobs) {
    assertEquals((await get(proxy, digest)).status, 200);
    await proxy.proxy.cache!.content.settled(digest);
  }
}

/** Large blobs of the image. */
function layersOf(image: Image): [string, string] {
  const [one, two] = image.blobs.filter(({ size }) => size >= LARGE);
  return [one!.digest, two!.digest];
}

const counted = ({ stats }: TestProxy) =>
  ["read_failed", "evicted_damaged", "store_down"].map((event) => stats.cacheEvents.get(event));

for (const fault of ["break", "stall", "slow"] as const) {
  Deno.test(`a blob with the fault ${fault} in the store comes whole, and the second time is replaced`, async () => {
    await using t = await setUp();
    const [digest, other] = layersOf(t.image);
    t.s3.spoil(digest, fault);
    const before = t.upstream.blobGets(digest);
    const first = await get(t.proxy, digest);
    assertEquals([first.status, first.headers.get("x-cache")], [200, "HIT"]);
    assertEquals(counted(t.proxy), [1, 0, 0]);
    const second = await get(t.proxy, digest);
    assertEquals([second.status, second.headers.get("x-cache")], [200, "HIT"]);
    assertEquals(counted(t.proxy), [2, 1, 0]);
    assertEquals(t.upstream.blobGets(digest) - before, 2);
    await t.proxy.proxy.cache!.content.settled(digest);
    // It is a new object, from the download that the second reader went on from.
    const third = await get(t.proxy, digest);
    assertEquals([third.status, third.headers.get("x-cache")], [200, "HIT"]);
    assertEquals(t.upstream.blobGets(digest) - before, 2);
    assertEquals((await get(t.proxy, other)).headers.get("x-cache"), "HIT");
  });
}

Deno.test("fifty readers of a blob that breaks off share the download that takes its place", async () => {
  await using t = await setUp();
  const [digest] = layersOf(t.image);
  t.s3.spoil(digest, "break");
  const before = t.upstream.blobGets(digest);
  const answers = await Promise.all(Array.from({ length: 50 }, () => get(t.proxy, digest)));
  assertEquals(new Set(answers.map(({ status }) => status)), new Set([200]));
  const asked = t.upstream.blobGets(digest) - before;
  assert(asked <= 3, `${asked} downloads`);
});

Deno.test("a part of a blob that breaks off comes whole, wherever it lies", async () => {
  await using t = await setUp();
  const [digest] = layersOf(t.image);
  const bytes = await t.s3.objects.get(objectKey(digest))!.bytes;
  const half = LARGE / 2;
  for (
    const [start, end] of [[half - 10, half + 10], [100, LARGE - 1], [half, LARGE - 1]] as const
  ) {
    t.s3.spoil(digest, "break", { times: 4 });
    const part = await get(t.proxy, digest, { range: `bytes=${start}-${end}` });
    assertEquals([part.status, part.bytes.byteLength], [206, end - start + 1]);
    assertEquals(part.bytes, bytes.slice(start, end + 1));
    await t.proxy.proxy.cache!.content.settled(digest);
  }
});

Deno.test("what the store gave wrong before it broke off is never completed", async () => {
  await using t = await setUp();
  const [digest] = layersOf(t.image);
  const key = objectKey(digest);
  const flipped = t.s3.objects.get(key)!.bytes.slice();
  flipped[1_000]! ^= 1;
  t.s3.objects.set(key, { bytes: flipped, at: Date.now() });
  t.s3.spoil(digest, "break");
  await assertRejects(() => get(t.proxy, digest));
  assertEquals(t.proxy.stats.cacheEvents.get("mismatch"), 1);
});

Deno.test("a client whose access ends in the middle gets no more of what the store does not give", async () => {
  await using t = await setUp();
  const secret = makeImage({ layers: [LARGE + 7] });
  t.upstream.add("team/secret", "1", secret, { readers: ["ann"] });
  const digest = secret.blobs.find(({ size }) => size >= LARGE)!.digest;
  const url = `${t.proxy.url}/v2/team/secret`;
  const headers = { authorization: `Basic ${btoa("ann:a")}` };
  const ask = () => whole(`${url}/blobs/${digest}`, { headers });
  await whole(`${url}/manifests/1`, { headers });
  assertEquals((await ask()).status, 200);
  await t.proxy.proxy.cache!.content.settled(digest);
  t.s3.spoil(digest, "break");
  assertEquals((await ask()).digest, digest);
  t.upstream.faults.add({}, { status: 401 });
  await assertRejects(ask);
});

Deno.test("one object's refusal takes the store from nobody: other blobs stay hits", async () => {
  await using t = await setUp();
  const [refused, other] = layersOf(t.image);
  for (const status of [403, 500]) {
    t.s3.spoil(refused, "status", { status });
    const before = t.upstream.blobGets(other);
    const pulls = Array.from({ length: 30 }, (_, n) => get(t.proxy, n % 3 === 0 ? refused : other));
    for (const { status, headers, digest } of await Promise.all(pulls)) {
      assertEquals(status, 200);
      if (digest === other) assertEquals(headers.get("x-cache"), "HIT");
    }
    assertEquals(t.upstream.blobGets(other), before);
    assertEquals(t.proxy.stats.cacheEvents.get("store_down"), 0);
    await t.proxy.proxy.cache!.content.settled(refused);
    assertEquals((await get(t.proxy, refused)).headers.get("x-cache"), "HIT");
  }
});

Deno.test("a manifest and a small blob that the store does not give come from upstream, and are replaced", async () => {
  await using t = await setUp();
  const { digest } = t.image;
  const small = t.image.blobs.find(({ size }) => size < 10_000)!.digest;
  const ask = async (path: string, headers: Record<string, string> = {}) => {
    const answer = await whole(`${t.proxy.url}/v2/${REPOSITORY}/${path}`, { headers });
    return [answer.status, answer.digest];
  };
  for (const fault of ["break", "status", "truncate", "flip"] as const) {
    // What is small stays in memory.
    await t.proxy.restart();
    for (const spoilt of [digest, small]) t.s3.spoil(spoilt, fault);
    for (let n = 0; n < 3; n++) {
      const accept = "application/vnd.oci.image.manifest.v1+json";
      assertEquals(await ask(`manifests/${digest}`, { accept }), [200, digest]);
      assertEquals(await ask(`blobs/${small}`), [200, small]);
      await t.proxy.proxy.cache!.content.settled(small);
    }
    for (const right of [digest, small]) {
      const object = await whole(`${t.s3.url}/cache/${objectKey(right)}`);
      assertEquals([object.status, object.digest], [200, right], fault);
    }
  }
});

Deno.test("while the store is down clients go on from upstream, and nothing is condemned", async () => {
  await using t = await setUp();
  const [digest] = layersOf(t.image);
  t.s3.spoil(digest, "break", { times: 1 });
  const outage = t.s3.faults.add({ range: true }, { hangUp: true });
  const probes = t.s3.faults.add({ reference: "registry/probe" }, { hangUp: true });
  assertEquals((await get(t.proxy, digest)).status, 200);
  assertEquals(counted(t.proxy), [0, 0, 1]);
  outage.remove();
  probes.remove();
  await until(async () => (await get(t.proxy, digest)).headers.get("x-cache") === "HIT");
  assertEquals(counted(t.proxy).slice(0, 2), [0, 0]);
});

Deno.test("with STORE_REDIRECT nobody is sent to an object that is cut short or gone, and it is fetched again", async () => {
  for (const fault of ["truncate", "gone"] as const) {
    await using t = await setUp({ STORE_REDIRECT: "true" });
    const [digest] = layersOf(t.image);
    if (fault === "gone") t.s3.objects.delete(objectKey(digest));
    else t.s3.spoil(digest, fault);
    const url = `${t.proxy.url}/v2/${REPOSITORY}/blobs/${digest}`;
    const answer = await fetch(url, { redirect: "manual" });
    assertEquals([answer.status, answer.headers.get("x-cache")], [200, "MISS"]);
    assertEquals(digestOf(await answer.bytes()), digest);
    await t.proxy.proxy.cache!.content.settled(digest);
    assertEquals(counted(t.proxy), [0, 1, 0]);
    const sent = await fetch(url, { redirect: "manual" });
    assertEquals([sent.status, sent.headers.get("x-cache")], [307, "HIT"]);
    assertEquals((await whole(sent.headers.get("location")!)).digest, digest);
  }
});

for (
  const [what, damage] of [
    ["cut short", (path: string) => Deno.truncate(path, LARGE / 2)],
    ["emptied", (path: string) => Deno.truncate(path, 0)],
    ["cut short and removed", async (path: string) => {
      await Deno.truncate(path, LARGE / 2);
      await Deno.remove(path);
    }],
  ] as const
) {
  Deno.test(`a file that is ${what} while a client reads it is read on from upstream`, async () => {
    await using upstream = await startFakeRegistry({ auth: "token" });
    const image = makeImage({ layers: [LARGE] });
    upstream.add(REPOSITORY, "1", image);
    await using proxy = await startTestProxy({ upstreams: { docker: upstream } });
    await pull(proxy, image);
    const digest = image.blobs.find(({ size }) => size >= LARGE)!.digest;
    const hex = digest.slice("sha256:".length);
    const path = join(proxy.cacheDir, "blobs", "sha256", hex.slice(0, 2), hex);
    const { cache } = proxy.proxy;
    const open = cache!.store.open.bind(cache!.store);
    // It happens after the first read, whatever buffers lie between here and the client.
    cache!.store.open = async (digest) => {
      const blob = (await open(digest))!;
      let isFirst = true;
      const read = blob.read.bind(blob);
      blob.read = async (offset, buffer) => {
        const n = await read(offset, buffer);
        if (isFirst) await damage(path);
        isFirst = false;
        return n;
      };
      return blob;
    };
    const answer = await get(proxy, digest);
    assertEquals([answer.status, answer.headers.get("x-cache")], [200, "HIT"]);
    assertEquals(upstream.blobGets(digest), 2);
    cache!.store.open = open;
    await cache!.content.settled(digest);
    assertEquals((await get(proxy, digest)).headers.get("x-cache"), "HIT");
  });
}
