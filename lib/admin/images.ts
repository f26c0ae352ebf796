/**
 * The images in the cache, as the page asks for them: searched, sorted, a page at a time, and one of them
 * down to its layers.
 *
 * @module
 */
import { subjectOf } from "../oci/attachment_tag.ts";
import type { Cache } from "../cache/cache.ts";
import type { TagEntry } from "../cache/index/index.ts";
import { type HeldImage, Inventory } from "../cache/content/inventory.ts";
import { clientName, resolveImage } from "../oci/image_name.ts";
import { OciError } from "../oci/error.ts";
import { type Descriptor, readManifest } from "../oci/manifest.ts";
import { isIndex } from "../oci/media_type.ts";
import type { Proxy } from "../proxy/proxy.ts";
import { parseJson } from "../util/json.ts";
import { TimeSlice } from "../util/time_slice.ts";

/** An image as the list shows it. */
export interface ListedImage extends HeldImage {
  /** Pulls of its manifest from the cache since the start. */
  readonly hits: number;
}

/** A page of images. */
export interface ImageList {
  /** How many are selected; absent where it is not known. */
  readonly total?: number;
  readonly images: readonly ListedImage[];
  /** What to ask for as `last` to get the next page, where images are told by name. */
  readonly next?: string;
}

/** One part of an image. */
export interface ImagePart {
  readonly kind: "index" | "manifest" | "config" | "layer";
  readonly digest: string;
  readonly mediaType: string;
  readonly size: number;
  readonly platform: string | null;
  readonly parent: string | null;
  readonly isHere: boolean;
}

const SORTS = [
  "registry",
  "repository",
  "tag",
  "platforms",
  "size",
  "checkedAt",
  "usedAt",
  "hits",
] as const;
type Sort = typeof SORTS[number];

/** The list is read anew when it is older than this, ms: typing in a search box asks again and again. */
const FRESH = 3_000;
/** And no more than one part in so many of the time goes into that, however long the list is. */
const SHARE = 5;
const MAX_LIMIT = 500;
/** More images than this are told by name alone. */
const MAX_SORTED = 10_000;
const MAX_DEPTH = 4;

/** The images of one cache. */
export class Images {
  readonly #proxy: Proxy;
  #list: Promise<readonly ListedImage[]> | undefined;
  #freshUntil = 0;

  constructor(proxy: Proxy) {
    this.#proxy = proxy;
  }

  /** Makes the next question look again. */
  forget(): void {
    this.#list = undefined;
  }

  async #all(): Promise<readonly ListedImage[]> {
    if (!this.#list || performance.now() > this.#freshUntil) {
      const began = performance.now();
      this.#freshUntil = Infinity; // whoever asks meanwhile waits for the same
      const list = this.#list = this.#read();
      const forgetThis = () => {
        if (this.#list === list) this.#list = undefined;
      };
      list.then(() => {
        const now = performance.now();
        this.#freshUntil = now + Math.max(FRESH, SHARE * (now - began));
      }, forgetThis);
    }
    return await this.#list;
  }

