/**
 * What goes to the client of a connection: heads, and bodies in whatever form they are.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { ByteSource } from "../../response/byte_source.ts";
import type { MemoryBudget } from "../../util/memory_budget.ts";
import type { Buffers } from "./buffers.ts";
import type { BodyFraming } from "../../response/wire.ts";
import type { Socket } from "./socket.ts";

/** A body up to this length goes out in one piece with its head. */
const JOINED = 16 * 1024;
const LAST_CHUNK = Buffer.from("0\r\n\r\n", "latin1");

/** Options for {@linkcode ResponseWriter}. */
export interface ResponseWriterOptions {
  readonly buffers: Buffers;
  /** Where what the client has not taken yet is counted. */
  readonly memory: MemoryBudget;
  /** Called whenever the client has taken something. */
  readonly onProgress: () => void;
}

/** One connection's way out. Everything throws when the client has left or a body breaks off. */
export class ResponseWriter {
  readonly #conn: Socket;
  readonly #options: ResponseWriterOptions;
  /** Ends the body that is being sent. */
  #stopBody: (() => void) | undefined;
  #pending = 0;

  constructor(conn: Socket, options: ResponseWriterOptions) {
    this.#conn = conn;
    this.#options = options;
  }

  /** Ends the body that is being sent, if any: whoever makes it need not go on. */
  stop(): void {
    this.#stopBody?.();
  }

  /** What the client has been sent and has not taken yet, beside buffers: bytes. */
  get pending(): number {
    return this.#pending;
  }

  /** All of `bytes`. */
  async write(bytes: Uint8Array): Promise<void> {
    const { memory } = this.#options;
    const { byteLength } = bytes;
    this.#pending += byteLength;
    memory.add(byteLength);
    try {
      // Not by `#write`: on the way of every small answer, a promise more is measurable.
      for (let done = 0; done < byteLength;) {
        done += await this.#conn.write(done === 0 ? bytes : bytes.subarray(done));
        this.#options.onProgress();
      }
    } finally {
      this.#pending -= byteLength;
      memory.remove(byteLength);
    }
  }

  /** The same of bytes that are counted elsewhere. */
  async #write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.byteLength;) {
      done += await this.#conn.write(done === 0 ? bytes : bytes.subarray(done));
      this.#options.onProgress();
    }
  }

  /** A whole body with its head. */
  async bytes(head: Buffer, bytes: Uint8Array): Promise<void> {
    const { memory } = this.#options;
    // A copy for each client, where there is much of that already, is one too many.
    const isJoined = bytes.byteLength <= JOINED && memory.used < memory.limit / 2;
    if (isJoined) return await this.write(Buffer.concat([head, bytes]));
    await this.write(head);
    await this.write(bytes);
  }

  /** A body that is read piece by piece. */
  async source(head: Buffer, source: ByteSource, framing: BodyFraming): Promise<void> {
    const { buffers } = this.#options;
    let buffer = buffers.take();
    let sent = 0;
    const end = once(() => source.end(sent));
    this.#stopBody = end;
    try {
      await this.write(head);
      const total = framing.kind === "length" ? framing.length : Infinity;
      while (sent < total) {
        const left = total - sent;
        const bytes = await source.read(
          left < buffer.byteLength ? buffer.subarray(0, left) : buffer,
        );
        if (!bytes) break;
        await this.#writeChunk(bytes, { framing, isCounted: true });
        sent += bytes.byteLength;
        buffer = buffers.renew(buffer, sent);
      }
      await this.#finish(sent, framing);
    } finally {
      this.#stopBody = undefined;
      end();
      buffers.give(buffer);
    }
  }

  /** A body that comes as a stream. */
  async stream(
    head: Buffer,
    body: ReadableStream<Uint8Array>,
    framing: BodyFraming,
  ): Promise<void> {
    const reader = body.getReader();
    const cancel = once(() => void reader.cancel().catch(() => {}));
    this.#stopBody = cancel;
    try {
      let first: Buffer | undefined = head;
      // Otherwise the head goes ahead: the client's patience for it may be short, and upstream slow.
      const isSmall = framing.kind === "length" && framing.length <= JOINED;
      if (!isSmall) {
        await this.write(head);
        first = undefined;
      }
      let sent = 0;
      while (true) {
        const { done, value } = await reader.read();
        if (done) break;
        sent += value.byteLength;
        if (framing.kind === "length" && sent > framing.length) throw new Error("Body too long");
        await (first
          ? this.write(Buffer.concat([first, value]))
          : this.#writeChunk(value, { framing, isCounted: false }));
        first = undefined;
      }
      if (first) await this.write(first);
      await this.#finish(sent, framing);
    } finally {
      this.#stopBody = undefined;
      cancel(); // nothing, where it was read to its end
    }
  }

  async #writeChunk(
    bytes: Uint8Array,
    { framing: { kind }, isCounted }: { framing: BodyFraming; isCounted: boolean },
  ): Promise<void> {
    const isChunked = kind === "chunked";
    if (isChunked && bytes.byteLength === 0) return;
    if (isChunked) {
      await this.write(Buffer.from(`${bytes.byteLength.toString(16)}\r\n`, "latin1"));
    }
    await (isCounted ? this.#write(bytes) : this.write(bytes));
    if (isChunked) await this.write(LAST_CHUNK.subarray(3));
  }

  /** The end of a body. Throws where it is not all there: only a broken connection tells the client. */
  async #finish(sent: number, framing: BodyFraming): Promise<void> {
    if (framing.kind === "length" && sent < framing.length) throw new Error("Body cut short");
    if (framing.kind === "chunked") await this.write(LAST_CHUNK);
  }
}

function once(work: () => void): () => void {
  let isDone = false;
  return () => {
    if (!isDone) work();
    isDone = true;
  };
}
