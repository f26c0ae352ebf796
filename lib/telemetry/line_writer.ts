/**
 * Lines to somewhere slow, gathered: whoever writes one never waits for it.
 *
 * @module
 */

/** How long lines gather, ms. */
const EVERY = 100;
/** And how many characters at most. */
const GATHERED = 64 * 1024;
/** What may wait for a reader that does not read, characters: more is dropped, and counted. */
const MOST = 8 * 2 ** 20;

/** How long the last lines may take, ms, when the reader does not read. */
const PATIENCE = 1_000;

/** Options for {@linkcode LineWriter}. */
export interface LineWriterOptions {
  /** Writes some of the bytes, and tells how many. */
  readonly write: (bytes: Uint8Array) => Promise<number>;
  /** The line that says how many lines are missing. */
  readonly missing: (lines: number) => string;
}

/** A writer of lines. */
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

  /** Takes `line`, its end included. */
  write(line: string): void {
    if (this.#text.length > MOST) {
      this.#dropped++;
      return;
    }
    this.#text += line;
    if (this.#writing) return; // goes on with it
    if (this.#text.length >= GATHERED) this.#flush();
    else this.#timer ??= setTimeout(() => this.#flush(), EVERY);
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing ??= this.#drain();
  }

  /** Never rejects: a log that cannot be written is nobody's trouble. */
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
        // Under load the next lines gather while others are served.
        if (this.#text.length < GATHERED) break;
      }
    } catch {
      this.#text = "";
    }
    this.#writing = undefined;
    if (this.#text !== "") this.#timer ??= setTimeout(() => this.#flush(), EVERY);
  }

  /** Writes what there is, as far as it is read. */
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
