/**
 * Without a cache, as on Deno Deploy: the same clients pull, by a program that has no cache module and may not write.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { startContainerd } from "../support/containerd.ts";
import { startDockerd } from "../support/docker.ts";
import { whole } from "../support/http.ts";
import { blobsOf, makeImage, makeIndex } from "../support/image.ts";
import { must, run } from "../support/process.ts";
import { baseEnv, type ProxyProcess, ROOT, startProxy } from "../support/proxy_process.ts";
import { toolTest } from "../support/requirements.ts";
import { makeContainers } from "../support/skopeo.ts";
import { tempDir } from "../support/temp.ts";
import { startRegistry } from "../support/upstream.ts";

const IMAGE = makeImage({ layers: [1000, 300_000] });
const INDEX = makeIndex([
  IMAGE,
  makeImage({ seed: 2, platform: { os: "linux", architecture: "arm64" } }),
]);

/** The program without its `lib/cache`; the arguments for deno that start it without any right to write. */
async function copyWithoutCache(dir: string): Promise<string[]> {
  const parts = ["main.ts", "mod.ts", "deno.json", "deno.lock", "lib", "std"];
  await must("cp", ["-r", ...parts.map((part) => join(ROOT, part)), dir]);
  await Deno.remove(join(dir, "lib/cache"), { recursive: true });
  const rights = ["--allow-net", "--allow-read", "--allow-env", "--allow-sys"];
  return ["run", "--no-prompt", ...rights, join(dir, "main.ts")];
}

/** What is below a folder, by path and size. */
async function listing(dir: string): Promise<string> {
  return await must("find", [dir, "-printf", "%P %s\n"]);
}

const OFF: Readonly<Record<string, Record<string, string>>> = {
  "CACHE_ENABLED=false": { CACHE_ENABLED: "false" },
  "DENO_DEPLOY set": { DENO_DEPLOY: "1" },
};

for (const [name, off] of Object.entries(OFF)) {
  toolTest(`With ${name} the same pulls work, nothing is written, no cache module is loaded`, {
    needs: [
      ...["root", "unshare", "docker", "dockerd", "containerd", "ctr"] as const,
      ...["skopeo", "podman", "docker-registry", "openssl"] as const,
    ],
    async fn() {
      await using dir = await tempDir();
      const command = await copyWithoutCache(dir.path);
      await using registry = await startRegistry({
        auth: "token",
        redirect: true,
        users: { ann: "secret" },
        private: { "team/secret": ["ann"] },
      });
      for (const repository of ["library/app", "team/app", "team/secret"]) {
        await registry.push(repository, "v1", INDEX);
      }
      const before = await listing(dir.path);
      await using proxy = await startProxy({
        command,
        cwd: dir.path,
        env: {
          ...off,
          CACHE_DIR: join(dir.path, "cache"),
          UPSTREAM_DOCKER: registry.upstreamUrl,
          UPSTREAM_GHCR: registry.upstreamUrl,
          ALLOW_PRIVATE_NETWORKS: "true",
        },
      });
      await pullWithAll(proxy);

      const blob = `${proxy.url}/v2/library/app/blobs/${IMAGE.layers[1]!.digest}`;
      const asked = registry.storage!.log.length;
      for (const range of ["bytes=0-", "bytes=100-199"]) {
        const answer = await whole(blob, { headers: { range } });
        assertEquals(answer.headers.get("x-cache"), "BYPASS");
      }
      assertEquals(registry.storage!.log.length, asked + 2, "upstream is asked each time");
      assertEquals(await proxy.stop(), 0);
      assertEquals(await listing(dir.path), before);
    },
  });
}

