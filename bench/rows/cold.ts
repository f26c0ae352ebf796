/**
 * What is not in the cache yet: how much later it comes than from upstream itself.
 *
 * @module
 */
import { check, ratios } from "../figures.ts";
import { clients, curl, withCpu } from "../load.ts";
import type { Peer, PeerName } from "../peers.ts";
import { alternate, type Bench, type Row, seriesOf } from "../row.ts";
import { blobPath } from "../upstream.ts";
import type { Content } from "../../tests/support/image.ts";

type Source = PeerName | "upstream itself";

const REGISTRIES: readonly PeerName[] = ["docker-registry 2.8", "distribution v3"];

/** Runs `work` with a started server of each name. */
async function withPeers<T>(
  bench: Bench,
  { names, upstream }: { names: readonly PeerName[]; upstream?: string },
  work: (peers: ReadonlyMap<PeerName, Peer>) => Promise<T>,
): Promise<T> {
  const peers = new Map<PeerName, Peer>();
  try {
    for (const name of names) peers.set(name, await bench.peers.start(name, { upstream }));
    return await work(peers);
  } finally {
    for (const peer of peers.values()) await peer.stop();
  }
}

/** A blob for each round that nobody has fetched. */
async function freshBlobs(bench: Bench): Promise<Content[]> {
  const blobs: Content[] = [];
  for (let round = 0; round < bench.rounds; round++) blobs.push(await bench.upstream.fresh());
  return blobs;
}

export const cold: Row = {
  name: "cold",
  title: "cold 90 MB blob, one client",
  meaning: "The first pull of a layer: what the proxy adds to the download from upstream.",
  async run(bench) {
    const registries = REGISTRIES.filter((name) => bench.peers.has(name));
    const blobs = await freshBlobs(bench);
    const names = ["ours", ...registries, "nginx proxy_cache"] as const;
    return await withPeers(bench, { names }, async (peers) => {
      const servers: readonly Source[] = ["upstream itself", ...names];
      const found = await alternate(bench, servers, async (name, round) => {
        const { digest, size } = blobs[round]!;
        const peer = name === "upstream itself" ? undefined : peers.get(name)!;
        const url = (peer?.url ?? bench.upstream.url) + blobPath(digest);
        const before = { cpu: peer?.cpu() ?? 0, gets: await bench.upstream.gets(digest) };
        const { firstByte, total } = await curl(url, size);
        await new Promise((resolve) => setTimeout(resolve, 700)); // some go on after the client has it
        return {
          "seconds": total,
          "first byte ms": firstByte * 1000,
          ...peer && {
            "CPU s": peer.cpu() - before.cpu,
            "upstream GETs": await bench.upstream.gets(digest) - before.gets,
          },
        };
      });
      const of = (name: Source, figure: string) => found.get(name)!.get(figure)!;
      const later = of("ours", "first byte ms").map((ms, round) =>
        ms - of("upstream itself", "first byte ms")[round]!
      );
      return {
        series: seriesOf(found),
        checks: [
          ...registries.map((name) =>
            check(`seconds by ${name}`, {
              values: ratios(of("ours", "seconds"), of(name, "seconds")),
              target: { atMost: 1 },
            })
          ),
          check("first byte after upstream's", {
            values: later,
            target: { atMost: 10 },
            unit: " ms",
          }),
        ],
      };
    });
  },
};

export const coldSlow: Row = {
  name: "cold-50",
  title: "cold 90 MB blob, upstream limited to 50 MB/s",
  meaning: "The same from a registry on the internet: the proxy must not slow it down.",
  async run(bench) {
    const blobs = await freshBlobs(bench);
    const upstream = bench.upstream.slowUrl;
    return await withPeers(bench, { names: ["ours"], upstream }, async (peers) => {
      const servers = ["upstream itself", "ours"] as const;
      const found = await alternate(bench, servers, async (name, round) => {
        const { digest, size } = blobs[round]!;
        const url = name === "ours" ? peers.get("ours")!.url : upstream;
        return { "seconds": (await curl(url + blobPath(digest), size)).total };
      });
      const of = (name: Source) => found.get(name as typeof servers[number])!.get("seconds")!;
      const values = ratios(of("ours"), of("upstream itself"));
      const checks = [check("seconds by a direct download", { values, target: { atMost: 1.05 } })];
      return { series: seriesOf(found), checks };
    });
  },
};

const CROWD = 50;

export const crowd: Row = {
  name: "crowd",
  title: `${CROWD} clients, cold, one blob of 90 MB`,
  meaning:
    "A deployment starts on fifty nodes at once: upstream is asked once, and no client waits for the whole download first.",
  async run(bench) {
    const registries = REGISTRIES.filter((name) => bench.peers.has(name));
    const names: readonly PeerName[] = ["ours", ...registries];
    const blobs = await freshBlobs(bench);
    return await withPeers(bench, { names }, async (peers) => {
      const found = await alternate(bench, names, async (name, round) => {
        const { digest, size } = blobs[round]!;
        const peer = peers.get(name)!;
        const before = await bench.upstream.gets(digest);
        const path = blobPath(digest);
        const { result, cpu } = await withCpu(
          peer,
          () => clients(peer.host, { path, count: CROWD }),
        );
        if (result.failures > 0) throw new Error(`${name}: ${result.failures} of ${CROWD} failed`);
        const asked = await bench.upstream.gets(digest) - before;
        await new Promise((resolve) => setTimeout(resolve, 500)); // stored by then
        await curl(peer.url + path, size);
        const hits = await clients(peer.host, { path, count: CROWD });
        if (hits.failures > 0) throw new Error(`${name}: ${hits.failures} of ${CROWD} hits failed`);
        return {
          "last client s": Math.max(...result.times),
          "last client s, all hits": Math.max(...hits.times),
          "upstream GETs": asked,
          "CPU s": cpu,
          "peak RSS MB": peer.peakRss() / 1e6,
        };
      });
      const of = (name: PeerName, figure: string) => found.get(name)!.get(figure)!;
      return {
        series: seriesOf(found),
        checks: [
          check("upstream GETs", { values: of("ours", "upstream GETs"), target: { atMost: 1 } }),
          check("last client by 50 hits", {
            values: ratios(of("ours", "last client s"), of("ours", "last client s, all hits")),
            target: { atMost: 1.5 },
          }),
          ...registries.map((name) =>
            check(`last client by ${name}`, {
              values: ratios(of("ours", "last client s"), of(name, "last client s")),
              target: { atMost: 1 },
            })
          ),
        ],
      };
    });
  },
};
