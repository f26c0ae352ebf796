import { assertEquals } from "@std/assert";
import { StoppedFills, type StoppedPart } from "../../../lib/cache/content/stopped_fills.ts";
import { createHasher } from "../../../lib/oci/digest.ts";
import { memoryDraft } from "../../support/draft.ts";
import { until } from "../../support/until.ts";

const ORIGIN = "registry-1.docker.io library/app";

/** Parts, and which of them have given back what they took. */
function makeParts() {
  const dropped: string[] = [];
  const released: string[] = [];
  const make = (name: string, written = 100): StoppedPart => ({
    digest: `sha256:${name.repeat(64)}`,
    size: 1_000_000,
    written,
    hash: createHasher("sha256:" + "a".repeat(64)),
    origin: ORIGIN,
    draft: { ...memoryDraft(), discard: () => Promise.resolve(void dropped.push(name)) },
    admission: {
      grow: () => Promise.resolve(true),
      release: () => void released.push(name),
    },
    ownership: {},
  });
  return { make, dropped, released };
}

Deno.test("what is left of a stopped download is dropped after a while, with its file and its room", async () => {
  const { make, dropped, released } = makeParts();
  const stopped = new StoppedFills({ maxSize: 1000, keepFor: 1 });
  await stopped.add(make("a"));
  assertEquals([stopped.size, stopped.bytes], [1, 100]);
  await until(() => released.length === 1);
  assertEquals([dropped, stopped.size, stopped.bytes], [["a"], 0, 0]);
  assertEquals(stopped.take(make("a").digest, ORIGIN), undefined);
});

Deno.test("what is left of stopped downloads takes no more bytes than it may: the oldest make room", async () => {
  const { make, dropped, released } = makeParts();
  const stopped = new StoppedFills({ maxSize: 1000 });
  for (const name of ["a", "b", "c"]) await stopped.add(make(name, 400));
  assertEquals([dropped, released, stopped.bytes], [["a"], ["a"], 800]);
  // Larger than all of it: the others stay.
  await stopped.add(make("d", 1001));
  assertEquals([dropped, stopped.size, stopped.bytes], [["a", "d"], 2, 800]);
  await stopped.clear();
  assertEquals([dropped, stopped.size, stopped.bytes], [["a", "d", "b", "c"], 0, 0]);
});

Deno.test("no more than so many files of stopped downloads are open", async () => {
  const { make, dropped } = makeParts();
  const stopped = new StoppedFills({ maxSize: 1000, maxCount: 2 });
  for (const name of ["a", "b", "c"]) await stopped.add(make(name, 1));
  assertEquals([dropped, stopped.size], [["a"], 2]);
  await stopped.clear();
});

Deno.test("what is left of a stopped download is taken once, and for its own repository only", async () => {
  const { make, dropped } = makeParts();
  const stopped = new StoppedFills({ maxSize: 1000 });
  const part = make("a");
  await stopped.add(part);
  assertEquals(stopped.take(part.digest, "quay.io library/app"), undefined);
  assertEquals(stopped.take(part.digest, ORIGIN), part);
  assertEquals(stopped.take(part.digest, ORIGIN), undefined);
  assertEquals([dropped, stopped.size, stopped.bytes], [[], 0, 0]);
});

Deno.test("what could not be gone on with three times is dropped", async () => {
  const { make, dropped } = makeParts();
  const stopped = new StoppedFills({ maxSize: 1000 });
  const part = make("a");
  await stopped.add(part);
  for (let attempt = 1; attempt <= 3; attempt++) {
    const taken = stopped.take(part.digest, ORIGIN);
    assertEquals(taken, part);
    await stopped.giveBack(taken!);
    assertEquals(dropped.length, attempt === 3 ? 1 : 0);
  }
  assertEquals(stopped.size, 0);
});

Deno.test("what is given back after a newer stop of the same content is dropped", async () => {
  const { make, dropped } = makeParts();
  const stopped = new StoppedFills({ maxSize: 1000 });
  const part = make("a");
  await stopped.add(part);
  const older = stopped.take(part.digest, ORIGIN)!;
  const newer = make("a", 200);
  await stopped.add(newer);
  await stopped.giveBack(older);
  assertEquals(dropped, ["a"]);
  assertEquals(stopped.take(part.digest, ORIGIN), newer);
});
