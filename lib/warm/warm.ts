/**
 * Warming: bringing all of an image into the cache before anybody asks for it, so that it can be pulled
 * while upstream is away. An image is closed when its index, its children, their configs and layers, and
 * what is attached to them are here.
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

/** What of a proxy warming needs. */
export interface Warmable {
  readonly config: Pick<Config, "customDomain" | "registries" | "fallback">;
  /** Undefined without one, and before `ready`. */
  readonly cache: Cache | undefined;
  readonly ready: Promise<unknown>;
}

/** What a part is to its image. A referrer is anything attached by `subject`, a signature by its tag. */
export type WarmRole = "index" | "manifest" | "config" | "layer" | "referrer" | "signature";

/** How a part stands. `here`: it was before. `skipped`: it is nowhere, and need not be. */
export type WarmState = "waiting" | "running" | "here" | "fetched" | "skipped" | "failed";

/** How one part of an image stands. */
export interface WarmProgress {
  /** In full: `docker.io/library/nginx:latest`. */
  readonly image: string;
  readonly role: WarmRole;
  /** The digest; of the image itself what was asked for. */
  readonly reference: string;
  /** `linux/arm64`, of a manifest that an index lists. */
  readonly platform?: string;
  readonly state: WarmState;
  /** Bytes that are here. */
  readonly received: number;
  /** Bytes, where they are known. */
  readonly size?: number;
  /** Why it failed. */
  readonly error?: string;
}

/** A part that is not here. */
export interface WarmFailure {
  readonly role: WarmRole;
  readonly reference: string;
  readonly error: string;
}

/** What came of one image. */
export interface WarmedImage {
  /** In full, or as it was asked for where that is no name. */
  readonly image: string;
  /** Whether all of it is here, as upstream has it now. */
  readonly ok: boolean;
  /** Of its manifest or index. */
  readonly digest?: string;
  /** The digests of its parts that are here. */
  readonly digests: readonly string[];
  /** The digests of the lists that say what is attached to them. */
  readonly lists: readonly string[];
  /** All parts that are here, in bytes. */
  readonly size: number;
  /** What of that was fetched now, in bytes. */
  readonly fetched: number;
  readonly failures: readonly WarmFailure[];
}

/** Options for {@linkcode warm}. */
export interface WarmOptions {
  /** Which children of an index. @default {"all"} */
  readonly platforms?: Platforms;
  /** Whether only what the name means is asked, and not what it refers to. @default {false} */
  readonly manifestOnly?: boolean;
  /** Ends it early; downloads under way go on for whoever else wants them. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: WarmProgress) => void;
  /** Parts at once. @default {4} */
  readonly concurrency?: number;
}

/**
 * Fetches what of `images` (names as people write them) is not here, one image after the other, and
 * asks upstream what each tag means now. Never rejects for what goes wrong with an image: that is in its
 * result. Throws an `OciError` without a cache, and the signal's reason when it is aborted.
 */
export async function warm(
  proxy: Warmable,
  images: readonly string[],
  options: WarmOptions = {},
): Promise<WarmedImage[]> {
  await proxy.ready;
  const { cache, config } = proxy;
  if (!cache) {
    throw new OciError("UNSUPPORTED", "There is no cache to warm", { status: 409 });
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
