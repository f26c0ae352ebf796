/**
 * Proof that a registry really has content that is here: it gives a part of it that it could not know of before.
 *
 * @module
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { Part } from "../../transforms/range.ts";
import { announcedLength, concat, withIdleLimit } from "../../upstream/download/body.ts";
import type { UpstreamAnswer } from "../../upstream/client.ts";

/** Which bytes are compared. */
export interface Sample extends Part {
  /** Whether that is all of them: then no range is asked for. */
  readonly isWhole: boolean;
}

/** Content up to this size, bytes, is compared whole. */
const WHOLE = 64 * 1024;
/** How much of larger content is compared, bytes. */
const LENGTH = 8 * 1024;
/** Of a download under way as much is waited for, bytes. */
const BEGINNING = 2 ** 20;

const SECRET = randomBytes(32);

/** What a sample is chosen of. */
export interface SampleOptions {
  /** The registry's `id`. */
  readonly registry: string;
  readonly digest: string;
  /** Of the whole content, bytes. */
  readonly size: number;
  /** How many bytes are here already, of a download under way. @default {all} */
  readonly here?: number;
}

/**
 * Which bytes a registry has to show. Nobody can know that before it is asked. For one registry and digest it is the
 * same as long as the process runs: one that has a part of the content only gains nothing by being asked again.
 */
export function chooseSample({ registry, digest, size, here = size }: SampleOptions): Sample {
  if (size <= WHOLE) return { start: 0, end: size - 1, isWhole: true };
  const reach = Math.min(size, Math.max(here, BEGINNING));
  const hash = createHmac("sha256", SECRET).update(JSON.stringify([registry, digest])).digest();
  const start = hash.readUIntBE(0, 6) % (reach - LENGTH + 1);
  return { start, end: start + LENGTH - 1, isWhole: false };
}

/** What {@linkcode isSameSample} compares with. */
export interface CompareOptions extends Sample {
  /** Of the whole content, bytes. */
  readonly size: number;
  /** How long upstream's body may stand still, ms. */
  readonly idle: number;
  /** The bytes that are here, or undefined where they turn out not to be. */
  readonly local: () => Promise<Uint8Array | undefined>;
}

/**
 * Whether `answer` has the bytes that are here; undefined where those turn out not to be. Throws what the body breaks
 * with. No more of it is read than has to be.
 */
export async function isSameSample(
  answer: UpstreamAnswer,
  options: CompareOptions,
): Promise<boolean | undefined> {
  const { start, end, size, isWhole, idle, local } = options;
  try {
    const skipped = skippedBytes(answer.response, options);
    if (skipped === undefined) return false;
    // One byte beyond the end of what is whole: there must be none.
    const wanted = end + 1 - start + (isWhole ? 1 : 0);
    const { body } = answer.response;
    const bytes = body ? await readPart(body, { skipped, wanted, idle }) : new Uint8Array();
    const here = await local();
    if (!here || size < here.byteLength) return undefined;
    return bytes.byteLength === here.byteLength && timingSafeEqual(bytes, here);
  } finally {
    answer.abort();
  }
}

/** How many bytes of the body come before the sample; undefined where it cannot be the content's. */
function skippedBytes(
  { status, headers }: Response,
  { start, end, size, isWhole }: CompareOptions,
): number | undefined {
  if (status === 200) return (announcedLength(headers) ?? size) === size ? start : undefined;
  if (status !== 206 || isWhole) return undefined;
  const [, from, to, total] = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/
    .exec(headers.get("content-range") ?? "") ?? [];
  const isAsked = Number(from) === start && Number(to) === end &&
    (total === "*" || Number(total) === size);
  return isAsked ? 0 : undefined;
}

/** Up to `wanted` bytes of `body` after the first `skipped`; the rest is given up. */
async function readPart(
  body: ReadableStream<Uint8Array>,
  { skipped, wanted, idle }: { skipped: number; wanted: number; idle: number },
): Promise<Uint8Array> {
  const reader = withIdleLimit(body, idle).getReader();
  const chunks: Uint8Array[] = [];
  let before = skipped;
  let left = wanted;
  while (left > 0) {
    const { done, value } = await reader.read();
    if (done) break;
    const part = value.subarray(Math.min(before, value.byteLength)).subarray(0, left);
    before -= Math.min(before, value.byteLength);
    left -= part.byteLength;
    if (part.byteLength > 0) chunks.push(part);
  }
  reader.cancel().catch(() => {}); // of no more use
  return concat(chunks, wanted - left);
}
