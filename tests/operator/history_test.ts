import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { History } from "../../lib/operator/history.ts";
import { startAdmin } from "../../lib/admin/server.ts";
import { Stats } from "../../lib/telemetry/stats.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { makeImage } from "../support/image.ts";
import { startTestProxy } from "../support/proxy.ts";
import { tempDir } from "../support/temp.ts";
import { until } from "../support/until.ts";

const MINUTE = 60_000;
const NOON = Date.UTC(2026, 0, 15, 12);

/** Counts `n` hits of ten bytes. */
function hit(stats: Stats, n = 1): void {
  stats.requests.add("docker blob 2xx HIT", n);
  stats.bytesFromCache += 10 * n;
}

const hits = (history: History, range: "hour" | "day" | "month") =>
  history.samples(range).map(({ at, hit }) => [(at - NOON) / MINUTE, hit]);

Deno.test("history is recorded by minute, quarter of an hour and half a day", async () => {
  const stats = new Stats();
  let now = NOON + 10 * MINUTE;
  const history = new History(stats, { now: () => now });
  hit(stats);
  assertEquals(hits(history, "hour"), [[10, 1]]);
  now += 59_000;
  hit(stats, 2);
  now += 1_000;
  hit(stats, 4);
  assertEquals(hits(history, "hour"), [[10, 1], [11, 6]]);
  now = NOON + 25 * MINUTE;
  hit(stats);
  assertEquals(hits(history, "day"), [[0, 7], [15, 1]]);
  assertEquals(hits(history, "month"), [[0, 8]]);
  now += 60 * MINUTE;
  assertEquals(hits(history, "hour"), []);
  assertEquals(hits(history, "day"), [[0, 7], [15, 1]]);
  await history.close();
});

/** The counters of a process that started after the one of `before`: its start tells processes apart. */
function statsOfNextProcess(before: Stats): Stats {
  let stats = new Stats();
  while (stats.startedAt === before.startedAt) stats = new Stats();
  return stats;
}

Deno.test("history survives a restart", async () => {
  await using dir = await tempDir();
  let now = NOON;
  const options = { dir: dir.path, now: () => now };
  const first = new Stats();
  hit(first, 3);
  await new History(first, options).close();
  now += 5 * MINUTE;
  const second = statsOfNextProcess(first);
  const history = new History(second, options);
  hit(second, 4);
  assertEquals(hits(history, "hour"), [[0, 3], [5, 4]]);
  const { since, hit: all, bytesFromCache } = history.total;
  assertEquals([since, all, bytesFromCache], [first.startedAt, 7, 70]);
  await history.close();
});

Deno.test("a killed process loses only the last minutes of history", async () => {
  await using dir = await tempDir();
  const stats = new Stats();
  const running = new History(stats, { dir: dir.path, tick: 1 });
  hit(stats, 3);
  const after = () => {
    const next = new History(statsOfNextProcess(stats), { dir: dir.path });
    void next.close();
    return next.total.hit;
  };
  await until(() => after() === 3);
  await running.close();
});

Deno.test("what one process counted is counted once, however often its listener starts", async () => {
  await using dir = await tempDir();
  const stats = new Stats();
  for (const all of [1, 2, 3]) {
    hit(stats);
    const history = new History(stats, { dir: dir.path, now: () => NOON });
    assertEquals(history.total.hit, all);
    await history.close();
  }
});

Deno.test("a clock that is set back, or was years wrong for a while, loses nothing", async () => {
  await using dir = await tempDir();
  let now = NOON;
  const options = { dir: dir.path, now: () => now };
  const stats = new Stats();
  const history = new History(stats, options);
  const happens = () => {
    hit(stats);
    return hits(history, "hour");
  };
  assertEquals(happens(), [[0, 1]]);
  now = NOON - 5 * MINUTE;
  assertEquals(happens(), [[-5, 1]]);
  now = NOON;
  assertEquals(happens(), [[-5, 1], [0, 2]]);
  now = 0; // before it has heard what time it is
  happens();
  now = NOON + 20 * 365 * 24 * 60 * MINUTE;
  happens();
  await history.close();
  now = NOON + MINUTE;
  const next = new History(statsOfNextProcess(stats), options);
  assertEquals(hits(next, "hour"), [[-5, 1], [0, 2]]);
  assertEquals(next.total.hit, 5);
  await next.close();
});

for (const text of ["", "{", "null", '{"version":1}', '{"version":2,"since":0}']) {
  Deno.test(`a file with ${JSON.stringify(text)} is none: it begins anew`, async () => {
    await using dir = await tempDir();
    await Deno.writeTextFile(join(dir.path, "history.json"), text);
    const stats = new Stats();
    const history = new History(stats, { dir: dir.path });
    hit(stats);
    assertEquals(history.total.hit, 1);
    await history.close();
    const again = new History(statsOfNextProcess(stats), { dir: dir.path });
    assertEquals(again.total.hit, 1);
    await again.close();
  });
}

Deno.test("history works without a writable folder", async () => {
  const stats = new Stats();
  const history = new History(stats, { dir: "/proc/none" });
  hit(stats);
  await history.close();
  assertEquals(history.total.hit, 1);
});

Deno.test("after a restart the API includes earlier history", async () => {
  await using docker = await startFakeRegistry();
  docker.add("library/app", "1", makeImage());
  await using proxy = await startTestProxy({ upstreams: { docker } });
  const settings = { host: "127.0.0.1", port: 0, isWanted: true };
  const first = startAdmin(proxy.proxy, settings);
  for (let i = 0; i < 3; i++) await whole(`${proxy.url}/v2/library/app/manifests/1`);
  await first.close();
  await proxy.restart();
  const second = startAdmin(proxy.proxy, settings);
  try {
    const { requests, allTime } =
      (await whole(`http://127.0.0.1:${second.addr.port}/api/overview`)).json;
    assertEquals([requests.hit, allTime.hit, allTime.miss], [0, 2, 1]);
  } finally {
    await second.close();
  }
});
