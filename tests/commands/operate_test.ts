import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { startAdmin } from "../../lib/admin/server.ts";
import { operate, OperateError } from "../../lib/commands/operate.ts";
import { NotRunningError, RemoteError, RemoteOperations } from "../../lib/commands/remote.ts";
import { parseConfig } from "../../lib/config/config.ts";
import { ProxyOperations } from "../../lib/operator/operations.ts";
import { parsePlatforms } from "../../lib/oci/platform.ts";
import type { WarmProgress } from "../../lib/warm/warm.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { makeImage, makeIndex } from "../support/image.ts";
import { startTestProxy } from "../support/proxy.ts";
import { freePort, tempDir } from "../support/temp.ts";
import { until } from "../support/until.ts";

const AMD64 = { os: "linux", architecture: "amd64" };
const ARM64 = { os: "linux", architecture: "arm64" };

/** A registry with two images, and a proxy with an operator's listener. */
async function startInstance(env: Record<string, string> = {}, token?: string) {
  const docker = await startFakeRegistry();
  docker.add("library/app", "1", makeImage({ seed: 1 }));
  docker.add(
    "library/app",
    "2",
    makeIndex([AMD64, ARM64].map((platform, i) => makeImage({ platform, seed: i + 2 }))),
  );
  const proxy = await startTestProxy({ upstreams: { docker }, env });
  const listener = startAdmin(proxy.proxy, { host: "127.0.0.1", port: 0, token, isWanted: true });
  const { port } = listener.addr;
  return {
    docker,
    proxy,
    admin: { host: "127.0.0.1", port, token, isWanted: true },
    /** What a command is configured with beside this instance. */
    config: parseConfig({
      CACHE_DIR: proxy.cacheDir,
      UPSTREAM_DOCKER: docker.url,
      ADMIN_ADDR: `127.0.0.1:${port}`,
      ADMIN_TOKEN: token,
    }),
    async [Symbol.asyncDispose]() {
      await listener.close();
      await proxy.close();
      await docker.close();
    },
  };
}

Deno.test("a running instance gives the same results as a process that has the cache open", async () => {
  await using instance = await startInstance({}, "a secret of 16+ characters");
  const remote = new RemoteOperations(instance.admin);
  const local = new ProxyOperations(instance.proxy.proxy);
  const seen: WarmProgress[] = [];
  const results = await remote.warm(["app:1", "app:2", "missing:1"], {
    platforms: parsePlatforms("linux/arm64"),
    onProgress: (progress) => seen.push(progress),
  });
  assertEquals(results.map(({ image, ok }) => [image, ok]), [
    ["docker.io/library/app:1", true],
    ["docker.io/library/app:2", true],
    ["docker.io/library/missing:1", false],
  ]);
  assert(seen.some(({ role, state }) => role === "layer" && state === "fetched"));
  assertEquals(seen.at(-1)?.error, results[2]!.failures[0]!.error);

  const byName = (a: { name: string }, b: { name: string }) => a.name < b.name ? -1 : 1;
  const listed = (await Array.fromAsync(remote.images())).sort(byName);
  assertEquals(listed.map(({ name }) => name), [
    "docker.io/library/app:1",
    "docker.io/library/app:2",
  ]);
  for (const [i, image] of (await Array.fromAsync(local.images())).sort(byName).entries()) {
    const { hits: _, ...known } = listed[i] as typeof image & { hits: number };
    assertEquals(known, image);
  }
  assertEquals((await remote.report()).cache, (await local.report()).cache);
  assertEquals((await remote.remove("app:1")).images, ["docker.io/library/app:1"]);
  assertEquals((await remote.remove("app:1")).images, []);
  assertEquals((await Array.fromAsync(local.images())).map(({ name }) => name), [
    "docker.io/library/app:2",
  ]);
});

Deno.test("a wrong token is reported as such", async () => {
  await using instance = await startInstance({}, "a secret of 16+ characters");
  const { admin } = instance;
  const stranger = new RemoteOperations({ ...admin, token: "wrong" });
  await assertRejects(() => stranger.report(), RemoteError, "ADMIN_TOKEN is wrong or missing");
  await assertRejects(() => stranger.check(), RemoteError, "ADMIN_TOKEN");
});

Deno.test("the instance's error message is passed on", async () => {
  await using instance = await startInstance();
  const remote = new RemoteOperations(instance.admin);
  await assertRejects(() => remote.remove("UPPER"), RemoteError, "Malformed image reference");
});

