/**
 * Two thousand random pulls through a proxy whose upstream fails in every way it can, by a seeded schedule:
 * whatever a client completes is right, byte for byte.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { randomOf } from "../support/content.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import type { Fault } from "../support/faults.ts";
import { whole } from "../support/http.ts";
import { blobsOf, bytesOf, makeImage, type Manifest } from "../support/image.ts";
import { startTestProxy } from "../support/proxy.ts";

const PULLS = 2_000;
const AT_ONCE = 16;
const ACCEPT = { accept: "application/vnd.oci.image.manifest.v1+json" };

/** What an upstream does to one request in four. */
function faultFor(kind: string, random: () => number): Fault | undefined {
  if (random() < 0.75) return undefined;
  const at = Math.floor(random() * 60_000);
  const faults: readonly Fault[] = [
    { hangUp: true },
    { status: 500 },
    { status: 503 },
    { delay: random() * 20 },
    { headers: { "x-odd": "1", etag: null } },
    ...kind === "blob"
      ? [
        { cutAt: at },
        { resetAt: at },
        { cutAt: at, ignoreRange: true },
        { corruptAt: at },
        { truncateTo: at },
        { contentLength: null },
        { extra: 10 },
      ]
      : [],
  ];
  return faults[Math.floor(random() * faults.length)];
}

Deno.test("of 2,000 random pulls through a failing upstream every completed byte is right", async () => {
  const seed = Number(Deno.env.get("FAULTS_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0]);
  const random = randomOf(seed);
  await using registry = await startFakeRegistry({ auth: "token" });
  const images: Manifest[] = Array.from(
    { length: 12 },
    (_, i) => makeImage({ seed: i + 1, layers: [1_000, 30_000, 80_000] }),
  );
  images.forEach((image, i) => registry.add(`team/app${i}`, "1", image));
  registry.faults.schedule(
    seed,
    ({ kind }, random) =>
      kind === "blob" || kind === "manifest" ? faultFor(kind, random) : undefined,
  );
  // Small enough that content leaves and comes again all the time.
  await using proxy = await startTestProxy({
    upstreams: { docker: registry },
    env: { CACHE_MAX_SIZE: "400KiB", CACHE_MANIFEST_TTL: "1s" },
  });
  let completed = 0;
  let broken = 0;

  async function pull(): Promise<void> {
    const i = Math.floor(random() * images.length);
    const image = images[i]!;
    const isManifest = random() < 0.2;
    const blob = blobsOf(image)[Math.floor(random() * blobsOf(image).length)]!;
    const expected = isManifest ? image.manifest : bytesOf(blob);
    const start = Math.floor(random() * expected.byteLength);
    const isRanged = !isManifest && random() < 0.3;
    const path = isManifest ? "manifests/1" : `blobs/${blob.digest}`;
    try {
      const answer = await whole(`${proxy.url}/v2/team/app${i}/${path}`, {
        headers: { ...ACCEPT, ...isRanged && { range: `bytes=${start}-` } },
      });
      const about = `${path} of app${i}; FAULTS_SEED=${seed}`;
      // A part that does not come by way of a fill is upstream's word: only a whole can be hashed.
      const isVerified = answer.status === 200 || answer.headers.get("x-cache") !== "BYPASS";
      if (!isVerified) {
        broken++;
        return;
      }
      if (answer.status === 206) assertEquals(answer.bytes, expected.subarray(start), about);
      else if (answer.status === 200) assertEquals(answer.bytes, expected, about);
      else assert(answer.status === 401 || answer.status >= 500, `${answer.status}: ${about}`);
      if (answer.status < 300) completed++;
      else broken++;
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // the connection broke, as it must
      broken++;
    }
  }

  let left = PULLS;
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    while (left-- > 0) await pull();
  }));
  assertEquals(completed + broken, PULLS);
  assert(completed > PULLS / 2, `Only ${completed} of ${PULLS} completed; FAULTS_SEED=${seed}`);
  // What is stored is right too.
  for await (const row of proxy.proxy.cache!.index.blobs()) {
    assertEquals(await proxy.proxy.cache!.content.check(row), "right");
  }
});
