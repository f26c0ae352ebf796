/**
 * How late timers come: the time in which nothing else could happen.
 *
 * @module
 */

const EVERY = 500;
/** The worst of so many measurements is told: those of the last ten seconds. */
const KEPT = 20;

/** Measures until it is closed. */
export class LoopLag {
  readonly #lags: number[] = [];
  readonly #timer: ReturnType<typeof setInterval>;
  #due = performance.now() + EVERY;

  constructor() {
    this.#timer = setInterval(() => {
      const now = performance.now();
      this.#lags.push(Math.max(0, now - this.#due));
      if (this.#lags.length > KEPT) this.#lags.shift();
      this.#due = now + EVERY;
    }, EVERY);
    Deno.unrefTimer(this.#timer);
  }

  /** The longest of the last ten seconds, ms. */
  get worst(): number {
    return Math.round(Math.max(0, ...this.#lags) * 10) / 10;
  }

  close(): void {
    clearInterval(this.#timer);
  }
}
