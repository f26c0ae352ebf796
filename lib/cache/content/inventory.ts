/**
 * What is here, by image: for those who operate the cache. Looking at it leaves no trace: recency is for
 * clients.
 *
 * @module
 */
import { clientName } from "../../oci/image_name.ts";
import { type Descriptor, readManifest } from "../../oci/manifest.ts";
import { formatImage } from "../../oci/reference.ts";
import { ByteLru, stringBytes } from "../../util/lru.ts";
import { MAX_MANIFEST } from "../../upstream/passthrough.ts";
import type { Registry } from "../../oci/registry.ts";
import type { BlobStore } from "../store/blob_store.ts";
import { type Index, type TagEntry, tagPosition } from "../index/index.ts";
import { isReferrersNote } from "../index/referrers_note.ts";
import { parseJson } from "../../util/json.ts";
import { TimeSlice } from "../../util/time_slice.ts";

/** A tag and what is here of it. Times in ms since the epoch. */
export interface HeldImage {
  /** As clients know it: `docker.io`; of a registry that is no longer configured its id. */
  readonly registry: string;
  readonly repository: string;
  readonly tag: string;
  /** In full: `docker.io/library/nginx:1.27`. */
  readonly name: string;
  readonly digest: string;
  /** Empty where the manifest is not here. */
  readonly mediaType: string;
  /** Of which all is here: `linux/amd64`. */
  readonly platforms: readonly string[];
  /** What is here of it, in bytes; other images may share it. */
  readonly size: number;
  /** Whether all of it is here, of an index all platforms. */
  readonly isWhole: boolean;
  /** When upstream last said what the tag means. */
  readonly checkedAt: number;
  /** When its manifest was last used; absent where that is not here. */
  readonly usedAt?: number;
}

/** What the inventory looks at. */
export interface InventorySource {
  readonly store: Pick<BlobStore, "open">;
  readonly index: Pick<Index, "tags" | "tagPage" | "blob" | "link">;
  readonly registries: readonly Registry[];
}

/** Which tags: of a repository (by the registry's id) or, with `tag`, one. Absent: all. */
export interface Selection {
  readonly registry: string;
  readonly repository: string;
  readonly tag?: string;
}

/** A digest and the bytes that are here of it. */
export interface Part {
  readonly digest: string;
  readonly size: number;
}

/** What a manifest refers to. */
interface Node {
  readonly children: readonly Descriptor[];
  readonly blobs: readonly Descriptor[];
  readonly config?: Descriptor;
}

/** What is here below a manifest. */
interface Held {
  readonly platforms: readonly string[];
  readonly isWhole: boolean;
}

/** What is here of a manifest and all that it refers to; many tags may mean it. */
interface Summary extends Held {
  /** Bytes. */
  readonly size: number;
}

/** Options for {@linkcode Inventory.page}. */
export interface ImagePageOptions {
  /** How many images at most. */
  readonly limit: number;
  /** Where the page before ended. @default {the beginning} */
  readonly after?: string;
  /** Which tags to look at, before anything of them is read. @default {all} */
  readonly isMeant?: (entry: TagEntry) => boolean;
  /** Which images are told. @default {all} */
  readonly isWanted?: (image: HeldImage) => boolean;
}

/** Some images, in the order of their names. */
export interface ImagePage {
  readonly images: readonly HeldImage[];
  /** Where the next page goes on; undefined at the end. A page may be short, or empty, and not the last. */
  readonly next?: string;
}

/** What an inventory remembers of manifests, bytes, and of what is here of them. */
const MEMORY = 8 * 2 ** 20;
/** What a descriptor takes, bytes. */
const DESCRIPTOR = 300;
/** Tags that are read at a time. */
const TAGS = 500;
/** So many tags, or ms, a page takes at most, however few of them are wanted. */
const LOOKED_AT = 20_000;
const PAGE_TIME = 100;
/** A config larger than this tells no platform. */
const MAX_CONFIG = 2 ** 20;
/** How deep indexes may contain indexes. */
const MAX_DEPTH = 4;

