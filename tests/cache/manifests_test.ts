import { assertEquals, assertRejects } from "@std/assert";
import { OciError } from "../../lib/oci/error.ts";
import { digestOf } from "../support/content.ts";
import { MEDIA } from "../support/image.ts";
import { startPolicies, UNREACHABLE } from "../support/policies.ts";

const TYPE = MEDIA.oci.manifest;
const EVERYTHING = { accept: Object.values(MEDIA.oci).join(", ") };

function manifestOf(n: number): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify({ schemaVersion: 2, mediaType: TYPE, n }));
}

const ONE = manifestOf(1);
const TWO = manifestOf(2);
const [one, two] = [digestOf(ONE), digestOf(TWO)];

/** An upstream whose tag `latest` means `current()`, and that has both manifests by digest. */
function upstream(current: () => Uint8Array<ArrayBuffer>) {
  return (method: string, path: string): Response => {
    const reference = path.split("/").at(-1)!;
    const bytes = { latest: current(), [one]: ONE, [two]: TWO }[reference];
    if (!bytes) return new Response(null, { status: 404 });
    const headers = {
      "content-type": TYPE,
      "content-length": String(bytes.byteLength),
      "docker-content-digest": digestOf(bytes),
    };
    return new Response(method === "HEAD" ? null : bytes.slice(), { headers });
  };
}

Deno.test("a tag is fresh for its time to live and not a millisecond longer", async () => {
  await using t = startPolicies();
  t.handle(upstream(() => ONE));
  assertEquals((await t.ask("manifest", "latest")).cache, "MISS");
  // Nobody in particular has been let in yet: a HEAD asks first, as it would were it here.
  assertEquals(t.asked(), ["HEAD manifests/latest", "GET manifests/latest"]);
  t.clock.now += t.ttl - 1;
  const fresh = await t.ask("manifest", "latest");
  assertEquals([fresh.cache, fresh.body, fresh.headers.get("age")], ["HIT", ONE, "59"]);
  assertEquals(t.asked(), []);
  t.clock.now += 1;
  const checked = await t.ask("manifest", "latest");
  assertEquals([checked.cache, checked.body], ["HIT", ONE]);
  assertEquals(t.asked(), ["HEAD manifests/latest"]);
  t.clock.now += t.ttl - 1;
  await t.ask("manifest", "latest");
  assertEquals(t.asked(), []);
});

Deno.test("a tag that was looked up in the future is asked for", async () => {
  await using t = startPolicies();
  t.handle(upstream(() => ONE));
  await t.ask("manifest", "latest");
  t.asked();
  // Somebody else wrote it, or the clock was set back.
  const key = { registry: "registry.test", repository: "a/b" };
  t.index.setTag(key, "latest", { digest: one, checkedAt: t.clock.now + 60_000 });
  assertEquals((await t.ask("manifest", "latest")).body, ONE);
  assertEquals(t.asked(), ["HEAD manifests/latest"]);
});

for (const isHead of [true, false]) {
  Deno.test(`what is noted as a manifest and is larger than one may be is not read, ${isHead ? "HEAD" : "GET"}`, async () => {
    await using t = startPolicies();
    const key = { registry: "registry.test", repository: "a/b" };
    const large = new Uint8Array(4 * 2 ** 20 + 1);
    const digest = digestOf(large);
    await t.content.put(digest, large);
    t.index.addLink({ ...key, digest, kind: "manifest" }, { mediaType: TYPE });
    t.index.setPublic(key, t.clock.now);
    // Upstream plays along, and announces less than it is.
    t.handle((method) => {
      const headers = {
        "content-type": TYPE,
        "content-length": isHead ? String(large.byteLength) : "100",
        "docker-content-digest": digest,
      };
      return new Response(method === "HEAD" ? null : large.slice(), { headers });
    });
    for (const method of ["GET", "HEAD"] as const) {
      const error = await assertRejects(() => t.ask("manifest", digest, { method }), OciError);
      assertEquals(error.status, 502);
    }
    assertEquals(await t.content.read(digest), undefined);
  });
}

