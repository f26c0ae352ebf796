/**
 * Splits long work into slices, between which the event loop can run.
 *
 * @module
 */
import { setImmediate } from "node:timers";

/** Resolves after the event loop has run due timers and I/O. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}

/** Default length of a slice, in ms. */
const SLICE = 5;

/** Tracks how long work has held the event loop. */
export class TimeSlice {
  readonly #ms: number;
  #began = performance.now();

  /** @param ms Length of a slice. */
  constructor(ms: number = SLICE) {
    this.#ms = ms;
  }

  /** Whether the current slice is over. */
  get isOver(): boolean {
    return performance.now() - this.#began >= this.#ms;
  }

  /** Yields to the event loop if the slice is over, then starts a new slice. */
  async pause(): Promise<void> {
    if (!this.isOver) return;
    await nextTurn();
    this.#began = performance.now();
  }
}
