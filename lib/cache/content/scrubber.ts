/**
 * The slow background pass: every stored byte is hashed again about once a week, at a rate that nobody
 * notices, and more slowly while clients are served.
 *
 * @module
 */
import { setTimeout as delay } from "node:timers/promises";
import { UnreachableError } from "../store/blob_store.ts";
import { reconcile, type VerifyTarget } from "./verify.ts";

const DAY = 24 * 60 * 60_000;
/** An entry is hashed again this long after it was last. */
const PERIOD = 7 * DAY;
/** Bytes per second at least, so that what waits to be looked at does not wait for days. */
const LEAST_RATE = 2 ** 20;
/** While nothing is due, and after trouble, it is looked again after this, ms. */
const IDLE = 60_000;
/** While others use the disk, a MiB may wait for this long, ms: a pass goes on under constant load. */
const PATIENCE = 60_000;
/** Store entries compared with the index at a time, and the pause after them, ms. */
const BATCH = 100;
const BATCH_PAUSE = 50;

/** Options for {@linkcode scrub}. */
export interface ScrubOptions {
  /** Ends the pass. */
  readonly signal: AbortSignal;
  /** Whether store and index may disagree: then they are compared first. */
  readonly isSuspect: boolean;
  /** Called once when they were compared, and what had no row has one. */
  readonly onReconciled?: () => void;
  /** Where several instances share the store: whether it is for this one to do. @default {it is} */
  readonly isOurs?: () => Promise<boolean>;
  /** Waits `ms`, or rejects when `signal` aborts; tests pass one that does not wait. */
  readonly wait?: (ms: number) => Promise<unknown>;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** Goes round until `signal` aborts. Never rejects. */
export async function scrub(target: VerifyTarget, options: ScrubOptions): Promise<void> {
  const { signal, isSuspect, now = Date.now } = options;
  const { content, index } = target;
  const wait = options.wait ?? ((ms) => delay(ms, undefined, { signal, ref: false }));
  let compared = 0;
  const afterEntry = async () => {
    if (++compared % BATCH === 0) await wait(BATCH_PAUSE);
  };
  const isOurs = options.isOurs ?? (() => Promise.resolve(true));
  let mustCompare = isSuspect;
  while (!signal.aborted) {
    const lost = new AbortController();
    try {
      if (!await isOurs()) {
        await wait(IDLE);
        continue;
      }
      if (mustCompare) {
        await reconcile(target, { signal, afterRead: afterEntry });
        mustCompare = false;
        options.onReconciled?.();
      }
      const { bytes } = await index.totals();
      const rate = Math.max(LEAST_RATE, 2 * bytes / (PERIOD / 1000));
      const [row] = await index.leastVerified(1);
      if (!row || row.verifiedAt > now() - PERIOD) {
        await wait(IDLE);
        continue;
      }
      const verdict = await content.check(row, {
        signal: AbortSignal.any([signal, lost.signal]),
        afterRead: async (n) => {
          await wait(n / rate * 1000);
          // Another instance has begun with it, after this one was not heard of for a while.
          if (!await isOurs()) lost.abort();
          for (let waited = 0; content.isBusy && waited < PATIENCE; waited += 1_000) {
            await wait(1_000);
          }
        },
      });
      // It has left by now, or else the disk is in trouble.
      if (verdict !== "right" && await index.blob(row.digest)) await wait(IDLE);
    } catch (error) {
      if (signal.aborted) return;
      if (lost.signal.aborted) continue;
      // A store that is down has been told of.
      if (!(error instanceof UnreachableError)) content.diskTrouble(error);
      await wait(IDLE).catch(() => {}); // aborted: the loop ends
    }
  }
}
