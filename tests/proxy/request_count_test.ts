/**
 * How many requests common pulls cost upstream. Proof of access has a price; these tests say what it is, so that no
 * change raises it unseen.
 */
import { assertEquals } from "@std/assert";
import { moveClock } from "../support/clock.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import {
  blobsOf,
  type Image,
  makeImage,
  makeIndex,
  makeLayer,
  type Manifest,
} from "../support/image.ts";
import { randomBytes } from "../support/content.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";

const HOUR = 60 * 60_000;
const base = makeLayer(randomBytes(300_000, 1), "base");
const first = makeImage({ seed: 1, layers: [base, 70_000] });
const other = makeImage({
  seed: 2,
  layers: [1000],
  platform: { os: "linux", architecture: "s390x" },
});
const index = makeIndex([first, other]);
const second = makeImage({ seed: 3, layers: [base, 2000] });

/** A public registry that wants tokens, as Docker Hub does. */
async function setUp() {
  const docker = await startFakeRegistry({ auth: "token" });
  docker.add("library/first", "1", index);
  docker.add("library/second", "1", second);
  const proxy = await startTestProxy({ upstreams: { docker } });
  // What the registry asks for is known after its first 401.
  await whole(`${proxy.url}/v2/`);
  docker.log.length = 0;
  return {
    docker,
    proxy,
    async [Symbol.asyncDispose]() {
      await proxy.close();
      await docker.close();
    },
  };
}

/** What upstream was asked since the last look, blobs in order of their digests, tokens apart. */
function asked({ log }: FakeRegistry): { tokens: number; requests: string[] } {
  const entries = log.splice(0);
  const requests = entries.filter(({ kind }) => kind !== "token").map(({ method, kind, status }) =>
    `${method} ${kind} ${status}`
  );
  return { tokens: entries.length - requests.length, requests };
}

async function get(proxy: TestProxy, path: string, method = "GET"): Promise<void> {
  const { status } = await whole(`${proxy.url}/v2/library/${path}`, { method });
  assertEquals([path, status], [path, 200]);
}

/** The order in which clients ask: for a tag, by GET or by HEAD first, then by digest. */
async function pull(
  proxy: TestProxy,
  { name, root, image, byHead }: { name: string; root: Manifest; image: Image; byHead: boolean },
): Promise<void> {
  await get(proxy, `${name}/manifests/1`, byHead ? "HEAD" : "GET");
  if (byHead) await get(proxy, `${name}/manifests/${root.digest}`);
  if (root !== image) await get(proxy, `${name}/manifests/${image.digest}`);
  await Promise.all(blobsOf(image).map(({ digest }) => get(proxy, `${name}/blobs/${digest}`)));
  for (const { digest } of blobsOf(image)) await proxy.proxy.cache!.content.settled(digest);
}

const INDEX = { name: "first", root: index, image: first };
const BLOBS = ["GET blob 200", "GET blob 200", "GET blob 200"];
const TTL = 10 * 60_000;

for (const byHead of [false, true]) {
  const how = byHead ? "a tag by HEAD first, as containerd does," : "a tag by GET";
  Deno.test(`a first pull that asks for ${how} costs one HEAD in all, and the next ones nothing`, async () => {
    using clock = moveClock();
    await using all = await setUp();
    const { docker, proxy } = all;
    await pull(proxy, { ...INDEX, byHead });
    assertEquals(asked(docker), {
      tokens: 1,
      requests: ["HEAD manifest 200", "GET manifest 200", "GET manifest 200", ...BLOBS],
    });
    for (let i = 0; i < 2; i++) {
      await pull(proxy, { ...INDEX, byHead: i === 0 });
      assertEquals(asked(docker), { tokens: 0, requests: [] });
    }
    // A tag that is old costs a HEAD; so does the proof that everybody may read, at the same time.
    for (const time of [TTL, 2 * HOUR]) {
      clock.pass(time);
      await pull(proxy, { ...INDEX, byHead });
      // Not counted: what the registry asks for may have to be learned anew.
      const requests = asked(docker).requests.filter((request) => !request.endsWith("401"));
      assertEquals(requests, ["HEAD manifest 200"]);
    }
  });
}

Deno.test("a layer that another repository of the registry brought costs 8 KiB of it, once", async () => {
  await using all = await setUp();
  const { docker, proxy } = all;
  await pull(proxy, { ...INDEX, byHead: false });
  asked(docker);
  const image = { name: "second", root: second, image: second, byHead: false };
  await pull(proxy, image);
  const sent = docker.log.filter(({ reference }) => reference === base.digest);
  assertEquals(sent.map(({ method, status, bytes }) => [method, status, bytes]), [
    ["GET", 206, 8192],
  ]);
  const { tokens, requests } = asked(docker);
  assertEquals([tokens, requests.length, requests.slice(0, 2)], [
    1,
    5,
    ["HEAD manifest 200", "GET manifest 200"],
  ]);
  await pull(proxy, image);
  assertEquals(asked(docker), { tokens: 0, requests: [] });
});

Deno.test("fifty clients at once cost what one does", async () => {
  await using all = await setUp();
  const { docker, proxy } = all;
  await Promise.all(Array.from({ length: 50 }, () => pull(proxy, { ...INDEX, byHead: false })));
  assertEquals(asked(docker), {
    tokens: 1,
    requests: ["HEAD manifest 200", "GET manifest 200", "GET manifest 200", ...BLOBS],
  });
});
