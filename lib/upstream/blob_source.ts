/**
 * Where a download of a blob goes on after it broke.
 *
 * @module
 */
import type { Caller } from "../auth/access.ts";
import { OciError } from "../oci/error.ts";
import type { Target } from "../transforms/route.ts";
import type { RegistryClient } from "./registry_client.ts";
import { announcedLength, readWithin } from "./download/body.ts";
import type { UpstreamAnswer } from "./client.ts";
import { MismatchError, type Source } from "./download/download.ts";

/** Options for {@linkcode blobSource}. */
export interface SourceOptions {
  readonly asker: { ask(...question: Parameters<RegistryClient["ask"]>): Promise<UpstreamAnswer> };
  readonly target: Target;
  readonly caller: Caller;
  /** The headers of the answer that was first. */
  readonly first: Headers;
  /** How long upstream's body may stand still, ms. */
  readonly idle: number;
}

/**
 * Asks the registry anew, for a redirect may have expired, with a closed range, under the first answer's
 * strong ETag if it had one. An upstream that ignores the range is read from the start and skipped over.
 */
export function blobSource(options: SourceOptions): Source {
  const { asker, target, caller, first, idle } = options;
  const size = announcedLength(first);
  const etag = first.get("etag");
  const ask = async (headers: Headers, signal?: AbortSignal) => {
    try {
      const method = "GET";
      return await asker.ask(target, { method, caller, headers, redirects: "follow", signal });
    } catch (error) {
      if (!(error instanceof OciError) || error.status !== 416) throw error;
      throw new MismatchError("Upstream has less than it announced", { cause: error });
    }
  };
  return {
    async open(offset, signal) {
      const headers = new Headers({ "accept-encoding": "identity" });
      if (offset > 0) {
        headers.set("range", `bytes=${offset}-${size === undefined ? "" : size - 1}`);
        if (etag?.startsWith('"')) headers.set("if-range", etag);
      }
      const { response } = await ask(headers, signal);
      const { body, status } = response;
      if (!body) throw new OciError("UNAVAILABLE", "Upstream resumes with nothing");
      if (status === 200) return offset > 0 ? await skip(body, { count: offset, idle }) : body;
      const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get("content-range") ?? "");
      const total = range?.[2] === "*" ? undefined : Number(range?.[2]);
      if (status === 206 && Number(range?.[1]) === offset) {
        if (size === undefined || total === undefined || total === size) return body;
        body.cancel().catch(() => {}); // of no use
        throw new MismatchError(`Upstream resumes with ${total} bytes of what had ${size}`);
      }
      body.cancel().catch(() => {}); // of no use
      throw new OciError("UNAVAILABLE", "Upstream resumes elsewhere", { detail: { status } });
    },
  };
}

/** The body without its first `count` bytes, which have come and gone when this returns. */
async function skip(
  body: ReadableStream<Uint8Array>,
  { count, idle }: { count: number; idle: number },
): Promise<ReadableStream<Uint8Array>> {
  const reader = body.getReader();
  let rest: Uint8Array | undefined;
  try {
    for (let skipped = 0; skipped < count;) {
      const { done, value } = await readWithin(reader, idle);
      if (done) throw new Error(`Body ended after ${skipped} bytes, before byte ${count}`);
      if (skipped + value.byteLength > count) rest = value.subarray(count - skipped);
      skipped += value.byteLength;
    }
  } catch (error) {
    reader.cancel(error).catch(() => {}); // broken already
    throw error;
  }
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      if (rest) {
        controller.enqueue(rest);
        rest = undefined;
        return;
      }
      const { done, value } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}
