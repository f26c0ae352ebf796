/**
 * Downloads complete images into the cache in advance, so that they can be pulled while upstream is down.
 * An image is complete when its index, the index's children, their configs and layers, and its attachments
 * are cached.
 *
 * @module
 */
import type { Cache } from "../cache/cache.ts";
import type { Config } from "../config/config.ts";
import { type ImageName, resolveImage } from "../oci/image_name.ts";
import { OciError } from "../oci/error.ts";
import type { Platforms } from "../oci/platform.ts";
import { causeOf } from "../upstream/transport/send.ts";
import { ImageWarmer } from "./image_warmer.ts";

/** The parts of a proxy that warming needs. */
export interface Warmable {
  readonly config: Pick<Config, "customDomain" | "registries" | "fallback">;
  /** The cache. Undefined if it is off, and before `ready`. */
  readonly cache: Cache | undefined;
  readonly ready: Promise<unknown>;
}

/** The role of a part. A referrer is attached by `subject`, a signature by its tag. */
export type WarmRole = "index" | "manifest" | "config" | "layer" | "referrer" | "signature";

/** The state of a part. `here`: it was cached before. `skipped`: it does not exist and is optional. */
export type WarmState = "waiting" | "running" | "here" | "fetched" | "skipped" | "failed";

/** The state of one part of an image. */
export interface WarmProgress {
  /** The full name: `docker.io/library/nginx:latest`. */
  readonly image: string;
  readonly role: WarmRole;
  /** The digest. For the image itself, the requested reference. */
  readonly reference: string;
  /** The platform, such as `linux/arm64`, of a manifest in an index. */
  readonly platform?: string;
  readonly state: WarmState;
  /** Bytes cached so far. */
  readonly received: number;
  /** Size in bytes, if known. */
  readonly size?: number;
  /** Why it failed. */
  readonly error?: string;
}

/** A part that could not be downloaded. */
export interface WarmFailure {
  readonly role: WarmRole;
  readonly reference: string;
  readonly error: string;
}

/** The result for one image. */
export interface WarmedImage {
  /** The full name, or the given text if it is not a valid name. */
  readonly image: string;
  /** Whether the image is complete and current. */
  readonly ok: boolean;
  /** The digest of its manifest or index. */
  readonly digest?: string;
  /** The digests of its cached parts. */
  readonly digests: readonly string[];
  /** The digests of the cached lists of its referrers. */
  readonly lists: readonly string[];
  /** Total size of its cached parts, in bytes. */
  readonly size: number;
  /** How much of that was downloaded now, in bytes. */
  readonly fetched: number;
  readonly failures: readonly WarmFailure[];
}

/** Options for {@linkcode warm}. */
export interface WarmOptions {
  /** The platforms to download from an index. @default {"all"} */
  readonly platforms?: Platforms;
  /** Whether to download only the manifest or index itself. @default {false} */
  readonly manifestOnly?: boolean;
  /** Aborts the warming. Downloads in progress continue for other readers. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: WarmProgress) => void;
  /** Number of concurrent parts. @default {4} */
  readonly concurrency?: number;
}

/**
 * Downloads the missing parts of `images` (names as users write them), one image after the other, and
 * revalidates each tag upstream. Failures of an image are in its result. Throws an `OciError` if the cache
 * is off, and the signal's reason when it is aborted.
 */
export async function warm(
  proxy: Warmable,
  images: readonly string[],
  options: WarmOptions = {},
): Promise<WarmedImage[]> {
  await proxy.ready;
  const { cache, config } = proxy;
  if (!cache) {
    throw new OciError("UNSUPPORTED", "The cache is off: nothing to warm", { status: 409 });
  }
  const results: WarmedImage[] = [];
  for (const text of images) {
    let name: ImageName;
    try {
      name = resolveImage(text, config);
    } catch (error) {
      const failure = { role: "manifest", reference: text, error: causeOf(error) } as const;
      options.onProgress?.({ image: text, ...failure, state: "failed", received: 0 });
      results.push(nothing(text, failure));
      continue;
    }
    results.push(await new ImageWarmer(cache, { ...options, name }).run());
  }
  return results;
}

function nothing(image: string, failure: WarmFailure): WarmedImage {
  return { image, ok: false, digests: [], lists: [], size: 0, fetched: 0, failures: [failure] };
}
