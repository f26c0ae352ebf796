/**
 * A body read chunk by chunk under an idle limit, into memory that is used again where the body allows that.
 *
 * @module
 */
import { trackAllocation } from "../../util/gc.ts";
import { nextTurn } from "../../util/time_slice.ts";
import { ChunkCount, readWithin, within } from "./body.ts";

/**
 * Memory that bodies are read into. Of what comes in at a gigabyte a second in memory of its own, the collector
 * lets some 60 MiB gather before it looks.
 */
export interface Memory {
  /** Some, which is transferred: if the body breaks it is lost. */
  take(): ArrayBuffer;
  /** What was taken, under its new name. The next chunk, if any, is in it. */
  giveBack(memory: ArrayBuffer): void;
}

/** Options for {@linkcode ChunkReader}. */
export interface ChunkReaderOptions {
  /** How long the body may stand still, ms. */
  readonly idle: number;
  /** What to read into. A body that brings memory of its own leaves it alone. @default {the body's own} */
  readonly memory?: Memory;
}

/** Bytes as they come. */
export interface Chunks {
  /** The next chunk, never an empty one; undefined at the end. Throws what broke it. */
  read(): Promise<Uint8Array | undefined>;
  /** Ends it: whatever is still coming is of no use. */
  cancel(reason?: unknown): void;
}

/** The chunks of one body. */
export class ChunkReader implements Chunks {
  readonly #idle: number;
  readonly #plain?: ReadableStreamDefaultReader<Uint8Array>;
  readonly #byob?: ReadableStreamBYOBReader;
  readonly #memory?: Memory;
  readonly #count = new ChunkCount();

  constructor(body: ReadableStream<Uint8Array>, { idle, memory }: ChunkReaderOptions) {
    this.#idle = idle;
    this.#memory = memory;
    this.#byob = memory && byobReader(body);
    if (!this.#byob) this.#plain = body.getReader();
  }

  /** The next chunk; undefined at the end. Throws an `IdleError`, or what broke the body. */
  async read(): Promise<Uint8Array | undefined> {
    while (true) {
      const chunk = this.#byob
        ? await this.#into(this.#byob, this.#memory!)
        : await this.#next(this.#plain!);
      if (chunk === undefined) return undefined;
      if (this.#count.note(chunk)) await nextTurn();
      if (chunk.byteLength > 0) return chunk;
    }
  }

  async #next(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<Uint8Array | undefined> {
    const { value } = await readWithin(reader, this.#idle);
    if (value) trackAllocation(value.byteLength);
    return value;
  }

  async #into(reader: ReadableStreamBYOBReader, memory: Memory): Promise<Uint8Array | undefined> {
    const view = new Uint8Array(memory.take());
    const { done, value } = await within(reader.read(view), this.#idle);
    if (value) memory.giveBack(value.buffer);
    return done ? undefined : value;
  }

  cancel(reason?: unknown): void {
    (this.#byob ?? this.#plain!).cancel(reason).catch(() => {}); // broken already
  }
}

function byobReader(body: ReadableStream<Uint8Array>): ReadableStreamBYOBReader | undefined {
  try {
    return body.getReader({ mode: "byob" });
  } catch (error) {
    if (error instanceof TypeError) return undefined; // no byte stream: what node:http gives is none
    throw error;
  }
}
