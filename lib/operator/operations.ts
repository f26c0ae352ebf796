/**
 * What an operator does to a cache, whoever has it open: this process, or a running instance that is asked
 * through its own listener.
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

/** How much is here, and what it was good for since the instance started. Sizes in bytes. */
export interface CacheReport {
  readonly cache: {
    readonly entries: number;
    readonly bytes: number;
    readonly maxSize: number;
  };
  /** Absent where no instance runs. */
  readonly traffic?: {
    /** Seconds. */
    readonly uptime: number;
    readonly hits: number;
    readonly stale: number;
    readonly misses: number;
    readonly rejected: number;
    readonly bytesToClients: number;
    readonly bytesFromCache: number;
    readonly bytesFromUpstream: number;
    readonly downloads: number;
    /** With the registries as clients know them: `docker.io`. */
    readonly quotas: readonly Quota[];
  };
  /** What was counted before the instance started too; absent where none runs. */
  readonly allTime?: Total;
}

/** The operations. All of them throw an `OciError` for what is wrong with what was asked. */
export interface Operations {
  /** Every image, in no order. Throws as it is read. */
  images(): AsyncIterable<HeldImage>;
  /** Removes an image by tag or, where `name` has none, all of its repository's. */
  remove(name: string): Promise<Removal>;
  /** As {@linkcode warm}. */
  warm(images: readonly string[], options: WarmOptions): Promise<WarmedImage[]>;
  report(): Promise<CacheReport>;
}

/** What a name selects for removal. Throws an `OciError` for a digest: content has no name to go by. */
function selectionOf(name: string, config: Proxy["config"]) {
  const { tag, digest } = parseImage(name.trim());
  if (digest !== undefined) {
    throw new OciError("NAME_INVALID", "An image is removed by its tag, not by a digest", {
      detail: { image: name },
    });
  }
  const { registry, repository } = resolveImage(name, config);
  return { registry: registry.id, repository, ...tag !== undefined && { tag } };
}

/** The operations on a proxy in this process. */
export class ProxyOperations implements Operations {
  readonly #proxy: Proxy;

  constructor(proxy: Proxy) {
    this.#proxy = proxy;
  }

  get #cache(): Cache {
    const { cache } = this.#proxy;
    if (!cache) throw new OciError("UNSUPPORTED", "There is no cache", { status: 409 });
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
