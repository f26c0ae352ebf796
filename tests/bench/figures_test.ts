import { assertEquals, assertThrows } from "@std/assert";
import { check, ratios, short, summary } from "../../bench/figures.ts";
import { markdown } from "../../bench/report.ts";
import { alternate } from "../../bench/row.ts";

Deno.test("a summary is the median, the lowest and the highest", () => {
  assertEquals(summary([5, 1, 3]), { median: 3, low: 1, high: 5 });
  assertEquals(summary([4, 1, 3, 2]), { median: 2.5, low: 1, high: 4 });
  assertThrows(() => summary([]), RangeError);
});

Deno.test("ratios are taken round by round", () => {
  assertEquals(ratios([10, 30], [5, 10]), [2, 3]);
  assertThrows(() => ratios([1], [1, 2]), RangeError);
});

Deno.test("a target is met by the median, not by the best round", () => {
  const least = check("speed", { values: [0.7, 0.9, 2], target: { atLeast: 0.8 } });
  assertEquals([least.target, least.isMet], ["≥ 0.8", true]);
  assertEquals(check("speed", { values: [0.7, 0.7, 2], target: { atLeast: 0.8 } }).isMet, false);
  const most = check("time", { values: [1, 12, 13], target: { atMost: 10 }, unit: " ms" });
  assertEquals([most.target, most.isMet], ["≤ 10 ms", false]);
});

Deno.test("numbers are short, and large ones readable", () => {
  assertEquals([0.123456, 12.3456, 123456.7, NaN].map(short), ["0.123", "12.3", "123,457", "–"]);
});

Deno.test("servers take turns, and each begins as often as the others", async () => {
  const order: string[] = [];
  const found = await alternate({ rounds: 3, say: () => {} }, ["a", "b", "c"], (server, round) => {
    order.push(server);
    return Promise.resolve({ figure: round });
  });
  assertEquals(order.join(""), "abcbcacab");
  assertEquals(found.get("b")!.get("figure"), [0, 1, 2]);
});

Deno.test("the table names each work once, with every target and whether it is met", () => {
  const row = {
    name: "x",
    title: "some work",
    meaning: "",
    run: () => Promise.reject(new Error("not run")),
  };
  const outcome = {
    series: [{ server: "ours", figure: "requests/s", values: [1, 2, 3] }],
    checks: [
      check("by this", { values: [1], target: { atLeast: 2 } }),
      check("by that", { values: [1], target: { atMost: 2 } }),
    ],
  };
  const machine = {
    cpu: "C",
    cores: 2,
    memory: "1 GiB",
    kernel: "6",
    deno: "2",
    peers: ["nginx 1"],
    rounds: 3,
    date: "2026-01-01",
  };
  const text = markdown([{ row, outcome }], machine);
  const lines = text.split("\n").filter((line) => line.startsWith("| "));
  assertEquals(lines.filter((line) => line.includes("some work")).length, 2);
  assertEquals(lines.includes("| some work | by this | ≥ 2 | **1** | 1–1 | **no** |"), true);
  assertEquals(lines.includes("|  | by that | ≤ 2 | **1** | 1–1 | yes |"), true);
  assertEquals(lines.includes("| some work | ours | requests/s **2** (1–3) |"), true);
});
