/**
 * `stats`: prints the size and the effect of the cache.
 *
 * @module
 */
import type { CacheReport, Operations } from "../operator/operations.ts";
import { formatSize } from "../util/units.ts";
import type { Output } from "./output.ts";
import { formatAge, formatTable } from "./table.ts";

/** Options for {@linkcode runStats}. */
export interface StatsOptions {
  readonly operations: Pick<Operations, "report">;
  readonly json: boolean;
  readonly output: Output;
}

/** Prints the statistics. Returns the exit code 0. */
export async function runStats({ operations, json, output }: StatsOptions): Promise<number> {
  const report = await operations.report();
  if (json) output.print(JSON.stringify(report));
  else for (const line of formatTable(rowsOf(report))) output.print(line);
  return 0;
}

function rowsOf({ cache, traffic, allTime }: CacheReport): string[][] {
  const { entries, bytes, maxSize } = cache;
  const rows = [
    ["Stored", `${formatSize(bytes)} of ${formatSize(maxSize)}, ${share(bytes, maxSize)}`],
    ["Entries", String(entries)],
  ];
  if (!traffic) return [...rows, ["Instance", "none runs"]];
  const { hits, stale, misses, uptime, quotas } = traffic;
  const { bytesToClients, bytesFromCache, bytesFromUpstream } = traffic;
  return [
    ...rows,
    ["Up for", formatAge(0, uptime * 1000)],
    [
      "Hits",
      `${hits + stale} of ${hits + stale + misses}, ${share(hits + stale, hits + stale + misses)}`,
    ],
    ["Stale", `${stale} of them`],
    ["To clients", formatSize(bytesToClients)],
    ["From the cache", `${formatSize(bytesFromCache)}, ${share(bytesFromCache, bytesToClients)}`],
    ["From upstream", formatSize(bytesFromUpstream)],
    ["Downloads", `${traffic.downloads} under way`],
    ["Turned away", String(traffic.rejected)],
    ...allTime ? [["All time", totalOf(allTime)]] : [],
    ...quotas.map(({ registry, account, remaining, limit }) => [
      "Pulls left",
      `${remaining}${limit === undefined ? "" : ` of ${limit}`} at ${registry}, ${account}`,
    ]),
  ];
}

function totalOf({ since, hit, stale, miss, bytesFromCache }: NonNullable<CacheReport["allTime"]>) {
  const hits = `${share(hit + stale, hit + stale + miss)} hits`;
  return `${hits}, ${formatSize(bytesFromCache)} from the cache since ${dateOf(since)}`;
}

function dateOf(at: number): string {
  return new Date(at).toISOString().slice(0, 10);
}

function share(part: number, whole: number): string {
  return whole > 0 ? `${Math.floor(part / whole * 100)}%` : "0%";
}