Deno.test("a tag that moved is fetched anew, and the old manifest stays by its digest", async () => {
  await using t = startPolicies();
  let current = ONE;
  t.handle(upstream(() => current));
  await t.ask("manifest", "latest");
  current = TWO;
  t.clock.now += t.ttl;
  t.asked();
  const moved = await t.ask("manifest", "latest");
  assertEquals([moved.cache, moved.body], ["MISS", TWO]);
  assertEquals(moved.headers.get("docker-content-digest"), two);
  assertEquals(t.asked(), ["HEAD manifests/latest", "GET manifests/latest"]);
  assertEquals((await t.ask("manifest", one)).body, ONE);
  assertEquals((await t.ask("manifest", two)).body, TWO);
  assertEquals(t.asked(), []);
});

Deno.test("a tag that moved to what is here already costs a HEAD", async () => {
  await using t = startPolicies();
  let current = ONE;
  t.handle(upstream(() => current));
  await t.ask("manifest", "latest");
  await t.ask("manifest", two);
  current = TWO;
  t.clock.now += t.ttl;
  t.asked();
  const moved = await t.ask("manifest", "latest");
  assertEquals([moved.cache, moved.body], ["HIT", TWO]);
  assertEquals(t.asked(), ["HEAD manifests/latest"]);
});

Deno.test("a tag's manifest is here by its digest too, and for ever", async () => {
  await using t = startPolicies();
  t.handle(upstream(() => ONE));
  await t.ask("manifest", "latest");
  t.asked();
  for (const method of ["GET", "HEAD"] as const) {
    const byDigest = await t.ask("manifest", one, { method });
    assertEquals([byDigest.status, byDigest.cache], [200, "HIT"]);
    assertEquals(byDigest.headers.get("content-length"), String(ONE.byteLength));
    assertEquals(byDigest.headers.get("content-type"), TYPE);
    assertEquals(byDigest.body, method === "GET" ? ONE : new Uint8Array());
  }
  t.handle(() => {
    throw UNREACHABLE;
  });
  t.clock.now += 30 * 60_000;
  assertEquals((await t.ask("manifest", one)).cache, "HIT");
  assertEquals(t.asked(), []);
});

Deno.test("HEAD of a tag costs a HEAD, tells what it means, and is good for the GET by digest", async () => {
  await using t = startPolicies();
  t.handle(upstream(() => ONE));
  const head = await t.ask("manifest", "latest", { method: "HEAD" });
  assertEquals([head.status, head.cache, head.body.byteLength], [200, "MISS", 0]);
  assertEquals(head.headers.get("docker-content-digest"), one);
  assertEquals(head.headers.get("content-length"), String(ONE.byteLength));
  assertEquals((await t.ask("manifest", one)).body, ONE);
  // And now the tag's meaning is here.
  assertEquals((await t.ask("manifest", "latest")).cache, "HIT");
  assertEquals(t.asked(), ["HEAD manifests/latest", `GET manifests/${one}`]);
});

const LACKING: [what: string, header: string][] = [
  ["its digest", "docker-content-digest"],
  ["its length", "content-length"],
];
for (const [what, header] of LACKING) {
  Deno.test(`an upstream whose HEAD does not tell ${what} is asked for all of it`, async () => {
    await using t = startPolicies();
    t.handle((method, path) => {
      const response = upstream(() => ONE)(method, path);
      if (method === "HEAD") response.headers.delete(header);
      return response;
    });
    const head = await t.ask("manifest", "latest", { method: "HEAD" });
    assertEquals(head.headers.get("docker-content-digest"), one);
    assertEquals(head.headers.get("content-length"), String(ONE.byteLength));
    assertEquals(t.asked(), ["HEAD manifests/latest", "GET manifests/latest"]);
  });
}

