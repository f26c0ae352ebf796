/**
 * A part of a blob on its way through: unless it is all of the blob it cannot be verified by itself, but it can be the
 * part that was asked for, and all of that.
 *
 * @module
 */
import { OciError } from "../../oci/error.ts";
import { parseRange, type Part } from "../../transforms/range.ts";
import { codingOf } from "./body.ts";
import type { Chunks } from "./chunks.ts";

function refused(response: Response, reason: string): OciError {
  response.body?.cancel().catch(() => {}); // of no use
  return new OciError("UNAVAILABLE", "Upstream sent another part than was asked for", {
    status: 502,
    detail: { reason, status: response.status },
  });
}

/** What of a blob an answer has. */
export interface AnsweredPart extends Part {
  /** In bytes. */
  readonly length: number;
  /** Whether that is all of the blob, as `bytes=0-` asks for. */
  readonly isWhole: boolean;
}

/** More bytes than anything has. */
const ENDLESS = Number.MAX_SAFE_INTEGER;

/**
 * The part that `response` has, an answer to a request with the Range header `asked`. Throws an `OciError` (502) for
 * anything but 206 with exactly what was asked for: clients put parts together blindly.
 */
export function partOf(response: Response, asked: string | null): AnsweredPart {
  const { status, headers } = response;
  if (status !== 206 || asked === null) throw refused(response, "no part was asked for");
  if (codingOf(headers) !== undefined) throw refused(response, "it is encoded");
  const said = headers.get("content-range") ?? "";
  const [, first, last, size] = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/.exec(said) ?? [];
  const [start, end] = [Number(first), Number(last)];
  const length = end - start + 1;
  if (!(length > 0)) throw refused(response, `Content-Range is ${said}`);
  const wanted = parseRange(asked, size === "*" ? ENDLESS : Number(size));
  const isAnother = size !== "*" &&
    (wanted.kind !== "part" || wanted.start !== start || wanted.end !== end);
  if (isAnother) throw refused(response, `Content-Range is ${said}`);
  const announced = headers.get("content-length");
  if (announced !== null && announced !== String(length)) {
    throw refused(response, `Content-Length is ${announced}`);
  }
  // Where its size is not said, less than was asked for means that there is no more.
  const isEnd = size === "*"
    ? wanted.kind !== "part" || wanted.end !== end
    : length === Number(size) - start;
  return { start, end, length, isWhole: start === 0 && isEnd };
}

/** `body`, which errors where it is shorter or longer than `length` bytes. */
export function ofLength(
  body: ReadableStream<Uint8Array>,
  length: number,
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  let left = length;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await reader.read();
      if (done && left > 0) throw new Error(`Body ended ${left} bytes early`);
      if (done) return controller.close();
      left -= value.byteLength;
      if (left < 0) {
        reader.cancel().catch(() => {}); // of no use
        throw new Error(`Body is longer than ${length} bytes`);
      }
      controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}

/** The first `length` bytes of `chunks`, which end there. */
export function firstOf(chunks: Chunks, length: number): ReadableStream<Uint8Array<ArrayBuffer>> {
  let left = length;
  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      const chunk = left > 0 ? await chunks.read() : undefined;
      if (chunk) {
        const wanted = chunk.subarray(0, left);
        left -= wanted.byteLength;
        controller.enqueue(wanted as Uint8Array<ArrayBuffer>);
      } else if (left > 0) throw new Error(`Body ended ${left} bytes early`);
      if (left > 0) return;
      chunks.cancel(); // the rest is nobody's
      controller.close();
    },
    cancel: (reason) => chunks.cancel(reason),
  }, { highWaterMark: 0 });
}
