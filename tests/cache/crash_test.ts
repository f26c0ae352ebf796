import { assert, assertEquals } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { Content } from "../../lib/cache/content/content.ts";
import { openEmbedded } from "../../lib/cache/backends.ts";
import { Stats } from "../../lib/telemetry/stats.ts";
import { digestOf, randomOf } from "../support/content.ts";
import { CAP, contents } from "../support/crash_child.ts";
import { background } from "../support/process.ts";
import { tempDir } from "../support/temp.ts";

const CHILD = fromFileUrl(new URL("../support/crash_child.ts", import.meta.url));
const ROUNDS = 50;

/** Files below `dir`, with their sizes. */
async function filesBelow(dir: string): Promise<Map<string, number>> {
  const files = new Map<string, number>();
  for await (const { name, isDirectory } of Deno.readDir(dir)) {
    const path = join(dir, name);
    if (isDirectory) { for (const [file, size] of await filesBelow(path)) files.set(file, size); }
    else files.set(path, (await Deno.stat(path)).size);
  }
  return files;
}

/** Runs a child until it is killed at a random moment. Returns what it said. */
async function killed(dir: string, { seed, ms }: { seed: number; ms: number }): Promise<string[]> {
  const child = background(Deno.execPath(), {
    args: [
      "run",
      "--no-check",
      "--allow-read",
      "--allow-write",
      "--allow-env",
      CHILD,
      dir,
      `${seed}`,
    ],
  });
  await child.line(/^open$/, 60_000);
  await new Promise((resolve) => setTimeout(resolve, ms)); // the random moment
  await child.stop("SIGKILL");
  return child.lines;
}

Deno.test(`a process killed ${ROUNDS} times while it fills and evicts serves right bytes, leaves no part and loses nothing`, async () => {
  await using dir = await tempDir();
  const known = contents();
  const random = randomOf(Date.now());
  /** What was said to be stored and not to be leaving. */
  const safe = new Set<string>();
  let stored = 0;
  let left = 0;
  for (let round = 1; round <= ROUNDS; round++) {
    const seed = Math.floor(random() * 2 ** 31);
    const said = await killed(dir.path, { seed, ms: random() * 250 });
    const where = `round ${round}, seed ${seed}`;
    for (const line of said) {
      const [word, digest = ""] = line.split(" ");
      if (word === "stored") stored++, safe.add(digest);
      else if (word === "leaving") left++, safe.delete(digest);
      else assertEquals(line, "open", where);
    }
    // Every third start is the next child's own, on what the kill left.
    if (round % 3 === 0 && round < ROUNDS) continue;

    const { index, store } = await openEmbedded(dir.path, { onDamaged: () => {} });
    const content = new Content({ index, store, maxSize: CAP, idle: 1_000, stats: new Stats() });
    assertEquals(await filesBelow(join(dir.path, "fills")), new Map(), `${where}: part files`);
    const onDisk = new Map(
      [...await filesBelow(join(dir.path, "blobs"))].map((
        [path, size],
      ) => [`sha256:${path.slice(-64)}`, size]),
    );
    const rows = await Array.fromAsync(index.blobs());
    assertEquals(new Map(rows.map((row) => [row.digest, row.size])), onDisk, where);
    const { bytes, entries, reserved } = await index.totals();
    const size = [...onDisk.values()].reduce((sum, size) => sum + size, 0);
    assertEquals({ bytes, entries, reserved }, { bytes: size, entries: onDisk.size, reserved: 0 });
    assert(bytes <= CAP, `${where}: ${bytes} of ${CAP} bytes`);
    assertEquals([...safe].filter((digest) => !onDisk.has(digest)), [], `${where}: lost`);
    for (const { digest, size } of rows) {
      assert(known.has(digest), digest);
      const blob = await content.open(digest);
      assert(blob, `${where}: ${digest} is not right`);
      const all = new Uint8Array(size);
      for (let done = 0; done < size;) {
        const n = await blob.read(done, all.subarray(done));
        assert(n > 0);
        done += n;
      }
      blob.close();
      assertEquals(digestOf(all), digest, where);
    }
    assertEquals(await index.pending(), []);
    // What a kill kept from being forgotten is known now.
    for (const digest of onDisk.keys()) safe.add(digest);
    await content.close(0);
    await index.close();
  }
  assert(stored > ROUNDS && left > ROUNDS, `only ${stored} stored and ${left} left`);
});
