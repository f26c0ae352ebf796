/**
 * Two thousand random pulls from an upstream that fails in every way it can, by a seeded schedule, and every
 * byte that a client gets is looked at. `FAULTS_SEED=<n>` runs the schedule of an earlier failure again.
 */
import { Buffer } from "node:buffer";
import { assert, assertEquals } from "@std/assert";
import { canOwnTls } from "../../lib/server/listener.ts";
import { bytesOf, type Content, contentOf, randomBytes, randomOf } from "../support/content.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake_registry.ts";
import { type FakeStorage, startFakeStorage } from "../support/fake_storage.ts";
import type { Fault, FaultSubject } from "../support/faults.ts";
import { makeImage, type Manifest } from "../support/image.ts";
import { type ListenerName, LISTENERS, startListener } from "../support/listeners.ts";

const PULLS = 2000;
const AT_ONCE = 24;
const REPOSITORY = "library/soak";

type Random = () => number;

function below(random: Random, n: number): number {
  return Math.floor(random() * n);
}

function pick<T>(random: Random, from: readonly T[]): T {
  return from[below(random, from.length)]!;
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(b);
}

/** What is pulled: blobs of all sizes, and images whose tags move. */
function makeContent(random: Random) {
  const sizes = [0, 1, 2, 1000, 65_535, 65_536, 65_537, 262_144, 262_145, 1_500_000];
  for (let i = 0; i < 30; i++) sizes.push(below(random, 400_000));
  const blobs = sizes.map((size, i) => contentOf(randomBytes(size, i + 1)));
  const images = Array.from({ length: 8 }, (_, i) => makeImage({ seed: i + 1, layers: [2000] }));
  return { blobs, images };
}

/** A fault of one blob download, and whether bytes are wrong after it. */
function blobFault(random: Random): { fault?: Fault; spoils?: boolean } {
  if (random() > 0.35) return {};
  const at = below(random, 400_000);
  const spoiling: Fault[] = [
    { corruptAt: at },
    { contentLength: null, corruptAt: at },
    { body: "<html>Please log in</html>" },
    { gzip: true },
    { body: "" },
    { extra: 1 + below(random, 1000) },
  ];
  if (random() < 0.25) return { fault: pick(random, spoiling), spoils: true };
  const harmless: Fault[] = [
    { resetAt: at },
    { cutAt: at },
    { stallAt: at },
    { stallAt: at, stallFor: 50 },
    { hangUp: true },
    { delay: below(random, 100) },
    { status: pick(random, [429, 500, 502, 503, 504]) },
    { ignoreRange: true },
    { ignoreRange: true, resetAt: at },
    { contentLength: null },
    { contentLength: null, resetAt: at },
    { contentLength: at + 1 },
    { truncateTo: at },
    { rate: 2_000_000 },
  ];
  return { fault: pick(random, harmless) };
}

function otherFault(random: Random): Fault | undefined {
  const faults: Fault[] = [
    { hangUp: true },
    { cutAt: 10 },
    { status: 429 },
    { status: 503 },
    { body: "no manifest" },
    { corruptAt: 5 },
    { delay: 20 },
    { truncateTo: 20 },
  ];
  return random() < 0.25 ? pick(random, faults) : undefined;
}

/** What one pull came to, for the statistics that say whether the soak soaked. */
type Outcome = "whole" | "part" | "head" | "left" | "broken" | "refused" | "manifest";

/** Everything one soak needs. */
interface Soak {
  readonly listener: ListenerName;
  readonly random: Random;
  readonly blobs: readonly Content[];
  readonly images: readonly Manifest[];
  /** Digests of which upstream has sent wrong bytes at least once. */
  readonly spoiled: Set<string>;
  get(path: string, init?: RequestInit): Promise<Response>;
}

/** Reads up to `most` bytes. */
async function read(response: Response, most = Infinity) {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  let isWhole = true;
  try {
    for await (const chunk of response.body ?? []) {
      chunks.push(chunk);
      length += chunk.byteLength;
      if (length >= most) break; // leaves: the body is cancelled
    }
  } catch {
    isWhole = false;
  }
  return { bytes: await new Blob(chunks).bytes(), isWhole };
}

async function assertRefusal(response: Response, allowed: readonly number[]): Promise<void> {
  assert(allowed.includes(response.status), `status ${response.status}`);
  const { errors } = await response.json();
  assertEquals(typeof errors[0].code, "string");
}

