/**
 * Writes lines to a slow destination in batches, without blocking the caller.
 *
 * @module
 */

/** Maximum time that lines are buffered, in ms. */
const EVERY = 100;
/** Maximum number of buffered characters per batch. */
const GATHERED = 64 * 1024;
/** Maximum number of characters waiting for a slow reader. Further lines are dropped and counted. */
const MOST = 8 * 2 ** 20;

/** Maximum time to write the last lines, in ms. */
const PATIENCE = 1_000;

/** Options for {@linkcode LineWriter}. */
export interface LineWriterOptions {
  /** Writes some of the bytes, and returns how many. */
  readonly write: (bytes: Uint8Array) => Promise<number>;
  /** Returns the line that reports dropped lines. */
  readonly missing: (lines: number) => string;
}

/** A buffered writer of lines. */
export class LineWriter {
  readonly #options: LineWriterOptions;
  readonly #encoder = new TextEncoder();
  #text = "";
  #dropped = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #writing: Promise<void> | undefined;

  constructor(options: LineWriterOptions) {
    this.#options = options;
  }

  /** Adds `line`, including its line break. */
  write(line: string): void {
    if (this.#text.length > MOST) {
      this.#dropped++;
      return;
    }
    this.#text += line;
    if (this.#writing) return; // the running write continues with it
    if (this.#text.length >= GATHERED) this.#flush();
    else this.#timer ??= setTimeout(() => this.#flush(), EVERY);
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing ??= this.#drain();
  }

  /** Never rejects, because a failing log must not affect requests. */
  async #drain(): Promise<void> {
    try {
      while (this.#text !== "") {
        const bytes = this.#encoder.encode(this.#text);
        this.#text = "";
        for (let done = 0; done < bytes.byteLength;) {
          done += await this.#options.write(bytes.subarray(done));
        }
        if (this.#dropped > 0) {
          this.#text = this.#options.missing(this.#dropped) + this.#text;
          this.#dropped = 0;
        }
        // Under load, further lines are buffered meanwhile.
        if (this.#text.length < GATHERED) break;
      }
    } catch {
      this.#text = "";
    }
    this.#writing = undefined;
    if (this.#text !== "") this.#timer ??= setTimeout(() => this.#flush(), EVERY);
  }

  /** Flushes the buffer, as far as the reader keeps up. */
  async end(): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const limit = new Promise<void>((resolve) => timer = setTimeout(resolve, PATIENCE));
    const rest = (async () => {
      while (this.#text !== "" || this.#writing) {
        this.#flush();
        await this.#writing;
      }
    })();
    await Promise.race([rest, limit]);
    clearTimeout(timer);
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
