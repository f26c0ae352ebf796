import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  ACCEPT_EVERY_MANIFEST,
  accepts,
  essence,
  isIndex,
  isManifestType,
  MANIFEST_TYPES,
} from "../../lib/oci/media_type.ts";

const INDEX = "application/vnd.oci.image.index.v1+json";
const LIST = "application/vnd.docker.distribution.manifest.list.v2+json";
const IMAGE = "application/vnd.oci.image.manifest.v1+json";
const V2 = "application/vnd.docker.distribution.manifest.v2+json";
const V1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";

Deno.test("the type is what is left without parameters and case", () => {
  assertEquals(essence("Application/JSON; charset=utf-8"), "application/json");
  assertEquals(essence(""), "");
});

Deno.test("indexes are the two list types", () => {
  assertEquals(MANIFEST_TYPES.filter(isIndex), [INDEX, LIST]);
  assert(isIndex(`${INDEX}; charset=utf-8`));
  assert(!isIndex("application/json"));
});

Deno.test("manifest types are every generation's", () => {
  const artifact = "application/vnd.oci.artifact.manifest.v1+json";
  for (const type of [INDEX, LIST, IMAGE, V2, V1, V1.replace("prettyjws", "json"), artifact]) {
    assert(isManifestType(type), type);
  }
  assert(!isManifestType("application/json"));
});

Deno.test("a tag is resolved with every manifest type, and anything else, acceptable", () => {
  for (const type of [...MANIFEST_TYPES, "application/vnd.new+json"]) {
    assert(accepts(ACCEPT_EVERY_MANIFEST, type), type);
  }
  assertEquals(ACCEPT_EVERY_MANIFEST.split(", ").slice(0, -1), [...MANIFEST_TYPES]);
});

const ACCEPTS: [accept: string | null, type: string, accepted: boolean][] = [
  [null, INDEX, true],
  ["", INDEX, true],
  [" , ", INDEX, true],
  [INDEX, INDEX, true],
  [INDEX.toUpperCase(), INDEX, true],
  [INDEX, `${INDEX}; charset=utf-8`, true],
  [V2, INDEX, false],
  [`${V2}, ${IMAGE},${INDEX}`, INDEX, true],
  [`${V2}, ${IMAGE}`, INDEX, false],
  ["*/*", INDEX, true],
  ["application/*", INDEX, true],
  ["text/*", INDEX, false],
  [`${INDEX};q=0.5`, INDEX, true],
  [`${INDEX};q=0`, INDEX, false],
  [`${INDEX} ; Q = 0.000 `, INDEX, false],
  [`${INDEX};xq=0`, INDEX, true],
  [`${INDEX};q=0, ${INDEX}`, INDEX, true],
  [`${INDEX} ;q=1`, INDEX, true],
  [`${INDEX};q=0.001`, INDEX, true],
  [`${INDEX};q=0, */*`, INDEX, false],
  [`${INDEX}, */*;q=0`, INDEX, true],
  ["application/*;q=0, */*", INDEX, false],
  ["*/*;q=0", INDEX, false],
  ["application/json", INDEX, false],
];

for (const [accept, type, accepted] of ACCEPTS) {
  Deno.test(`Accept ${JSON.stringify(accept)} ${accepted ? "takes" : "refuses"} ${type}`, () => {
    assertEquals(accepts(accept, type), accepted);
  });
}

Deno.test("a type is taken wherever it stands among others, and no header makes it throw", () => {
  const others = fc.array(fc.constantFrom(V2, IMAGE, "text/*", "", ";", "application/json;q=0"));
  fc.assert(fc.property(others, others, (before, after) => {
    assert(accepts([...before, INDEX, ...after].join(","), INDEX));
  }));
  fc.assert(fc.property(fc.string(), fc.string(), (accept, type) => {
    assertEquals(typeof accepts(accept, type), "boolean");
  }));
});
