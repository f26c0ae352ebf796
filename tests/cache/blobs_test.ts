import { assert, assertEquals, assertRejects } from "@std/assert";
import { OciError } from "../../lib/oci/error.ts";
import { bodyOf, fedBody } from "../support/bodies.ts";
import { digestOf, randomBytes } from "../support/content.ts";
import { startPolicies, UNREACHABLE } from "../support/policies.ts";

const BYTES = randomBytes(200_000, 1);
const SIZE = BYTES.byteLength;
const digest = digestOf(BYTES);

/** Upstream's answer with the blob, or with the part that is asked for. */
function whole(method: string, _path?: string, headers?: Headers): Response {
  const [, start, end] = /^bytes=(\d+)-(\d+)$/.exec(headers?.get("range") ?? "") ?? [];
  const part = start ? BYTES.slice(Number(start), Number(end) + 1) : BYTES.slice();
  return new Response(method === "HEAD" ? null : part, {
    status: start ? 206 : 200,
    headers: {
      "content-length": String(part.byteLength),
      ...start && { "content-range": `bytes ${start}-${end}/${SIZE}` },
    },
  });
}

Deno.test("a blob is a miss once, and then a hit without a question", async () => {
  await using t = startPolicies();
  t.handle(whole);
  const first = await t.ask("blob", digest);
  assertEquals([first.cache, first.body], ["MISS", BYTES]);
  await t.content.settled(digest);
  t.asked();
  t.clock.now += 5_000;
  const second = await t.ask("blob", digest);
  assertEquals([second.cache, second.body, second.headers.get("age")], ["HIT", BYTES, "5"]);
  assertEquals(t.asked(), []);
});

Deno.test("who joins a download gets HIT, and asks nobody", async () => {
  await using t = startPolicies();
  const fed = fedBody();
  t.handle(() => new Response(fed.body, { headers: { "content-length": String(SIZE) } }));
  fed.push(BYTES.slice(0, 1000));
  const first = await t.blobs.answer(t.request("blob", digest));
  assertEquals(first.cache, "MISS");
  const head = await t.ask("blob", digest, { method: "HEAD" });
  assertEquals([head.cache, head.headers.get("content-length")], ["HIT", String(SIZE)]);
  const joined = t.ask("blob", digest, { headers: { range: "bytes=150000-150009" } });
  fed.push(BYTES.slice(1000));
  fed.end();
  const { cache, status, body } = await joined;
  assertEquals([cache, status, body], ["HIT", 206, BYTES.slice(150_000, 150_010)]);
  assertEquals(await first.response.bytes(), BYTES);
  assertEquals(t.asked(), [`GET blobs/${digest}`]);
});

for (const status of [401, 403, 405]) {
  Deno.test(`where upstream answers ${status} to HEAD, the size is had from a GET that is given up`, async () => {
    await using t = startPolicies();
    t.handle((method) => method === "HEAD" ? new Response(null, { status }) : whole(method));
    const head = await t.ask("blob", digest, { method: "HEAD" });
    assertEquals([head.status, head.headers.get("content-length")], [200, String(SIZE)]);
    assertEquals(t.aborted, [`GET blobs/${digest}`]);
    assertEquals([...t.content.fills], []);
  });
}

Deno.test("two credentials at once are two proofs and one download", async () => {
  await using t = startPolicies();
  const gate = Promise.withResolvers<void>();
  t.handle(async (method) => {
    await gate.promise;
    return whole(method);
  });
  const asking = ["ann", "bob"].map((user) => t.ask("blob", digest, { user }));
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(t.asked(), Array(2).fill(`GET blobs/${digest}`));
  gate.resolve();
  for (const { body } of await Promise.all(asking)) assertEquals(body, BYTES);
  await t.content.settled(digest);
  assertEquals(t.store.log.filter((line) => line.startsWith("begin")).length, 1);
});

