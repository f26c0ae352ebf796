/**
 * Answers: a response, and what the log and the counters want to know about it.
 *
 * @module
 */
import { type ByteSource, streamOf } from "./byte_source.ts";
import type { HotFacts } from "./hot.ts";
import { OciError } from "./oci/error.ts";
import { contentHeaders, type ContentOptions } from "./transforms/headers.ts";
import {
  contentRange,
  ifNoneMatch,
  ifRangeAllows,
  parseRange,
  type Part,
} from "./transforms/range.ts";

/** Where content came from, as `X-Cache` says. */
export type CacheResult = ContentOptions["cache"];

/** How a body ended. */
export interface Delivery {
  /** Bytes of body. */
  readonly bytes: number;
  /** Whether the client got all of it. */
  readonly complete: boolean;
}

/** A response, and how its body ends. */
export interface Answer {
  readonly response: Response;
  readonly cache?: CacheResult;
  /** What makes it one that others may be given from memory, if it is. */
  readonly hot?: HotFacts;
  /** The response's body, where it is in memory. */
  readonly bytes?: Uint8Array<ArrayBuffer>;
  /** The response's body, for who can send it from here. Then the response's own must not be touched. */
  readonly source?: ByteSource;
  /** Settles with the body; never rejects. */
  readonly delivered: Delivery | Promise<Delivery>;
}

/** What of a client's request content is answered by. */
export interface ClientRequest {
  readonly method: string;
  readonly headers: Headers;
}

/** Content that can be sent, whole or in part. */
export interface Body {
  /** All of it, where it is in memory. */
  readonly bytes?: Uint8Array<ArrayBuffer>;
  /** The bytes of it; `onEnd` is called once. */
  source?(
    part: Part | undefined,
    onEnd: (sent: number, complete: boolean) => void,
  ): ByteSource;
  /** The same as a stream, where there is no source. */
  stream?(
    part: Part | undefined,
    onEnd: (sent: number, complete: boolean) => void,
  ): ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Called when it is not streamed after all. */
  close?(): void;
}

const NOTHING: Delivery = Object.freeze({ bytes: 0, complete: true });

/** An answer without a body of interest: a redirect, an error, a small text. */
export function plainAnswer(response: Response, cache?: CacheResult, bytes = 0): Answer {
  return { response, cache, delivered: bytes === 0 ? NOTHING : { bytes, complete: true } };
}

/**
 * The answer with `content`: 304, 206, 416 or 200 as the request's headers say, without a body for HEAD.
 * `content.range` is set here. Throws an `OciError` for a range outside of the content.
 */
export function contentAnswer(
  request: ClientRequest,
  content: Omit<ContentOptions, "range">,
  body: Body,
): Answer {
  const { digest, size, cache } = content;
  const { headers } = request;
  if (ifNoneMatch(headers.get("if-none-match"), digest)) {
    body.close?.();
    const reply = contentHeaders(content);
    reply.delete("content-length");
    return plainAnswer(new Response(null, { status: 304, headers: reply }), cache);
  }
  const isRanged = content.kind === "blob" && ifRangeAllows(headers.get("if-range"), digest);
  const range = isRanged ? parseRange(headers.get("range"), size) : { kind: "whole" } as const;
  if (range.kind === "unsatisfiable") {
    body.close?.();
    throw new OciError("RANGE_INVALID", "The range is outside of the blob", {
      detail: { size },
      headers: { "content-range": contentRange(undefined, size), "accept-ranges": "bytes" },
    });
  }
  const part = range.kind === "part" ? range : undefined;
  const init = {
    status: part ? 206 : 200,
    headers: contentHeaders({ ...content, range: part }),
  };
  if (request.method === "HEAD") {
    body.close?.();
    return plainAnswer(new Response(null, init), cache);
  }
  if (body.bytes) {
    const bytes = part ? body.bytes.subarray(part.start, part.end + 1) : body.bytes;
    return { ...plainAnswer(new Response(bytes, init), cache, bytes.byteLength), bytes };
  }
  const delivered = Promise.withResolvers<Delivery>();
  const onEnd = (bytes: number, complete: boolean) => delivered.resolve({ bytes, complete });
  if (body.source) {
    const source = body.source(part, onEnd);
    const stream = streamOf(source, part ? part.end + 1 - part.start : size);
    return {
      response: new Response(stream, init),
      cache,
      source,
      delivered: delivered.promise,
    };
  }
  const stream = body.stream!(part, onEnd);
  return { response: new Response(stream, init), cache, delivered: delivered.promise };
}

/** `body` as it is, and how it ended. */
export function watchBody(
  body: ReadableStream<Uint8Array> | null,
  init: ResponseInit,
  cache?: CacheResult,
): Answer {
  if (!body) return plainAnswer(new Response(null, init), cache);
  const delivered = Promise.withResolvers<Delivery>();
  let bytes = 0;
  const reader = body.getReader();
  const watched = new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (done) {
          delivered.resolve({ bytes, complete: true });
          return controller.close();
        }
        bytes += value.byteLength;
        controller.enqueue(value as Uint8Array<ArrayBuffer>);
      } catch (error) {
        delivered.resolve({ bytes, complete: false });
        controller.error(error);
      }
    },
    async cancel(reason) {
      delivered.resolve({ bytes, complete: false });
      await reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
  return { response: new Response(watched, init), cache, delivered: delivered.promise };
}