const STALE: [what: string, status: number, isStale: boolean][] = [
  ["429", 429, true],
  ["500", 500, true],
  ["503", 503, true],
  ["404", 404, false],
  ["403", 403, false],
];
for (const [what, status, isStale] of STALE) {
  Deno.test(`an old tag is ${isStale ? "served stale" : "gone"} when upstream answers ${what}`, async () => {
    await using t = startPolicies();
    t.handle(upstream(() => ONE));
    await t.ask("manifest", "latest");
    t.handle(() => new Response(null, { status }));
    t.clock.now += 48 * 60 * 60_000;
    for (const method of ["GET", "HEAD"] as const) {
      const asking = t.ask("manifest", "latest", { method });
      if (!isStale) {
        assertEquals((await assertRejects(() => asking, OciError)).status, status);
        continue;
      }
      const { cache, body, headers } = await asking;
      assertEquals([cache, body], ["STALE", method === "GET" ? ONE : new Uint8Array()]);
      assertEquals(headers.get("age"), String(48 * 60 * 60));
      assertEquals(headers.get("docker-content-digest"), one);
    }
  });
}

for (const status of [401, 403, 404, 405]) {
  Deno.test(`a manifest whose HEAD upstream answers ${status} to is asked for by GET, which decides`, async () => {
    await using t = startPolicies();
    const right = upstream(() => ONE);
    t.handle((method, path) =>
      method === "HEAD" ? new Response(null, { status }) : right(method, path)
    );
    const { body } = await t.ask("manifest", "latest");
    assertEquals([body, t.asked()], [ONE, ["HEAD manifests/latest", "GET manifests/latest"]]);
  });
}

Deno.test("who may not be given an old manifest waits for upstream as long as where there is none", async () => {
  await using here = startPolicies();
  await using empty = startPolicies();
  const right = upstream(() => ONE);
  here.handle((method, path, headers) =>
    headers.get("authorization") === "Bearer ann"
      ? right(method, path)
      : new Response(null, { status: 404 })
  );
  assertEquals((await here.ask("manifest", "latest", { user: "ann" })).status, 200);
  const waits = [];
  for (const t of [here, empty]) {
    t.handle(() => Promise.reject(UNREACHABLE));
    t.timeouts.length = 0;
    for (const reference of ["latest", one]) {
      await assertRejects(() => t.ask("manifest", reference, { user: "bob" }), OciError);
    }
    waits.push([...t.timeouts]);
  }
  assertEquals(waits[0], waits[1]);
});

Deno.test("while upstream is away nobody waits for it twice, and then it is asked again", async () => {
  await using t = startPolicies();
  t.handle(upstream(() => ONE));
  await t.ask("manifest", "latest");
  t.handle(() => {
    throw UNREACHABLE;
  });
  t.clock.now += t.ttl;
  t.asked();
  for (let i = 0; i < 5; i++) assertEquals((await t.ask("manifest", "latest")).cache, "STALE");
  assertEquals(t.asked(), ["HEAD manifests/latest"]);
  t.handle(upstream(() => TWO));
  t.clock.now += 10_000;
  assertEquals((await t.ask("manifest", "latest")).body, TWO);
});

Deno.test("a tag whose new meaning cannot be had keeps the old one", async () => {
  await using t = startPolicies();
  t.handle(upstream(() => ONE));
  await t.ask("manifest", "latest");
  t.handle((method, path) =>
    method === "HEAD" ? upstream(() => TWO)(method, path) : new Response(null, { status: 429 })
  );
  t.clock.now += t.ttl;
  for (let i = 0; i < 2; i++) {
    const { cache, body } = await t.ask("manifest", "latest");
    assertEquals([cache, body], ["STALE", ONE]);
  }
});

Deno.test("fifty who ask for the same at once cost the questions of one", async () => {
  await using t = startPolicies();
  const gate = Promise.withResolvers<void>();
  t.handle(async (method, path) => {
    await gate.promise;
    return upstream(() => ONE)(method, path);
  });
  const asking = Array.from({ length: 50 }, () => t.ask("manifest", "latest"));
  await new Promise((resolve) => setTimeout(resolve, 0));
  gate.resolve();
  for (const { body } of await Promise.all(asking)) assertEquals(body, ONE);
  assertEquals(t.asked(), ["HEAD manifests/latest", "GET manifests/latest"]);
});

