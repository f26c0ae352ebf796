/**
 * What one of several instances does for all, now and then.
 *
 * @module
 */
import { cacheLog } from "../../telemetry/log.ts";
import { causeOf } from "../../upstream/transport/send.ts";
import type { BlobStore } from "../store/blob_store.ts";
import type { Leases } from "./lease.ts";
import { rebuild, rebuildLoudly, recover } from "../content/recover.ts";
import { type Redis, RedisDownError } from "../store/redis.ts";
import type { RedisIndex } from "../index/redis_index.ts";

/** An object was verified before it became one. */
const WHOLE = { isWhole: true } as const;

/** What is in Redis. In version 1 facts were not counted. */
const VERSION = "2";

/** What the instances share. */
export interface SharedParts {
  readonly store: BlobStore;
  readonly index: RedisIndex;
  readonly leases: Leases;
  readonly redis: Redis;
}

/** The upkeep, done by whoever has its lease. */
export class LeaderTasks {
  readonly #parts: SharedParts;
  /** Whether Redis may have lost its last writes: what they told of is in the store. */
  #isInDoubt = false;

  constructor(parts: SharedParts) {
    this.#parts = parts;
  }

  /** {@linkcode run} after Redis was away: a failover or a restart may have cost it the last moments. Never throws. */
  async doubt(): Promise<void> {
    this.#isInDoubt = true;
    await this.run();
  }

  /** Fills an empty index from the store, and settles what dead instances left. Never throws. */
  async run(): Promise<void> {
    const { store, index, leases, redis } = this.#parts;
    if (!redis.isUp) return;
    try {
      const taken = await leases.acquire("upkeep");
      if (!("lease" in taken)) return;
      try {
        const made = redis.key("made");
        const version = await redis.command("GET", made);
        if (version === null) await rebuildLoudly(store, index, WHOLE);
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
