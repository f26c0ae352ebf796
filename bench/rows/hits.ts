/**
 * Small answers that are in the cache: requests per second.
 *
 * @module
 */
import { check, ratios } from "../figures.ts";
import { clients, HEADERS, type Load, withCpu, wrk } from "../load.ts";
import type { Peer, PeerName } from "../peers.ts";
import { alternate, type Bench, type Outcome, type Row, seriesOf } from "../row.ts";
import { blobPath, manifestPath } from "../upstream.ts";

const ALL: readonly PeerName[] = [
  "ours",
  "nginx static",
  "nginx proxy_cache",
  "docker-registry 2.8",
  "distribution v3",
];
const CONNECTIONS = 32;

interface Hits {
  readonly servers: readonly PeerName[];
  readonly paths: readonly string[];
  /** One measurement of a server. @default {wrk} */
  readonly load?: (peer: Peer) => Promise<Load>;
  /** At least so much of the requests per second of each. */
  readonly targets: Partial<Readonly<Record<PeerName, number>>>;
}

/** Requests per second and CPU per request of each server, its cache filled. */
async function measureHits(
  bench: Bench,
  { servers, paths, load, targets }: Hits,
): Promise<Outcome> {
  const present = servers.filter((name) => bench.peers.has(name));
  const peers = new Map<PeerName, Peer>();
  try {
    for (const name of present) {
      const peer = await bench.peers.start(name);
      peers.set(name, peer);
      await fill(peer, paths);
    }
    const run = load ??
      ((peer: Peer) => wrk(peer.url, { connections: CONNECTIONS, seconds: bench.seconds, paths }));
    const found = await alternate(bench, present, async (name) => {
      const { result, cpu } = await withCpu(peers.get(name)!, () => run(peers.get(name)!));
      return {
        "requests/s": result.requests / result.seconds,
        "CPU µs/request": cpu / result.requests * 1e6,
      };
    });
    const rates = (name: PeerName) => found.get(name)!.get("requests/s")!;
    const checks = present.flatMap((name) => {
      const target = targets[name];
      if (target === undefined) return [];
      const values = ratios(rates("ours"), rates(name));
      return [check(`requests/s by ${name}`, { values, target: { atLeast: target } })];
    });
    return { series: seriesOf(found), checks };
  } finally {
    for (const peer of peers.values()) await peer.stop();
  }
}

/** Asks until the cache has it: whoever keeps it does so after its first answer. */
async function fill(peer: Peer, paths: readonly string[]): Promise<void> {
  for (let round = 0; round < 3; round++) {
    for (const path of paths) await get(peer, path);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

/** Asks until it is there: distribution v3 answers some first requests with 500. */
async function get(peer: Peer, path: string): Promise<void> {
  for (let tries = 0;; tries++) {
    const response = await fetch(peer.url + path, { headers: HEADERS });
    await response.arrayBuffer();
    if (response.status === 200) return;
    if (tries === 20) throw new Error(`${peer.name} ${path}: ${response.status}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

export const manifestByTag: Row = {
  name: "manifest-tag",
  title: `cached manifest by tag (fresh), ${CONNECTIONS} connections`,
  meaning:
    "The first request of every pull and of every Kubernetes `imagePullPolicy: Always`: how many such checks one instance answers.",
  run: (bench) =>
    measureHits(bench, {
      servers: ALL,
      paths: [manifestPath("latest")],
      targets: { "nginx static": 0.8, "docker-registry 2.8": 20 },
    }),
};

export const manifestByDigest: Row = {
  name: "manifest-digest",
  title: `cached manifest by digest, GET, ${CONNECTIONS} connections`,
  meaning: "The second request of a pull by containerd, and of every pull by digest.",
  run: (bench) =>
    measureHits(bench, {
      servers: ALL,
      paths: [manifestPath(bench.upstream.image.digest)],
      targets: { "nginx static": 0.8, "docker-registry 2.8": 10 },
    }),
};

export const manifestHead: Row = {
  name: "manifest-head",
  title: `cached manifest by digest, HEAD, ${CONNECTIONS} connections`,
  meaning: "The request by which clients check whether they have a manifest.",
  async run(bench) {
    const path = manifestPath(bench.upstream.image.digest);
    const outcome = await measureHits(bench, {
      servers: ALL.filter((name) => name !== "nginx proxy_cache"),
      paths: [path],
      load: (peer) => clients(peer.host, { path, count: CONNECTIONS, heads: bench.seconds }),
      targets: { "nginx static": 0.8, "docker-registry 2.8": 10 },
    });
    return {
      ...outcome,
      notes: ["Measured with clients of our own: wrk waits for bodies that HEAD does not have."],
    };
  },
};

export const smallBlobs: Row = {
  name: "small-blobs",
  title: `64 cached blobs of 1 to 32 KiB in turn, ${CONNECTIONS} connections`,
  meaning: "Image configurations, signatures, small layers.",
  run: (bench) =>
    measureHits(bench, {
      servers: ALL,
      paths: bench.upstream.small.map(({ digest }) => blobPath(digest)),
      targets: { "nginx static": 0.5 },
    }),
};
