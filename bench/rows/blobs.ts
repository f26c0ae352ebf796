/**
 * Layers that are in the cache: throughput, and what it costs.
 *
 * @module
 */
import { check, ratios } from "../figures.ts";
import { curl, withCpu, wrk } from "../load.ts";
import type { Peer, PeerName } from "../peers.ts";
import { alternate, type Bench, type Outcome, type Row, seriesOf } from "../row.ts";
import { blobPath } from "../upstream.ts";

const SERVERS: readonly PeerName[] = [
  "ours",
  "nginx static",
  "nginx read+write",
  "docker-registry 2.8",
  "distribution v3",
];

async function measureBlob(bench: Bench, connections: number): Promise<Outcome> {
  const servers = SERVERS.filter((name) => bench.peers.has(name));
  const peers = new Map<PeerName, Peer>();
  const { digest, size } = bench.upstream.large;
  const path = blobPath(digest);
  try {
    for (const name of servers) {
      const peer = await bench.peers.start(name);
      peers.set(name, peer);
      await curl(peer.url + path, size);
      await new Promise((resolve) => setTimeout(resolve, 500)); // it is stored after the last byte
      await curl(peer.url + path, size);
    }
    const found = await alternate(bench, servers, async (name) => {
      const peer = peers.get(name)!;
      // Long enough that some transfers that are cut off at its end do not matter.
      const options = { connections, seconds: bench.seconds + 1, paths: [path] };
      const { result, cpu } = await withCpu(peer, () => wrk(peer.url, options));
      return {
        "MB/s": result.bytes / result.seconds / 1e6,
        "CPU s/GB": cpu / result.bytes * 1e9,
        "peak RSS MB": peer.peakRss() / 1e6,
      };
    });
    const figures = (name: PeerName, figure: string) => found.get(name)!.get(figure)!;
    const by = (name: PeerName, figure: string) =>
      ratios(figures("ours", figure), figures(name, figure));
    const checks = [
      check("MB/s by nginx static", {
        values: by("nginx static", "MB/s"),
        target: { atLeast: 0.9 },
      }),
      check("CPU s/GB by nginx static", {
        values: by("nginx static", "CPU s/GB"),
        target: { atMost: 1.5 },
      }),
      check("CPU s/GB by nginx read+write", {
        values: by("nginx read+write", "CPU s/GB"),
        target: { atMost: 1.5 },
      }),
    ];
    for (const name of servers.slice(3)) {
      checks.push(
        check(`MB/s by ${name}`, { values: by(name, "MB/s"), target: { atLeast: 1 } }),
        check(`CPU s/GB by ${name}`, { values: by(name, "CPU s/GB"), target: { atMost: 1 } }),
      );
    }
    return { series: seriesOf(found), checks };
  } finally {
    for (const peer of peers.values()) await peer.stop();
  }
}

/** The rows for 1, 4 and 16 clients. */
export const blobRows: readonly Row[] = [1, 4, 16].map((connections) => ({
  name: `blob-${connections}`,
  title: `cached 90 MB blob, ${connections} client${connections === 1 ? "" : "s"}`,
  meaning: connections === 1
    ? "One machine pulls a large layer: shows whether the proxy or the network limits it."
    : `${connections} machines pull the same layer.`,
  run: (bench) => measureBlob(bench, connections),
}));
