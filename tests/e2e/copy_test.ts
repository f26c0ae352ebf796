/**
 * skopeo, podman, oras and regctl copy whole things through the proxy: an index with all its children, an artifact
 * with its referrers. What arrives is what the source has, digest for digest.
 */
import { assert, assertEquals } from "@std/assert";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { startFakeStorage } from "../support/fake_storage.ts";
import {
  blobsOf,
  digestOf,
  makeArtifact,
  makeImage,
  makeIndex,
  makeReferrers,
  type Manifest,
  manifestsOf,
} from "../support/image.ts";
import { must } from "../support/process.ts";
import { type ProxyProcess, startProxy } from "../support/proxy_process.ts";
import { toolTest, which } from "../support/requirements.ts";
import { makeContainers } from "../support/skopeo.ts";
import { tempDir } from "../support/temp.ts";
import { startRegistry } from "../support/upstream.ts";

const INDEX = makeIndex([
  makeImage({ layers: [1000, 300_000] }),
  makeImage({ seed: 2, platform: { os: "linux", architecture: "arm64" } }),
  makeImage({ seed: 3, platform: { os: "linux", architecture: "s390x" } }),
]);
const SIGNATURE = makeArtifact(INDEX, { artifactType: "application/vnd.example.signature" });
const SBOM = makeArtifact(INDEX, { artifactType: "application/vnd.example.sbom", seed: 2 });
/** Attached to what is attached. */
const SBOM_SIGNATURE = makeArtifact(SBOM, { seed: 3 });
const REFERRERS = [SIGNATURE, SBOM, SBOM_SIGNATURE];

function startFor(upstreamUrl: string): Promise<ProxyProcess> {
  return startProxy({
    env: {
      UPSTREAM_DOCKER: upstreamUrl,
      UPSTREAM_GHCR: upstreamUrl,
      ALLOW_PRIVATE_NETWORKS: "true",
    },
  });
}

/** Digests of all files below a folder. */
async function digestsIn(dir: string): Promise<Set<string>> {
  const found = new Set<string>();
  for await (const { name, isDirectory } of Deno.readDir(dir)) {
    const path = `${dir}/${name}`;
    if (isDirectory) { for (const digest of await digestsIn(path)) found.add(digest); }
    else found.add(digestOf(await Deno.readFile(path)));
  }
  return found;
}

/** What of these is not below a folder, byte for byte. */
async function missingIn(dir: string, roots: readonly Manifest[]): Promise<string[]> {
  const held = await digestsIn(dir);
  return roots.flatMap((root) => [...manifestsOf(root), ...blobsOf(root)])
    .map(({ digest }) => digest)
    .filter((digest) => !held.has(digest));
}

/** How many bodies, or parts of them, were fetched. */
function fetched({ log }: { readonly log: readonly { readonly method: string }[] }): number {
  return log.filter(({ method }) => method === "GET").length;
}

toolTest("skopeo copies an index with all its children, and again without upstream", {
  needs: ["skopeo", "docker-registry", "openssl"],
  async fn() {
    await using registry = await startRegistry({ auth: "token", redirect: true });
    for (const repository of ["library/app", "team/app"]) {
      await registry.push(repository, "v1", INDEX);
    }
    await using proxy = await startFor(registry.upstreamUrl);
    await using containers = await makeContainers({
      mirrors: { "docker.io": [proxy.host], "ghcr.io": [`${proxy.host}/ghcr.io`] },
      insecure: [proxy.host],
    });
    const names = ["app:v1", "ghcr.io/team/app:v1", `${proxy.host}/ghcr.io/team/app:v1`];
    const copyAll = async (round: string) => {
      for (const [i, name] of names.entries()) {
        const to = `${containers.dir}/${round}-${i}`;
        const flags = ["--all", "--preserve-digests"];
        const { code, stderr } = await containers.skopeo(
          "copy",
          ...flags,
          `docker://${name}`,
          `dir:${to}`,
        );
        assertEquals(code, 0, stderr);
        assertEquals(await missingIn(to, [INDEX]), [], name);
      }
    };
    await copyAll("first");
    // Once to be stored, and once as the proof that the second registry has the same bytes.
    assertEquals(fetched(registry.storage!), 2 * blobsOf(INDEX).length);
    await registry.down();
    await copyAll("second");
  },
});

