import { assertEquals } from "@std/assert";
import { BurstCollector } from "../../lib/util/gc.ts";

const MB = 1e6;

/** A process of some size: a part is garbage, and what is collected stays with the allocator until it is trimmed. */
function setUp() {
  const process = { needed: 70 * MB, garbage: 0, free: 0, collections: 0, trims: 0 };
  const collector = new BurstCollector({
    size: () => process.needed + process.garbage + process.free,
    collect: () => {
      process.collections++;
      process.free += process.garbage;
      process.garbage = 0;
    },
    trim: () => {
      process.trims++;
      process.free = 0;
    },
  });
  return { process, collector };
}

Deno.test("what a burst has left is collected once it is quiet", () => {
  const { process, collector } = setUp();
  collector.look();
  process.garbage = 50 * MB;
  collector.look();
  assertEquals(process.collections, 0, "it is still growing");
  collector.look();
  assertEquals([process.collections, process.garbage], [1, 0]);
  for (let i = 0; i < 10; i++) collector.look();
  assertEquals([process.collections, process.trims, process.free], [1, 1, 0]);
});

Deno.test("what is needed is not collected for again and again", () => {
  const { process, collector } = setUp();
  collector.look();
  process.needed = 150 * MB;
  for (let i = 0; i < 50; i++) collector.look();
  assertEquals([process.collections, process.trims], [2, 2]);
  process.garbage = 50 * MB;
  for (let i = 0; i < 5; i++) collector.look();
  assertEquals([process.collections > 2, process.trims > 2, process.garbage + process.free], [
    true,
    true,
    0,
  ]);
});

Deno.test("a process that is large already is not waited for", () => {
  const { process, collector } = setUp();
  collector.look();
  for (let i = 0; i < 10; i++) {
    process.garbage += 60 * MB;
    collector.look();
  }
  assertEquals(process.collections > 0, true);
});
