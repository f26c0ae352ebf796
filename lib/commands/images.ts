/**
 * `ls` and `rm`: list and remove cached images.
 *
 * @module
 */
import type { HeldImage } from "../cache/content/inventory.ts";
import type { Removal } from "../cache/content/removal.ts";
import type { Operations } from "../operator/operations.ts";
import { matchesPattern } from "../transforms/policy.ts";
import { formatSize } from "../util/units.ts";
import type { Output } from "./output.ts";
import { formatAge, formatTable } from "./table.ts";

/** Options for {@linkcode runList}. */
export interface ListOptions {
  readonly operations: Pick<Operations, "images">;
  /** Parts of names, or patterns with `*` that match whole names. If empty, all images are listed. */
  readonly patterns: readonly string[];
  readonly json: boolean;
  readonly output: Output;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/**
 * Maximum number of images that are sorted and printed together. Longer lists are printed in parts, to
 * bound memory.
 */
const PART = 5_000;
const TITLES = ["IMAGE", "PLATFORMS", "SIZE", "CHECKED", "USED"];

/**
 * Lists images by name. Lists of more than 5,000 are sorted and printed in parts. Returns the exit code 0.
 */
export async function runList(options: ListOptions): Promise<number> {
  const { operations, patterns, json, output, now = Date.now } = options;
  let parts = 0;
  const print = (images: HeldImage[], { isLast }: { isLast: boolean }) => {
    images.sort((a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
    const isFirst = parts++ === 0;
    if (json) {
      const text = images.map((image) => JSON.stringify(image)).join(",");
      // One array over several lines, one line per part.
      output.print(`${isFirst ? "[" : images.length > 0 ? "," : ""}${text}${isLast ? "]" : ""}`);
    } else if (images.length > 0) {
      const rows = images.map((image) => rowOf(image, now()));
      for (const line of formatTable([...isFirst ? [TITLES] : [], ...rows])) output.print(line);
    } else if (isFirst) {
      output.printError(patterns.length === 0 ? "The cache holds no images" : "No image matches");
    }
  };
  let images: HeldImage[] = [];
  for await (const image of operations.images()) {
    const { name } = image;
    if (patterns.length > 0 && !patterns.some((pattern) => isMeant(name, pattern))) continue;
    images.push(image);
    if (images.length < PART) continue;
    print(images, { isLast: false });
    images = [];
  }
  print(images, { isLast: true });
  return 0;
}

function isMeant(name: string, pattern: string): boolean {
  return pattern.includes("*") ? matchesPattern(pattern, name) : name.includes(pattern);
}

function rowOf(image: HeldImage, now: number): string[] {
  const { name, platforms, size, isWhole, checkedAt, usedAt } = image;
  return [
    name,
    [...platforms, ...isWhole ? [] : ["(partial)"]].join(" ") || "-",
    formatSize(size),
    `${formatAge(checkedAt, now)} ago`,
    usedAt === undefined ? "-" : `${formatAge(usedAt, now)} ago`,
  ];
}

/** Options for {@linkcode runRemove}. */
export interface RemoveOptions {
  readonly operations: Pick<Operations, "remove">;
  readonly images: readonly string[];
  readonly json: boolean;
  readonly output: Output;
}

/** Removes images. Returns exit code 1 if any of them is not cached or cannot be removed, else 0. */
export async function runRemove(options: RemoveOptions): Promise<number> {
  const { operations, images, json, output } = options;
  const results: (Removal & { image: string; error?: string })[] = [];
  for (const image of images) {
    try {
      const removal = await operations.remove(image);
      const error = removal.images.length === 0 ? "Not in the cache" : undefined;
      results.push({ image, ...removal, error });
    } catch (error) {
      const nothing = { images: [], tags: 0, entries: 0, bytes: 0 };
      results.push({ image, ...nothing, error: (error as Error).message });
    }
  }
  for (const { image, images, tags, bytes, error } of json ? [] : results) {
    if (error !== undefined) output.printError(`${image}: ${error}`);
    for (const name of images) output.print(`Removed ${name}`);
    if (tags > images.length) output.print(`and ${tags - images.length} more`);
    if (images.length > 0) output.print(`Freed ${formatSize(bytes)}`);
  }
  if (json) output.print(JSON.stringify(results));
  return results.some(({ error }) => error !== undefined) ? 1 : 0;
}
