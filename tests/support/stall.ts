/**
 * How long the event loop stands still, compared with how fast this machine is.
 *
 * @module
 */
import { createHash } from "node:crypto";

/**
 * How long the loop stood still at most while `work` went on, ms: the least of several times, since whatever else the
 * machine does only adds to it.
 */
export async function longestStall(work: () => Promise<unknown>, times = 5): Promise<number> {
  let least = Infinity;
  for (let i = 0; i < times; i++) least = Math.min(least, await stallDuring(work));
  return least;
}

async function stallDuring(work: () => Promise<unknown>): Promise<number> {
  let longest = 0;
  let last = performance.now();
  const look = () => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
  };
  const timer = setInterval(look, 1);
  try {
    await work();
  } finally {
    look();
    clearInterval(timer);
  }
  return longest;
}

/** How long the loop may stand still, ms: what it takes here to hash 64 MiB. On the machine of the plan that is 50 ms. */
export function stallBudget(): number {
  const bytes = new Uint8Array(2 ** 26);
  let least = Infinity;
  for (let i = 0; i < 3; i++) {
    const start = performance.now();
    createHash("sha256").update(bytes).digest();
    least = Math.min(least, performance.now() - start);
  }
  return least;
}
