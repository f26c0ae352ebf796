/**
 * The operations on a cache. They run in this process, or in a running instance through its operator's
 * listener.
 *
 * @module
 */
import type { Total } from "./history.ts";
import type { Cache } from "../cache/cache.ts";
import { type HeldImage, Inventory } from "../cache/content/inventory.ts";
import { type Removal, removeImages } from "../cache/content/removal.ts";
import { clientName, resolveImage } from "../oci/image_name.ts";
import type { Quota } from "../limits/quota.ts";
import { OciError } from "../oci/error.ts";
import { parseImage } from "../oci/reference.ts";
import type { Proxy } from "../proxy/proxy.ts";
import { warm, type WarmedImage, type WarmOptions } from "../warm/warm.ts";

/** The content of the cache, and its effect since the instance started. Sizes are in bytes. */
export interface CacheReport {
  readonly cache: {
    readonly entries: number;
    readonly bytes: number;
    readonly maxSize: number;
  };
  /** Undefined if no instance is running. */
  readonly traffic?: {
    /** Uptime in seconds. */
    readonly uptime: number;
    readonly hits: number;
    readonly stale: number;
    readonly misses: number;
    readonly rejected: number;
    readonly bytesToClients: number;
    readonly bytesFromCache: number;
    readonly bytesFromUpstream: number;
    readonly downloads: number;
    /** Remaining pulls, with registries named as clients know them: `docker.io`. */
    readonly quotas: readonly Quota[];
  };
  /** Totals across restarts. Undefined if no instance is running. */
  readonly allTime?: Total;
}

/** The operations. Each throws an `OciError` for invalid arguments. */
export interface Operations {
  /** Returns every image, in no particular order. Errors are thrown during iteration. */
  images(): AsyncIterable<HeldImage>;
  /** Removes an image by tag. If `name` has no tag, removes all of its repository's. */
  remove(name: string): Promise<Removal>;
  /** Warms images, see {@linkcode warm}. */
  warm(images: readonly string[], options: WarmOptions): Promise<WarmedImage[]>;
  report(): Promise<CacheReport>;
}

/** Parses a name that selects images for removal. Throws an `OciError` for a digest. */
function selectionOf(name: string, config: Proxy["config"]) {
  const { tag, digest } = parseImage(name.trim());
  if (digest !== undefined) {
    throw new OciError("NAME_INVALID", "Remove an image by its tag, not by its digest", {
      detail: { image: name },
    });
  }
  const { registry, repository } = resolveImage(name, config);
  return { registry: registry.id, repository, ...tag !== undefined && { tag } };
}

/** Operations on a proxy in this process. */
export class ProxyOperations implements Operations {
  readonly #proxy: Proxy;

  constructor(proxy: Proxy) {
    this.#proxy = proxy;
  }

  get #cache(): Cache {
    const { cache } = this.#proxy;
    if (!cache) throw new OciError("UNSUPPORTED", "The cache is off", { status: 409 });
    return cache;
  }

  images(): AsyncIterable<HeldImage> {
    const { store, index } = this.#cache;
    const { registries } = this.#proxy.config;
    return new Inventory({ store, index, registries }).images();
  }

  async remove(name: string): Promise<Removal> {
    const { store, index, content } = this.#cache;
    const { config } = this.#proxy;
    const remove = (digest: string) => content.remove(digest, "removed");
    const source = { store, index, registries: config.registries, remove };
    return await removeImages(source, selectionOf(name, config));
  }

  async warm(images: readonly string[], options: WarmOptions): Promise<WarmedImage[]> {
    return await warm(this.#proxy, images, options);
  }

  async report(): Promise<CacheReport> {
    const { index, content } = this.#cache;
    const { stats, quotas, config: { registries } } = this.#proxy;
    const nameOf = (id: string) => {
      const known = registries.find((registry) => registry.id === id);
      return known ? clientName(known) : id;
    };
    const { entries, bytes } = await index.totals();
    const count = (result: string) =>
      [...stats.requests.entries()].filter(([labels]) => labels.endsWith(` ${result}`))
        .reduce((sum, [, n]) => sum + n, 0);
    return {
      cache: { entries, bytes, maxSize: content.space.maxSize },
      traffic: {
        uptime: Math.floor((Date.now() - stats.startedAt) / 1000),
        hits: count("HIT"),
        stale: count("STALE"),
        misses: count("MISS") + count("BYPASS"),
        rejected: stats.rejected.total,
        bytesToClients: stats.bytesToClients,
        bytesFromCache: stats.bytesFromCache,
        bytesFromUpstream: stats.bytesFromUpstream,
        downloads: [...content.fills].length,
        quotas: quotas.entries().map((quota) => ({
          ...quota,
          registry: nameOf(quota.registry),
        })),
      },
    };
  }
}