/** The pulls of the other files, one of each kind. */
async function pullWithAll(proxy: ProxyProcess): Promise<void> {
  await using engine = await startDockerd({ mirrors: [proxy.url] });
  const local = `localhost:${proxy.port}`;
  await engine.dockerWith("secret", "login", "--username", "ann", "--password-stdin", local);
  const names = ["app:v1", "library/app:v1", `${local}/app:v1`, `${local}/team/secret:v1`];
  for (const name of names) {
    await engine.must("pull", name);
    const id = await engine.must("image", "inspect", "--format", "{{.Id}}", name);
    assertEquals(id.trim(), IMAGE.config.digest);
    await engine.forget();
  }

  await using containerd = await startContainerd();
  await containerd.setHosts("ghcr.io", [{ url: proxy.url }]);
  const pulled = await containerd.pull("ghcr.io/team/app:v1", "--all-platforms");
  assertEquals(pulled.code, 0, pulled.stderr);
  assertEquals(await containerd.digest("ghcr.io/team/app:v1"), INDEX.digest);

  await using containers = await makeContainers({ insecure: [proxy.host] });
  const to = join(containers.dir, "out");
  const source = `docker://${proxy.host}/ghcr.io/team/app:v1`;
  const copied = await containers.skopeo(
    ...["copy", "--all", "--preserve-digests", source, `dir:${to}`],
  );
  assertEquals(copied.code, 0, copied.stderr);
  for (const { digest } of blobsOf(INDEX)) await Deno.stat(join(to, digest.slice(7)));
  const podman = await containers.podman("pull", `${proxy.host}/app:v1`);
  assertEquals(podman.code, 0, podman.stderr);
}

Deno.test("With the cache on the program needs its cache modules: it is they that were taken away", async () => {
  await using dir = await tempDir();
  const command = await copyWithoutCache(dir.path);
  const env = { ...baseEnv(), HOST: "127.0.0.1", PORT: "0", CACHE_DIR: join(dir.path, "cache") };
  const { code, stdout, stderr } = await run(Deno.execPath(), command, {
    clearEnv: true,
    cwd: dir.path,
    env,
  });
  assert(code !== 0);
  assertStringIncludes(stdout + stderr, "lib/cache/");
});

/** What is loaded with a module of the program, without what it imports when first needed. */
async function loadedWith(module: string): Promise<string[]> {
  const main = join(ROOT, "main.ts");
  const { modules } = JSON.parse(await must(Deno.execPath(), ["info", "--json", main]));
  interface Dependency {
    readonly code?: { readonly specifier?: string };
    readonly isDynamic?: boolean;
  }
  const graph = new Map<string, readonly Dependency[]>(
    modules.map(({ specifier, dependencies = [] }: {
      specifier: string;
      dependencies?: readonly Dependency[];
    }) => [specifier, dependencies]),
  );
  const start = [...graph.keys()].find((specifier) => specifier.endsWith(`/${module}`))!;
  const reached = new Set<string>();
  const visit = (specifier: string) => {
    if (reached.has(specifier)) return;
    reached.add(specifier);
    for (const { code, isDynamic } of graph.get(specifier) ?? []) {
      if (code?.specifier && !isDynamic) visit(code.specifier);
    }
  };
  visit(start);
  return [...reached];
}

Deno.test("Nothing of the cache is imported until it is asked for", async () => {
  const reached = await loadedWith("main.ts");
  const files = reached.filter((specifier) => specifier.startsWith("file:")).map(fromFileUrl);
  assert(files.includes(join(ROOT, "lib/proxy/proxy.ts")));
  assertEquals(files.filter((file) => file.startsWith(join(ROOT, "lib/cache"))), []);
  assertEquals(reached.filter((specifier) => /sqlite|redis|s3-lite/.test(specifier)), []);
});

Deno.test("With files and SQLite nothing of Redis and S3 is imported", async () => {
  const reached = await loadedWith("lib/cache/cache.ts");
  assert(reached.some((specifier) => specifier.endsWith("/sqlite_index.ts")));
  assertEquals(reached.filter((specifier) => /redis|s3/.test(specifier)), []);
  const shared = await loadedWith("lib/cache/shared_backends.ts");
  assert(shared.some((specifier) => /npm.*redis/.test(specifier)));
  assert(shared.some((specifier) => /npm.*s3-lite/.test(specifier)));
});