Deno.test("an aborted warming ends with the abort reason", async () => {
  await using instance = await startInstance();
  instance.docker.faults.add({ kind: "blob" }, { stallAt: 10, stallFor: 500 });
  const controller = new AbortController();
  const warming = new RemoteOperations(instance.admin).warm(["app:1"], {
    signal: controller.signal,
    onProgress: ({ role, state }) => {
      if (role === "layer" && state === "running") controller.abort(new Error("Interrupted"));
    },
  });
  await assertRejects(() => warming, Error, "Interrupted");
  // The instance goes on with what it has begun.
  const local = new ProxyOperations(instance.proxy.proxy);
  await until(async () => (await Array.fromAsync(local.images()))[0]?.isWhole === true);
});

Deno.test("an unused port, or a port of another program, means that no instance is running", async () => {
  const admin = { host: "127.0.0.1", port: freePort(), isWanted: true };
  await assertRejects(() => new RemoteOperations(admin).check(), NotRunningError);
  await using other = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => new Response("<html>Prometheus</html>", { status: 404 }),
  );
  const { port } = other.addr as Deno.NetAddr;
  await assertRejects(
    () => new RemoteOperations({ ...admin, port }).check(),
    NotRunningError,
    "another program",
  );
});

Deno.test("a cache that an instance has open is operated through it", async () => {
  await using instance = await startInstance();
  const { operations, close } = await operate(instance.config, { creates: false });
  await operations.warm(["app:1"], {});
  assert((await operations.report()).traffic, "an instance runs");
  assertEquals((await Array.fromAsync(operations.images())).length, 1);
  await close();
});

Deno.test("an unused cache is opened without an instance", async () => {
  await using instance = await startInstance();
  const { docker } = instance;
  await using dir = await tempDir();
  const env = {
    CACHE_DIR: dir.path,
    UPSTREAM_DOCKER: docker.url,
    ADMIN_ADDR: "off",
    WARM_IMAGES: "app:2",
  };
  const made = await operate(parseConfig(env), { creates: true });
  assert((await made.operations.warm(["app:1"], {}))[0]!.ok);
  await made.close();
  const again = await operate(parseConfig(env), { creates: false });
  assertEquals((await Array.fromAsync(again.operations.images())).map(({ tag }) => tag), ["1"]);
  assertEquals((await again.operations.report()).traffic, undefined);
  await again.close();
});

Deno.test("an existing cache directory takes precedence over an instance with another one", async () => {
  await using instance = await startInstance();
  await using dir = await tempDir();
  const { host, port } = instance.admin;
  const config = parseConfig({ CACHE_DIR: dir.path, ADMIN_ADDR: `${host}:${port}` });
  const own = await operate({ ...config, admin: undefined }, { creates: true });
  await own.close();
  const { operations, close } = await operate(config, { creates: false });
  assertEquals((await operations.report()).traffic, undefined);
  await close();
});

Deno.test("without a cache directory, the instance is used", async () => {
  await using instance = await startInstance();
  const config = { ...instance.config, cache: { ...instance.config.cache!, dir: "/no/such/dir" } };
  const { operations, close } = await operate(config, { creates: true });
  assert((await operations.report()).traffic);
  await close();
});

for (
  const [what, env, pattern] of [
    ["off", { CACHE_ENABLED: "false" }, /^The cache is off$/],
    ["nowhere", { CACHE_DIR: "/no/such/dir", ADMIN_ADDR: "off" }, /^There is no cache in \/no/],
  ] as const
) {
  Deno.test(`a cache that is ${what} is reported`, async () => {
    const error = await assertRejects(
      () => operate(parseConfig(env), { creates: false }),
      OperateError,
    );
    assertMatch(error.message, pattern);
  });
}

Deno.test("a cache of an instance without an operator's listener is reported", async () => {
  await using instance = await startInstance();
  const { config } = instance;
  const off = { ...config, admin: undefined };
  const error = await assertRejects(() => operate(off, { creates: false }), OperateError);
  assertMatch(error.message, /^Another process is using \S+, and ADMIN_ADDR is off/);
  const wrong = { ...config, admin: { ...config.admin!, port: freePort() } };
  const other = await assertRejects(() => operate(wrong, { creates: false }), OperateError);
  assertMatch(other.message, /^Another process is using \S+, and no instance answers at 127/);
});
