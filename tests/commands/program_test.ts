/** The commands as people run them, beside an instance and without one. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { makeImage, makeIndex } from "../support/image.ts";
import { background } from "../support/process.ts";
import { runProxy, startCommand, startProxy } from "../support/proxy_process.ts";
import { freePort, tempDir } from "../support/temp.ts";

const IMAGE = makeIndex([
  makeImage({ seed: 1 }),
  makeImage({ seed: 2, platform: { os: "linux", architecture: "s390x" } }),
]);

/** Runs one command after the other: warm, ls, stats, rm, ls. */
async function story(env: Record<string, string>) {
  const warmed = await runProxy(["warm", "app:1"], env);
  assertEquals([warmed.code, warmed.stderr], [0, ""]);
  const lines = warmed.stdout.trimEnd().split("\n");
  assertMatch(lines.at(-1)!, /^docker\.io\/library\/app:1: complete: 7 parts, .* fetched now$/);
  assertEquals(lines.filter((line) => /: linux\/\w+ layer .* fetched/.test(line)).length, 2);

  const failed = await runProxy(["warm", "app:1", "missing:1", "--json"], env);
  assertEquals(failed.code, 1);
  const results = JSON.parse(failed.stdout);
  assertEquals(results.map(({ ok, fetched }: { ok: boolean; fetched: number }) => [ok, fetched]), [
    [true, 0],
    [false, 0],
  ]);

  const list = JSON.parse((await runProxy(["ls", "app", "--json"], env)).stdout);
  assertEquals(
    list.map(({ name, isWhole }: { name: string; isWhole: boolean }) => [name, isWhole]),
    [
      ["docker.io/library/app:1", true],
    ],
  );
  const stats = JSON.parse((await runProxy(["stats", "--json"], env)).stdout);
  assert(stats.cache.entries >= 7);

  assertEquals((await runProxy(["rm", "app:1"], env)).code, 0);
  const again = await runProxy(["rm", "app:1"], env);
  assertEquals([again.code, again.stderr], [1, "app:1: Not in the cache\n"]);
  const empty = await runProxy(["ls"], env);
  assertEquals([empty.code, empty.stdout], [0, ""]);
  return stats;
}

Deno.test("without an instance the commands open the cache themselves", async () => {
  await using docker = await startFakeRegistry();
  docker.add("library/app", "1", IMAGE);
  await using dir = await tempDir();
  const env = { CACHE_DIR: dir.path, UPSTREAM_DOCKER: docker.url, ADMIN_ADDR: "off" };
  const stats = await story(env);
  assertEquals(stats.traffic, undefined);
});

Deno.test("with a running instance, the instance carries out the commands", async () => {
  await using docker = await startFakeRegistry();
  docker.add("library/app", "1", IMAGE);
  const env = {
    UPSTREAM_DOCKER: docker.url,
    ADMIN_ADDR: `127.0.0.1:${freePort()}`,
    ADMIN_TOKEN: "a secret of 16+ characters",
  };
  await using proxy = await startProxy({ env });
  const stats = await story({ ...env, CACHE_DIR: proxy.cacheDir });
  assert(stats.traffic.uptime >= 0);
  assert(!proxy.logs().join("\n").includes("a secret of"));
});

Deno.test("a warming that is interrupted says so and exits with 130", async () => {
  await using docker = await startFakeRegistry();
  const image = makeImage({ layers: [300_000] });
  docker.add("library/app", "1", image);
  docker.faults.add({ reference: image.layers[0]!.digest }, { stallAt: 1000 });
  await using dir = await tempDir();
  const [deno, ...args] = [Deno.execPath(), ...await startCommand(), "warm", "app:1"];
  const process = background(deno, {
    args,
    env: { CACHE_DIR: dir.path, UPSTREAM_DOCKER: docker.url, ADMIN_ADDR: "off" },
  });
  await process.line(/config sha256:\w+: fetched/);
  const { code } = await process.stop("SIGINT");
  assertEquals(code, 130);
  assertMatch(process.lines.at(-1)!, /^Interrupted$/);
});
