/**
 * The Dockerfile, built and run. Its base images are stood in for by the deno that runs this test with the
 * libraries it needs: nothing is fetched from a registry here.
 */
import { assertEquals } from "@std/assert";
import { dirname, join } from "@std/path";
import { type Docker, startDockerd } from "../support/docker.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { makeImage } from "../support/image.ts";
import { must } from "../support/process.ts";
import { ROOT } from "../support/proxy_process.ts";
import { toolTest } from "../support/requirements.ts";
import { freePort, tempDir } from "../support/temp.ts";

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

/** Makes `denoland/deno` of the Dockerfile's two kinds out of that. */
async function importBases(docker: Docker, dir: string): Promise<void> {
  await makeBase(join(dir, "root"));
  const archive = join(dir, "base.tar");
  await must("tar", ["-C", join(dir, "root"), "-cf", archive, "."]);
  const dockerfile = await Deno.readTextFile(join(ROOT, "Dockerfile"));
  const [, version] = /^ARG DENO_VERSION=(\S+)$/m.exec(dockerfile)!;
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
