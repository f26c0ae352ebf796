/**
 * Finds in the source whatever keeps things by key: maps, sets, caches, single flights, locks, counters, keys of
 * Redis, tables of SQLite.
 *
 * @module
 */
import { join } from "@std/path";
import { ROOT } from "./proxy_process.ts";

/** Something that is kept by key. */
export interface Place {
  /** `lib/response/response_cache.ts`. */
  readonly file: string;
  /** `#answers`; `redis b:` and `sqlite tags` for what is kept outside of the process. */
  readonly name: string;
  readonly line: number;
}

/** What keeps things by key in this language. */
const BUILT_IN = ["Map", "Set", "WeakMap", "WeakSet", "WeakRef", "LRUCache"];

/** Every source file below `lib/`, but those of the operator's page, which run in a browser. */
export function sources(): { readonly file: string; readonly text: string }[] {
  const walk = (dir: string): string[] =>
    [...Deno.readDirSync(join(ROOT, dir))].flatMap(({ name, isDirectory }) =>
      isDirectory ? walk(`${dir}/${name}`) : [`${dir}/${name}`]
    );
  return walk("lib")
    .filter((file) => file.endsWith(".ts") && !file.startsWith("lib/admin/page/"))
    .toSorted()
    .map((file) => ({ file, text: Deno.readTextFileSync(join(ROOT, file)) }));
}

/** The name of what is assigned where `before`, the text up to a value, ends; undefined for none. */
function assignedIn(before: string): string | undefined {
  const property = /(#?\w+)\s*:\s*$/.exec(before);
  // `const kept: ReadonlyMap<string, number> =`, `this.#kept ??=`, `types =`; conditions may stand between.
  const assigned = [...before.matchAll(/(#?\w+)\??(?:\s*:\s*[^=;{}()]+)?\s*(?:\?\?)?=(?![=>])/g)]
    .at(-1);
  return assigned?.[1] ?? property?.[1];
}

/** The name of what the value is assigned to that begins at `at`: on its line, or else in its statement. */
function nameAt(text: string, at: number): string {
  const line = text.slice(text.lastIndexOf("\n", at) + 1, at);
  const start = Math.max(...[";\n", "{\n", "}\n", "*/\n"].map((end) => text.lastIndexOf(end, at)));
  return assignedIn(line) ?? assignedIn(text.slice(Math.max(0, start), at)) ?? "(expression)";
}

/** Every place of `text` that makes one of `classes`, or keeps something in Redis or SQLite. */
export function placesOf(
  { file, text }: { readonly file: string; readonly text: string },
  classes: readonly string[],
): Place[] {
  const lineOf = (at: number) => text.slice(0, at).split("\n").length;
  const made = [...text.matchAll(/\bnew (\w+)\b/g)]
    .filter(([, name = ""]) => BUILT_IN.includes(name) || classes.includes(name))
    .map(({ index }) => ({ at: index, name: nameAt(text, index) }));
  const redis = [
    ...text.matchAll(/\.key\(\s*[`"]([A-Za-z]+:?)/g),
    ...text.matchAll(/\b(?:p|KEYS\[1\]) \.\. '([A-Za-z]+:?)/g),
  ].map(({ index, 1: prefix }) => ({ at: index, name: `redis ${prefix}` }));
  const sqlite = [...text.matchAll(/CREATE TABLE (\w+)/g)]
    .map(({ index, 1: table }) => ({ at: index, name: `sqlite ${table}` }));
  return [...made, ...redis, ...sqlite].map(({ at, name }) => ({ file, name, line: lineOf(at) }));
}
