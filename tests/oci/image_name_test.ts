import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { parseConfig } from "../../lib/config/config.ts";
import { resolveImage } from "../../lib/oci/image_name.ts";
import { OciError } from "../../lib/oci/error.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;
const config = parseConfig({
  CUSTOM_DOMAIN: "proxy.example",
  UPSTREAM_CORP: "http://registry.corp.example:5000",
});

const RESOLVED: readonly [string, string, string][] = [
  ["nginx", "docker", "docker.io/library/nginx:latest"],
  ["nginx:1.27", "docker", "docker.io/library/nginx:1.27"],
  ["grafana/grafana", "docker", "docker.io/grafana/grafana:latest"],
  ["docker.io/nginx", "docker", "docker.io/library/nginx:latest"],
  ["docker/dockerfile:1", "docker", "docker.io/docker/dockerfile:1"],
  ["ghcr.io/owner/img:1", "ghcr", "ghcr.io/owner/img:1"],
  ["ghcr/owner/img:1", "ghcr", "ghcr.io/owner/img:1"],
  [`quay.io/org/img:1@${DIGEST}`, "quay", `quay.io/org/img@${DIGEST}`],
  ["registry.corp.example:5000/team/app:2", "corp", "registry.corp.example:5000/team/app:2"],
  ["corp/team/app:2", "corp", "registry.corp.example:5000/team/app:2"],
  ["docker.proxy.example/nginx", "docker", "docker.io/library/nginx:latest"],
  ["proxy.example:8080/ghcr.io/owner/img:1", "ghcr", "ghcr.io/owner/img:1"],
  ["localhost:8080/nginx:1", "docker", "docker.io/library/nginx:1"],
];

for (const [text, registry, name] of RESOLVED) {
  Deno.test(`${text} is ${name}`, () => {
    const image = resolveImage(text, config);
    assertEquals([image.registry.name, image.name], [registry, name]);
  });
}

Deno.test("a digest is what is pulled, whatever the tag beside it", () => {
  const image = resolveImage(`nginx:1@${DIGEST}`, config);
  assertEquals([image.repository, image.reference], ["library/nginx", DIGEST]);
});

for (const [text, code] of [["no.such.host/x", "NAME_UNKNOWN"], ["UPPER", "NAME_INVALID"]]) {
  Deno.test(`${text} is refused with ${code}`, () => {
    assertEquals(assertThrows(() => resolveImage(text!, config), OciError).code, code);
  });
}

Deno.test("a name in full means the same image, and no text makes it throw anything but its own error", () => {
  const part = fc.constantFrom(
    "a",
    "nginx",
    "docker.io",
    "ghcr",
    "quay.io",
    "corp",
    "localhost:80",
  );
  const end = fc.constantFrom("", ":1", ":", `@${DIGEST}`, "@sha256:0", ":1@", "//", " ");
  const text = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.tuple(fc.array(part), end).map(([parts, end]) => parts.join("/") + end),
  );
  fc.assert(fc.property(text, (text) => {
    try {
      const image = resolveImage(text, config);
      assertEquals(resolveImage(image.name, config), image);
    } catch (error) {
      assert(error instanceof OciError && [400, 404].includes(error.status), `${text}: ${error}`);
    }
  }));
});