Deno.test("what finds no room passes through: one who waited takes the body, the others ask themselves", async () => {
  await using t = startPolicies({ maxSize: SIZE - 1 });
  const gate = Promise.withResolvers<void>();
  t.handle(async (...request) => {
    await gate.promise;
    return whole(...request);
  });
  const asking = [
    t.ask("blob", digest),
    t.ask("blob", digest),
    t.ask("blob", digest, { headers: { range: "bytes=5-9" } }),
  ];
  await new Promise((resolve) => setTimeout(resolve, 0));
  gate.resolve();
  const [one, two, part] = await Promise.all(asking);
  assertEquals([one!.cache, one!.body], ["BYPASS", BYTES]);
  assertEquals([two!.cache, two!.body], ["BYPASS", BYTES]);
  assertEquals([part!.status, part!.cache, part!.body], [206, "BYPASS", BYTES.slice(5, 10)]);
  assertEquals(t.asked().length, 3);
  assertEquals([t.stats.cacheEvents.get("no_room"), t.store.content.size], [1, 0]);
});

Deno.test("a ranged client of what finds no room is given its range, and the whole is given up", async () => {
  await using t = startPolicies({ maxSize: SIZE - 1 });
  t.handle(whole);
  const part = await t.ask("blob", digest, { headers: { range: "bytes=5-9" } });
  assertEquals([part.status, part.body], [206, BYTES.slice(5, 10)]);
  assertEquals(t.aborted, [`GET blobs/${digest}`]);
});

Deno.test("a range that is all of a blob is verified like the whole where it passes through", async () => {
  for (const range of ["bytes=0-", `bytes=0-${SIZE - 1}`, `bytes=-${SIZE + 1}`]) {
    for (const said of [String(SIZE), "*"]) {
      if (said === "*" && range === `bytes=0-${SIZE - 1}`) continue; // nothing says that there is no more
      await using t = startPolicies({ maxSize: SIZE - 1 });
      const send = (bytes: Uint8Array<ArrayBuffer>) =>
        t.handle((_, __, headers) =>
          headers.get("range") === null ? whole("GET") : new Response(
            bodyOf([bytes.slice(0, 70_000), bytes.slice(70_000)]),
            { status: 206, headers: { "content-range": `bytes 0-${SIZE - 1}/${said}` } },
          )
        );
      send(BYTES);
      const right = await t.ask("blob", digest, { headers: { range } });
      assertEquals([right.status, right.cache, right.body.length], [206, "BYPASS", SIZE]);
      assertEquals(digestOf(right.body), digest);
      const wrong = BYTES.slice();
      wrong[0]! ^= 1;
      send(wrong);
      await assertRejects(
        () => t.ask("blob", digest, { headers: { range } }),
        Error,
        "Digest of the body",
      );
      assertEquals(t.stats.cacheEvents.get("mismatch"), 1);
    }
  }
});

Deno.test("while the disk fails blobs pass through, verified as ever", async () => {
  await using t = startPolicies();
  t.store.fail = (operation) => operation === "begin" ? new Error("Disk error") : undefined;
  t.handle(whole);
  const { cache, body } = await t.ask("blob", digest);
  assertEquals([cache, body], ["BYPASS", BYTES]);
  assertEquals(t.stats.cacheEvents.get("disk_error"), 1);
  const wrong = BYTES.slice();
  wrong[0]! ^= 1;
  t.handle(() => new Response(wrong, { headers: { "content-length": String(SIZE) } }));
  const error = await assertRejects(() => t.ask("blob", digest), OciError);
  assertEquals(error.status, 502);
  assertEquals(t.stats.cacheEvents.get("mismatch"), 1);
});

Deno.test("a stored blob that turns out to be damaged is fetched again for who asked", async () => {
  await using t = startPolicies();
  t.handle(whole);
  await t.ask("blob", digest);
  await t.content.settled(digest);
  t.store.content.set(digest, { bytes: BYTES.subarray(1), storedAt: 0 });
  const { cache, body } = await t.ask("blob", digest);
  assertEquals([cache, body], ["MISS", BYTES]);
  await t.content.settled(digest);
  assert(t.store.content.has(digest));
});

Deno.test("a download that breaks before its first byte is an error and no broken answer", async () => {
  for (const maxSize of [SIZE, SIZE - 1]) {
    await using t = startPolicies({ maxSize });
    const length = { "content-length": String(SIZE) };
    t.handle(() => new Response(new Uint8Array([1]), { headers: { "content-length": "1" } }));
    const wrong = await assertRejects(() => t.ask("blob", digest), OciError);
    assertEquals([wrong.status, t.stats.cacheEvents.get("mismatch")], [502, 1]);
    let asked = 0;
    t.handle(() => {
      if (asked++ > 0) throw new OciError("BLOB_UNKNOWN", "It is gone", { status: 404 });
      return new Response(bodyOf([], { end: new Error("Connection reset") }), { headers: length });
    });
    const gone = await assertRejects(() => t.ask("blob", digest), OciError);
    assertEquals(gone.status, 404);
  }
});

