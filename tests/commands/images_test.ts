import { assertEquals } from "@std/assert";
import type { HeldImage } from "../../lib/cache/content/inventory.ts";
import { runList, runRemove } from "../../lib/commands/images.ts";
import { OciError } from "../../lib/oci/error.ts";
import { keepOutput } from "../support/output.ts";

const NOW = 1_000_000_000_000;
const HOUR = 60 * 60_000;

function image(name: string, change: Partial<HeldImage> = {}): HeldImage {
  const [path = "", tag = ""] = name.split(":");
  const [registry = "", ...repository] = path.split("/");
  return {
    registry,
    repository: repository.join("/"),
    tag,
    name,
    digest: `sha256:${"0".repeat(64)}`,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    platforms: ["linux/amd64"],
    size: 3 * 2 ** 20,
    isWhole: true,
    checkedAt: NOW - 5 * 60_000,
    usedAt: NOW - 2 * HOUR,
    ...change,
  };
}

const IMAGES = [
  image("ghcr.io/owner/img:1"),
  image("docker.io/library/nginx:1.27", {
    platforms: ["linux/amd64", "linux/arm64"],
    isWhole: false,
    usedAt: NOW - 49 * HOUR,
  }),
  image("docker.io/library/alpine:3", {
    platforms: [],
    isWhole: false,
    usedAt: undefined,
    size: 0,
  }),
];

async function list(patterns: string[], { json = false, images = IMAGES } = {}) {
  const output = keepOutput();
  const operations = {
    async *images() {
      yield* images;
    },
  };
  const code = await runList({ operations, patterns, json, output, now: () => NOW });
  return { code, ...output };
}

Deno.test("ls prints a table sorted by name", async () => {
  const { code, lines } = await list([]);
  assertEquals(code, 0);
  assertEquals(lines.map((line) => line.split(/ {2,}/)), [
    ["IMAGE", "PLATFORMS", "SIZE", "CHECKED", "USED"],
    ["docker.io/library/alpine:3", "(partial)", "0 B", "5m ago", "-"],
    [
      "docker.io/library/nginx:1.27",
      "linux/amd64 linux/arm64 (partial)",
      "3 MiB",
      "5m ago",
      "2d ago",
    ],
    ["ghcr.io/owner/img:1", "linux/amd64", "3 MiB", "5m ago", "2h ago"],
  ]);
  // In columns.
  assertEquals(new Set(lines.map((line) => line.search(/5m ago|CHECKED/))).size, 1);
});

const SELECTIONS: readonly [string[], string[]][] = [
  [["nginx"], ["docker.io/library/nginx:1.27"]],
  [["owner", "alpine"], ["docker.io/library/alpine:3", "ghcr.io/owner/img:1"]],
  [["docker.io/*"], ["docker.io/library/alpine:3", "docker.io/library/nginx:1.27"]],
  [["*:3"], ["docker.io/library/alpine:3"]],
  [["missing"], []],
];

for (const [patterns, expected] of SELECTIONS) {
  Deno.test(`ls ${patterns.join(" ")} lists ${expected.length}`, async () => {
    const { lines } = await list(patterns, { json: true });
    assertEquals(JSON.parse(lines[0]!).map(({ name }: HeldImage) => name), expected);
  });
}

Deno.test("ls reports an empty list on standard error", async () => {
  const { code, lines, errors } = await list([], { images: [] });
  assertEquals([code, lines, errors], [0, [], ["The cache holds no images"]]);
  assertEquals((await list(["zzz"])).errors, ["No image matches"]);
});

Deno.test("ls --json prints every field of an image", async () => {
  const { lines } = await list(["img"], { json: true });
  assertEquals(JSON.parse(lines[0]!), [IMAGES[0]]);
});

Deno.test("ls prints very many images in parts, as one table or one array, and keeps none that is printed", async () => {
  const count = 12_000;
  const output = keepOutput();
  const printedAt: number[] = [];
  const operations = {
    async *images() {
      for (let n = 0; n < count; n++) {
        printedAt.push(output.lines.length);
        yield image(`docker.io/library/app:v${String(count - n).padStart(5, "0")}`);
      }
    },
  };
  const options = { operations, patterns: [], output, now: () => NOW };
  assertEquals(await runList({ ...options, json: false }), 0);
  assertEquals(output.lines.length, count + 1);
  assertEquals(output.lines.filter((line) => line.startsWith("IMAGE")).length, 1);
  assertEquals(output.errors, []);
  assertEquals(new Set(printedAt), new Set([0, 5_001, 10_001]));
  const json = await list([], {
    json: true,
    images: Array.from({ length: 10_000 }, (_, n) => image(`docker.io/library/app:v${n}`)),
  });
  assertEquals(json.lines.length, 3);
  assertEquals(JSON.parse(json.lines.join("\n")).length, 10_000);
});

async function remove(images: string[], json = false) {
  const output = keepOutput();
  const operations = {
    remove: (name: string) => {
      if (name === "???") throw new OciError("NAME_INVALID", "Malformed image reference");
      const images = name === "missing" ? [] : [`docker.io/library/${name}`];
      const count = images.length;
      return Promise.resolve({ images, tags: count, entries: count * 3, bytes: count * 2048 });
    },
  };
  const code = await runRemove({ operations, images, json, output });
  return { code, ...output };
}

Deno.test("rm reports removed and missing images", async () => {
  const { code, lines, errors } = await remove(["app:1", "missing", "???"]);
  assertEquals(code, 1);
  assertEquals(lines, ["Removed docker.io/library/app:1", "Freed 2 KiB"]);
  assertEquals(errors, ["missing: Not in the cache", "???: Malformed image reference"]);
});

Deno.test("rm exits 0 when it removed every image", async () => {
  assertEquals((await remove(["app:1", "app:2"])).code, 0);
});

Deno.test("rm --json prints one result for each name", async () => {
  const { code, lines, errors } = await remove(["app:1", "missing"], true);
  assertEquals([code, errors], [1, []]);
  assertEquals(JSON.parse(lines[0]!), [
    { image: "app:1", images: ["docker.io/library/app:1"], tags: 1, entries: 3, bytes: 2048 },
    { image: "missing", images: [], tags: 0, entries: 0, bytes: 0, error: "Not in the cache" },
  ]);
});
