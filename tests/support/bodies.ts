/**
 * Upstream bodies that come, break and stand still as a test says.
 *
 * @module
 */
import type { Memory } from "../../lib/upstream/download/chunks.ts";
import type { Source } from "../../lib/upstream/download/download.ts";

/** What both kinds of controllers have. */
interface Controller {
  readonly byobRequest?: ReadableStreamBYOBRequest | null;
  enqueue(chunk: Uint8Array<ArrayBuffer>): void;
  close(): void;
  error(reason?: unknown): void;
}

/** A body from `source`; with `type: "bytes"` it is as fetch makes them. */
function streamFrom(
  source: {
    start?(controller: Controller): void;
    pull?(controller: Controller): void | Promise<void>;
    cancel?(): void;
  },
  type?: "bytes",
): ReadableStream<Uint8Array<ArrayBuffer>> {
  return type
    ? new ReadableStream({ ...source, type })
    : new ReadableStream(source, { highWaterMark: 0 });
}

function close(controller: Controller): void {
  controller.close();
  controller.byobRequest?.respond(0);
}

/** A body that the test feeds. */
export interface FedBody {
  readonly body: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Whether the reader has cancelled it. */
  readonly cancelled: boolean;
  push(bytes: Uint8Array<ArrayBuffer>): void;
  end(): void;
  break(reason?: Error): void;
}

/** A body without anything in it yet. */
export function fedBody({ type }: { type?: "bytes" } = {}): FedBody {
  let controller!: Controller;
  let cancelled = false;
  const body = streamFrom({
    start: (given) => void (controller = given),
    cancel: () => void (cancelled = true),
  }, type);
  return {
    body,
    get cancelled() {
      return cancelled;
    },
    push: (bytes) => controller.enqueue(bytes.slice()),
    end: () => close(controller),
    break: (reason = new Error("Connection reset")) => controller.error(reason),
  };
}

/** A body of these chunks, which then ends, or breaks with an error, or stands still. */
export function bodyOf(
  chunks: readonly Uint8Array<ArrayBuffer>[],
  { end = "close", type }: { end?: "close" | "stall" | Error; type?: "bytes" } = {},
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const rest = chunks.filter((chunk) => chunk.byteLength > 0);
  let at = 0;
  return streamFrom({
    pull(controller) {
      const chunk = rest[at++];
      if (chunk) return controller.enqueue(chunk.slice());
      if (end === "close") return close(controller);
      if (end instanceof Error) return controller.error(end);
      return new Promise(() => {});
    },
  }, type);
}

/** `bytes` cut at `cuts`. */
export function cut(
  bytes: Uint8Array<ArrayBuffer>,
  cuts: readonly number[],
): Uint8Array<ArrayBuffer>[] {
  const places = [0, ...[...cuts].sort((a, b) => a - b), bytes.byteLength];
  return places.slice(1).map((end, i) => bytes.slice(places[i]!, end));
}

/** A source that calls `open`, and where it was opened. */
export function sourceOf(
  open: (offset: number, n: number) => ReadableStream<Uint8Array> | Error,
): Source & { readonly offsets: number[] } {
  const offsets: number[] = [];
  return {
    offsets,
    async open(offset) {
      offsets.push(offset);
      const opened = await Promise.resolve(open(offset, offsets.length));
      if (opened instanceof Error) throw opened;
      return opened;
    },
  };
}

/** All bytes of a stream, and what broke it. */
export async function drain(
  stream: ReadableStream<Uint8Array>,
): Promise<{ bytes: Uint8Array<ArrayBuffer>; error?: Error }> {
  const chunks: Uint8Array[] = [];
  let error: Error | undefined;
  try {
    for await (const chunk of stream) chunks.push(chunk.slice());
  } catch (thrown) {
    error = thrown as Error;
  }
  const bytes = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.byteLength;
  }
  return error ? { bytes, error } : { bytes };
}

/** One piece of memory, and whether it is somebody's. */
export function oneMemory(size: number): Memory & { readonly isTaken: boolean } {
  let memory: ArrayBuffer | undefined = new ArrayBuffer(size);
  return {
    get isTaken() {
      return memory === undefined;
    },
    take() {
      const taken = memory ?? new ArrayBuffer(size);
      memory = undefined;
      return taken;
    },
    giveBack: (back) => void (memory = back),
  };
}