Deno.test("what upstream has another size of is not what is here, and lets nobody in", async () => {
  const others: readonly [number, Record<string, string>][] = [
    [200, { "content-length": String(SIZE - 1) }],
    [206, { "content-range": `bytes 0-0/${SIZE + 1}` }],
    [200, { "content-type": "text/html; charset=utf-8" }],
  ];
  for (const [status, headers] of others) {
    await using t = startPolicies();
    t.handle(whole);
    await t.ask("blob", digest, { user: "ann" });
    await t.content.settled(digest);
    t.handle(() => new Response(BYTES.slice(0, 1), { status, headers }));
    for (const user of ["bob", undefined]) {
      const error = await assertRejects(() => t.ask("blob", digest, { user }), OciError);
      assertEquals(error.status, 502);
    }
    t.handle(whole);
    assertEquals((await t.ask("blob", digest, { user: "bob" })).cache, "HIT");
  }
});

Deno.test("a body that is announced to be empty is given up", async () => {
  await using t = startPolicies();
  let cancelled = 0;
  t.handle(() => {
    const body = new ReadableStream({ cancel: () => void cancelled++ });
    return new Response(body, { headers: { "content-length": "0" } });
  });
  const error = await assertRejects(() => t.ask("blob", digest), OciError, "other content");
  assertEquals([error.status, cancelled], [502, 1]);
});

for (const status of [201, 204, 206]) {
  Deno.test(`an answer ${status} to a plain GET is no blob`, async () => {
    await using t = startPolicies();
    t.handle(() => new Response(status === 204 ? null : BYTES.slice(), { status }));
    const error = await assertRejects(() => t.ask("blob", digest), OciError);
    assertEquals([error.status, (error.detail as { status: number }).status], [502, status]);
    // 204 has no body to give up.
    const aborted = status === 204 ? [] : [`GET blobs/${digest}`];
    assertEquals([t.store.content.size, t.aborted], [0, aborted]);
  });
}

Deno.test("a link to the store ends with the grant or the mark that earned it", async () => {
  const MINUTE = 60_000;
  const lifetimes: number[] = [];
  await using t = startPolicies({
    redirect: (_digest, { size, lifetime }) => {
      assertEquals(size, SIZE);
      lifetimes.push(lifetime);
      return Promise.resolve("https://store.test/blob");
    },
  });
  for (const [user, most] of [["ann", 5 * MINUTE], [undefined, 60 * MINUTE]] as const) {
    t.handle(whole);
    await t.ask("blob", digest, { user });
    await t.content.settled(digest);
    lifetimes.length = 0;
    t.clock.now += 1_000;
    assertEquals((await t.ask("blob", digest, { user })).status, 307);
    t.clock.now += most - 2_000;
    assertEquals((await t.ask("blob", digest, { user })).status, 307);
    assertEquals(lifetimes, [most - 1_000, 1_000]);
  }
  // While upstream is away what was once public is served, and nobody is sent elsewhere for it.
  t.clock.now += 60 * MINUTE;
  t.handle(() => Promise.reject(UNREACHABLE));
  const stale = await t.ask("blob", digest);
  assertEquals([stale.status, stale.cache, stale.body], [200, "STALE", BYTES]);
});

Deno.test("a disk that fails in the middle of a blob costs its reader nothing", async () => {
  await using t = startPolicies();
  t.handle(whole);
  await t.ask("blob", digest);
  await t.content.settled(digest);
  t.asked();
  let reads = 0;
  t.store.fail = (operation) =>
    operation === "read" && ++reads === 2 ? new Error("Input/output error") : undefined;
  const { cache, body } = await t.ask("blob", digest);
  assertEquals([cache, body], ["HIT", BYTES]);
  assertEquals(t.asked(), [`GET blobs/${digest}`]);
  await t.content.settled(digest);
  t.store.fail = () => undefined;
  assertEquals((await t.ask("blob", digest)).cache, "HIT");
  assertEquals([t.asked(), t.stats.cacheEvents.get("evicted_damaged")], [[], 1]);
});
