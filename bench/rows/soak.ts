/**
 * Everything at once, for minutes: memory must not grow.
 *
 * @module
 */
import { check } from "../figures.ts";
import { clients, wrk } from "../load.ts";
import type { Row } from "../row.ts";
import { blobPath, LARGE, manifestPath } from "../upstream.ts";

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export const soak: Row = {
  name: "soak",
  title: "minutes of mixed load",
  meaning: "Memory stays constant after the first minute.",
  onDemand: true,
  async run({ upstream, peers, minutes, say }) {
    // Room for a few of the large blobs: fills and evictions never end.
    const peer = await peers.start("ours", { env: { CACHE_MAX_SIZE: String(5 * LARGE) } });
    const blobs = [upstream.large];
    for (let i = 0; i < 8; i++) blobs.push(await upstream.fresh());
    const until = performance.now() + minutes * 60_000;
    const isOver = () => performance.now() >= until;
    const small = [
      manifestPath("latest"),
      manifestPath(upstream.image.digest),
      ...upstream.small.map(({ digest }) => blobPath(digest)),
    ];
    const loads = [
      async () => {
        await wrk(peer.url, { connections: 8, seconds: 5, paths: small });
        await wait(2_000);
      },
      async () => {
        // Another one each time: most are not here any more.
        const blob = blobs[Math.floor(Math.random() * blobs.length)]!;
        await clients(peer.host, { path: blobPath(blob.digest), count: 6, rate: 40_000_000 });
      },
      async () => {
        // Clients that leave in the middle.
        const blob = blobs[Math.floor(Math.random() * blobs.length)]!;
        const path = blobPath(blob.digest);
        await clients(peer.host, { path, count: 10, rate: 2_000_000, leaveAfter: 3 });
      },
    ];
    const samples: { minute: number; mb: number }[] = [];
    const watch = async () => {
      const firstByte = performance.now();
      while (!isOver()) {
        await wait(1_000);
        const minute = Math.floor((performance.now() - firstByte) / 60_000);
        const mb = peer.rss() / 1e6;
        const last = samples.at(-1);
        if (last?.minute === minute) last.mb = Math.max(last.mb, mb);
        else {
          if (last) say(`  minute ${last.minute + 1}: at most ${last.mb.toFixed(0)} MB`);
          samples.push({ minute, mb });
        }
      }
    };
    try {
      const repeat = async (load: () => Promise<void>) => {
        while (!isOver()) await load();
      };
      await Promise.all([watch(), ...loads.map(repeat)]);
      const peaks = samples.slice(0, minutes).map(({ mb }) => mb);
      const [, second, ...later] = peaks;
      const series = [{ server: "ours", figure: "most RSS MB in each minute", values: peaks }];
      if (second === undefined || later.length === 0) {
        return {
          series,
          checks: [],
          notes: [`After ${minutes} minutes there is nothing to compare.`],
        };
      }
      return {
        series,
        checks: [
          check("most RSS of the last three minutes by that of the second", {
            values: [Math.max(...later.slice(-3)) / second],
            target: { atMost: 1.05 },
          }),
        ],
        notes: [`${minutes} of them.`],
      };
    } finally {
      await peer.stop();
    }
  },
};
