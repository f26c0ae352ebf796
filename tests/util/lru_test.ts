import { assert, assertEquals } from "@std/assert";
import { ByteLru, detached, stringBytes } from "../../lib/util/lru.ts";

Deno.test("of too many bytes the entry used longest ago leaves", () => {
  const removed: number[] = [];
  const one = 200 + stringBytes("a") + 8;
  const map = new ByteLru<number>({ bytes: 8 * one, onRemoved: (value) => removed.push(value) });
  for (let i = 0; i < 8; i++) map.set(String(i), i);
  map.get("0");
  map.set("8", 8);
  assertEquals(removed, [1]);
  assertEquals([map.get("0"), map.get("1"), map.get("8"), map.size], [0, undefined, 8, 8]);
  assertEquals(map.bytes, 8 * one);
});

Deno.test("keys count in bytes: a map of long keys holds fewer", () => {
  const map = new ByteLru<true>({ bytes: 2 ** 20 });
  for (let i = 0; i < 1_000; i++) map.set(`${"k".repeat(60_000)}${i}`, true);
  assert(map.size > 0 && map.size < 2 ** 20 / 60_000, `${map.size} entries`);
  assert(map.bytes <= 2 ** 20);
});

Deno.test("characters outside of Latin-1 count twice", () => {
  assertEquals(stringBytes("é".repeat(10)) - stringBytes(""), 10);
  assertEquals(stringBytes("é€".repeat(10)) - stringBytes(""), 40);
});

Deno.test("what takes an eighth of a map is not kept, and nor is what it would replace", () => {
  const map = new ByteLru<string>({ bytes: 8_000, sizeOf: stringBytes });
  assert(map.set("a", "small"));
  assert(!map.set("a", "x".repeat(1_000)));
  assertEquals([map.get("a"), map.size, map.bytes], [undefined, 0, 0]);
});

Deno.test("a value is replaced by one of another size", () => {
  const removed: string[] = [];
  const onRemoved = (value: string) => removed.push(value);
  const map = new ByteLru<string>({ bytes: 8_000, sizeOf: stringBytes, onRemoved });
  map.set("a", "one");
  const before = map.bytes;
  map.set("a", "longer");
  map.set("a", "LONGER");
  assertEquals([map.get("a"), map.bytes - before, removed], ["LONGER", 3, ["one", "longer"]]);
});

Deno.test("what is not used between two rounds is dropped", () => {
  const map = new ByteLru<number>({ bytes: 8_000 });
  map.set("used", 1);
  map.set("unused", 2);
  map.dropUnused();
  assertEquals(map.size, 2);
  map.get("used");
  map.set("new", 3);
  map.dropUnused();
  assertEquals([...map.keys()], ["new", "used"]);
  map.dropUnused();
  assertEquals([map.size, map.bytes], [0, 0]);
});

Deno.test("a detached string is equal to its original", () => {
  for (const text of ["", "plain", "é\xff", "mixed € 日本 \u{1f600} \ud800"]) {
    assertEquals(detached(text), text);
  }
});