async function pullManifest({ random, images, get }: Soak): Promise<Outcome> {
  const n = below(random, images.length);
  const image = images[n]!;
  const byTag = random() < 0.6;
  const method = random() < 0.3 ? "HEAD" : "GET";
  const reference = byTag ? `tag${n}` : image.digest;
  const response = await get(`/v2/${REPOSITORY}/manifests/${reference}`, { method });
  if (response.status !== 200) {
    if (method === "HEAD") assert([429, 502, 504].includes(response.status));
    else await assertRefusal(response, [429, 502, 504]);
    return "refused";
  }
  const { bytes, isWhole } = await read(response);
  assert(isWhole, "a manifest broke off");
  const digest = response.headers.get("docker-content-digest");
  // A tag moves between two images.
  const meant = byTag ? [image, images[(n + 1) % images.length]!] : [image];
  const found = meant.find((one) => one.digest === digest);
  assert(found, `digest ${digest}`);
  // What is not here is as long as upstream's HEAD says.
  if (method === "GET" || response.headers.get("x-cache") === "HIT") {
    assertEquals(response.headers.get("content-length"), String(found.size));
  }
  assert(equal(bytes, method === "GET" ? found.manifest : new Uint8Array()), "wrong manifest");
  return "manifest";
}

async function pullBlob(soak: Soak): Promise<Outcome> {
  const { random, blobs, spoiled, get } = soak;
  const blob = pick(random, blobs);
  const all = bytesOf(blob);
  const { size } = blob;
  const path = `/v2/${REPOSITORY}/blobs/${blob.digest}`;
  const kind = random();
  if (kind < 0.08) {
    const response = await get(path, { method: "HEAD" });
    if (response.status !== 200) {
      assert([429, 502, 504].includes(response.status), `HEAD ${response.status}`);
      return "refused";
    }
    assertEquals(response.headers.get("docker-content-digest"), blob.digest);
    return "head";
  }
  const isRanged = kind < 0.35 && size > 0;
  const [a, b] = [below(random, size), below(random, size)];
  const [start, end] = isRanged ? [Math.min(a, b), Math.max(a, b)] : [0, size - 1];
  const headers: { range?: string } = isRanged ? { range: `bytes=${start}-${end}` } : {};
  const leavesAfter = random() < 0.1 ? below(random, size) : Infinity;
  let response: Response;
  try {
    response = await get(path, { headers });
  } catch (error) {
    // A reset stream of HTTP/2 takes with it what was not sent yet, the status too. So does any connection of
    // `Deno.serve` in 2.5, which serves TLS then.
    const mayLose = soak.listener === "Deno's HTTP/2" ||
      soak.listener !== "our HTTP/1" && !canOwnTls();
    assert(mayLose, (error as Error).message);
    return "broken";
  }
  if (response.status !== 200 && response.status !== 206) {
    // 416 where upstream says that there is less than there is.
    await assertRefusal(response, isRanged ? [416, 429, 502, 504] : [429, 502, 504]);
    return "refused";
  }
  const part = response.status === 206 ? all.subarray(start, end + 1) : all;
  const { bytes, isWhole } = await read(response, leavesAfter);
  const isRight = equal(bytes, part.subarray(0, bytes.byteLength));
  // What is verified only at the end may have been wrong before, but only if upstream sent it so.
  const mayBeWrong = spoiled.has(blob.digest);
  assert(isRight || mayBeWrong, "wrong bytes that upstream never sent");
  if (bytes.byteLength >= leavesAfter) return "left";
  if (!isWhole) return "broken";
  // A client that has the last byte has the right ones.
  const hasLast = response.status === 200 || end === size - 1;
  const told = `${response.status}, ${response.headers.get("x-cache")}, ${headers.range ?? "all"}`;
  if (hasLast) assert(isRight, `the end of wrong bytes: ${told} of ${size}`);
  assertEquals(bytes.byteLength, part.byteLength, `complete, and not of the right length`);
  return response.status === 206 ? "part" : "whole";
}

/** Sets upstream's and storage's faults going. */
function startFaults(
  { random, spoiled }: Pick<Soak, "random" | "spoiled">,
  { upstream, storage }: { upstream: FakeRegistry; storage: FakeStorage },
): void {
  const schedule = (subject: FaultSubject) => {
    if (subject.kind === "blob" || subject.kind === "storage") {
      upstream.control.redirectBlobs = pick(random, ["none", "storage", "relative"]);
      const { fault, spoils } = blobFault(random);
      // On the registry's own origin a signed URL does not tell what it is for.
      if (spoils && subject.reference === undefined) return undefined;
      if (spoils) spoiled.add(subject.reference!);
      return fault;
    }
    return otherFault(random);
  };
  upstream.faults.schedule(0, schedule);
  storage.faults.schedule(0, schedule);
}

