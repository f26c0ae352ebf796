import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { OciError } from "../../lib/oci/error.ts";
import { readManifest } from "../../lib/oci/manifest.ts";

const INDEX = "application/vnd.oci.image.index.v1+json";
const IMAGE = "application/vnd.oci.image.manifest.v1+json";
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";

Deno.test("an index has children with their platforms", () => {
  const manifest = read({
    manifests: [
      { ...descriptor("a", IMAGE), platform: { os: "linux", architecture: "amd64", variant: 8 } },
      {
        ...descriptor("b", IMAGE),
        platform: { os: "linux", architecture: "arm64", variant: "v8", "os.version": "1" },
      },
      { ...descriptor("c", IMAGE), platform: { os: "linux" } },
      descriptor("d", IMAGE),
    ],
    subject: descriptor("e", IMAGE),
  }, INDEX);
  assertEquals(manifest, {
    mediaType: INDEX,
    children: [
      { ...descriptor("a", IMAGE), platform: "linux/amd64" },
      { ...descriptor("b", IMAGE), platform: "linux/arm64/v8" },
      descriptor("c", IMAGE),
      descriptor("d", IMAGE),
    ],
    layers: [],
    subject: descriptor("e", IMAGE),
  });
});

Deno.test("an image has a config, layers and perhaps a subject", () => {
  const foreign = { ...descriptor("c", LAYER), urls: ["https://a.b/c"] };
  const manifest = read({
    config: descriptor("a", "application/vnd.oci.image.config.v1+json"),
    layers: [descriptor("b", `${LAYER}; x=y`), { ...foreign, urls: [...foreign.urls, 1] }],
    subject: descriptor("d", IMAGE),
  }, `${IMAGE}; charset=utf-8`);
  assertEquals(manifest, {
    mediaType: IMAGE,
    children: [],
    config: descriptor("a", "application/vnd.oci.image.config.v1+json"),
    layers: [descriptor("b", LAYER), foreign],
    subject: descriptor("d", IMAGE),
  });
});

Deno.test("an artifact's blobs and a schema 1 image's fsLayers are layers", () => {
  const artifact = read({ blobs: [descriptor("a", LAYER)] }, "application/vnd.x+json");
  assertEquals(artifact.layers, [descriptor("a", LAYER)]);
  const schema1 = read({ fsLayers: [{ blobSum: descriptor("a", "").digest }] }, "text/plain");
  assertEquals(schema1.layers, [{ ...descriptor("a", ""), size: -1 }]);
});

Deno.test("a body that is both index and image is only what its type says", () => {
  const both = { manifests: [descriptor("a", IMAGE)], layers: [descriptor("b", LAYER)] };
  assertEquals(counts(both, INDEX), [1, 0]);
  assertEquals(counts(both, IMAGE), [0, 1]);
});

const TYPES: [body: Record<string, unknown>, sent: string, type: string][] = [
  [{ mediaType: IMAGE, layers: [] }, INDEX, INDEX],
  [{ mediaType: IMAGE }, "application/json", IMAGE],
  [{ manifests: [] }, "application/json", INDEX],
  [{ layers: [] }, "text/plain; charset=utf-8", IMAGE],
  [{ mediaType: 1 }, "Text/Plain", "text/plain"],
];

for (const [body, sent, type] of TYPES) {
  Deno.test(`${JSON.stringify(body)} sent as ${sent} is ${type}`, () => {
    assertEquals(read(body, sent).mediaType, type);
  });
}

Deno.test("what is no descriptor is left out, and a size that is none is -1", () => {
  const layers = [null, 1, [], {}, { digest: 1 }, { digest: "sha256:x" }, descriptor("a", LAYER)];
  assertEquals(read({ layers, config: "x", subject: [] }, IMAGE), {
    mediaType: IMAGE,
    children: [],
    layers: [descriptor("a", LAYER)],
  });
  const sizes = [-1, 1.5, "7", null, 0, 7].map((size) => ({ ...descriptor("a", LAYER), size }));
  assertEquals(read({ layers: sizes }, IMAGE).layers.map(({ size }) => size), [
    -1,
    -1,
    -1,
    -1,
    0,
    7,
  ]);
});

for (const text of ["", "{", "[]", "null", "1", '"x"']) {
  Deno.test(`${JSON.stringify(text)} is an invalid manifest`, () => {
    const bytes = new TextEncoder().encode(text);
    const error = assertThrows(() => readManifest(bytes, IMAGE), OciError);
    assertEquals([error.code, error.status], ["MANIFEST_INVALID", 502]);
  });
}

Deno.test("no bytes make the reader throw anything but MANIFEST_INVALID", () => {
  const value = fc.jsonValue({ maxDepth: 3 });
  const objects = fc.record({
    mediaType: value,
    manifests: fc.array(fc.record({ digest: value, platform: value, urls: value })),
    config: value,
    layers: value,
    subject: value,
  }, { requiredKeys: [] });
  fc.assert(fc.property(objects, fc.constantFrom(IMAGE, INDEX, "x"), (body, type) => {
    read(body, type);
  }));
  fc.assert(fc.property(fc.uint8Array(), (bytes) => {
    try {
      readManifest(bytes, IMAGE);
    } catch (error) {
      assert(error instanceof OciError && error.code === "MANIFEST_INVALID");
    }
  }));
});

function read(body: unknown, mediaType: string) {
  return readManifest(new TextEncoder().encode(JSON.stringify(body)), mediaType);
}

function counts(body: unknown, mediaType: string): number[] {
  const { children, layers } = read(body, mediaType);
  return [children.length, layers.length];
}

function descriptor(hex: string, mediaType: string) {
  return { digest: `sha256:${hex.repeat(64)}`, size: 12, mediaType };
}
