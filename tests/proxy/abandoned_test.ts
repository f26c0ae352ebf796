import { assert, assertEquals } from "@std/assert";
import { MAX_UNWANTED } from "../../lib/cache/content/fills.ts";
import { type Content, contentOf, randomBytes } from "../support/content.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { makeImage } from "../support/image.ts";
import { startTestProxy, type TestProxyOptions } from "../support/proxy.ts";
import { until } from "../support/until.ts";

const SIZE = 1_000_000;
/** Where upstream stands still until it is let go. */
const HALF = 500_000;
const KIND = { kind: "blob", method: "GET" } as const;

async function setUp({ count, ...options }: TestProxyOptions & { count: number }) {
  const registry = await startFakeRegistry();
  const blobs = Array.from({ length: count }, (_, i) => contentOf(randomBytes(SIZE, i + 1)));
  for (const blob of blobs) registry.addBlob("library/big", blob);
  const proxy = await startTestProxy({
    upstreams: { docker: registry },
    ...options,
    env: { TRUST_PROXY: "true", ...options.env },
  });
  const urlOf = ({ digest }: Content) => `${proxy.url}/v2/library/big/blobs/${digest}`;
  return {
    registry,
    blobs,
    proxy,
    urlOf,
    get content() {
      return proxy.proxy.cache!.content;
    },
    /** Upstream's answers with blobs that are under way. */
    open: () => registry.log.filter(({ kind, end }) => kind === "blob" && !end),
    askedFor: ({ digest }: Content) =>
      registry.log.filter(({ reference, method }) => reference === digest && method === "GET"),
    /** A client that leaves when the first bytes have come. */
    async leave(blob: Content, client: number | string, headers: HeadersInit = {}) {
      const left = new AbortController();
      const response = await fetch(urlOf(blob), {
        signal: left.signal,
        headers: { ...headers, "x-forwarded-for": `${client}` },
      });
      await response.body?.getReader().read();
      left.abort();
      return response.status;
    },
    async [Symbol.asyncDispose]() {
      await proxy.close();
      await registry.close();
    },
  };
}

Deno.test("of 300 downloads whose clients leave at once 8 go on, and never more than 64 run", async () => {
  await using t = await setUp({ count: 300, env: { MAX_CONCURRENT_FILLS: "64" } });
  t.registry.faults.add(KIND, { stallAt: HALF });
  let most = 0;
  const watching = setInterval(() => most = Math.max(most, t.open().length), 1);
  try {
    await Promise.all(t.blobs.map((blob, i) => t.leave(blob, `192.0.2.${i % 250}`)));
    await until(() => t.open().length === MAX_UNWANTED);
  } finally {
    clearInterval(watching);
  }
  assert(most <= 64, `${most} at once`);
  assertEquals(t.content.unreadFills, { running: MAX_UNWANTED, stopped: 32 });
  assertEquals(t.proxy.stats.cacheEvents.get("fill_stopped"), 300 - MAX_UNWANTED);
  assertEquals(t.proxy.proxy.queues.fills.waiting, 0);
  // What is kept takes no more of the cap than what has come.
  const totals = await t.proxy.proxy.cache!.index.totals();
  assert(totals.reserved <= MAX_UNWANTED * SIZE + 32 * HALF, `${totals.reserved} bytes`);
});