toolTest(
  "podman pulls each platform of an index and copies the index, and again without upstream",
  {
    needs: ["root", "podman", "docker-registry", "openssl"],
    async fn() {
      await using registry = await startRegistry({ auth: "token", redirect: true });
      await registry.push("library/app", "v1", INDEX);
      await using proxy = await startFor(registry.upstreamUrl);
      const name = "docker.io/library/app:v1";
      const pullAll = async () => {
        await using containers = await makeContainers({ mirrors: { "docker.io": [proxy.host] } });
        const podman = async (...args: string[]) => {
          const { code, stdout, stderr } = await containers.podman(...args);
          assertEquals(code, 0, stderr);
          return stdout;
        };
        for (const child of INDEX.children) {
          await podman("pull", "--platform", `linux/${child.platform!.architecture}`, name);
          const digests = await podman("image", "inspect", "--format", "{{.RepoDigests}}", name);
          for (const { digest } of [INDEX, child]) assert(digests.includes(digest), digests);
        }
        const to = `${containers.dir}/out`;
        await podman("manifest", "create", "--all", "list", `docker://${name}`);
        await podman("manifest", "push", "--all", "list", `dir:${to}`);
        assertEquals(await missingIn(to, INDEX.children), []);
      };
      await pullAll();
      assertEquals(fetched(registry.storage!), blobsOf(INDEX).length);
      await registry.down();
      await pullAll();
    },
  },
);

/** A registry that holds the index with its referrers. */
interface Source {
  readonly url: string;
  /** Bodies of blobs that its storage gave. */
  blobs(): number;
  close(): Promise<void>;
}

const SOURCES: Readonly<Record<string, () => Promise<Source>>> = {
  async "the referrers API"() {
    const storage = await startFakeStorage();
    const registry = await startFakeRegistry({ auth: "token", storage });
    registry.add("team/app", "v1", INDEX);
    for (const artifact of REFERRERS) registry.add("team/app", undefined, artifact);
    return {
      url: registry.url,
      blobs: () => storage.count({ method: "GET" }),
      async close() {
        await registry.close();
        await storage.close();
      },
    };
  },
  async "the fallback tag"() {
    const registry = await startRegistry({ auth: "token", redirect: true });
    await registry.push("team/app", "v1", INDEX);
    for (const artifact of REFERRERS) await registry.push("team/app", undefined, artifact);
    const attached = [[INDEX, [SIGNATURE, SBOM]], [SBOM, [SBOM_SIGNATURE]]] as const;
    for (const [{ digest }, artifacts] of attached) {
      await registry.push("team/app", digest.replace(":", "-"), makeReferrers(artifacts));
    }
    return {
      url: registry.upstreamUrl,
      blobs: () => fetched(registry.storage!),
      close: () => registry.stop(),
    };
  },
};

for (const [name, start] of Object.entries(SOURCES)) {
  toolTest(`By ${name} oras, regctl and skopeo copy all referrers, and blobs come once`, {
    needs: ["oras", "regctl", "skopeo", "docker-registry", "openssl"],
    async fn() {
      const source = await start();
      try {
        await using proxy = await startFor(source.url);
        await copyReferrers(`${proxy.host}/ghcr.io/team/app`, proxy.host);
        await copyReferrers(`${proxy.host}/ghcr.io/team/app`, proxy.host);
        const blobs = [INDEX, ...REFERRERS].flatMap(blobsOf).map(({ digest }) => digest);
        assertEquals(source.blobs(), new Set(blobs).size);
      } finally {
        await source.close();
      }
    },
  });
}

/** Copies the index and what is attached to it, with each of the three clients. */
async function copyReferrers(from: string, host: string): Promise<void> {
  await using dir = await tempDir();
  await using containers = await makeContainers({ insecure: [host] });
  const roots = [INDEX, ...REFERRERS];
  const path = (name: string) => `${dir.path}/${name}`;
  const env = { DOCKER_CONFIG: dir.path, REGCTL_CONFIG: path("regctl.json"), HOME: dir.path };
  const by = async (client: "oras" | "regctl", args: readonly string[]) => {
    await must(which(client)!, [...args], { env });
    assertEquals(await missingIn(path(client), roots), [], client);
  };
  const oras = ["cp", "--recursive", "--from-plain-http", `${from}:v1`];
  await by("oras", [...oras, "--to-oci-layout", `${path("oras")}:v1`]);
  const regctl = ["--host", `reg=${host},tls=disabled`, "image", "copy", "--referrers"];
  await by("regctl", [...regctl, `${from}:v1`, `ocidir://${path("regctl")}:v1`]);
  for (const [i, { digest }] of roots.entries()) {
    const to = path(`skopeo-${i}`);
    const names = [`docker://${from}@${digest}`, `dir:${to}`];
    const { code, stderr } = await containers.skopeo(
      "copy",
      "--all",
      "--preserve-digests",
      ...names,
    );
    assertEquals(code, 0, stderr);
    assertEquals(await missingIn(to, [roots[i]!]), []);
  }
}