async function checkDisk(cacheDir: string, maxSize: number): Promise<void> {
  let total = 0;
  for await (const folder of Deno.readDir(`${cacheDir}/blobs/sha256`)) {
    for await (const { name } of Deno.readDir(`${cacheDir}/blobs/sha256/${folder.name}`)) {
      const bytes = await Deno.readFile(`${cacheDir}/blobs/sha256/${folder.name}/${name}`);
      assertEquals(contentOf(bytes).digest, `sha256:${name}`, "a stored file is not its digest");
      total += bytes.byteLength;
    }
  }
  assert(total <= maxSize, `${total} bytes are stored`);
  assertEquals(await Array.fromAsync(Deno.readDir(`${cacheDir}/fills`)), []);
}

async function runSoak(seed: number, listener: ListenerName, pulls: number): Promise<void> {
  const random = randomOf(seed);
  const maxSize = 5_000_000;
  const { blobs, images } = makeContent(random);
  const storage = await startFakeStorage();
  const upstream = await startFakeRegistry({ storage, auth: "token" });
  const env = {
    ALLOW_PRIVATE_NETWORKS: "true",
    CACHE_MAX_SIZE: String(maxSize),
    CACHE_MANIFEST_TTL: "0.1s",
    UPSTREAM_IDLE_TIMEOUT: "0.2s",
  };
  const test = await startListener(listener, { upstreams: { docker: upstream }, env });
  try {
    for (const blob of blobs) upstream.addBlob(REPOSITORY, blob);
    for (const [n, image] of images.entries()) upstream.add(REPOSITORY, `tag${n}`, image);
    const spoiled = new Set<string>();
    const soak: Soak = { listener, random, blobs, images, spoiled, get: test.get };
    startFaults(soak, { upstream, storage });
    const outcomes = new Map<Outcome, number>();
    let started = 0;
    await Promise.all(Array.from({ length: AT_ONCE }, async () => {
      while (started < pulls) {
        started++;
        if (random() < 0.02) {
          const n = below(random, images.length);
          upstream.add(REPOSITORY, `tag${n}`, images[(n + below(random, 2)) % images.length]!);
        }
        const outcome = await (random() < 0.15 ? pullManifest(soak) : pullBlob(soak));
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      }
    }));
    // It has to have been a soak: everything happened, and most of it went well.
    for (const outcome of ["whole", "part", "head", "left", "manifest"] as const) {
      assert(outcomes.has(outcome), `no pull was ${outcome}: ${JSON.stringify([...outcomes])}`);
    }
    // By a status or by the connection, as far as the body had come: mostly it has not begun.
    assert(outcomes.has("broken") || outcomes.has("refused"), "no pull failed");
    const { stats } = test.proxy;
    assert(stats.upstreamResumes.total > 0 && stats.cacheEvents.get("mismatch") > 0);
    assert(stats.cacheEvents.get("no_room") > 0);
    assertEquals(stats.cacheEvents.get("disk_error"), 0);
    // When upstream is well again everybody gets everything.
    upstream.faults.clear();
    storage.faults.clear();
    for (const blob of blobs) {
      await test.proxy.proxy.cache!.content.settled(blob.digest);
      const { bytes, isWhole } = await read(
        await test.get(`/v2/${REPOSITORY}/blobs/${blob.digest}`),
      );
      assert(isWhole && equal(bytes, bytesOf(blob)), `blob of ${blob.size} bytes`);
      await test.proxy.proxy.cache!.content.settled(blob.digest);
    }
    await checkDisk(test.proxy.cacheDir, maxSize);
  } finally {
    await test[Symbol.asyncDispose]();
    await upstream.close();
    await storage.close();
  }
}

const SHARES = LISTENERS.map((listener) => [listener, PULLS / LISTENERS.length] as const);
for (const [listener, pulls] of SHARES) {
  Deno.test(`${pulls} pulls on ${listener} from an upstream with all faults: every byte is right`, async () => {
    const seed = Number(
      Deno.env.get("FAULTS_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0],
    );
    try {
      await runSoak(seed, listener, pulls);
    } catch (error) {
      throw new Error(`With FAULTS_SEED=${seed}: ${(error as Error).message}`, { cause: error });
    }
  });
}
