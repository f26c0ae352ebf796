/**
 * A body read chunk by chunk under an idle limit, into one buffer over and over where the body allows that.
 *
 * @module
 */
import { notePassing } from "../garbage.ts";
import { readWithin, within } from "./body.ts";

/** The size of the buffer: fetch hands out no more at a time by itself. */
const BUFFER = 64 * 1024;

/** Options for {@linkcode ChunkReader}. */
export interface ChunkReaderOptions {
  /** How long the body may stand still, ms. */
  readonly idle: number;
  /**
   * Whether a chunk is valid only until the next is read. Of what comes in at a gigabyte a second the
   * collector lets some 60 MiB gather before it looks: whoever copies the chunk anyway, need not pay that.
   * @default {false}
   */
  readonly reuse?: boolean;
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
  #buffer?: ArrayBuffer;

  constructor(body: ReadableStream<Uint8Array>, { idle, reuse = false }: ChunkReaderOptions) {
    this.#idle = idle;
    this.#byob = reuse ? byobReader(body) : undefined;
    if (!this.#byob) this.#plain = body.getReader();
  }

  /** The next chunk; undefined at the end. Throws an `IdleError`, or what broke the body. */
  async read(): Promise<Uint8Array | undefined> {
    while (true) {
      const chunk = this.#byob ? await this.#refill(this.#byob) : await this.#next(this.#plain!);
      if (chunk === undefined || chunk.byteLength > 0) return chunk;
    }
  }

  async #next(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<Uint8Array | undefined> {
    const { value } = await readWithin(reader, this.#idle);
    if (value) notePassing(value.byteLength);
    return value;
  }

  async #refill(reader: ReadableStreamBYOBReader): Promise<Uint8Array | undefined> {
    // The view is transferred and comes back in the result: the same memory, under a new name.
    const view = new Uint8Array(this.#buffer ?? new ArrayBuffer(BUFFER));
    this.#buffer = undefined;
    const { done, value } = await within(reader.read(view), this.#idle);
    this.#buffer = value?.buffer;
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
