/**
 * Long work cut into slices, between which the event loop gets its turn.
 *
 * @module
 */
import { setImmediate } from "node:timers";

/** Returns a promise that resolves when the event loop has had a turn: timers and I/O that are due run first. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}

/** How long a slice lasts, ms. */
const SLICE = 5;

/** Tells when work has held the event loop for long enough. */
export class TimeSlice {
  readonly #ms: number;
  #began = performance.now();

  /** @param ms How long a slice lasts. */
  constructor(ms: number = SLICE) {
    this.#ms = ms;
  }

  /** Whether the slice is over. */
  get isOver(): boolean {
    return performance.now() - this.#began >= this.#ms;
  }

  /** Lets the event loop have a turn if the slice is over, and starts the next one. */
  async pause(): Promise<void> {
    if (!this.isOver) return;
    await nextTurn();
    this.#began = performance.now();
  }
}
