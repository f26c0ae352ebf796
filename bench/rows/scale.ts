/**
 * Hits in a cache with very much in it.
 *
 * @module
 */
import { join } from "@std/path";
import { SqliteIndex } from "../../lib/cache/index/sqlite_index.ts";
import { check, ratios } from "../figures.ts";
import { HEADERS, withCpu, wrk } from "../load.ts";
import type { Peer } from "../peers.ts";
import { alternate, type Bench, type Row, seriesOf } from "../row.ts";
import { blobPath, manifestPath } from "../upstream.ts";

const SMALL = 1_000;
const LARGE = 1_000_000;
const CONNECTIONS = 32;
const PAGE = 10_000;

/** Enters `entries` in an index: content, a link to each, and a tag for every hundredth. */
function populate(path: string, entries: number): void {
  const index = new SqliteIndex(path, { size: 2 ** 40 });
  const now = Date.now();
  const digestAt = (n: number) => {
    // Spread over all digests, as hashes are.
    const parts = [n, n ^ 0x5bd1e995, n * 31, n * 17].map((part, i) =>
      Math.imul(part + i, 0x9E3779B1).toString(16).replace("-", "f").padStart(16, "0")
    );
    return `sha256:${parts.join("").slice(0, 64)}`;
  };
  try {
    for (let from = 0; from < entries; from += PAGE) {
      const digests = Array.from(
        { length: Math.min(PAGE, entries - from) },
        (_, i) => digestAt(from + i),
      );
      index.restoreBlobs(
        digests.map((digest, i) => ({
          digest,
          size: 1,
          createdAt: now - from - i,
          usedAt: now - from - i,
          // Lately: there are no files that the background pass could find right.
          verifiedAt: now,
        })),
      );
      for (const [i, digest] of digests.entries()) {
        const key = { registry: "registry.example", repository: `library/image-${i % 500}` };
        index.addLink({ ...key, digest, kind: "blob" }, { mediaType: "" });
        if (i % 100 === 0) index.setTag(key, `v${from + i}`, { digest, checkedAt: now });
      }
    }
  } finally {
    index.close();
  }
}

/** A proxy that has the small blobs and the image, and `entries` besides. */
async function startWith(bench: Bench, entries: number, paths: readonly string[]): Promise<Peer> {
  const dir = await Deno.makeTempDir({ prefix: "bench-scale-" });
  const env = { CACHE_DIR: dir, CACHE_INDEX_SIZE: "1024GiB" };
  const before = await bench.peers.start("ours", { env });
  for (const path of paths) {
    await (await fetch(before.url + path, { headers: HEADERS })).arrayBuffer();
  }
  await before.stop();
  bench.say(`  entering ${entries.toLocaleString("en-US")} entries`);
  populate(join(dir, "index.sqlite"), entries);
  const peer = await bench.peers.start("ours", { env });
  return {
    ...peer,
    async stop(signal) {
      await peer.stop(signal);
      await Deno.remove(dir, { recursive: true });
    },
  };
}

export const scale: Row = {
  name: "scale",
  title: "hits that the index is asked for, 1,000,000 cached entries beside 1,000",
  meaning: "A cache that has grown for years answers as fast as a new one.",
  async run(bench) {
    const { image, small } = bench.upstream;
    const paths = [
      manifestPath(image.digest),
      ...small.map(({ digest }) => blobPath(digest)),
    ];
    const entries = { "1,000 entries": SMALL, "1,000,000 entries": LARGE };
    type Name = keyof typeof entries;
    const names = Object.keys(entries) as Name[];
    const peers = new Map<Name, Peer>();
    try {
      for (const name of names) peers.set(name, await startWith(bench, entries[name], paths));
      const found = await alternate(bench, names, async (name) => {
        const peer = peers.get(name)!;
        const { result, cpu } = await withCpu(peer, () =>
          wrk(peer.url, {
            connections: CONNECTIONS,
            seconds: bench.seconds,
            paths,
            // With a condition that is not met an answer is looked up in full.
            headers: { "If-None-Match": '"another"' },
          }));
        return {
          "requests/s": result.requests / result.seconds,
          "CPU µs/request": cpu / result.requests * 1e6,
          "RSS MB": peer.rss() / 1e6,
        };
      });
      const of = (name: Name) => found.get(name)!.get("CPU µs/request")!;
      const values = ratios(of("1,000,000 entries"), of("1,000 entries"));
      const checks = [
        check("CPU µs/request by 1,000 entries", { values, target: { atMost: 1.2 } }),
      ];
      return { series: seriesOf(found), checks };
    } finally {
      for (const peer of peers.values()) await peer.stop();
    }
  },
};
