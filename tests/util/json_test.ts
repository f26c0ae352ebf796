import { assertEquals, assertLess, assertThrows } from "@std/assert";
import fc from "fast-check";
import { parseJson } from "../../lib/util/json.ts";
import { longestStall, stallBudget } from "../support/stall.ts";

const encode = (text: string) => new TextEncoder().encode(text);
const MOST = 4 * 2 ** 20;
const filled = (part: string, length = MOST) => part.repeat(Math.floor(length / part.length));

Deno.test("what JSON.parse reads is read the same", () => {
  fc.assert(fc.property(fc.json(), (text) => {
    assertEquals(parseJson(encode(text)), JSON.parse(text));
  }));
  assertThrows(() => parseJson(encode("{")), SyntaxError);
  assertThrows(() => parseJson(new Uint8Array([0x22, 0xff, 0x22]), { fatal: true }), TypeError);
});

Deno.test("large JSON is read as long as it does not consist of too many parts", () => {
  const tags = JSON.stringify({
    name: "a",
    tags: Array.from({ length: 200_000 }, (_, i) => `v${i}`),
  });
  assertEquals(Object.keys(parseJson(encode(tags)) as object), ["name", "tags"]);
  const text = JSON.stringify({ annotations: { note: '[{",:"}]\\'.repeat(200_000) } });
  parseJson(encode(text));
  const manifests = Array.from({ length: 10_000 }, (_, i) => ({
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    digest: `sha256:${i}`,
    size: i,
    platform: { os: "linux", architecture: "amd64" },
  }));
  parseJson(encode(JSON.stringify({ manifests })));
});

const ATTACKS: Readonly<Record<string, string>> = {
  "arrays": `[${filled("[],")}[]]`,
  "arrays in arrays": `[${filled("[[[]]],")}[]]`,
  "an array without an end": filled("["),
  "objects": `[${filled("{},")}{}]`,
  "objects in objects": filled('{"a":'),
  "members": `{${Array.from({ length: 350_000 }, (_, i) => `"k${i}":1`).join(",")}}`,
  "numbers": `[${filled("1,")}1]`,
  "escapes": `"${filled("\\u0041")}"`,
  "digests": `{"layers":[${filled('{"digest":"a:b"},')}{}]}`,
};

for (const [name, text] of Object.entries(ATTACKS)) {
  Deno.test(`4 MiB of ${name} keep nobody waiting`, async () => {
    const bytes = encode(text);
    const attempt = () => {
      try {
        parseJson(bytes);
      } catch {
        // Refused, which is fine.
      }
      return Promise.resolve();
    };
    assertLess(await longestStall(attempt), stallBudget());
  });
}
