/**
 * Where a fill goes on after its download broke.
 *
 * @module
 */
import type { Caller } from "../access.ts";
import { OciError } from "../oci/error.ts";
import type { Target } from "../transforms/route.ts";
import type { Asker } from "../upstream/ask.ts";
import { announcedLength } from "../upstream/body.ts";
import type { Source } from "./fill.ts";

/** Options for {@linkcode fillSource}. */
export interface SourceOptions {
  readonly asker: Asker;
  readonly target: Target;
  readonly caller: Caller;
  /** The headers of the answer that was first. */
  readonly first: Headers;
}

/** The body without its first `count` bytes. */
function skip(body: ReadableStream<Uint8Array>, count: number): ReadableStream<Uint8Array> {
  let left = count;
  return body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>(
      {
        transform(chunk, controller) {
          if (left < chunk.byteLength) controller.enqueue(chunk.subarray(left));
          left = Math.max(0, left - chunk.byteLength);
        },
      },
      undefined,
      { highWaterMark: 0 },
    ),
  );
}

/**
 * Asks the registry anew, for a redirect may have expired, with a closed range, under the first answer's
 * strong ETag if it had one. An upstream that ignores the range is read from the start and skipped over.
 */
export function fillSource({ asker, target, caller, first }: SourceOptions): Source {
  const size = announcedLength(first);
  const etag = first.get("etag");
  return {
    async open(offset) {
      const headers = new Headers({ "accept-encoding": "identity" });
      if (offset > 0) {
        headers.set("range", `bytes=${offset}-${size === undefined ? "" : size - 1}`);
        if (etag?.startsWith('"')) headers.set("if-range", etag);
      }
      const { response } = await asker.ask(target, {
        method: "GET",
        caller,
        headers,
        redirects: "follow",
      });
      const { body, status } = response;
      if (!body) throw new OciError("UNAVAILABLE", "Upstream resumes with nothing");
      if (status === 200) return offset > 0 ? skip(body, offset) : body;
      const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get("content-range") ?? "");
      const isRight = status === 206 && Number(range?.[1]) === offset &&
        (size === undefined || range?.[2] === "*" || Number(range?.[2]) === size);
      if (isRight) return body;
      await body.cancel();
      throw new OciError("UNAVAILABLE", "Upstream resumes with other content", {
        detail: { status },
      });
    },
  };
}
