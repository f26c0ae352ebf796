/**
 * Removing images by name, with what only they need.
 *
 * @module
 */
import { clientName } from "../image_name.ts";
import { formatImage } from "../oci/reference.ts";
import type { Registry } from "../registry.ts";
import { subjectOf } from "./attachments.ts";
import type { Index, TagEntry } from "./index.ts";
import { Inventory, type InventorySource, isSelected, type Selection } from "./inventory.ts";

/** What a removal works with. */
export interface RemovalSource extends InventorySource {
  readonly index: InventorySource["index"] & Pick<Index, "removeTag">;
  /** Removes content with its links and the tags that mean it. */
  readonly remove: (digest: string) => Promise<unknown>;
}

/** What was removed. */
export interface Removal {
  /** In full: `docker.io/library/nginx:1.27`. */
  readonly images: readonly string[];
  /** Pieces of content, and their bytes. */
  readonly entries: number;
  readonly bytes: number;
}

/**
 * Removes the tags that are selected, the tags by which signatures are attached to what leaves with them, and
 * what is here of all these that no other tag refers to. Content that
 * clients pulled by digest alone goes with them, and is fetched again when somebody asks for it.
 */
export async function removeImages(source: RemovalSource, selection: Selection): Promise<Removal> {
  const inventory = new Inventory(source);
  const leaving: TagEntry[] = [];
  const others: TagEntry[] = [];
  for await (const entry of inventory.tags()) {
    (isSelected(entry, selection) ? leaving : others).push(entry);
  }
  if (leaving.length === 0) return { images: [], entries: 0, bytes: 0 };
  const staying = new Set<string>();
  const stayingBeside = new Set<string>();
  const attached: TagEntry[] = [];
  for (const entry of others) {
    const isBeside = entry.registry === selection.registry &&
      entry.repository === selection.repository;
    if (isBeside && subjectOf(entry.tag) !== undefined) {
      attached.push(entry);
      continue;
    }
    for (const { digest } of await inventory.parts(entry.digest)) {
      staying.add(digest);
      if (isBeside) stayingBeside.add(digest);
    }
  }
  const images: string[] = [];
  const parts = new Map<string, number>();
  const leave = async (entry: TagEntry) => {
    images.push(nameOf(entry, source.registries));
    for (const { digest, size } of await inventory.parts(entry.digest)) parts.set(digest, size);
    await source.index.removeTag(entry, entry.tag);
  };
  for (const entry of leaving) await leave(entry);
  // What is attached to what leaves goes with it, and what is attached to that; what is so to others stays.
  for (let rest = attached; rest.length > 0;) {
    const following = rest.filter(({ tag }) => {
      const subject = subjectOf(tag)!;
      return parts.has(subject) && !stayingBeside.has(subject);
    });
    for (const entry of following) await leave(entry);
    rest = rest.filter((entry) => !following.includes(entry));
    if (following.length > 0) continue;
    for (const { digest } of rest) {
      for (const part of await inventory.parts(digest)) staying.add(part.digest);
    }
    break;
  }
  let entries = 0;
  let bytes = 0;
  for (const [digest, size] of parts) {
    if (staying.has(digest)) continue;
    await source.remove(digest);
    entries++;
    bytes += size;
  }
  return { images, entries, bytes };
}

function nameOf({ registry: id, repository, tag }: TagEntry, registries: readonly Registry[]) {
  const known = registries.find((registry) => registry.id === id);
  return formatImage({ registry: known ? clientName(known) : id, repository, tag });
}
