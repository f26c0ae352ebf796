/**
 * `ls` and `rm`: the images in the cache.
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
  /** Parts of names, or patterns with `*` for whole ones; without any all images are listed. */
  readonly patterns: readonly string[];
  readonly json: boolean;
  readonly output: Output;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** Lists images by name. Returns the exit code 0. */
export async function runList(options: ListOptions): Promise<number> {
  const { operations, patterns, json, output, now = Date.now } = options;
  const all = await operations.images();
  const images = all.filter(({ name }) =>
    patterns.length === 0 || patterns.some((pattern) => isMeant(name, pattern))
  ).sort((a, b) => a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
  if (json) {
    output.print(JSON.stringify(images));
    return 0;
  }
  if (images.length === 0) {
    output.printError(patterns.length === 0 ? "The cache holds no images" : "No image matches");
    return 0;
  }
  const titles = ["IMAGE", "PLATFORMS", "SIZE", "CHECKED", "USED"];
  const rows = images.map((image) => rowOf(image, now()));
  for (const line of formatTable([titles, ...rows])) output.print(line);
  return 0;
}

function isMeant(name: string, pattern: string): boolean {
  return pattern.includes("*") ? matchesPattern(pattern, name) : name.includes(pattern);
}

function rowOf(image: HeldImage, now: number): string[] {
  const { name, platforms, size, isWhole, checkedAt, usedAt } = image;
  return [
    name,
    [...platforms, ...isWhole ? [] : ["(in part)"]].join(" ") || "-",
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

/** Removes images. Returns the exit code: 1 when one of them is not here or cannot be removed. */
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
    if (images.length > 0) output.print(`${formatSize(bytes)} are free again`);
  }
  if (json) output.print(JSON.stringify(results));
  return results.some(({ error }) => error !== undefined) ? 1 : 0;
}
