import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { join } from "@std/path";
import { createProxy, parseConfig } from "../mod.ts";
import { startFakeRegistry } from "./support/fake_registry.ts";
import { startFakeStorage } from "./support/fake_storage.ts";
import { rawRequest, whole } from "./support/http.ts";
import { makeImage } from "./support/image.ts";
import { answering, background, must } from "./support/process.ts";
import { baseEnv, ROOT } from "./support/proxy_process.ts";
import { freePort, tempDir } from "./support/temp.ts";

Deno.test("createProxy works with any Deno.serve, with fetch detached from its object", async () => {
  await using upstream = await startFakeRegistry();
  await using dir = await tempDir();
  const image = makeImage();
  upstream.add("team/app", "1", image);
  const proxy = createProxy(parseConfig({ UPSTREAM_CORP: upstream.url, CACHE_DIR: dir.path }));
  await proxy.ready;
  const { fetch: answer } = proxy;
  const options = { port: 0, hostname: "127.0.0.1", onListen() {} };
  // Without the connection, as a router in between may call it.
  const server = Deno.serve(options, (request) => answer(request));
  const url = `http://127.0.0.1:${server.addr.port}/v2/corp/team/app/manifests/1`;
  assertEquals((await whole(url)).headers.get("x-cache"), "MISS");
  const second = await whole(url);
  assertEquals(second.headers.get("x-cache"), "HIT");
  assertEquals(second.digest, image.digest);
  await server.shutdown();
  await proxy.close();
});

Deno.test("ready and every request reject if the cache cannot be opened", async () => {
  await using dir = await tempDir();
  const path = join(dir.path, "file");
  await Deno.writeTextFile(path, "");
  const proxy = createProxy(parseConfig({ CACHE_DIR: join(path, "cache") }));
  await assertRejects(() => proxy.ready, Error, "Cannot open cache");
  await assertRejects(() => proxy.fetch(new Request("http://localhost/health")), Error);
  await proxy.close();
});

Deno.test("fetch answers a plain Request without connection details", async () => {
  const proxy = createProxy(parseConfig({ CACHE_ENABLED: "false", CUSTOM_DOMAIN: "example.com" }));
  const home = await proxy.fetch(new Request("https://example.com/"));
  assertEquals([home.status, home.headers.get("location")], [301, "/v2/"]);
  const lost = await proxy.fetch(new Request("https://elsewhere.example/"));
  assertEquals(lost.status, 404);
  assertEquals((await lost.json()).routes["ghcr.example.com"], "https://ghcr.io");
  await proxy.close();
});

/** The examples, as they stand in the documents. */
function examples(): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of ["docs/library.md", "mod.ts"]) {
    const text = Deno.readTextFileSync(join(ROOT, name)).replaceAll(/^ \* ?/gm, "");
    const blocks = [...text.matchAll(/^```ts\n([^]*?)^```$/gm)].map(([, code = ""]) => code);
    assertEquals(blocks.length, 1, `${name}: expected one example`);
    found[name] = blocks[0]!;
  }
  return found;
}

for (const [name, example] of Object.entries(examples())) {
  Deno.test(`the example of ${name} type-checks, runs without write access, and serves`, async () => {
    await using dir = await tempDir();
    const port = freePort();
    const file = join(dir.path, "example.ts");
    assertStringIncludes(example, `from "./mod.ts"`);
    assertStringIncludes(example, "port: 8080");
    await Deno.writeTextFile(
      file,
      example.replace("./mod.ts", new URL("../mod.ts", import.meta.url).href)
        .replace("port: 8080", `port: ${port}`),
    );
    const config = ["--config", join(ROOT, "deno.json")];
    await must(Deno.execPath(), ["check", ...config, file], { env: baseEnv() });
    const server = background(Deno.execPath(), {
      args: ["run", ...config, "--allow-net", "--allow-env", file],
      env: baseEnv(),
      clearEnv: true,
    });
    try {
      await answering(`http://127.0.0.1:${port}/health`, server, { accept: (s) => s === 200 });
      const lost = await rawRequest(`127.0.0.1:${port}`, {
        path: "/",
        headers: [["host", "elsewhere.example"]],
      });
      assertEquals(lost.status, 404);
      const { routes } = JSON.parse(new TextDecoder().decode(lost.body));
      assertEquals(routes["docker.example.com"], "https://registry-1.docker.io");
      if (example.includes("UPSTREAM_CORP")) {
        assertEquals("corp.example.com" in routes, false);
      }
      // A library says nothing by itself, but for the line of Deno.serve.
      const said = server.lines.filter((line) => !line.startsWith("Listening on"));
      assertEquals(said, []);
    } finally {
      await server.stop();
    }
  });
}

Deno.test("as on Deno Deploy it needs network and environment alone, and loads no module of the cache", async () => {
  await using storage = await startFakeStorage();
  await using upstream = await startFakeRegistry({ auth: "token", storage });
  const image = makeImage({ layers: [5000] });
  upstream.add("team/app", "1", image);
  await using dir = await tempDir();
  // The program without lib/cache: what is not there cannot be loaded.
  const files = ["deno.json", "deno.lock", "main.ts", "mod.ts", "std", "lib"];
  await must("cp", ["-r", ...files.map((name) => join(ROOT, name)), dir.path]);
  await Deno.remove(join(dir.path, "lib/cache"), { recursive: true });
  const before = await must("find", [dir.path, "-type", "f"]);
  const port = freePort();
  const server = background(Deno.execPath(), {
    args: ["run", "--allow-net", "--allow-env", "--no-prompt", join(dir.path, "main.ts")],
    cwd: dir.path,
    clearEnv: true,
    env: {
      ...baseEnv(),
      DENO_DEPLOY: "1",
      HOST: "127.0.0.1",
      PORT: String(port),
      UPSTREAM_CORP: upstream.url,
      ALLOW_PRIVATE_NETWORKS: "true",
    },
  });
  try {
    const base = `http://127.0.0.1:${port}`;
    await answering(`${base}/health`, server, { accept: (status) => status === 200 });
    for (const round of [1, 2]) {
      const manifest = await whole(`${base}/v2/corp/team/app/manifests/1`);
      assertEquals([manifest.status, manifest.digest], [200, image.digest]);
      assertEquals(manifest.headers.get("x-cache"), "BYPASS", `round ${round}`);
      const [layer] = image.layers;
      const blob = await whole(`${base}/v2/corp/team/app/blobs/${layer!.digest}`);
      assertEquals([blob.status, blob.digest], [200, layer!.digest]);
    }
    assertEquals(await must("find", [dir.path, "-type", "f"]), before);
    assert(server.running());
    assertEquals((await server.stop()).code, 0);
    assertMatch(server.lines.join("\n"), /Listening .*cache=off/);
  } finally {
    await server.stop();
  }
});
