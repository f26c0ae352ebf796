/**
 * The OCI distribution-spec conformance program reads through the proxy, twice: what is fetched and what is
 * cached are the same to it. Its content is at the registry beforehand, as nothing can be pushed through.
 */
import { assert, assertEquals } from "@std/assert";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { blobsOf, makeArtifact, makeImage, makeIndex, manifestsOf } from "../support/image.ts";
import { must, run } from "../support/process.ts";
import { type ProxyProcess, startProxy } from "../support/proxy_process.ts";
import { toolTest, which } from "../support/requirements.ts";
import { tempDir } from "../support/temp.ts";
import { startRegistry } from "../support/upstream.ts";

const INDEX = makeIndex([
  makeImage({ layers: [1000, 300_000] }),
  makeImage({ seed: 2, platform: { os: "linux", architecture: "arm64" } }),
]);
const ARTIFACT = makeArtifact(INDEX, { artifactType: "application/vnd.example.sbom" });

/**
 * Runs the program; its summary, which is also printed: CI's output has it. Its exit code tells nothing: with
 * pushes disabled it stumbles over data that it did not make while it writes its files, after the summary.
 */
async function conformance(
  proxy: ProxyProcess,
  { repository, referrers }: { repository: string; referrers: boolean },
): Promise<string> {
  await using results = await tempDir();
  const { stdout, stderr } = await run(which("conformance")!, [], {
    cwd: results.path,
    env: {
      OCI_REGISTRY: proxy.host,
      OCI_TLS: "disabled",
      OCI_REPO1: repository,
      OCI_REPO2: repository,
      OCI_RESULTS_DIR: results.path,
      // A proxy only reads.
      OCI_API_PUSH: "false",
      OCI_API_BLOBS_ATOMIC: "false",
      OCI_API_BLOBS_DELETE: "false",
      OCI_API_BLOBS_MOUNT_ANONYMOUS: "false",
      OCI_API_MANIFESTS_ATOMIC: "false",
      OCI_API_MANIFESTS_DELETE: "false",
      OCI_API_TAGS_ATOMIC: "false",
      OCI_API_TAGS_DELETE: "false",
      // Debian's docker-registry (2.8) has neither the referrers API nor pages of tags.
      OCI_API_REFERRER: String(referrers),
      OCI_API_TAGS_LIST: String(referrers),
      OCI_RO_DATA_TAGS: "v1 v2",
      OCI_RO_DATA_MANIFESTS: manifestsOf(INDEX).map(({ digest }) => digest).join(" "),
      OCI_RO_DATA_BLOBS: blobsOf(INDEX).map(({ digest }) => digest).join(" "),
      ...referrers && { OCI_RO_DATA_REFERRERS: INDEX.digest },
    },
  });
  const summary = stdout.slice(stdout.indexOf("OCI Conformance Result"));
  console.log(summary);
  assert(summary.startsWith("OCI Conformance Result"), stderr);
  return summary;
}

function countOf(summary: string, outcome: string): number {
  return Number(new RegExp(`^ +${outcome}\\.+: +(\\d+)$`, "m").exec(summary)![1]);
}

for (const upstream of ["docker-registry", "a registry with referrers"] as const) {
  const referrers = upstream !== "docker-registry";
  toolTest(`the conformance program finds every enabled test passing, in front of ${upstream}`, {
    needs: referrers ? ["conformance"] : ["conformance", "docker-registry"],
    async fn() {
      await using stack = new AsyncDisposableStack();
      const repository = "conformance/repo1";
      let url: string;
      if (referrers) {
        const fake = stack.use(await startFakeRegistry());
        for (const tag of ["v1", "v2"]) fake.add(repository, tag, INDEX);
        fake.add(repository, undefined, ARTIFACT);
        url = fake.url;
      } else {
        const registry = stack.use(await startRegistry());
        for (const tag of ["v1", "v2"]) await registry.push(repository, tag, INDEX);
        url = registry.url;
      }
      const proxy = stack.use(await startProxy({ env: { UPSTREAM_DOCKER: url } }));
      for (const _round of ["cold", "cached"]) {
        const summary = await conformance(proxy, { repository, referrers });
        const [passed, ...bad] = ["Pass", "Skip", "FAIL", "Error"].map((outcome) =>
          countOf(summary, outcome)
        );
        assertEquals(bad, [0, 0, 0]);
        assert(passed! > 20, `Only ${passed} tests passed`);
      }
    },
  });
}

toolTest("crane copies an index through the proxy, by path and cold and cached", {
  needs: ["crane", "docker-registry"],
  async fn() {
    await using registry = await startRegistry();
    await registry.push("team/app", "v1", INDEX);
    await using proxy = await startProxy({
      env: { UPSTREAM_GHCR: registry.url, UPSTREAM_DOCKER: registry.url },
    });
    const crane = which("crane")!;
    for (const name of [`${proxy.host}/team/app:v1`, `${proxy.host}/ghcr.io/team/app:v1`]) {
      assertEquals((await must(crane, ["digest", "--insecure", name])).trim(), INDEX.digest);
      for (const _round of ["cold", "cached"]) {
        await using layout = await tempDir();
        await must(crane, ["pull", "--insecure", "--format", "oci", name, layout.path]);
        for (const { digest } of [...manifestsOf(INDEX), ...blobsOf(INDEX)]) {
          const file = await Deno.stat(`${layout.path}/blobs/sha256/${digest.slice(7)}`);
          assert(file.isFile);
        }
      }
      assertEquals(
        (await must(crane, ["ls", "--insecure", name.replace(/:v1$/, "")])).trim(),
        "v1",
      );
    }
    for (const { digest } of blobsOf(INDEX)) {
      assertEquals(registry.count("GET", `/v2/team/app/blobs/${digest}`), 1);
    }
  },
});
