import { assertEquals } from "@std/assert";
import { libraryScopeName, registryOf } from "../../lib/oci/registry.ts";
import { library } from "../../lib/transforms/library.ts";
import type { Target } from "../../lib/transforms/route.ts";

const hub = registryOf("docker", new URL("https://registry-1.docker.io"), { library: true });
const quay = registryOf("quay", new URL("https://quay.io"));
const target: Target = {
  registry: hub,
  repository: "nginx",
  kind: "manifest",
  reference: "latest",
  base: "/v2/",
  prefix: "",
};

const PATHS: [target: Partial<Target>, path: string | undefined][] = [
  [{}, "/v2/library/nginx/manifests/latest"],
  [{ base: "/v2/docker.io/" }, "/v2/docker.io/library/nginx/manifests/latest"],
  [{ base: "/x/v2/" }, "/x/v2/library/nginx/manifests/latest"],
  [{ kind: "blob", reference: "sha256:00" }, "/v2/library/nginx/blobs/sha256:00"],
  [{ kind: "referrers", reference: "sha256:00" }, "/v2/library/nginx/referrers/sha256:00"],
  [{ kind: "tags", reference: "" }, "/v2/library/nginx/tags/list"],
  [{ repository: "library" }, "/v2/library/library/manifests/latest"],
  [{ repository: "library/nginx" }, undefined],
  [{ repository: "owner/nginx" }, undefined],
  [{ registry: quay }, undefined],
];

for (const [part, path] of PATHS) {
  const { registry = hub, repository = "nginx", kind = "manifest", base = "/v2/" } = part;
  Deno.test(`${base} ${kind} of ${repository} at ${registry.name} goes to ${path}`, () => {
    assertEquals(library({ ...target, ...part }), path);
  });
}

Deno.test("a scope's repository gets library/ where the registry has that habit", () => {
  assertEquals(libraryScopeName(hub, "nginx"), "library/nginx");
  assertEquals(libraryScopeName(hub, "owner/nginx"), "owner/nginx");
  assertEquals(libraryScopeName(quay, "nginx"), "nginx");
});
