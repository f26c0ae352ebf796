/**
 * What one of several instances does for all, now and then.
 *
 * @module
 */
import { setTimeout as delay } from "node:timers/promises";
import { cacheLog } from "../../telemetry/log.ts";
import { causeOf } from "../../upstream/transport/send.ts";
import type { BlobStore } from "../store/blob_store.ts";
import type { Leases } from "./lease.ts";
import { rebuild, rebuildLoudly, recover } from "../content/recover.ts";
import { LEASE_LIFE, type Redis, RedisDownError } from "../store/redis.ts";
import type { RedisIndex } from "../index/redis_index.ts";

/** An object was verified before it became one. */
const WHOLE = { isWhole: true } as const;

/** How soon it is tried again whether the lease has ended, ms, and how often before the next turn. */
const TRY_AGAIN = LEASE_LIFE / 4;
const MORE_ATTEMPTS = 6;

/** What is in Redis. In version 1 facts were not counted. */
const VERSION = "2";

/** What the instances share. */
export interface SharedParts {
  readonly store: BlobStore;
  readonly index: RedisIndex;
  readonly leases: Leases;
  readonly redis: Redis;
  /** See `EngineEvents`. */
  readonly onRebuilt?: () => void;
}

/** The upkeep, done by whoever has its lease. */
export class LeaderTasks {
  readonly #parts: SharedParts;
  /** Whether Redis may have lost its last writes: what they told of is in the store. */
  #isInDoubt = false;
  readonly #ending = new AbortController();

  constructor(parts: SharedParts) {
    this.#parts = parts;
  }

  /** {@linkcode run} after Redis was away: a failover or a restart may have cost it the last moments. Never throws. */
  async doubt(): Promise<void> {
    this.#isInDoubt = true;
    await this.run();
    // The lease may be one that another instance, or this one, had before Redis went.
    for (let n = 0; n < MORE_ATTEMPTS && this.#isInDoubt; n++) {
      try {
        await delay(TRY_AGAIN, undefined, { signal: this.#ending.signal, ref: false });
      } catch {
        return; // it is ended
      }
      await this.run();
    }
  }

  /** Ends what waits. */
  close(): void {
    this.#ending.abort();
  }

  /** Whether the index has been filled from the store since it was lost. Throws what Redis says. */
  async isIndexWhole(): Promise<boolean> {
    const { redis } = this.#parts;
    return !this.#isInDoubt && await redis.command("GET", redis.key("made")) === VERSION;
  }

  /** Fills an empty index from the store, and settles what dead instances left. Never throws. */
  async run(): Promise<void> {
    const { store, index, leases, redis, onRebuilt } = this.#parts;
    if (!redis.isUp) return;
    try {
      const taken = await leases.acquire("upkeep");
      if (!("lease" in taken)) return;
      try {
        const made = redis.key("made");
        const version = await redis.command("GET", made);
        if (version === null) await rebuildLoudly(store, index, { ...WHOLE, onRebuilt });
        else if (version !== VERSION) await index.adopt();
        if (version !== VERSION) await redis.command("SET", made, VERSION);
        else if (this.#isInDoubt) await rebuild(store, index, WHOLE);
        this.#isInDoubt = false;
        const isRunning = (digest: string) => leases.isTaken(digest);
        await recover(store, index, { ...WHOLE, isRunning });
      } finally {
        await taken.lease.release();
      }
    } catch (error) {
      if (error instanceof RedisDownError) return; // tried again when it is back
      cacheLog.warn("Cannot tidy the shared cache: {cause}", { cause: causeOf(error) });
    }
  }
}
