/**
 * Which answers of the cache may be given again from memory.
 *
 * @module
 */
import type { Access } from "../auth/access.ts";
import { type Answer, headOf } from "../response/answer.ts";
import { LARGEST_HOT } from "../response/response_cache.ts";
import type { TargetRequest } from "../upstream/passthrough.ts";
import { repositoryKey } from "../upstream/registry_client.ts";

/** What an answer is about. */
export interface HotContent {
  readonly digest: string;
  /** Of a manifest. */
  readonly mediaType?: string;
  /** Where it was asked for by tag. */
  readonly tag?: string;
  /** When it has to be asked for anew, ms since the epoch. @default {Infinity} */
  readonly until?: number;
}

/** Marks a hit as one that may be given again, where it may. */
export type Heat = (
  answer: Answer,
  request: TargetRequest,
  content: HotContent,
) => Promise<Answer>;

/** Options for {@linkcode createHeat}. */
export interface HeatOptions {
  readonly access: Access;
  /** Notes a use of `digest`. */
  readonly use: (digest: string) => void;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** A {@linkcode Heat} for whole content that is here and may be read by everybody. */
export function createHeat(options: HeatOptions): Heat {
  const { access, use, now = Date.now } = options;
  return async (answer, { target, method }, content) => {
    const { bytes, cache } = answer;
    const { status, headers } = headOf(answer);
    // Without an age it is not here yet: it comes from a fill, which may fail.
    const age = headers.get("age");
    if (status !== 200 || cache !== "HIT" || age === null) return answer;
    if (method !== "HEAD" && (!bytes || bytes.byteLength > LARGEST_HOT)) return answer;
    const key = repositoryKey(target);
    const { digest, mediaType, tag, until = Infinity } = content;
    const from = now();
    const since = from - Number(age) * 1000;
    const known = Math.min(until, await access.publicUntil(key));
    if (known <= from) return answer;
    const hot = {
      key,
      digest,
      mediaType,
      tag,
      bytes,
      since,
      from,
      until: known,
      used: use,
    };
    answer.hot = hot;
    return answer;
  };
}
