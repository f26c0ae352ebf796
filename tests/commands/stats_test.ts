import { assertEquals } from "@std/assert";
import { runStats } from "../../lib/commands/stats.ts";
import type { CacheReport } from "../../lib/operator/operations.ts";
import { keepOutput } from "../support/output.ts";

const CACHE = { entries: 12, bytes: 2 ** 30, maxSize: 10 * 2 ** 30 };
const RUNNING: CacheReport = {
  cache: CACHE,
  traffic: {
    uptime: 3 * 60 * 60,
    hits: 70,
    stale: 5,
    misses: 25,
    rejected: 2,
    bytesToClients: 4 * 2 ** 30,
    bytesFromCache: 3 * 2 ** 30,
    bytesFromUpstream: 2 ** 30,
    downloads: 1,
    quotas: [{
      registry: "docker.io",
      account: "anonymous",
      remaining: 76,
      limit: 100,
      seenAt: 0,
      until: 1,
    }],
  },
  allTime: {
    since: Date.UTC(2026, 0, 15, 12),
    requests: 1000,
    hit: 800,
    miss: 150,
    stale: 50,
    bytesFromCache: 30 * 2 ** 30,
    bytesFromUpstream: 2 ** 30,
  },
};

async function stats(report: CacheReport, json = false): Promise<string[]> {
  const output = keepOutput();
  const operations = { report: () => Promise.resolve(report) };
  assertEquals(await runStats({ operations, json, output }), 0);
  return output.lines;
}

Deno.test("stats prints the hit ratio and the saved bytes", async () => {
  const rows = (await stats(RUNNING)).map((line) => line.split(/ {2,}/));
  assertEquals(Object.fromEntries(rows), {
    "Stored": "1 GiB of 10 GiB, 10%",
    "Entries": "12",
    "Up for": "3h",
    "Hits": "75 of 100, 75%",
    "Stale": "5 of them",
    "To clients": "4 GiB",
    "From the cache": "3 GiB, 75%",
    "From upstream": "1 GiB",
    "Downloads": "1 under way",
    "Turned away": "2",
    "All time": "85% hits, 30 GiB from the cache since 2026-01-15",
    "Pulls left": "76 of 100 at docker.io, anonymous",
  });
});

Deno.test("stats without an instance prints what is stored", async () => {
  const rows = (await stats({ cache: CACHE })).map((line) => line.split(/ {2,}/));
  assertEquals(rows.map(([title]) => title), ["Stored", "Entries", "Instance"]);
});

Deno.test("stats --json prints the report", async () => {
  assertEquals(JSON.parse((await stats(RUNNING, true))[0]!), RUNNING);
});
