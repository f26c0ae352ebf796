import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { isWanted, parsePlatforms } from "../../lib/oci/platform.ts";

const WANTED: readonly [string | undefined, string, boolean][] = [
  ["linux/amd64", "linux/amd64", true],
  ["linux/arm64/v8", "linux/arm64", true],
  ["linux/arm/v7", "linux/arm/v7", true],
  ["linux/arm/v6", "linux/arm/v7", false],
  ["linux/arm64", "linux/arm", false],
  ["windows/amd64", "linux/amd64", false],
  ["unknown/unknown", "linux/amd64", false],
  ["linux/s390x", "linux/amd64, linux/s390x", true],
  ["linux/s390x", "all", true],
  ["Linux/AMD64", "LINUX/amd64", true],
  [undefined, "linux/amd64", true],
];

for (const [platform, wanted, expected] of WANTED) {
  Deno.test(`${platform} is ${expected ? "" : "not "}among ${wanted}`, () => {
    assertEquals(isWanted(platform, parsePlatforms(wanted)), expected);
  });
}

for (const text of ["", "linux", "linux/", "all,linux/amd64", "linux/amd64/v1/x", "../x"]) {
  Deno.test(`"${text}" is no list of platforms`, () => {
    assertThrows(() => parsePlatforms(text), RangeError, "Expected all, or platforms");
  });
}

Deno.test("platforms are read back the same, and no text makes it throw anything but a RangeError", () => {
  const name = fc.stringMatching(/^[a-z0-9]{1,8}\/[a-z0-9_]{1,8}(\/[a-z0-9.]{1,4})?$/);
  fc.assert(fc.property(fc.array(name, { minLength: 1 }), (names) => {
    assertEquals(parsePlatforms(names.join(", ")), names);
    assert(names.every((name) => isWanted(name.toUpperCase(), names)));
  }));
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => {
    try {
      const platforms = parsePlatforms(text);
      assert(platforms === "all" || platforms.length > 0);
    } catch (error) {
      assert(error instanceof RangeError);
    }
  }));
});
