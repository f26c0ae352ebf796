/**
 * Bounded maps that take no memory before there is something in them: `lru-cache` with `max` makes room for
 * all of it at once, some 2 MiB for 100,000 entries.
 *
 * @module
 */
import { LRUCache } from "lru-cache";

/** A map of at most `entries` entries; the one used longest ago leaves first. */
export function lruOf<Value extends NonNullable<unknown>>(
  entries: number,
): LRUCache<string, Value> {
  return new LRUCache<string, Value>({ maxSize: entries, sizeCalculation: () => 1 });
}
