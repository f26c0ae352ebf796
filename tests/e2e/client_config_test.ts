/**
 * Clients pull through the proxy with the configuration that `config CLIENT` prints for it, Docker Hub's images and
 * another registry's.
 */
import { assertEquals } from "@std/assert";
import { dirname, join } from "@std/path";
import { startBuildKit } from "../support/buildkit.ts";
import { makeCertificate } from "../support/certificate.ts";
import { startContainerd } from "../support/containerd.ts";
import { startDockerd } from "../support/docker.ts";
import { bytesOf, type Image, makeImage } from "../support/image.ts";
import { must } from "../support/process.ts";
import { type ProxyProcess, runProxy, startProxy } from "../support/proxy_process.ts";
import { requestLines } from "../support/request_lines.ts";
import { toolTest } from "../support/requirements.ts";
import { makeContainers } from "../support/skopeo.ts";
import { freePort, tempDir } from "../support/temp.ts";
import { type Registry, startRegistry } from "../support/upstream.ts";

const HUB = makeImage({ seed: 1, layers: [1000, 50_000] });
const OTHER = makeImage({ seed: 2, layers: [1000, 50_000] });

async function startBoth(more: Readonly<Record<string, string>> = {}) {
  const registry = await startRegistry();
  await registry.push("library/app", "v1", HUB);
  await registry.push("team/app", "v1", OTHER);
  const env = {
    PORT: String(freePort()),
    UPSTREAM_DOCKER: registry.url,
    UPSTREAM_GHCR: registry.url,
    LOG_FORMAT: "json",
    ...more,
  };
  const proxy = await startProxy({ env });
  return {
    registry,
    proxy,
    env,
    async [Symbol.asyncDispose]() {
      await proxy.stop();
      await registry.stop();
    },
  };
}

/** What the command prints, with the address that these clients reach the proxy at. */
async function configFor(client: string, { proxy, env }: {
  proxy: ProxyProcess;
  env: Record<string, string>;
}, url = proxy.url): Promise<{ files: { path: string; text: string }[] }> {
  const args = ["config", client, "--json", "--url", url];
  const { code, stdout, stderr } = await runProxy(args, env);
  assertEquals([code, stderr], [0, ""]);
  return JSON.parse(stdout);
}

/** The proxy has served all of both images. */
function assertServed(proxy: ProxyProcess, repositories: readonly string[]): void {
  const served = requestLines(proxy).filter(({ status }) => status === 200);
  for (const repository of repositories) {
    const kinds = new Set(
      served.filter((line) => line.repository === repository).map(({ kind }) => kind),
    );
    assertEquals([kinds.has("manifest"), kinds.has("blob")], [true, true], repository);
  }
}

toolTest("docker pulls by the mirror in the daemon.json that is printed", {
  needs: ["root", "unshare", "docker", "dockerd", "containerd", "docker-registry"],
  async fn() {
    await using both = await startBoth();
    const { files: [file] } = await configFor("docker", both);
    const settings = JSON.parse(file!.text);
    await using engine = await startDockerd({
      mirrors: settings["registry-mirrors"],
      insecure: settings["insecure-registries"],
    });
    await engine.must("pull", "app:v1");
    const id = await engine.must("image", "inspect", "--format", "{{.Id}}", "app:v1");
    assertEquals(id.trim(), HUB.config.digest);
    assertServed(both.proxy, ["library/app"]);
  },
});

toolTest("containerd pulls from two registries by the hosts.toml files that are printed", {
  needs: ["root", "unshare", "containerd", "ctr", "docker-registry"],
  async fn() {
    await using both = await startBoth();
    const { files } = await configFor("containerd", both);
    await using containerd = await startContainerd();
    for (const { path, text } of files.filter(({ path }) => path.endsWith("/hosts.toml"))) {
      const to = join(containerd.hostsDir, path.split("/").at(-2)!, "hosts.toml");
      await Deno.mkdir(dirname(to), { recursive: true });
      await Deno.writeTextFile(to, text);
    }
    for (
      const [name, image] of [["docker.io/library/app:v1", HUB], [
        "ghcr.io/team/app:v1",
        OTHER,
      ]] as const
    ) {
      const { code, stdout, stderr } = await containerd.pull(name);
      assertEquals(code, 0, stdout + stderr);
      assertEquals(await containerd.digest(name), image.digest);
    }
    assertServed(both.proxy, ["library/app", "team/app"]);
  },
});

