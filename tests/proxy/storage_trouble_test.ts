import { assertEquals } from "@std/assert";
import { contentOf, randomBytes } from "../support/content.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { startFakeStorage } from "../support/fake_storage.ts";
import type { Fault } from "../support/faults.ts";
import { whole } from "../support/http.ts";
import { startTestProxy } from "../support/proxy.ts";

/** A registry that sends blobs to storage, and a proxy before both. */
async function setUp(env: Record<string, string> = {}) {
  const stack = new AsyncDisposableStack();
  const storage = stack.use(await startFakeStorage());
  const registry = stack.use(await startFakeRegistry({ storage }));
  const blob = contentOf(randomBytes(300_000, 1));
  registry.addBlob("library/app", blob);
  const proxy = stack.use(
    await startTestProxy({
      upstreams: { docker: registry },
      env: { ALLOW_PRIVATE_NETWORKS: "true", FOLLOW_ALL_REDIRECTS: "true", ...env },
    }),
  );
  return {
    storage,
    registry,
    blob,
    proxy,
    pull: (init?: RequestInit) => whole(`${proxy.url}/v2/library/app/blobs/${blob.digest}`, init),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

const TROUBLES: Readonly<Record<string, Fault>> = {
  "429": { status: 429 },
  "500": { status: 500 },
  "502": { status: 502 },
  "503": { status: 503, extraHeaders: [["retry-after", "1"]] },
  "504": { status: 504 },
  "a connection that is closed": { hangUp: true },
  "a body that is reset": { resetAt: 100_000 },
  "a body that is cut": { cutAt: 200_000 },
};

for (const cached of [true, false]) {
  const where = cached ? "with a cache" : "without one";
  for (const [name, fault] of Object.entries(TROUBLES)) {
    // Without a cache nothing is held back of a body: that it broke is the client's to see, and to resume.
    if (!cached && (fault.resetAt ?? fault.cutAt)) continue;
    Deno.test(`${where} a client gets its blob although storage answers ${name} twice`, async () => {
      await using setting = await setUp(cached ? {} : { CACHE_ENABLED: "false" });
      const { storage, blob, pull } = setting;
      const trouble = storage.faults.add({ kind: "storage" }, fault, { times: 2 });
      const { status, digest } = await pull();
      assertEquals([status, digest, trouble.hits], [200, blob.digest, 2]);
    });
  }
}

Deno.test("a client gets its blob although its link ends while storage is in trouble", async () => {
  await using setting = await setUp();
  const { storage, registry, blob, pull } = setting;
  registry.control.signatureLife = 0;
  storage.faults.add({ kind: "storage" }, {
    status: 503,
    get extraHeaders() {
      registry.control.signatureLife = 300;
      return [];
    },
  }, { times: 1 });
  const { status, digest } = await pull();
  assertEquals([status, digest], [200, blob.digest]);
  // Unavailable, ended, and served by the new link.
  assertEquals(storage.log.map((entry) => entry.status), [503, 403, 200]);
});

Deno.test("storage that stays in trouble is asked three times, and then the client is told", async () => {
  await using setting = await setUp();
  const { storage, pull } = setting;
  storage.faults.add({ kind: "storage" }, { status: 503 });
  const { status, json } = await pull();
  assertEquals([status, json.errors[0].detail.status], [502, 503]);
  assertEquals(storage.log.length, 3);
});
