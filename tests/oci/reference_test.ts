import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { OciError } from "../../lib/oci/error.ts";
import {
  formatImage,
  type Image,
  isRepository,
  isTag,
  parseImage,
  parseReference,
} from "../../lib/oci/reference.ts";

const DIGEST = `sha256:${"0a".repeat(32)}`;

const REPOSITORIES: [name: string, valid: boolean][] = [
  ["nginx", true],
  ["library/nginx", true],
  ["a/b/c/d", true],
  ["a.b_c__d---e/f0", true],
  ["manifests/blobs", true],
  ["", false],
  ["Nginx", false],
  ["a/", false],
  ["/a", false],
  ["a//b", false],
  ["a..b", false],
  ["a___b", false],
  ["a-", false],
  ["-a", false],
  ["a/../b", false],
  ["a%2fb", false],
  ["a\n", false],
  ["é", false],
  ["a".repeat(255), true],
  ["a".repeat(256), false],
];

for (const [name, valid] of REPOSITORIES) {
  Deno.test(`${JSON.stringify(name)} is ${valid ? "a" : "no"} repository name`, () => {
    assertEquals(isRepository(name), valid);
  });
}

Deno.test("host, slash and repository together have at most 255 characters", () => {
  assert(isRepository("a".repeat(247), "ghcr.io"));
  assert(!isRepository("a".repeat(248), "ghcr.io"));
});

const TAGS: [tag: string, valid: boolean][] = [
  ["latest", true],
  ["_1.2-RC", true],
  ["a".repeat(128), true],
  ["a".repeat(129), false],
  ["", false],
  [".a", false],
  ["-a", false],
  ["a/b", false],
  ["a b", false],
  ["a\n", false],
];

for (const [tag, valid] of TAGS) {
  Deno.test(`${JSON.stringify(tag)} is ${valid ? "a" : "no"} tag`, () => {
    assertEquals(isTag(tag), valid);
  });
}

Deno.test("a reference is a digest if it has a colon, else a tag", () => {
  assertEquals(parseReference("1.2"), { kind: "tag", tag: "1.2" });
  assertEquals(parseReference(DIGEST), { kind: "digest", digest: DIGEST });
  const codes = ["sha256:xyz", "a b"].map((text) => {
    const error = assertThrows(() => parseReference(text), OciError);
    return [error.code, error.status];
  });
  assertEquals(codes, [["DIGEST_INVALID", 400], ["NAME_INVALID", 400]]);
});

const IMAGES: [text: string, image: Image][] = [
  ["nginx", { repository: "nginx" }],
  ["nginx:1.27", { repository: "nginx", tag: "1.27" }],
  ["foo:5000", { repository: "foo", tag: "5000" }],
  ["foo:5000/bar", { registry: "foo:5000", repository: "bar" }],
  ["foo/bar", { repository: "foo/bar" }],
  ["localhost/bar", { registry: "localhost", repository: "bar" }],
  ["localhost:5000/a/b:c", { registry: "localhost:5000", repository: "a/b", tag: "c" }],
  ["[::1]:5000/a", { registry: "[::1]:5000", repository: "a" }],
  ["docker.io/nginx", { registry: "docker.io", repository: "nginx" }],
  ["Registry.example/a", { registry: "Registry.example", repository: "a" }],
  ["a.b", { repository: "a.b" }],
  [`ghcr.io/x/y:1@${DIGEST}`, {
    registry: "ghcr.io",
    repository: "x/y",
    tag: "1",
    digest: DIGEST,
  }],
  [`x/y@${DIGEST}`, { repository: "x/y", digest: DIGEST }],
];

for (const [text, image] of IMAGES) {
  Deno.test(`${text} is read as Docker reads it, and written back the same`, () => {
    assertEquals(parseImage(text), image);
    assertEquals(formatImage(image), text);
  });
}

const MALFORMED = [
  "",
  ":1",
  "nginx:",
  "nginx@",
  "Nginx",
  "ghcr.io/",
  "ghcr.io/A",
  "-a.b/c",
  "a..b/c",
  "a.b:/c",
  "a.b:x/c",
  "a:b:c",
  `a@${DIGEST}@${DIGEST}`,
  "https://ghcr.io/a",
  "a.b/".padEnd(257, "a"),
];

for (const text of MALFORMED) {
  Deno.test(`${JSON.stringify(text)} is a malformed image`, () => {
    assertEquals(assertThrows(() => parseImage(text), OciError).status, 400);
  });
}

const component = fc.stringMatching(/^[a-z0-9]{1,6}([._-][a-z0-9]{1,4})?$/);
const images: fc.Arbitrary<Image> = fc.record({
  registry: fc.stringMatching(/^[a-z0-9]{1,5}(\.[a-z]{2,5}|:[0-9]{1,5})$/),
  repository: fc.array(component, { minLength: 1, maxLength: 4 }).map((parts) => parts.join("/")),
  tag: fc.stringMatching(/^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}$/),
  digest: fc.constant(DIGEST),
}, { requiredKeys: ["registry", "repository"] });

Deno.test("an image written is read back the same", () => {
  fc.assert(fc.property(images, (image) => {
    assertEquals(parseImage(formatImage(image)), { ...image });
  }));
});

Deno.test("no text makes the image parser throw anything but a 400, or read what it cannot write", () => {
  const texts = fc.oneof(fc.string(), fc.stringMatching(/^[a-z.:/@[\]-]{0,20}$/));
  fc.assert(fc.property(texts, (text) => {
    try {
      assertEquals(formatImage(parseImage(text)), text);
    } catch (error) {
      assert(error instanceof OciError && error.status === 400);
    }
  }));
});

Deno.test("no text makes the reference parser throw anything but a 400", () => {
  fc.assert(fc.property(fc.string(), (text) => {
    try {
      parseReference(text);
    } catch (error) {
      assert(error instanceof OciError && error.status === 400);
    }
  }));
});
