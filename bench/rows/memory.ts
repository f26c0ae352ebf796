/**
 * Memory, and the time to the first answer.
 *
 * @module
 */
import { generated } from "../../tests/support/image.ts";
import { baseEnv, ROOT, startCommand } from "../../tests/support/proxy_process.ts";
import { freePort } from "../../tests/support/temp.ts";
import { check } from "../figures.ts";
import { clients } from "../load.ts";
import { start } from "../program.ts";
import type { Bench, Row } from "../row.ts";
import { blobPath } from "../upstream.ts";

const GIB = 2 ** 30;
const SLOW_CLIENTS = 200;
/** Bytes per second of each of them. */
const SLOW = 1_000_000;

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export const idle: Row = {
  name: "idle",
  title: "RSS of an idle instance",
  meaning: "The cost of a running instance without traffic.",
  async run(bench) {
    const values: number[] = [];
    // The first start has Deno translate our TypeScript, in the same process.
    await (await bench.peers.start("ours")).stop();
    for (let round = 0; round < bench.rounds; round++) {
      const peer = await bench.peers.start("ours");
      await wait(1_500);
      values.push(peer.rss() / 1e6);
      await peer.stop();
      bench.say(`  ${round + 1}/${bench.rounds} ours: ${values.at(-1)!.toFixed(1)} MB`);
    }
    const checks = [check("RSS", { values, target: { atMost: 70 }, unit: " MB" })];
    return { series: [{ server: "ours", figure: "RSS MB", values }], checks };
  },
};

export const slowClients: Row = {
  name: "slow-clients",
  title: `${SLOW_CLIENTS} slow clients on a fill of 1 GiB`,
  meaning: "Memory grows neither with the number of slow clients nor with their lag.",
  async run(bench) {
    const blob = generated({ size: GIB, seed: 99 });
    await bench.upstream.add(blob);
    const peer = await bench.peers.start("ours");
    try {
      const path = blobPath(blob.digest);
      const seconds = bench.rounds > 3 ? 25 : 12;
      const report = await clients(peer.host, {
        path,
        count: SLOW_CLIENTS,
        rate: SLOW,
        leaveAfter: seconds,
      });
      const values = [peer.peakRss() / 1e6];
      bench.say(`  ${(report.bytes / 1e9).toFixed(1)} GB in ${report.seconds.toFixed(0)} s`);
      return {
        series: [
          { server: "ours", figure: "peak RSS MB", values },
          { server: "ours", figure: "MB/s to all", values: [report.bytes / report.seconds / 1e6] },
        ],
        checks: [check("peak RSS", { values, target: { atMost: 150 }, unit: " MB" })],
        notes: [
          `Each takes ${
            SLOW / 1e6
          } MB/s; all of it is here long before they leave after ${seconds} s.`,
        ],
      };
    } finally {
      await peer.stop();
    }
  },
};

/** Milliseconds from the start of the program until `GET /health` has been answered. */
async function firstAnswer(): Promise<number> {
  const dir = await Deno.makeTempDir({ prefix: "bench-start-" });
  const port = freePort();
  const args = await startCommand();
  const firstByte = performance.now();
  const program = start(Deno.execPath(), {
    args,
    cwd: ROOT,
    env: {
      ...baseEnv(),
      HOST: "127.0.0.1",
      PORT: String(port),
      CACHE_DIR: `${dir}/cache`,
      ADMIN_ADDR: `127.0.0.1:${freePort()}`,
    },
  });
  try {
    while (true) {
      try {
        using conn = await Deno.connect({ hostname: "127.0.0.1", port });
        await conn.write(
          new TextEncoder().encode("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        );
        if (await conn.read(new Uint8Array(1024))) return performance.now() - firstByte;
      } catch {
        // Nobody listens yet.
      }
      await wait(1);
      if (performance.now() - firstByte > 20_000) throw new Error("No answer");
    }
  } finally {
    await program.stop();
    await Deno.remove(dir, { recursive: true });
  }
}

export const startUp: Row = {
  name: "start",
  title: "start to first answer",
  meaning: "The duration of a restart for clients.",
  async run(bench: Bench) {
    await firstAnswer(); // has Deno keep what it made of our TypeScript
    const values: number[] = [];
    for (let round = 0; round < Math.max(5, bench.rounds); round++) {
      values.push(await firstAnswer());
      bench.say(`  ${round + 1} ours: ${values.at(-1)!.toFixed(0)} ms`);
    }
    const checks = [check("first answer", { values, target: { atMost: 250 }, unit: " ms" })];
    return { series: [{ server: "ours", figure: "ms", values }], checks };
  },
};
