/**
 * Grants that several instances share: what one learned of a credential, the others need not ask again.
 *
 * @module
 */
import type { SharedGrants } from "../access.ts";
import { cacheLog } from "../log.ts";
import { causeOf } from "../upstream/send.ts";
import { type Redis, RedisDownError } from "./redis.ts";

/** Grants in Redis, as keys that end by themselves. A key tells nothing of the credential. */
export class RedisGrants implements SharedGrants {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  async has(grant: string): Promise<boolean> {
    return await this.#attempt("GET", grant) !== undefined;
  }

  async add(grant: string, ms: number): Promise<void> {
    await this.#attempt("SET", grant, "1", "PX", String(ms));
  }

  async remove(grant: string): Promise<void> {
    await this.#attempt("DEL", grant);
  }

  /** The reply; undefined for none, and where Redis cannot tell: what is known here still holds. */
  async #attempt(command: string, grant: string, ...args: string[]): Promise<unknown> {
    try {
      return await this.#redis.command(command, this.#redis.key(`g:${grant}`), ...args) ??
        undefined;
    } catch (error) {
      if (!(error instanceof RedisDownError)) {
        cacheLog.warn("Cannot share a grant: {cause}", { cause: causeOf(error) });
      }
      return undefined;
    }
  }
}