Deno.test("one client address begins no more than 16 downloads at once, and joining one that runs counts for nothing", async () => {
  await using t = await setUp({ count: 20 });
  const stall = t.registry.faults.add(KIND, { stallAt: HALF, stallFor: 1_500 });
  const get = (blob: Content) =>
    whole(t.urlOf(blob), { headers: { "x-forwarded-for": "192.0.2.1" } });
  const all = t.blobs.map(get);
  for (const one of all) one.catch(() => {}); // told below
  await until(() => t.proxy.proxy.queues.fills.waiting === 4);
  await until(() => stall.hits === 16);
  assertEquals(t.open().length, 16);
  const joiners = Array.from({ length: 50 }, () => get(t.blobs[0]!));
  await until(() => [...t.content.fills].some(({ readers }) => readers === 51));
  assertEquals(t.proxy.proxy.queues.fills.waiting, 4);
  const other = await fetch(t.urlOf(t.blobs[19]!), { headers: { "x-forwarded-for": "192.0.2.2" } });
  assertEquals(other.status, 200); // before those of the first that came before it
  assertEquals((await other.bytes()).byteLength, SIZE);
  const digests = (await Promise.all([...all, ...joiners])).map(({ digest }) => digest);
  assertEquals(new Set(digests), new Set(t.blobs.map(({ digest }) => digest)));
  for (const blob of t.blobs) assertEquals(t.askedFor(blob).length, 1);
});

Deno.test("a stopped download goes on where it was when it is asked for again", async () => {
  await using t = await setUp({ count: MAX_UNWANTED + 1 });
  const stall = t.registry.faults.add(KIND, { stallAt: HALF });
  for (const blob of t.blobs) await t.leave(blob, "192.0.2.1");
  await until(() => t.content.unreadFills.stopped === 1);
  const stopped = t.blobs.at(-1)!;
  stall.remove();
  const answer = await whole(t.urlOf(stopped));
  assertEquals([answer.status, answer.digest], [200, stopped.digest]);
  const [first, second, ...more] = t.askedFor(stopped);
  assertEquals(more, []);
  const range = /^bytes=(\d+)-999999$/.exec(second?.headers.get("range") ?? "");
  const from = Number(range?.[1]);
  assert(from > 0 && from <= HALF && first!.end, `${second?.headers.get("range")}`);
  assertEquals(second!.status, 206);
  await t.content.settled(stopped.digest);
  assertEquals(t.content.unreadFills.stopped, 0);
  assertEquals(t.proxy.stats.cacheEvents.get("fill_continued"), 1);
  assertEquals((await whole(t.urlOf(stopped))).headers.get("x-cache"), "HIT");
});

for (
  const [how, fault] of [
    ["sends the whole in place of the rest", { headers: { "accept-ranges": null } }],
    ["says of the rest that there is none", { status: 416 }],
    ["sends another part", { headers: { "content-range": `bytes 0-9/${SIZE}` } }],
  ] as const
) {
  Deno.test(`a stopped download begins anew where upstream ${how}`, async () => {
    await using t = await setUp({ count: MAX_UNWANTED + 1 });
    const stall = t.registry.faults.add(KIND, { stallAt: HALF });
    for (const blob of t.blobs) await t.leave(blob, "192.0.2.1");
    await until(() => t.content.unreadFills.stopped === 1);
    stall.remove();
    const stopped = t.blobs.at(-1)!;
    t.registry.faults.add({ ...KIND }, fault, { times: 1 });
    const answer = await whole(t.urlOf(stopped));
    assertEquals([answer.status, answer.digest], [200, stopped.digest]);
    await t.content.settled(stopped.digest);
    assertEquals(t.content.unreadFills.stopped, 0);
  });
}

Deno.test("what is left of a stopped download goes with the first bytes that are wrong, and the next client gets right ones", async () => {
  await using t = await setUp({ count: MAX_UNWANTED + 1 });
  const stall = t.registry.faults.add(KIND, { stallAt: HALF, corruptAt: 1000 });
  for (const blob of t.blobs) await t.leave(blob, "192.0.2.1");
  await until(() => t.content.unreadFills.stopped === 1);
  stall.remove();
  const stopped = t.blobs.at(-1)!;
  const broken = await whole(t.urlOf(stopped)).then(({ status }) => status, () => "broken");
  assert(broken === "broken" || broken === 502, `${broken}`);
  await t.content.settled(stopped.digest);
  assertEquals((await whole(t.urlOf(stopped))).digest, stopped.digest);
});