/** Reads what is here; remembers manifests, which many tags share. */
export class Inventory {
  readonly #source: InventorySource;
  readonly #nodes = new ByteLru<{ readonly node?: Node }>({
    bytes: MEMORY,
    sizeOf: ({ node }) =>
      DESCRIPTOR * (1 + (node?.children.length ?? 0) + (node?.blobs.length ?? 0)),
  });
  readonly #summaries = new ByteLru<Summary>({
    bytes: MEMORY,
    sizeOf: ({ platforms }) =>
      platforms.reduce((sum, platform) => sum + 8 + stringBytes(platform), 100),
  });

  constructor(source: InventorySource) {
    this.#source = source;
  }

  /** Every tag that is selected, in no order. */
  async *tags(selection?: Selection): AsyncIterable<TagEntry> {
    const slice = new TimeSlice();
    for await (const entry of this.#source.index.tags()) {
      await slice.pause();
      if (isReferrersNote(entry.tag)) continue;
      if (!selection || isSelected(entry, selection)) yield entry;
    }
  }

  /** Every image that is selected, in no order. */
  async *images(selection?: Selection): AsyncIterable<HeldImage> {
    for await (const entry of this.tags(selection)) yield await this.#image(entry);
  }

  /** Some images, found with a bounded amount of work. */
  async page(options: ImagePageOptions): Promise<ImagePage> {
    const { limit, isMeant = () => true, isWanted = () => true } = options;
    const until = performance.now() + PAGE_TIME;
    const slice = new TimeSlice();
    const images: HeldImage[] = [];
    let next = options.after;
    let lookedAt = 0;
    while (true) {
      const page = await this.#source.index.tagPage({ limit: TAGS, after: next });
      for (const entry of page.tags) {
        if (images.length >= limit || performance.now() > until && lookedAt > 0) {
          return { images, next: next ?? "" };
        }
        lookedAt++;
        next = tagPosition(entry, entry.tag);
        if (isReferrersNote(entry.tag) || !isMeant(entry)) continue;
        const image = await this.#image(entry);
        if (isWanted(image)) images.push(image);
        await slice.pause();
      }
      if (page.next === undefined) return { images };
      next = page.next;
      if (lookedAt >= LOOKED_AT) return { images, next };
    }
  }

  async #image(entry: TagEntry): Promise<HeldImage> {
    const { registry: id, repository, tag, digest, checkedAt } = entry;
    const { index, registries } = this.#source;
    const known = registries.find((registry) => registry.id === id);
    const registry = known ? clientName(known) : id;
    const link = await index.link({ registry: id, repository, digest, kind: "manifest" });
    const row = await index.blob(digest);
    const { platforms, isWhole, size } = await this.#summary(digest);
    return {
      registry,
      repository,
      tag,
      name: formatImage({ registry, repository, tag }),
      digest,
      mediaType: link?.mediaType ?? "",
      platforms,
      size,
      isWhole,
      checkedAt,
      ...row && { usedAt: row.usedAt },
    };
  }

  /** Remembered: a million tags may mean one manifest. */
  async #summary(digest: string): Promise<Summary> {
    const known = this.#summaries.get(digest);
    if (known) return known;
    const { platforms, isWhole } = await this.#platforms(digest);
    const parts = await this.parts(digest);
    const size = parts.reduce((sum, part) => sum + part.size, 0);
    const summary = { platforms, isWhole, size };
    this.#summaries.set(digest, summary);
    return summary;
  }

  /** What is here of a manifest: itself, what it lists, and their configs and layers; each once. */
  async parts(digest: string): Promise<Part[]> {
    const found = new Map<string, Part>();
    const slice = new TimeSlice();
    const visit = async (digest: string, depth: number): Promise<void> => {
      if (found.has(digest)) return;
      const row = await this.#source.index.blob(digest);
      if (!row) return;
      found.set(digest, { digest, size: row.size });
      if (depth > MAX_DEPTH) return;
      const node = await this.#node(digest);
      for (const child of node?.children ?? []) await visit(child.digest, depth + 1);
      for (const { digest } of node?.blobs ?? []) {
        const blob = await this.#source.index.blob(digest);
        if (blob) found.set(digest, { digest, size: blob.size });
        await slice.pause();
      }
    };
    await visit(digest, 0);
    return [...found.values()];
  }

  /**
   * Of which platforms all is here, and whether that is all of them. What was looked at is in `known`: an
   * index may name a child a thousand times, and so may its children.
   */
  async #platforms(
    digest: string,
    { depth = 0, known = new Map<string, Held>() } = {},
  ): Promise<Held> {
    const found = known.get(digest) ?? await this.#look(digest, { depth, known });
    known.set(digest, found);
    return found;
  }

  async #look(
    digest: string,
    { depth, known }: { depth: number; known: Map<string, Held> },
  ): Promise<Held> {
    const node = await this.#source.index.blob(digest) && await this.#node(digest);
    if (!node) return { platforms: [], isWhole: false };
    if (node.children.length === 0) {
      const isWhole = await this.#isHere(node);
      const platform = isWhole ? await this.#platformOf(node) : undefined;
      return { platforms: platform === undefined ? [] : [platform], isWhole };
    }
    if (depth > MAX_DEPTH) return { platforms: [], isWhole: false };
    const slice = new TimeSlice();
    const platforms = new Set<string>();
    let isWhole = true;
    for (const child of node.children) {
      const inner = await this.#platforms(child.digest, { depth: depth + 1, known });
      await slice.pause();
      isWhole &&= inner.isWhole;
      // What an index says of its child is what clients choose by.
      if (child.platform === undefined) { for (const own of inner.platforms) platforms.add(own); }
      else if (inner.isWhole && !child.platform.startsWith("unknown/")) {
        platforms.add(child.platform);
      }
    }
    return { platforms: [...platforms], isWhole };
  }

  async #isHere({ blobs }: Node): Promise<boolean> {
    const slice = new TimeSlice();
    for (const { digest, urls } of blobs) {
      await slice.pause();
      // Foreign layers are with their publisher.
      if (!urls && !await this.#source.index.blob(digest)) return false;
    }
    return true;
  }

  /** What an image's config says it runs on. */
  async #platformOf({ config }: Node): Promise<string | undefined> {
    const bytes = config && await this.#read(config.digest, MAX_CONFIG);
    if (!bytes) return undefined;
    try {
      const { os, architecture, variant } = (parseJson(bytes) ?? {}) as Record<string, unknown>;
      if (typeof os !== "string" || typeof architecture !== "string") return undefined;
      if (os === "" || architecture === "") return undefined; // of what runs nowhere
      return [os, architecture, ...typeof variant === "string" && variant ? [variant] : []]
        .join("/");
    } catch {
      return undefined; // no image's config
    }
  }

  async #node(digest: string): Promise<Node | undefined> {
    const known = this.#nodes.get(digest);
    if (known) return known.node;
    const node = await this.#readNode(digest);
    this.#nodes.set(digest, { node });
    return node;
  }

  async #readNode(digest: string): Promise<Node | undefined> {
    const bytes = await this.#read(digest, MAX_MANIFEST);
    if (!bytes) return undefined;
    try {
      const { children, config, layers } = readManifest(bytes, "");
      return { children, config, blobs: config ? [config, ...layers] : layers };
    } catch {
      return undefined; // stored all the same: clients may understand it
    }
  }

  async #read(digest: string, limit: number): Promise<Uint8Array | undefined> {
    const blob = await this.#source.store.open(digest);
    if (!blob) return undefined;
    try {
      if (blob.size > limit) return undefined;
      const bytes = new Uint8Array(blob.size);
      for (let done = 0; done < bytes.byteLength;) {
        const n = await blob.read(done, bytes.subarray(done));
        if (n === 0) return undefined;
        done += n;
      }
      return bytes;
    } finally {
      blob.close();
    }
  }
}

/** Whether `entry` is among what a selection means. */
export function isSelected(entry: TagEntry, { registry, repository, tag }: Selection): boolean {
  return entry.registry === registry && entry.repository === repository &&
    (tag === undefined || entry.tag === tag);
}
