/**
 * The Dockerfile, built and run. Its base images are stood in for by the deno that runs this test with the
 * libraries it needs: nothing is fetched from a registry here.
 */
import { assertEquals } from "@std/assert";
import { dirname, join } from "@std/path";
import { startBuildKit } from "../support/buildkit.ts";
import { contentOf } from "../support/content.ts";
import { type Docker, startDockerd } from "../support/docker.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { HERE, makeImage, makeIndex, MEDIA } from "../support/image.ts";
import { must } from "../support/process.ts";
import { ROOT, runProxy, startProxy } from "../support/proxy_process.ts";
import { requestLines } from "../support/request_lines.ts";
import { toolTest } from "../support/requirements.ts";
import { freePort, tempDir } from "../support/temp.ts";
import { startRegistry } from "../support/upstream.ts";

/** A file system with deno, and the packages of the lock file where deno looks for them. */
async function makeBase(dir: string): Promise<void> {
  const copy = async (from: string, to: string) => {
    await Deno.mkdir(dirname(join(dir, to)), { recursive: true });
    await Deno.copyFile(await Deno.realPath(from), join(dir, to));
  };
  const deno = await Deno.realPath(Deno.execPath());
  await copy(deno, "/bin/deno");
  for (const [, path = ""] of (await must("ldd", [deno])).matchAll(/(\/\S+) \(0x/g)) {
    await copy(path, path);
  }
  const { npmCache } = JSON.parse(await must(deno, ["info", "--json"]));
  await Deno.mkdir(join(dir, "deno-dir"));
  await must("cp", ["-r", npmCache, join(dir, "deno-dir/npm")]);
  await Deno.mkdir(join(dir, "tmp"));
}

/** The same as an archive, in `dir`. */
async function makeArchive(dir: string): Promise<string> {
  await makeBase(join(dir, "root"));
  const archive = join(dir, "base.tar");
  await must("tar", ["-C", join(dir, "root"), "-cf", archive, "."]);
  return archive;
}

/** Which `denoland/deno` the Dockerfile begins with. */
async function denoVersion(): Promise<string> {
  const dockerfile = await Deno.readTextFile(join(ROOT, "Dockerfile"));
  return /^ARG DENO_VERSION=(\S+)$/m.exec(dockerfile)![1]!;
}

/** Makes `denoland/deno` of the Dockerfile's two kinds out of that. */
async function importBases(docker: Docker, dir: string): Promise<void> {
  const archive = await makeArchive(dir);
  const version = await denoVersion();
  for (const tag of [version, `distroless-${version}`]) {
    await docker.must("import", "--change", "ENV PATH=/bin", archive, `denoland/deno:${tag}`);
  }
}

/** Waits until the health check has spoken. */
async function healthOf(docker: Docker, id: string): Promise<string> {
  for (let tries = 0; tries < 300; tries++) {
    const status = await docker.must("inspect", id, "--format", "{{.State.Health.Status}}");
    if (status.trim() !== "starting") return status.trim();
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return "starting";
}

toolTest("the image is built, healthy, not root, keeps what it fetched, and stops with 0", {
  needs: ["root", "docker", "dockerd", "containerd"],
  async fn() {
    await using dir = await tempDir();
    await using docker = await startDockerd();
    await using upstream = await startFakeRegistry();
    const image = makeImage({ layers: [50_000] });
    upstream.add("team/app", "1", image);
    await importBases(docker, dir.path);
    await docker.must("build", "--network", "none", "-t", "proxy", ROOT);

    const port = freePort();
    const settings = { HOST: "127.0.0.1", PORT: String(port), UPSTREAM_CORP: upstream.url };
    const start = async () =>
      (await docker.must(
        "run",
        "--detach",
        ...["--network", "host", "--read-only", "--cap-drop", "ALL", "--volume", "cache:/cache"],
        ...["--health-interval", "500ms", "--health-start-period", "0s"],
        ...Object.entries(settings).flatMap(([name, value]) => ["--env", `${name}=${value}`]),
        "proxy",
      )).trim();
    const url = `http://127.0.0.1:${port}/v2/corp/team/app`;

    const first = await start();
    assertEquals(await healthOf(docker, first), "healthy");
    const user = await docker.must("inspect", first, "--format", "{{.Config.User}}");
    assertEquals(user.trim(), "65532:65532");
    const [layer] = image.layers;
    assertEquals((await whole(`${url}/manifests/1`)).digest, image.digest);
    assertEquals((await whole(`${url}/blobs/${layer!.digest}`)).digest, layer!.digest);
    await docker.must("stop", "--time", "40", first);
    const code = await docker.must("inspect", first, "--format", "{{.State.ExitCode}}");
    assertEquals(code.trim(), "0", (await docker.docker("logs", first)).stdout);

    const second = await start();
    assertEquals(await healthOf(docker, second), "healthy");
    const again = await whole(`${url}/blobs/${layer!.digest}`);
    assertEquals(again.digest, layer!.digest);
    assertEquals(again.headers.get("x-cache"), "HIT");
    assertEquals(upstream.blobGets(layer!.digest), 1);
    await docker.must("rm", "--force", first, second);
  },
});

toolTest(
  "BuildKit makes the image for two platforms, and pulls what it begins with through the proxy",
  {
    needs: ["root", "unshare", "runc", "buildkitd", "buildctl", "docker-registry"],
    async fn() {
      await using dir = await tempDir();
      await using registry = await startRegistry();
      const tar = contentOf(await Deno.readFile(await makeArchive(dir.path)), MEDIA.oci.plainLayer);
      const base = makeImage({ layers: [{ ...tar, diffId: tar.digest }] });
      // Nothing is run on the other platform: its base may hold whatever it likes.
      const architecture = HERE.architecture === "amd64" ? "arm64" : "amd64";
      const other = makeImage({ seed: 2, platform: { os: "linux", architecture } });
      const version = await denoVersion();
      await registry.push("denoland/deno", version, makeIndex([base]));
      await registry.push("denoland/deno", `distroless-${version}`, makeIndex([base, other]));
      const port = freePort();
      const env = { PORT: String(port), UPSTREAM_DOCKER: registry.url, LOG_FORMAT: "json" };
      await using proxy = await startProxy({ env });
      const { stdout: config } = await runProxy(["config", "buildkit", "--url", proxy.url], env);
      await using buildkit = await startBuildKit({ config });
      const to = join(dir.path, "built");
      const { code, stderr } = await buildkit.build(ROOT, {
        to,
        as: "oci",
        platforms: ["linux/amd64", "linux/arm64"],
        isOffline: true,
      });
      assertEquals(code, 0, stderr);

      const read = async (digest: string) =>
        JSON.parse(await Deno.readTextFile(join(to, "blobs", digest.replace(":", "/"))));
      const { manifests: [root] } = JSON.parse(await Deno.readTextFile(join(to, "index.json")));
      const { manifests } = await read(root.digest) as {
        manifests: { digest: string; platform: { os: string; architecture: string } }[];
      };
      const built = manifests.filter(({ platform }) => platform.os === "linux");
      assertEquals(built.map(({ platform }) => platform.architecture).sort(), ["amd64", "arm64"]);
      for (const { digest } of built) {
        const { config: { User, Entrypoint, Healthcheck, Volumes, ExposedPorts } } = await read(
          (await read(digest)).config.digest,
        );
        assertEquals([User, Volumes, ExposedPorts], [
          "65532:65532",
          { "/cache": {} },
          { "8080/tcp": {} },
        ]);
        assertEquals(Entrypoint.slice(0, 2), ["deno", "run"]);
        assertEquals(Healthcheck.Test.slice(0, 3), ["CMD", "deno", "run"]);
      }
      await proxy.stop();
      const pulled = requestLines(proxy).filter(({ kind, status }) =>
        kind === "blob" && status === 200
      );
      const wanted = [base, other].flatMap(({ layers }) => layers.map(({ digest }) => digest));
      assertEquals(wanted.filter((one) => !pulled.some(({ reference }) => reference === one)), []);
    },
  },
);
