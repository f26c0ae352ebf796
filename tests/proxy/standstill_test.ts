/**
 * What the proxy's own standstill costs: time, and nothing else.
 */
import { assertEquals, assertGreater } from "@std/assert";
import { configure, type LogRecord, reset } from "@logtape/logtape";
import { whole } from "../support/http.ts";
import { makeImage } from "../support/image.ts";
import { startTestProxy } from "../support/proxy.ts";
import { until } from "../support/until.ts";
import type { WorkerManifest, WorkerMessage } from "../support/registry_worker.ts";

/** Longer than upstream has to say whether a tag is still the same. */
const STANDSTILL = 5_500;

/** A registry that answers while this thread stands still. */
async function startRegistry(manifest: WorkerManifest) {
  const worker = new Worker(import.meta.resolve("../support/registry_worker.ts"), {
    type: "module",
  });
  const url = Promise.withResolvers<string>();
  let onAsked = (_what: string) => {};
  worker.onmessage = ({ data }: MessageEvent<WorkerMessage>) => {
    if ("url" in data) url.resolve(data.url);
    else onAsked(data.asked);
  };
  worker.postMessage(manifest);
  return {
    url: await url.promise,
    /** What it is asked next. */
    asked: () => new Promise<string>((resolve) => onAsked = resolve),
    [Symbol.dispose]: () => worker.terminate(),
  };
}

Deno.test("an answer that came while the event loop stood still is upstream's, not an outage", async () => {
  const image = makeImage();
  const { digest, mediaType, manifest: bytes } = image;
  using docker = await startRegistry({ bytes, mediaType, digest });
  const env = { CACHE_MANIFEST_TTL: "0s" };
  await using proxy = await startTestProxy({ upstreams: { docker: docker.url }, env });
  const url = `${proxy.url}/v2/docker/team/app/manifests/1`;
  assertEquals((await whole(url)).headers.get("x-cache"), "MISS");
  const lines: LogRecord[] = [];
  await configure({
    sinks: { lines: (record) => lines.push(record) },
    loggers: [
      { category: ["proxy", "program"], sinks: ["lines"], lowestLevel: "warning" },
      { category: ["logtape", "meta"], sinks: [] },
    ],
    reset: true,
  });
  const asked = docker.asked();
  const answer = whole(url);
  assertEquals(await asked, "HEAD /v2/team/app/manifests/1");
  for (const until = performance.now() + STANDSTILL; performance.now() < until;);
  const { status, headers } = await answer;
  assertEquals([status, headers.get("x-cache")], [200, "HIT"]);
  assertEquals(proxy.stats.upstreamErrors.total, 0);
  assertEquals(proxy.stats.registries.get("docker")?.isUp, true);
  assertEquals((await whole(url)).headers.get("x-cache"), "HIT");
  await until(() => lines.length > 0);
  await reset();
  const { method, path, client } = lines[0]!.properties;
  assertEquals([method, path, client], ["GET", new URL(url).pathname, "127.0.0.1"]);
  assertGreater(proxy.proxy.lag.worst, 5_000);
});