toolTest("podman pulls from two registries by the registries.conf that is printed", {
  needs: ["root", "podman", "docker-registry"],
  async fn() {
    await using both = await startBoth();
    const { files: [file] } = await configFor("podman", both);
    await using containers = await makeContainers();
    const to = join(containers.dir, ".config", file!.path.slice("/etc/".length));
    await Deno.mkdir(dirname(to), { recursive: true });
    await Deno.writeTextFile(to, file!.text);
    for (
      const [name, image] of [["docker.io/library/app:v1", HUB], [
        "ghcr.io/team/app:v1",
        OTHER,
      ]] as const
    ) {
      const pulled = await containers.podman("pull", name);
      assertEquals(pulled.code, 0, pulled.stdout + pulled.stderr);
      const { stdout } = await containers.podman("image", "inspect", "--format", "{{.Id}}", name);
      assertEquals(`sha256:${stdout.trim()}`, image.config.digest);
    }
    assertServed(both.proxy, ["library/app", "team/app"]);
  },
});

for (const scheme of ["http", "https"] as const) {
  toolTest(
    `BuildKit builds from two registries by the buildkitd.toml that is printed for ${scheme}, and without upstream`,
    {
      needs: ["root", "unshare", "runc", "buildkitd", "buildctl", "docker-registry", "openssl"],
      async fn() {
        await using dir = await tempDir();
        const domain = "proxy.test";
        const isTls = scheme === "https";
        const { certPath, keyPath, caPath } = await makeCertificate(dir.path, [domain]);
        await using both = await startBoth(
          isTls ? { CUSTOM_DOMAIN: domain, TLS_CERT: certPath, TLS_KEY: keyPath } : {},
        );
        const url = isTls ? `https://${domain}:${both.proxy.port}` : both.proxy.url;
        const { files: [file] } = await configFor("buildkit", both, url);
        await using buildkit = await startBuildKit({
          config: file!.text,
          hosts: { [domain]: "127.0.0.1" },
          env: { SSL_CERT_FILE: caPath },
        });
        let builds = 0;
        const build = async (name: string, image: Image) => {
          const to = join(dir.path, `built-${builds++}`);
          const context = join(dir.path, "context");
          await Deno.mkdir(context, { recursive: true });
          await Deno.writeTextFile(join(context, "Dockerfile"), `FROM ${name}\n`);
          const { code, stderr } = await buildkit.build(context, { to });
          assertEquals(code, 0, stderr);
          for (const [index, layer] of image.layers.entries()) {
            const packed = join(dir.path, "layer.tar.gz");
            await Deno.writeFile(packed, bytesOf(layer));
            const [file] = (await must("tar", ["tzf", packed])).trim().split("\n");
            const wanted = await must("sh", ["-c", `tar xzOf ${packed} | sha256sum`]);
            const got = await must("sh", ["-c", `sha256sum <${join(to, file!)}`]);
            assertEquals(got, wanted, `layer ${index}`);
          }
        };
        for (const isUp of [true, false]) {
          if (!isUp) await both.registry.down();
          await build("app:v1", HUB);
          await build("ghcr.io/team/app:v1", OTHER);
          await buildkit.forget();
        }
        await both.proxy.stop();
        assertServed(both.proxy, ["library/app", "team/app"]);
        const layers = requestLines(both.proxy).filter(({ kind, reference }) =>
          kind === "blob" &&
          [HUB, OTHER].some((image) => image.layers.some(({ digest }) => digest === reference))
        ).map(({ cache }) => cache);
        assertEquals(layers.sort(), ["HIT", "MISS"].flatMap((cache) => Array(4).fill(cache)));
      },
    },
  );
}

/** Stops it for good; what it stored goes with it. */
const takeAway = (registry: Registry) => registry.down();

toolTest(
  "an image that was warmed is pulled by docker when upstream is gone, also by a new process",
  {
    needs: ["root", "unshare", "docker", "dockerd", "containerd", "docker-registry"],
    async fn() {
      await using registry = await startRegistry();
      await registry.push("library/app", "v1", HUB);
      const cacheDir = await Deno.makeTempDir();
      try {
        const env = {
          UPSTREAM_DOCKER: registry.url,
          CACHE_DIR: cacheDir,
          CACHE_MANIFEST_TTL: "0s",
          ADMIN_ADDR: "off",
        };
        const warmed = await runProxy(["warm", "app:v1"], env);
        assertEquals([warmed.code, warmed.stderr], [0, ""], warmed.stdout);
        await takeAway(registry);
        await using proxy = await startProxy({ env });
        await using engine = await startDockerd({ mirrors: [proxy.url] });
        await engine.must("pull", "app:v1");
        const id = await engine.must("image", "inspect", "--format", "{{.Id}}", "app:v1");
        assertEquals(id.trim(), HUB.config.digest);
      } finally {
        await Deno.remove(cacheDir, { recursive: true });
      }
    },
  },
);
