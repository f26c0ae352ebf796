import { assertEquals, assertThrows } from "@std/assert";
import { isWanted, parsePlatforms } from "../lib/platform.ts";

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
