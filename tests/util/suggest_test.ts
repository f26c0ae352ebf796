import { assertEquals } from "@std/assert";
import { closest, suggest } from "../../lib/util/suggest.ts";

const WORDS = ["serve", "ls", "rm", "verify", "version", "CACHE_ENABLED", "CACHE_DIR"];

const SLIPS: readonly [text: string, meant: string | undefined][] = [
  ["sevre", "serve"],
  ["serv", "serve"],
  ["servee", "serve"],
  ["SERVE", "serve"],
  ["cerve", "serve"],
  ["sreev", undefined],
  ["verfy", "verify"],
  ["versoin", "version"],
  ["CACHE_ENABLE", "CACHE_ENABLED"],
  ["CACHEENABLE", "CACHE_ENABLED"],
  ["cache-enabled", "CACHE_ENABLED"],
  ["CACHE_ENABL", "CACHE_ENABLED"],
  ["CACHE_ENAB", undefined],
  ["CACHE_DIRS", "CACHE_DIR"],
  ["l", undefined],
  ["lz", undefined],
  ["", undefined],
  ["something else", undefined],
];

Deno.test("a slip leads to the nearest word, and anything else to none", () => {
  for (const [text, meant] of SLIPS) assertEquals(closest(text, WORDS), meant, text);
});

Deno.test("what is meant is the end of a message, or nothing is", () => {
  assertEquals(suggest("sevre", WORDS), ", did you mean serve?");
  assertEquals(suggest("nothing", WORDS), "");
});
