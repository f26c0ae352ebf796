import { assertEquals, assertGreater, assertLess, assertMatch } from "@std/assert";
import { configure, type LogRecord, reset } from "@logtape/logtape";
import { LoopLag, noteRequest } from "../../lib/telemetry/loop_lag.ts";

function standStill(ms: number): void {
  for (const until = performance.now() + ms; performance.now() < until;);
}

/** The lines that `work` logs at warning and above. */
async function logged(work: (lines: LogRecord[]) => Promise<void>): Promise<LogRecord[]> {
  const lines: LogRecord[] = [];
  await configure({
    sinks: { lines: (record) => lines.push(record) },
    loggers: [
      { category: "proxy", sinks: ["lines"], lowestLevel: "warning" },
      { category: ["logtape", "meta"], sinks: [] },
    ],
    reset: true,
  });
  try {
    await work(lines);
  } finally {
    await reset();
  }
  return lines;
}

/** Settles when `lag` has measured once more. */
async function measured(lag: LoopLag): Promise<void> {
  const before = lag.total;
  while (lag.total === before) await new Promise((resolve) => setTimeout(resolve, 5));
}

Deno.test("a standstill is measured in full, however long it was", async () => {
  const lag = new LoopLag();
  standStill(700);
  await measured(lag);
  assertGreater(lag.worst, 550);
  assertGreater(lag.total, 550);
  lag.close();
});

Deno.test("above a second one line names the request that was worked on, without its query", async () => {
  const lines = await logged(async () => {
    const lag = new LoopLag();
    noteRequest({ method: "GET", target: "/v2/before" }, "1.1.1.1");
    noteRequest({ method: "HEAD", target: `/v2/culprit?token=secret` }, "2.2.2.2");
    standStill(1_300);
    // What waited is worked on before any timer.
    noteRequest({ method: "GET", target: "/v2/after" }, "3.3.3.3");
    await measured(lag);
    standStill(1_300);
    await measured(lag);
    lag.close();
  });
  assertEquals(lines.length, 1);
  const { method, path, client, ms, elapsed } = lines[0]!.properties;
  assertEquals([method, path, client], ["HEAD", "/v2/culprit", "2.2.2.2"]);
  assertGreater(Number(ms), 1_100);
  assertLess(Math.abs(Number(elapsed) - 1_300), 500);
});

Deno.test("a path that is told is cut", async () => {
  const lines = await logged(async () => {
    const lag = new LoopLag();
    noteRequest({ method: "GET", target: `/${"x".repeat(2_000)}` }, undefined);
    standStill(1_300);
    await measured(lag);
    lag.close();
  });
  assertMatch(String(lines[0]?.properties.path), /^\/x{255}…$/);
});

Deno.test("without a standstill nothing is told", async () => {
  const lines = await logged(async () => {
    const lag = new LoopLag();
    noteRequest({ method: "GET", target: "/" }, undefined);
    await new Promise((resolve) => setTimeout(resolve, 300));
    lag.close();
  });
  assertEquals(lines.length, 0);
});