Deno.test("nobody joins a question that was asked with another's credential", async () => {
  for (const method of ["GET", "HEAD"] as const) {
    for (const isOld of [false, true]) {
      await using t = startPolicies();
      t.handle(upstream(() => ONE));
      if (isOld) await t.ask("manifest", "latest", { user: "ann" });
      t.clock.now += 10 * t.ttl;
      t.asked();
      const gate = Promise.withResolvers<void>();
      t.handle(async (method, path, headers) => {
        const who = headers.get("authorization");
        await gate.promise;
        if (who !== "Bearer ann") return new Response(null, { status: 401 });
        return upstream(() => ONE)(method, path);
      });
      const hers = t.ask("manifest", "latest", { user: "ann", method });
      const others = ["bob", undefined].map((user) =>
        assertRejects(() => t.ask("manifest", "latest", { user, method }), OciError)
      );
      await new Promise((resolve) => setTimeout(resolve, 0));
      gate.resolve();
      assertEquals((await hers).status, 200);
      for (const { status } of await Promise.all(others)) assertEquals(status, 401);
    }
  }
});

Deno.test("a manifest with wrong bytes is an error before its first byte, counted, and not kept", async () => {
  await using t = startPolicies();
  t.handle(() => new Response(TWO.slice(), { headers: { "content-type": TYPE } }));
  const error = await assertRejects(() => t.ask("manifest", one), OciError);
  assertEquals([error.status, error.detail], [502, { digest: one, actual: two }]);
  assertEquals(t.stats.cacheEvents.get("mismatch"), 1);
  assertEquals([t.store.content.size, await t.index.blob(one)], [0, undefined]);
  t.handle(upstream(() => ONE));
  assertEquals((await t.ask("manifest", one)).body, ONE);
});

Deno.test("a client that cannot read what is here gets its own answer from upstream", async () => {
  await using t = startPolicies();
  t.handle(upstream(() => ONE));
  await t.ask("manifest", "latest", { headers: EVERYTHING });
  t.asked();
  const OTHER = new TextEncoder().encode(`{"schemaVersion":2}`);
  t.handle((_method, _path, headers) => {
    assertEquals(headers.get("accept"), MEDIA.docker.manifest);
    return new Response(OTHER.slice(), { headers: { "content-type": MEDIA.docker.manifest } });
  });
  const headers = { accept: MEDIA.docker.manifest };
  const { cache, body } = await t.ask("manifest", "latest", { headers });
  assertEquals([cache, body], ["BYPASS", OTHER]);
  assertEquals(t.asked(), ["GET manifests/latest"]);
  // And nobody else gets it.
  assertEquals((await t.ask("manifest", "latest", { headers: EVERYTHING })).body, ONE);
});

Deno.test("upstream is always asked for every kind of manifest", async () => {
  await using t = startPolicies();
  const accepts = new Set<string | null>();
  t.handle((method, path, headers) => {
    accepts.add(headers.get("accept"));
    return upstream(() => ONE)(method, path);
  });
  await t.ask("manifest", "latest", { headers: { accept: TYPE } });
  t.clock.now += t.ttl;
  await t.ask("manifest", "latest", { headers: { accept: TYPE } });
  const [accept, ...others] = accepts;
  assertEquals(others, []);
  for (const type of [MEDIA.oci, MEDIA.docker].flatMap((m) => [m.manifest, m.index])) {
    assertEquals(accept?.includes(type), true, type);
  }
});

Deno.test("a manifest that cannot be stored is served, and asked for again", async () => {
  await using t = startPolicies();
  t.handle(upstream(() => ONE));
  t.store.fail = (operation) => operation === "write" ? new Error("Disk error") : undefined;
  for (let i = 0; i < 2; i++) {
    const { cache, body } = await t.ask("manifest", "latest");
    assertEquals([cache, body], ["BYPASS", ONE]);
  }
  const gets = t.asked().filter((asked) => asked.startsWith("GET"));
  assertEquals(gets.length, 2);
});

Deno.test("a manifest that upstream does not have is 404 every time", async () => {
  await using t = startPolicies();
  for (const method of ["GET", "HEAD"] as const) {
    const error = await assertRejects(() => t.ask("manifest", "missing", { method }), OciError);
    assertEquals([error.code, error.status], ["MANIFEST_UNKNOWN", 404]);
  }
  const asked = ["HEAD manifests/missing", "GET manifests/missing", "HEAD manifests/missing"];
  assertEquals(t.asked(), asked);
});
