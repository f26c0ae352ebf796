import { assert, assertEquals, assertMatch } from "@std/assert";
import { Bars } from "../../lib/commands/bars.ts";
import { runWarm } from "../../lib/commands/warm.ts";
import type { Operations } from "../../lib/operator/operations.ts";
import type { WarmedImage, WarmProgress } from "../../lib/warm/warm.ts";
import { keepOutput } from "../support/output.ts";

const DIGEST = `sha256:${"a1".repeat(32)}`;
const IMAGE = "docker.io/library/app:1";
const GOOD: WarmedImage = {
  image: IMAGE,
  ok: true,
  digest: DIGEST,
  lists: [],
  digests: [DIGEST, "x"],
  size: 2048,
  fetched: 1024,
  failures: [],
};
const BAD: WarmedImage = {
  ...GOOD,
  ok: false,
  failures: [{ role: "layer", reference: DIGEST, error: "Not found" }],
};
const LAYER: WarmProgress = {
  image: IMAGE,
  role: "layer",
  reference: DIGEST,
  platform: "linux/amd64",
  state: "running",
  received: 0,
  size: 4096,
};

/** Operations whose warming reports `steps` and comes to `results`. */
function warming(
  steps: readonly WarmProgress[],
  results: WarmedImage[],
): Pick<Operations, "warm"> {
  return {
    warm: (_images, { onProgress }) => {
      for (const step of steps) onProgress?.(step);
      return Promise.resolve(results);
    },
  };
}

const run = (
  steps: readonly WarmProgress[],
  results: WarmedImage[],
  options: { json?: boolean; columns?: number } = {},
) => {
  const { json = false, columns } = options;
  const output = keepOutput({ columns });
  return runWarm({ operations: warming(steps, results), images: ["app:1"], json, output })
    .then((code) => ({ code, output }));
};

Deno.test("without a terminal, warm prints a line for each fetched part and each image", async () => {
  const { code, output } = await run([
    { ...LAYER, state: "waiting" },
    LAYER,
    { ...LAYER, received: 2048 },
    { ...LAYER, state: "fetched", received: 4096 },
  ], [GOOD]);
  assertEquals(code, 0);
  assertEquals(output.lines, [
    `${IMAGE}: linux/amd64 layer sha256:a1a1a1a1a1a1: fetched, 4 KiB`,
    `${IMAGE}: complete: 2 parts, 2 KiB, 1 KiB fetched now`,
  ]);
});

Deno.test("warm reports failures and exits 1", async () => {
  const steps: WarmProgress[] = [{ ...LAYER, state: "failed", error: "Not found" }];
  const { code, output } = await run(steps, [GOOD, BAD]);
  assertEquals(code, 1);
  assertEquals(output.lines.slice(-2), [
    `${IMAGE}: incomplete: 1 of its parts failed`,
    "  layer sha256:a1a1a1a1a1a1: Not found",
  ]);
});

Deno.test("--json prints the results and nothing else", async () => {
  const { code, output } = await run([{ ...LAYER, state: "fetched" }], [BAD], { json: true });
  assertEquals([code, output.lines.map((line) => JSON.parse(line))], [1, [[BAD]]]);
});

Deno.test("on a terminal, warm draws a bar for each part in progress and leaves only the result", async () => {
  const { output } = await run(
    [
      { ...LAYER, received: 2048 },
      { ...LAYER, state: "fetched", received: 4096 },
    ],
    [GOOD],
    { columns: 200 },
  );
  assertMatch(output.screen[0]!, /\[#{12}-{12}\] 2 KiB of 4 KiB .* linux\/amd64 layer sha256:a1/);
  assertEquals(output.screen.at(-1), "\x1b[1A\x1b[0J");
  assertEquals(output.lines, [`${IMAGE}: complete: 2 parts, 2 KiB, 1 KiB fetched now`]);
});

/** The lines that are on a screen after `writes`. */
function screenOf(writes: readonly string[]): string[] {
  const lines: string[] = [];
  for (const write of writes) {
    // deno-lint-ignore no-control-regex
    const [, up, rest = ""] = /^(?:\x1b\[(\d+)A\x1b\[0J)?([^]*)$/.exec(write) ?? [];
    lines.length -= Number(up ?? 0);
    lines.push(...rest.split("\n").slice(0, -1));
  }
  return lines;
}

Deno.test("bars are redrawn in place and never wrap", () => {
  const writes: string[] = [];
  const clock = { now: 0 };
  const terminal = { columns: 60, write: (text: string) => void writes.push(text) };
  const bars = new Bars(terminal, () => clock.now);
  for (let step = 0; step < 5; step++) {
    for (const key of ["a", "b"]) {
      bars.set(key, { label: `${key} ${"x".repeat(100)}`, received: step * 100, size: 400 });
      clock.now += 100;
    }
  }
  const lines = screenOf(writes);
  assertEquals(lines.length, 2);
  for (const line of lines) assert(line.length < 60, line);
  assertMatch(lines[0]!, /^ {2}\[#{24}\] 400 B of 400 B/);
  bars.delete("a");
  assertEquals(screenOf(writes).length, 1);
  bars.clear();
  assertEquals(screenOf(writes), []);
});

Deno.test("at most twelve bars are drawn, at most ten times a second", () => {
  const writes: string[] = [];
  const terminal = { columns: 80, write: (text: string) => void writes.push(text) };
  const clock = { now: 0 };
  const bars = new Bars(terminal, () => clock.now);
  for (let n = 0; n < 50; n++) bars.set(`${n}`, { label: `${n}`, received: n });
  assertEquals(writes.length, 1);
  clock.now = 100;
  bars.set("0", { label: "0", received: 1 });
  assertEquals(screenOf(writes).length, 13);
  assertEquals(screenOf(writes).at(-1), "  and 38 more");
});
