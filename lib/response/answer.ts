/**
 * Answers: a response, and what the log and the counters want to know about it.
 *
 * @module
 */
import { type ByteSource, memorySource, streamOf } from "./byte_source.ts";
import type { HotFacts } from "./response_cache.ts";
import { API_VERSION } from "../oci/api_version.ts";
import { digestOf, isStorable } from "../oci/digest.ts";
import { OciError } from "../oci/error.ts";
import { sharedBytes } from "./under_way.ts";
import { contentHeaders, type ContentOptions } from "../transforms/headers.ts";
import {
  contentRange,
  ifNoneMatch,
  ifRangeAllows,
  parseRange,
  type Part,
} from "../transforms/range.ts";

/** Where content came from, as `X-Cache` says. */
export type CacheResult = ContentOptions["cache"];

/** How a body ended. */
export interface Delivery {
  /** Bytes of body. */
  readonly bytes: number;
  /** Whether the client got all of it. */
  readonly complete: boolean;
}

/** A response without its body. */
export interface ReplyHead {
  readonly status: number;
  readonly headers: Headers;
}

/** A response, and how its body ends. */
export interface Answer {
  readonly response: Response;
  /** Of the response, where that is made only for who asks for it. */
  readonly head?: ReplyHead;
  readonly cache?: CacheResult;
  /** What makes it one that others may be given from memory, if it is. */
  hot?: HotFacts;
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

/** Larger answers are sent from memory that they share: see {@linkcode heldBody}. */
const LARGE = 64 * 1024;

/**
 * A body of `bytes`, which are the content of `digest`. Answers with the same large content share it: what only a
 * registry says is that of a digest, because nobody can compute it here, is nobody else's content.
 */
export function heldBody(digest: string, bytes: Uint8Array<ArrayBuffer>): Body {
  if (bytes.byteLength <= LARGE) return { bytes };
  const held = sharedBytes.hold(isStorable(digest) ? digest : digestOf(bytes), bytes);
  return {
    source(part, onEnd) {
      const { start, end } = part ?? { start: 0, end: bytes.byteLength - 1 };
      return memorySource(held.bytes.subarray(start, end + 1), (sent, complete) => {
        held.release();
        onEnd(sent, complete);
      });
    },
    close: held.release,
  };
}

/** An answer with `bytes` and whatever headers; answers with equal bytes share them where they are large. */
export function bytesAnswer(
  bytes: Uint8Array<ArrayBuffer>,
  head: ReplyHead,
  cache?: CacheResult,
): Answer {
  const body = heldBody(bytes.byteLength > LARGE ? digestOf(bytes) : "", bytes);
  if (body.bytes) {
    return new LazyAnswer({
      head,
      cache,
      bytes,
      delivered: { bytes: bytes.byteLength, complete: true },
    });
  }
  const delivered = Promise.withResolvers<Delivery>();
  const source = body.source!(
    undefined,
    (bytes, complete) => delivered.resolve({ bytes, complete }),
  );
  return new LazyAnswer({
    head,
    cache,
    source,
    length: bytes.byteLength,
    delivered: delivered.promise,
  });
}

/** Content that can be sent, whole or in part. */
export interface Body {
  /** All of it, where it is in memory. */
  readonly bytes?: Uint8Array<ArrayBuffer>;
  /** The bytes of it, where it is not; `onEnd` is called once. */
  source?(
    part: Part | undefined,
    onEnd: (sent: number, complete: boolean) => void,
  ): ByteSource;
  /** Called when it is not streamed after all. */
  close?(): void;
}

const NOTHING: Delivery = Object.freeze({ bytes: 0, complete: true });

/** An answer without a body of interest: a redirect, an error, a small text. */
export function plainAnswer(response: Response, cache?: CacheResult, bytes = 0): Answer {
  return { response, cache, delivered: bytes === 0 ? NOTHING : { bytes, complete: true } };
}

/** An answer that sends the client to `location` for good. */
export function redirectAnswer(location: string): Answer {
  const headers = { location, ...API_VERSION };
  return plainAnswer(new Response(null, { status: 301, headers }));
}

/** An answer with JSON of the moment. */
export function jsonAnswer(value: unknown, status = 200): Answer {
  const body = new TextEncoder().encode(JSON.stringify(value));
  const headers = {
    "content-type": "application/json",
    "content-length": String(body.byteLength),
    "cache-control": "no-store",
    ...API_VERSION,
  };
  return plainAnswer(new Response(body, { status, headers }), undefined, body.byteLength);
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
    const delivered = { bytes: bytes.byteLength, complete: true };
    return new LazyAnswer({ head: init, cache, bytes, delivered });
  }
  const delivered = Promise.withResolvers<Delivery>();
  const source = body.source!(part, (bytes, complete) => delivered.resolve({ bytes, complete }));
  const length = part ? part.end + 1 - part.start : size;
  return new LazyAnswer({ head: init, cache, source, length, delivered: delivered.promise });
}

interface LazyParts extends Omit<Answer, "response" | "head" | "hot"> {
  readonly head: ReplyHead;
  /** Of what the source gives. */
  readonly length?: number;
}

/**
 * An answer whose response is made when somebody asks for it. A listener of our own does not: Deno keeps a
 * copy of the bytes of each `Response`, outside of what the collector sees.
 */
class LazyAnswer implements Answer {
  readonly head: ReplyHead;
  readonly cache?: CacheResult;
  readonly bytes?: Uint8Array<ArrayBuffer>;
  readonly source?: ByteSource;
  readonly delivered: Answer["delivered"];
  hot?: HotFacts;
  readonly #length: number | undefined;
  #response: Response | undefined;

  constructor({ head, cache, bytes, source, length, delivered }: LazyParts) {
    this.head = head;
    this.cache = cache;
    this.bytes = bytes;
    this.source = source;
    this.delivered = delivered;
    this.#length = length;
  }

  get response(): Response {
    const body = () => this.bytes ?? streamOf(this.source!, this.#length);
    return this.#response ??= new Response(body(), this.head);
  }
}

/** The status and headers of an answer. */
export function headOf(answer: Answer): ReplyHead {
  return answer.head ?? answer.response;
}

/** What `work` answers; `end` is called once, when its body has ended, or when there is none. */
export async function whileDelivered(
  work: () => Promise<Answer>,
  end: () => void,
): Promise<Answer> {
  let answer: Answer;
  try {
    answer = await work();
  } catch (error) {
    end();
    throw error;
  }
  if (answer.delivered instanceof Promise) answer.delivered.finally(end);
  else end();
  return answer;
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
