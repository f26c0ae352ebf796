/**
 * containerd pulls an index with all its children through the proxy, in each of the ways its hosts.toml can say so.
 */
import { assert, assertEquals } from "@std/assert";
import { type Containerd, type HostsMirror, startContainerd } from "../support/containerd.ts";
import { blobsOf, makeImage, makeIndex, type Manifest, manifestsOf } from "../support/image.ts";
import { startProxy } from "../support/proxy_process.ts";
import { requestLines } from "../support/request_lines.ts";
import { toolTest } from "../support/requirements.ts";
import { startRegistry } from "../support/upstream.ts";

const INDEX = makeIndex([
  makeImage({ layers: [1000, 100_000] }),
  makeImage({ seed: 2, platform: { os: "linux", architecture: "arm64", variant: "v8" } }),
  makeImage({ seed: 3, platform: { os: "linux", architecture: "s390x" }, mediaTypes: "docker" }),
]);

/** How hosts.toml names the proxy for an image, and what its requests must then look like. */
interface Way {
  readonly image: string;
  readonly mirror: (proxy: string) => HostsMirror;
  /** Where the path of every request for a manifest or blob begins. */
  readonly path: string;
}

const WAYS: Readonly<Record<string, Way>> = {
  "by ns alone, for Docker Hub": {
    image: "docker.io/library/app:v1",
    mirror: (url) => ({ url }),
    path: "/v2/library/app/",
  },
  "by ns alone, for another registry": {
    image: "ghcr.io/team/app:v1",
    mirror: (url) => ({ url }),
    path: "/v2/team/app/",
  },
  "with a prefix before /v2": {
    image: "ghcr.io/team/app:v1",
    mirror: (url) => ({ url: `${url}/ghcr.io` }),
    path: "/ghcr.io/v2/team/app/",
  },
  "with override_path and the registry after /v2": {
    image: "ghcr.io/team/app:v1",
    mirror: (url) => ({ url: `${url}/v2/ghcr.io`, overridePath: true }),
    path: "/v2/ghcr.io/team/app/",
  },
  "with override_path and /v2 alone": {
    image: "ghcr.io/team/app:v1",
    mirror: (url) => ({ url: `${url}/v2`, overridePath: true }),
    path: "/v2/team/app/",
  },
};

/** Asserts that containerd holds the whole index. */
async function assertHolds(containerd: Containerd, name: string, index: Manifest): Promise<void> {
  assertEquals(await containerd.digest(name), index.digest);
  const { stdout } = await containerd.ctr("content", "ls", "--quiet");
  const held = new Set(stdout.split("\n"));
  const wanted = [...manifestsOf(index), ...blobsOf(index)];
  assertEquals(wanted.filter(({ digest }) => !held.has(digest)), []);
}

for (const [name, { image, mirror, path }] of Object.entries(WAYS)) {
  toolTest(`containerd pulls every platform ${name}, and again without upstream`, {
    needs: ["root", "unshare", "containerd", "ctr", "docker-registry", "openssl"],
    async fn() {
      await using registry = await startRegistry({ auth: "token", redirect: true });
      for (const repository of ["team/app", "library/app"]) {
        await registry.push(repository, "v1", INDEX);
      }
      await using proxy = await startProxy({
        env: {
          UPSTREAM_DOCKER: registry.upstreamUrl,
          UPSTREAM_GHCR: registry.upstreamUrl,
          ALLOW_PRIVATE_NETWORKS: "true",
          LOG_FORMAT: "json",
        },
      });
      await using containerd = await startContainerd();
      await containerd.setHosts(image.split("/")[0]!, [mirror(proxy.url)]);
      const pull = async () => {
        const { code, stderr } = await containerd.pull(image, "--all-platforms");
        assertEquals(code, 0, stderr);
        await assertHolds(containerd, image, INDEX);
        await containerd.forget();
      };

      await pull();
      assertEquals(registry.storage!.log.length, blobsOf(INDEX).length);
      await registry.down();
      await pull();

      await proxy.stop();
      const asked = requestLines(proxy).filter(({ kind }) =>
        kind === "manifest" || kind === "blob"
      );
      assert(asked.length > 0);
      assertEquals(asked.filter((line) => !line.path.startsWith(path)), []);
    },
  });
}

toolTest(
  "by the one _default file containerd asks the proxy for what it has, and any other registry itself",
  {
    needs: ["root", "unshare", "containerd", "ctr", "docker-registry"],
    async fn() {
      await using known = await startRegistry();
      await using other = await startRegistry();
      const image = makeImage({ layers: [1000] });
      await known.push("team/app", "v1", image);
      await other.push("team/app", "v1", INDEX);
      await using proxy = await startProxy({
        env: { UPSTREAM_GHCR: known.url, LOG_FORMAT: "json" },
      });
      await using containerd = await startContainerd();
      await containerd.setHosts("_default", [{ url: proxy.url }]);
      const elsewhere = `${other.host}/team/app:v1`;
      for (
        const [name, { digest }] of [["ghcr.io/team/app:v1", image], [elsewhere, INDEX]] as const
      ) {
        const { code, stderr } = await containerd.pull(name);
        assertEquals(code, 0, stderr);
        assertEquals(await containerd.digest(name), digest);
      }
      await proxy.stop();
      const answered = new Set(
        requestLines(proxy).map(({ registry, status }) => [registry, status].join(" ")),
      );
      assert(answered.has("ghcr 200"));
      assert(answered.has(" 404"), "the proxy said that it does not know the other");
      assert(known.count("GET", /\/blobs\//) > 0 && other.count("GET", /\/blobs\//) > 0);
    },
  },
);
