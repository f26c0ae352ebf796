/**
 * Draws progress bars, one line each, below the permanent output.
 *
 * @module
 */
import { formatSize } from "../util/units.ts";
import type { Terminal } from "./output.ts";

/** The progress of one item. Sizes are in bytes. */
export interface BarState {
  readonly label: string;
  readonly received: number;
  /** Undefined if the size is unknown. */
  readonly size?: number;
}

/** Maximum number of bars drawn. */
const MAX_BARS = 12;
const BAR_WIDTH = 24;
/** Minimum time between two redraws, in ms. */
const EVERY = 100;

const UP = (lines: number) => `\x1b[${lines}A`;
const CLEAR_BELOW = "\x1b[0J";

/** The progress bars of one command. */
export class Bars {
  readonly #terminal: Terminal;
  readonly #now: () => number;
  readonly #bars = new Map<string, BarState>();
  #drawn = 0;
  #next = 0;

  constructor(terminal: Terminal, now: () => number = () => performance.now()) {
    this.#terminal = terminal;
    this.#now = now;
  }

  /** Sets the progress of `key`. */
  set(key: string, state: BarState): void {
    this.#bars.set(key, state);
    if (this.#now() >= this.#next) this.#draw();
  }

  /** Removes the bar of `key`. */
  delete(key: string): void {
    if (this.#bars.delete(key) && this.#now() >= this.#next) this.#draw();
  }

  /** Removes all bars, so that other lines can be printed. */
  clear(): void {
    if (this.#drawn === 0) return;
    this.#terminal.write(UP(this.#drawn) + CLEAR_BELOW);
    this.#drawn = 0;
    this.#next = 0;
  }

  #draw(): void {
    const bars = [...this.#bars.values()];
    const lines = bars.slice(0, MAX_BARS).map((bar) => this.#line(bar));
    if (bars.length > MAX_BARS) lines.push(`  and ${bars.length - MAX_BARS} more`);
    const before = this.#drawn > 0 ? UP(this.#drawn) + CLEAR_BELOW : "";
    this.#terminal.write(before + lines.map((line) => `${line}\n`).join(""));
    this.#drawn = lines.length;
    this.#next = this.#now() + EVERY;
  }

  #line({ label, received, size }: BarState): string {
    const share = size ? Math.min(1, received / size) : 0;
    const filled = Math.round(share * BAR_WIDTH);
    const bar = `[${"#".repeat(filled)}${"-".repeat(BAR_WIDTH - filled)}]`;
    const how = size === undefined
      ? formatSize(received)
      : `${formatSize(received)} of ${formatSize(size)}`;
    // A wrapped line would break the line count of the next redraw.
    return `  ${bar} ${how.padEnd(22)} ${label}`.slice(0, this.#terminal.columns - 1);
  }
}
