import { assert, assertEquals } from "@std/assert";
import { startContainerd } from "../support/containerd.ts";
import { startDockerd } from "../support/docker.ts";
import { startRedis, startS3 } from "../support/engines.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { startFakeStorage } from "../support/fake_storage.ts";
import { whole } from "../support/http.ts";
import { makeArtifact, makeImage, makeIndex } from "../support/image.ts";
import { run } from "../support/process.ts";
import { startProxy } from "../support/proxy_process.ts";
import { toolTest, which } from "../support/requirements.ts";
import { makeContainers } from "../support/skopeo.ts";
import { ADMIN, startRegistry } from "../support/upstream.ts";

Deno.test("The proxy starts as its user starts it, and stops with exit code 0", async () => {
  const proxy = await startProxy();
  const health = await whole(`${proxy.url}/health`);
  assertEquals(health.json.status, "ok");
  assert(proxy.rss() > 10_000_000);
  assertEquals(await proxy.stop(), 0);
});

toolTest("A Docker engine of the test's own pulls from the fake registry and forgets", {
  needs: ["root", "dockerd", "containerd", "docker", "unshare"],
  async fn() {
    await using storage = await startFakeStorage();
    await using upstream = await startFakeRegistry({ storage });
    const image = makeImage({ layers: [1000, 2000] });
    upstream.add("team/app", "v1", image);
    await using engine = await startDockerd();
    const name = `${upstream.host}/team/app:v1`;
    await engine.must("pull", name);
    assertEquals(
      (await engine.must("image", "inspect", "--format", "{{.Id}}", name)).trim(),
      image.config.digest,
    );
    for (const layer of image.layers) assertEquals(storage.count({ digest: layer.digest }), 1);
    await engine.forget();
    assertEquals((await engine.must("images", "--quiet")).trim(), "");
    await engine.must("pull", name);
    for (const layer of image.layers) assertEquals(storage.count({ digest: layer.digest }), 2);
  },
});

toolTest("A Docker engine resolves the names it was given", {
  needs: ["root", "dockerd", "containerd", "docker", "unshare"],
  async fn() {
    await using upstream = await startFakeRegistry();
    upstream.add("team/app", "v1", makeImage());
    const host = `registry.proxy.test:${upstream.port}`;
    await using engine = await startDockerd({
      hosts: { "registry.proxy.test": "127.0.0.1" },
      insecure: [host],
    });
    await engine.must("pull", `${host}/team/app:v1`);
    assertEquals(upstream.log.at(-1)?.headers.get("host"), host);
  },
});

toolTest("A containerd of the test's own pulls through its hosts.toml and forgets", {
  needs: ["root", "containerd", "ctr", "unshare"],
  async fn() {
    await using upstream = await startFakeRegistry();
    const image = makeImage();
    upstream.add("team/app", "v1", image);
    await using containerd = await startContainerd();
    await containerd.setHosts("docker.io", [{ url: upstream.url }]);
    const name = "docker.io/team/app:v1";
    const pulled = await containerd.pull(name);
    assertEquals(pulled.code, 0, pulled.stderr);
    assertEquals(await containerd.digest(name), image.digest);
    assert(upstream.log.every((entry) => entry.target.includes("ns=docker.io")));
    await containerd.forget();
    assertEquals(await containerd.digest(name), "");
  },
});

toolTest("skopeo and podman pull through their registries.conf", {
  needs: ["root", "skopeo", "podman"],
  async fn() {
    await using upstream = await startFakeRegistry();
    const image = makeImage();
    upstream.add("library/app", "v1", image);
    await using containers = await makeContainers({ mirrors: { "docker.io": [upstream.host] } });
    const copied = await containers.skopeo("copy", "docker://app:v1", `dir:${containers.dir}/app`);
    assertEquals(copied.code, 0, copied.stderr);
    const before = upstream.log.length;
    const pulled = await containers.podman("pull", "docker.io/library/app:v1");
    assertEquals(pulled.code, 0, pulled.stderr);
    assertEquals(pulled.stdout.trim(), image.config.digest.replace("sha256:", ""));
    assert(upstream.log.length > before);
  },
});

for (const auth of ["none", "basic", "token"] as const) {
  toolTest(
    `docker-registry with auth ${auth} takes an image, gives it, and goes away and comes back`,
    {
      needs: ["docker-registry", "openssl", "skopeo"],
      async fn() {
        await using registry = await startRegistry({ auth, redirect: true, users: { u: "p" } });
        const index = makeIndex([
          makeImage(),
          makeImage({ seed: 2, platform: { os: "linux", architecture: "arm64" } }),
        ]);
        await registry.push("team/app", "v1", index);
        await registry.push("team/app", undefined, makeArtifact(index));
        await using containers = await makeContainers({ insecure: [registry.host] });
        const copy = (to: string) => {
          const credentials = registry.account
            ? ["--src-creds", `${registry.account.username}:${registry.account.password}`]
            : [];
          const from = `docker://${registry.host}/team/app:v1`;
          return containers.skopeo(
            "copy",
            "--all",
            ...credentials,
            from,
            `dir:${containers.dir}/${to}`,
          );
        };
        const copied = await copy("one");
        assertEquals(copied.code, 0, copied.stderr);
        assert(registry.storage!.log.every((entry) => entry.status === 200));
        assertEquals(registry.storage!.log.length, 4);
        assertEquals(registry.count("GET", /\/manifests\/v1/), 1);
        await registry.down();
        assert((await copy("two")).code !== 0);
        await registry.up();
        assertEquals((await copy("three")).code, 0);
        assertEquals(registry.count("GET", /\/manifests\/v1/), 2);
        if (auth === "token") assertEquals(registry.account, ADMIN);
      },
    },
  );
}

toolTest("docker-registry speaks https with a certificate of its own authority", {
  needs: ["docker-registry", "openssl", "curl"],
  async fn() {
    await using registry = await startRegistry({ tls: true });
    const { stdout } = await run("curl", [
      "--silent",
      "--cacert",
      registry.caPath!,
      `${registry.url}/v2/`,
    ]);
    assertEquals(stdout, "{}");
  },
});

toolTest("Redis and an S3 server start, die and come back", {
  needs: ["redis-server", "versitygw"],
  async fn() {
    for (const start of [startRedis, startS3]) {
      await using engine = await start();
      assert(engine.running);
      await engine.kill();
      assert(!engine.running);
      await engine.start();
      assert(engine.running);
    }
  },
});

for (
  const [tool, args, words] of [
    ["crane", ["version"], /./],
    ["regctl", ["version"], /VCSTag|Version/],
    ["oras", ["version"], /Version/],
    ["registry", ["--version"], /distribution/],
    ["buildkitd", ["--version"], /buildkit/],
    ["nginx", ["-v"], /nginx/],
    ["umoci", ["--version"], /umoci/],
    ["chromium", ["--version"], /Chromium/],
  ] as const
) {
  toolTest(`${tool} runs`, {
    needs: [tool],
    async fn() {
      const { code, stdout, stderr } = await run(which(tool)!, [...args]);
      assertEquals(code, 0, stderr);
      assert(words.test(stdout + stderr), stdout + stderr);
    },
  });
}
