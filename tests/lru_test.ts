import { assertEquals } from "@std/assert";
import { lruOf } from "../lib/lru.ts";

Deno.test("of too many entries the one used longest ago leaves", () => {
  const map = lruOf<number>(3);
  for (const [key, value] of [["a", 1], ["b", 2], ["c", 3]] as const) map.set(key, value);
  map.get("a");
  map.set("d", 4);
  assertEquals([...map.keys()].toSorted(), ["a", "c", "d"]);
  map.set("a", 5);
  assertEquals([map.size, map.get("a"), map.get("b")], [3, 5, undefined]);
});