  async #read(): Promise<readonly ListedImage[]> {
    const { cache, config: { registries } } = this.#proxy;
    if (!cache) return [];
    const { store, index } = cache;
    const images: ListedImage[] = [];
    const hitsOf = this.#hitsOf();
    for await (const image of new Inventory({ store, index, registries }).images()) {
      images.push({ ...image, hits: hitsOf(image) });
      if (images.length > 2 * MAX_SORTED) break; // they have become many meanwhile
    }
    return images;
  }

  #hitsOf(): (image: HeldImage) => number {
    const { config: { registries }, stats } = this.#proxy;
    const names = new Map(registries.map((registry) => [clientName(registry), registry.name]));
    return ({ registry, repository, tag }) =>
      stats.imageHitsOf(`${names.get(registry) ?? registry} ${repository} ${tag}`);
  }

  /**
   * One page of what `query` selects. A list of very many images is only told by name: it would take too long to
   * read all of it to sort it. Throws an `OciError` (400) for an invalid parameter.
   */
  async list(query: URLSearchParams): Promise<ImageList> {
    const sort = (query.get("sort") ?? "usedAt") as Sort;
    if (!SORTS.includes(sort)) throw invalid(`sort: Expected ${SORTS.join(", ")}`);
    const isDescending = (query.get("order") ?? "desc") === "desc";
    const offset = numberOf(query, "offset", 0);
    const limit = Math.min(MAX_LIMIT, numberOf(query, "limit", 50));
    const isWanted = filterOf(query);
    const last = query.get("last") ?? undefined;
    const { cache } = this.#proxy;
    if (!cache) return { total: 0, images: [] };
    if (last !== undefined || await cache.index.tagCount() > MAX_SORTED) {
      return await this.#page(cache, { query, last, limit, isWanted });
    }
    const found = (await this.#all()).filter(isWanted);
    const value = (image: ListedImage) =>
      sort === "platforms" ? image.platforms.join() : image[sort] ?? 0;
    found.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      const order = x < y ? -1 : x > y ? 1 : a.name < b.name ? -1 : 1;
      return isDescending ? -order : order;
    });
    return { total: found.length, images: found.slice(offset, offset + limit) };
  }

  async #page(
    { store, index }: Cache,
    { query, last, limit, isWanted }: {
      query: URLSearchParams;
      last?: string;
      limit: number;
      isWanted: (image: HeldImage) => boolean;
    },
  ): Promise<ImageList> {
    const { registries } = this.#proxy.config;
    const inventory = new Inventory({ store, index, registries });
    const registry = query.get("registry");
    const id = registries.find((known) => clientName(known) === registry)?.id ?? registry;
    const isMeant = (entry: TagEntry) => !registry || entry.registry === id;
    // None are wanted, and so none are next: a page without progress would be asked for again and again.
    const { images, next } = limit === 0
      ? { images: [] }
      : await inventory.page({ limit, after: last, isMeant, isWanted });
    const hitsOf = this.#hitsOf();
    const isFiltered = query.get("q") || registry || query.get("attached") === "false";
    return {
      // Of some of them nobody knows how many there are before all have been looked at.
      ...!isFiltered && { total: await index.tagCount() },
      images: images.map((image) => ({ ...image, hits: hitsOf(image) })),
      ...next !== undefined && { next },
    };
  }

  /** One image, and every part that it names. Throws an `OciError` (404) when it is not here. */
  async image(name: string) {
    const { cache, config } = this.#proxy;
    const target = resolveImage(name, config);
    const key = { registry: target.registry.id, repository: target.repository };
    const row = await cache?.index.tag(key, target.reference);
    if (!cache || !row) throw new OciError("MANIFEST_UNKNOWN", "Not in the cache");
    const link = await cache.index.link({ ...key, digest: row.digest, kind: "manifest" });
    const held = await cache.index.blob(row.digest);
    const bytes = await cache.content.read(row.digest);
    const mediaType = link?.mediaType ?? "";
    return {
      registry: clientName(target.registry),
      repository: target.repository,
      tag: target.reference,
      digest: row.digest,
      checkedAt: row.checkedAt,
      ...held && { usedAt: held.usedAt },
      mediaType,
      manifest: bytes ? jsonOf(bytes) : null,
      contents: await this.#contents({ digest: row.digest, mediaType, size: -1 }),
    };
  }

  async #contents(root: Descriptor): Promise<ImagePart[]> {
    const { index, content } = this.#proxy.cache!;
    const parts: ImagePart[] = [];
    // An index may name a child a thousand times, and so may its children: each is opened once.
    const opened = new Set<string>();
    const slice = new TimeSlice();
    const add = async (
      { digest, mediaType, size, platform }: Descriptor,
      { kind, parent }: Pick<ImagePart, "kind" | "parent">,
    ) => {
      await slice.pause();
      const row = await index.blob(digest);
      parts.push({
        kind,
        digest,
        mediaType,
        size: row?.size ?? size,
        platform: platform ?? null,
        parent,
        isHere: row !== undefined,
      });
      return row !== undefined;
    };
    const visit = async (descriptor: Descriptor, parent: string | null, depth: number) => {
      const { digest, mediaType } = descriptor;
      const kind = isIndex(mediaType) ? "index" : "manifest";
      if (!await add(descriptor, { kind, parent }) || depth > MAX_DEPTH) return;
      if (opened.has(digest)) return;
      opened.add(digest);
      const bytes = await content.read(digest);
      if (!bytes) return;
      const { children, config, layers } = manifestOf(bytes, mediaType);
      if (config) await add(config, { kind: "config", parent: digest });
      for (const layer of layers) await add(layer, { kind: "layer", parent: digest });
      for (const child of children) await visit(child, digest, depth + 1);
    };
    await visit(root, null, 0);
    return parts;
  }
}

/** What a manifest refers to; nothing where it cannot be read, as clients may all the same. */
function manifestOf(bytes: Uint8Array, mediaType: string) {
  try {
    return readManifest(bytes, mediaType);
  } catch {
    return { children: [], config: undefined, layers: [] };
  }
}

/** The JSON in `bytes`; null where they hold none. */
function jsonOf(bytes: Uint8Array): unknown {
  try {
    return parseJson(bytes);
  } catch {
    return null;
  }
}

/** What the parameters of a list select. */
function filterOf(query: URLSearchParams): (image: HeldImage) => boolean {
  const words = (query.get("q") ?? "").toLowerCase().split(/\s+/).filter((word) => word !== "");
  const registry = query.get("registry");
  const attached = query.get("attached") ?? "true";
  if (!["true", "false"].includes(attached)) throw invalid("attached: Expected true, false");
  return (image) => {
    if (registry && image.registry !== registry) return false;
    if (attached === "false" && subjectOf(image.tag) !== undefined) return false;
    const text = `${image.name} ${image.platforms.join(" ")}`.toLowerCase();
    return words.every((word) => text.includes(word));
  };
}

function numberOf(query: URLSearchParams, name: string, otherwise: number): number {
  const text = query.get(name);
  if (text === null) return otherwise;
  if (!/^\d{1,9}$/.test(text)) throw invalid(`${name}: Expected a number`);
  return Number(text);
}

function invalid(message: string): OciError {
  return new OciError("NAME_INVALID", message);
}
