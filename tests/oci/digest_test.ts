import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { createHasher, digestOf, isDigest, isStorable, parseDigest } from "../../lib/oci/digest.ts";
import { OciError } from "../../lib/oci/error.ts";

const HEX64 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const EMPTY = `sha256:${HEX64}`;

const WELL_FORMED: [text: string, algorithm: string, storable: boolean][] = [
  [EMPTY, "sha256", true],
  [`sha512:${HEX64}${HEX64}`, "sha512", true],
  [`blake3:${HEX64}`, "blake3", false],
  ["sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564", "sha256+b64u", false],
  ["multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8", "multihash+base58", false],
];

for (const [text, algorithm, storable] of WELL_FORMED) {
  Deno.test(`${algorithm} is a digest${storable ? " that can be stored" : ""}`, () => {
    assertEquals(parseDigest(text), { algorithm, encoded: text.slice(algorithm.length + 1) });
    assertEquals(isStorable(text), storable);
  });
}

const MALFORMED = [
  "",
  ":",
  "sha256:",
  "sha256",
  `:${HEX64}`,
  `sha256:${HEX64.toUpperCase()}`,
  `sha256:${HEX64.slice(1)}`,
  `sha256:${HEX64}0`,
  `sha512:${HEX64}`,
  `sha512:${HEX64}${HEX64}0`,
  `sha512:0${HEX64}${HEX64}`,
  `SHA256:${HEX64}`,
  `sha256:${HEX64}\n`,
  `sha256:${HEX64}/..`,
  `md5+:${HEX64}`,
  "md5:a b",
];

for (const text of MALFORMED) {
  Deno.test(`${JSON.stringify(text)} is a malformed digest`, () => {
    const error = assertThrows(() => parseDigest(text), OciError);
    assertEquals([error.code, error.status], ["DIGEST_INVALID", 400]);
    assertEquals(isStorable(text), false);
  });
}

Deno.test("a text with a colon is meant as a digest, well-formed or not", () => {
  assert(isDigest("sha256:x"));
  assert(!isDigest("latest"));
});

Deno.test("a hasher computes its digest's own algorithm, piece by piece", () => {
  for (const digest of [digestOf(text("ab")), digestOf(text("ab"), "sha512")]) {
    const hasher = createHasher(digest);
    hasher.update("a");
    hasher.update("b");
    assertEquals(hasher.digest("hex"), parseDigest(digest).encoded);
  }
});

Deno.test("there is no hasher for what cannot be verified", () => {
  for (const digest of ["md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:xyz", "latest"]) {
    assertEquals(assertThrows(() => createHasher(digest), OciError).code, "DIGEST_INVALID");
  }
});

Deno.test("the digest of nothing is the known one", () => {
  assertEquals(digestOf(new Uint8Array()), EMPTY);
});

Deno.test("every digest of bytes is well-formed and storable", () => {
  fc.assert(
    fc.property(fc.uint8Array(), fc.constantFrom("sha256" as const, "sha512" as const), (b, a) => {
      const digest = digestOf(b, a);
      assert(isStorable(digest));
      assertEquals(parseDigest(digest).algorithm, a);
    }),
  );
});

Deno.test("no text makes the parser throw anything but DIGEST_INVALID, or lose a character", () => {
  const texts = fc.oneof(
    fc.string(),
    fc.stringMatching(/^[a-z0-9+._-]{0,8}:[a-zA-Z0-9=_-]{0,8}$/),
  );
  fc.assert(fc.property(texts, (text) => {
    try {
      const { algorithm, encoded } = parseDigest(text);
      assertEquals(`${algorithm}:${encoded}`, text);
    } catch (error) {
      assert(error instanceof OciError && error.code === "DIGEST_INVALID");
    }
  }));
});

function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}
