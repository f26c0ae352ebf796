/**
 * A clock that a test sets forward, for everything in this process that reads `Date.now`.
 *
 * @module
 */

/** The clock as it has been set. */
export interface MovedClock {
  /** Sets it forward. */
  pass(ms: number): void;
  /** Makes it the real one again: `using clock = moveClock()`. */
  [Symbol.dispose](): void;
}

/** Takes over `Date.now`; timers stay as they are. Before what is tested is made: it may keep the function. */
export function moveClock(): MovedClock {
  const real = Date.now;
  let ahead = 0;
  Date.now = () => real() + ahead;
  return {
    pass: (ms) => void (ahead += ms),
    [Symbol.dispose]: () => void (Date.now = real),
  };
}
