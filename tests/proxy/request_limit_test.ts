import { assertEquals } from "@std/assert";
import { MAX_REQUESTS_PER_CLIENT } from "../../lib/limits/request_limit.ts";
import { contentOf, randomBytes } from "../support/content.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { makeImage } from "../support/image.ts";
import { LISTENERS, startListener } from "../support/listeners.ts";
import { until } from "../support/until.ts";

const SIZE = 1_000_000;
const HALF = 500_000;
const BLOB = { kind: "blob", method: "GET" } as const;

/** A proxy behind another one, and a registry whose blob stands still. */
async function setUp(listener: typeof LISTENERS[number], env: Record<string, string> = {}) {
  const docker = await startFakeRegistry();
  const blob = contentOf(randomBytes(SIZE, 1));
  docker.addBlob("library/big", blob);
  docker.add("library/app", "1", makeImage());
  const t = await startListener(listener, {
    upstreams: { docker },
    env: { TRUST_PROXY: "true", ...env },
  });
  const from = (client: string, signal?: AbortSignal) => ({
    signal,
    headers: { "x-forwarded-for": client },
  });
  return {
    docker,
    stats: t.proxy.stats,
    limit: t.proxy.proxy.requestLimit,
    health: () => t.get("/health", from("192.0.2.1")),
    manifest: (client: string) => t.get("/v2/library/app/manifests/1", from(client)),
    blob: (client: string, signal?: AbortSignal) =>
      t.get(`/v2/library/big/blobs/${blob.digest}`, from(client, signal)),
    async [Symbol.asyncDispose]() {
      await t[Symbol.asyncDispose]();
      await docker.close();
    },
  };
}

for (const listener of LISTENERS.filter((name) => name !== "Deno's HTTP/2")) {
  Deno.test(`one client has at most ${MAX_REQUESTS_PER_CLIENT} requests under way, others and answers from memory go on, with ${listener}`, async () => {
    await using t = await setUp(listener);
    // The second time it is in memory.
    for (let i = 0; i < 2; i++) await (await t.manifest("192.0.2.1")).bytes();
    t.docker.faults.add(BLOB, { stallAt: HALF });
    // A second time: all that was taken has been given back.
    for (let round = 1; round <= 2; round++) {
      const leave = new AbortController();
      const all = await Promise.all(
        Array.from(
          { length: MAX_REQUESTS_PER_CLIENT },
          () => t.blob("192.0.2.1", leave.signal),
        ),
      );
      assertEquals(new Set(all.map(({ status }) => status)), new Set([200]));
      const refused = await t.blob("192.0.2.1");
      assertEquals([refused.status, refused.headers.get("retry-after")], [429, "5"]);
      assertEquals((await refused.json()).errors[0].code, "TOOMANYREQUESTS");
      assertEquals(t.stats.rejected.get("requests"), round);
      const others = await Promise.all([
        t.manifest("192.0.2.1"),
        t.health(),
        t.manifest("192.0.2.2"),
      ]);
      for (const answer of others) await answer.bytes();
      assertEquals(others.map(({ status }) => status), [200, 200, 200]);
      leave.abort();
      await until(() => t.limit.clients === 0);
    }
  });
}

for (const listener of LISTENERS) {
  for (const [when, stallAt] of [["before", 0], ["in the middle of", HALF]] as const) {
    Deno.test(`a request is under way no longer once its client has left ${when} the answer, with ${listener}`, async () => {
      await using t = await setUp(listener);
      const stall = t.docker.faults.add(BLOB, { stallAt });
      const left = new AbortController();
      const answers = Array.from({ length: 5 }, (_, i) => t.blob(`192.0.2.${i}`, left.signal));
      for (const answer of answers) answer.catch(() => {}); // those that leave
      await until(() => t.limit.clients === 5 && stall.hits > 0);
      if (stallAt > 0) await Promise.all(answers);
      left.abort();
      await until(() => t.limit.clients === 0);
    });
  }
}