Deno.test("downloads that were begun by requests that read nothing are unread too", async () => {
  await using t = await setUp({ count: 12 });
  t.registry.faults.add(KIND, { stallAt: HALF });
  const statuses = await Promise.all(
    t.blobs.map((blob, i) =>
      t.leave(
        blob,
        `192.0.2.${i}`,
        i % 2 ? { range: "bytes=5000000-" } : { "if-none-match": `"${blob.digest}"` },
      )
    ),
  );
  assertEquals(new Set(statuses), new Set([304, 416]));
  await until(() => t.open().length === MAX_UNWANTED);
});

Deno.test("downloads whose clients leave before the first byte are unread, and stopped", async () => {
  await using t = await setUp({ count: 30 });
  t.registry.faults.add(KIND, { stallAt: 0 });
  const left = new AbortController();
  const all = t.blobs.map((blob, i) =>
    fetch(t.urlOf(blob), {
      signal: left.signal,
      headers: { "x-forwarded-for": `192.0.2.${i}` },
    }).catch(() => {})
  );
  await until(() => t.open().length === 30 && [...t.content.fills].length === 30);
  left.abort();
  await Promise.all(all);
  await until(() => t.open().length === MAX_UNWANTED);
  assertEquals(t.proxy.proxy.requestLimit.clients, 0);
  // Whoever asks later gets it.
  t.registry.faults.clear();
  const stopped = t.blobs.find((blob) => t.askedFor(blob).every(({ end }) => end))!;
  const answer = await whole(t.urlOf(stopped));
  assertEquals([answer.status, answer.digest], [200, stopped.digest]);
});

Deno.test("clients that leave while they wait for a place are asked for nothing", async () => {
  await using t = await setUp({ count: 20 });
  t.registry.faults.add(KIND, { stallAt: HALF });
  const stays = t.blobs.slice(0, 16).map((blob) => fetch(t.urlOf(blob)));
  await Promise.all(stays);
  const left = new AbortController();
  const waiting = t.blobs.slice(16).map((blob) =>
    fetch(t.urlOf(blob), { signal: left.signal }).catch(() => {})
  );
  await until(() => t.proxy.proxy.queues.fills.waiting === 4);
  left.abort();
  await Promise.all(waiting);
  await until(() => t.proxy.proxy.queues.fills.waiting === 0);
  for (const blob of t.blobs.slice(16)) assertEquals(t.askedFor(blob), []);
  for (const response of await Promise.all(stays)) await response.body?.cancel();
});

Deno.test("warming has half of the places, its downloads go on though nobody reads them, and clients have the others", async () => {
  const registry = await startFakeRegistry();
  await using _ = registry;
  const layers = Array.from({ length: 6 }, (_, i) => 200_000 + i);
  const warmed = makeImage({ layers });
  registry.add("library/warm", "1", warmed);
  const blob = contentOf(randomBytes(SIZE, 1));
  registry.addBlob("library/big", blob);
  const digests = new Set<string | undefined>(warmed.blobs.map(({ digest }) => digest));
  for (const { digest } of warmed.blobs) {
    registry.faults.add({ ...KIND, reference: digest }, { stallAt: 10 });
  }
  await using t = await startTestProxy({
    upstreams: { docker: registry },
    env: { WARM_IMAGES: "warm:1", MAX_CONCURRENT_FILLS: "4" },
  });
  const open = () =>
    registry.log.filter(({ kind, reference, end }) =>
      kind === "blob" && digests.has(reference) && !end
    ).length;
  await until(() => open() === 2 && t.proxy.queues.fills.waiting > 0);
  assertEquals(t.proxy.queues.fills.running, 2);
  assertEquals(t.proxy.cache!.content.unreadFills, { running: 0, stopped: 0 });
  const answer = await whole(`${t.url}/v2/library/big/blobs/${blob.digest}`);
  assertEquals([answer.status, answer.digest], [200, blob.digest]);
  assertEquals(open(), 2);
});
