import { assertEquals } from "@std/assert";
import { MAX_PASSTHROUGH, MAX_PASSTHROUGH_PER_CLIENT } from "../../lib/limits/downloads.ts";
import { contentOf, randomBytes } from "../support/content.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { LISTENERS, startListener } from "../support/listeners.ts";
import { startTestProxy } from "../support/proxy.ts";
import { until } from "../support/until.ts";

const SIZE = 1_000_000;
const KIND = { kind: "blob", method: "GET" } as const;

/** What makes the proxy pass blobs through. */
const REASONS = {
  "without a cache": { CACHE_ENABLED: "false" },
  "with a cache that has no room": { CACHE_MAX_SIZE: "100000" },
};

for (const [why, env] of Object.entries(REASONS)) {
  Deno.test(`${why} one client is sent ${MAX_PASSTHROUGH_PER_CLIENT} blobs at once, all ${MAX_PASSTHROUGH}, and others wait for a place`, async () => {
    await using registry = await startFakeRegistry();
    const blob = contentOf(randomBytes(SIZE, 1));
    registry.addBlob("library/big", blob);
    const upstreams = { docker: registry };
    await using t = await startTestProxy({ upstreams, env: { TRUST_PROXY: "true", ...env } });
    const queue = t.proxy.queues.passthrough;
    const stall = registry.faults.add(KIND, { stallAt: SIZE / 2 });
    const full = MAX_PASSTHROUGH / MAX_PASSTHROUGH_PER_CLIENT;
    const leave = Array.from({ length: full + 1 }, () => new AbortController());
    const get = (client: number) => {
      const { signal } = leave[client]!;
      const headers = { "x-forwarded-for": `192.0.2.${client}` };
      const answer = fetch(`${t.url}/v2/library/big/blobs/${blob.digest}`, { signal, headers });
      answer.catch(() => {}); // of those who leave
      return answer;
    };
    // One more than it may have at once.
    const first = Array.from({ length: MAX_PASSTHROUGH_PER_CLIENT + 1 }, () => get(0));
    await until(() => queue.running === MAX_PASSTHROUGH_PER_CLIENT && queue.waiting === 1);
    const answers: Response[] = []; // Deno closes none that is collected
    for (let client = 1; client < full; client++) {
      const all = Array.from({ length: MAX_PASSTHROUGH_PER_CLIENT }, () => get(client));
      answers.push(...await Promise.all(all));
    }
    await until(() => queue.running === MAX_PASSTHROUGH);
    assertEquals(queue.waiting, 1);
    const other = get(full);
    await until(() => queue.waiting === 2);
    stall.remove();
    // Whoever leaves makes room at once.
    leave[1]!.abort();
    assertEquals((await (await other).bytes()).byteLength, SIZE);
    leave[0]!.abort();
    await Promise.allSettled(first);
    for (const each of leave) each.abort();
    assertEquals(answers.length, MAX_PASSTHROUGH - MAX_PASSTHROUGH_PER_CLIENT);
    await until(() => queue.running === 0 && queue.waiting === 0 && queue.clients === 0);
    await until(() => t.proxy.requestLimit.clients === 0);
  });
}

for (const listener of LISTENERS) {
  for (const [why, env] of Object.entries(REASONS)) {
    Deno.test(`${why} upstream is given up when a client leaves before the first byte, with ${listener}`, async () => {
      await using registry = await startFakeRegistry();
      const blob = contentOf(randomBytes(SIZE, 1));
      registry.addBlob("library/big", blob);
      await using t = await startListener(listener, { upstreams: { docker: registry }, env });
      registry.faults.add(KIND, { stallAt: 0 });
      const open = () => registry.log.filter(({ kind, end }) => kind === "blob" && !end).length;
      const left = new AbortController();
      const { signal } = left;
      // All of it, and a part.
      const all = ["bytes=0-", "bytes=10-20"].map((range) =>
        t.get(`/v2/library/big/blobs/${blob.digest}`, { headers: { range }, signal })
          .catch(() => {})
      );
      all.push(t.get(`/v2/library/big/blobs/${blob.digest}`, { signal }).catch(() => {}));
      await until(() => open() === 3);
      left.abort();
      await Promise.all(all);
      await until(() => open() === 0 && t.proxy.proxy.queues.passthrough.running === 0);
    });
  }
}
