/**
 * Removing images by name, with what only they need.
 *
 * @module
 */
import { TimeSlice } from "../../util/time_slice.ts";
import { isReferrersNote } from "../index/referrers_note.ts";
import { clientName } from "../../oci/image_name.ts";
import { formatImage } from "../../oci/reference.ts";
import type { Registry } from "../../oci/registry.ts";
import { subjectOf } from "../../oci/attachment_tag.ts";
import type { Index, TagEntry, TagPage } from "../index/index.ts";
import { Inventory, type InventorySource, isSelected, type Selection } from "./inventory.ts";

/** Tags that are removed at a time. */
const PAGE = 100;
/** A report names no more than so many. */
const NAMES = 1_000;

/** What a removal works with. */
export interface RemovalSource extends InventorySource {
  readonly index: InventorySource["index"] & Pick<Index, "tag" | "removeTags">;
  /** Removes content with its links and the tags that mean it. */
  readonly remove: (digest: string) => Promise<unknown>;
}

/** What was removed. */
export interface Removal {
  /** The first thousand, in full: `docker.io/library/nginx:1.27`. */
  readonly images: readonly string[];
  /** How many tags it was. */
  readonly tags: number;
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
  const { index, registries } = source;
  const inventory = new Inventory(source);
  const slice = new TimeSlice();
  if (!await isAnyTagged(source, selection)) return { images: [], tags: 0, entries: 0, bytes: 0 };
  /** What tags that stay mean, and whether one of them is of this repository. */
  const roots = new Map<string, boolean>();
  const attached: TagEntry[] = [];
  for await (const entry of inventory.tags()) {
    await slice.pause();
    if (isSelected(entry, selection)) continue;
    const isBeside = entry.registry === selection.registry &&
      entry.repository === selection.repository;
    if (isBeside && subjectOf(entry.tag) !== undefined) attached.push(entry);
    else roots.set(entry.digest, isBeside || roots.get(entry.digest) === true);
  }
  const staying = new Set<string>();
  const stayingBeside = new Set<string>();
  for (const [root, isBeside] of roots) {
    for (const { digest } of await inventory.parts(root)) {
      staying.add(digest);
      if (isBeside) stayingBeside.add(digest);
    }
    await slice.pause();
  }
  const images: string[] = [];
  const leaving = new Set<string>();
  const parts = new Map<string, number>();
  let tags = 0;
  const leave = async (entries: readonly TagEntry[]) => {
    await index.removeTags(entries);
    tags += entries.length;
    for (const entry of entries) {
      if (images.length < NAMES) images.push(nameOf(entry, registries));
      if (leaving.has(entry.digest)) continue;
      leaving.add(entry.digest);
      for (const { digest, size } of await inventory.parts(entry.digest)) parts.set(digest, size);
    }
    await slice.pause();
  };
  for await (const entries of selected(source, selection)) await leave(entries);
  // What is attached to what leaves goes with it, and what is attached to that; what is so to others stays.
  for (let rest = attached; rest.length > 0;) {
    const following: TagEntry[] = [];
    const others: TagEntry[] = [];
    for (const entry of rest) {
      const subject = subjectOf(entry.tag)!;
      const isFollowing = parts.has(subject) && !stayingBeside.has(subject);
      (isFollowing ? following : others).push(entry);
    }
    for (let i = 0; i < following.length; i += PAGE) await leave(following.slice(i, i + PAGE));
    rest = others;
    if (following.length > 0) continue;
    for (const { digest } of rest) {
      for (const part of await inventory.parts(digest)) staying.add(part.digest);
      await slice.pause();
    }
    break;
  }
  let entries = 0;
  let bytes = 0;
  for (const [digest, size] of parts) {
    if (staying.has(digest)) continue;
    await source.remove(digest);
    await slice.pause();
    entries++;
    bytes += size;
  }
  return { images, tags, entries, bytes };
}

/** The tags that are selected, some at a time. */
async function* selected(
  { index }: RemovalSource,
  selection: Selection,
): AsyncIterable<readonly TagEntry[]> {
  const { registry, repository, tag } = selection;
  if (tag !== undefined) {
    const row = await index.tag(selection, tag);
    if (row) yield [{ registry, repository, tag, ...row }];
    return;
  }
  let after: string | undefined;
  do {
    const page: TagPage = await index.tagPage({ limit: PAGE, after, of: { registry, repository } });
    const tags = page.tags.filter((entry) => !isReferrersNote(entry.tag));
    if (tags.length > 0) yield tags;
    after = page.next;
  } while (after !== undefined);
}

async function isAnyTagged(source: RemovalSource, selection: Selection): Promise<boolean> {
  for await (const _entries of selected(source, selection)) return true;
  return false;
}

function nameOf({ registry: id, repository, tag }: TagEntry, registries: readonly Registry[]) {
  const known = registries.find((registry) => registry.id === id);
  return formatImage({ registry: known ? clientName(known) : id, repository, tag });
}
