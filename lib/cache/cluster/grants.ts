/**
 * Grants that several instances share: what one learned of a credential, the others need not ask again.
 *
 * @module
 */
import { createHmac, randomBytes } from "node:crypto";
import type { SharedGrants } from "../../auth/access.ts";
import type { RepositoryKey } from "../../oci/registry.ts";
import { cacheLog } from "../../telemetry/log.ts";
import type { Credential } from "../../transforms/auth.ts";
import { credentialText } from "../../auth/credential.ts";
import { causeOf } from "../../upstream/transport/send.ts";
import { type Redis, RedisDownError } from "../store/redis.ts";

/** Options for {@linkcode RedisGrants}. */
export interface RedisGrantsOptions {
  /** Secrets that every instance is configured with, and that are not in Redis. @default {[]} */
  readonly configured?: readonly (string | undefined)[];
}

/**
 * Grants in Redis, as keys that end by themselves. A key is an HMAC under a secret of the shared cache: a random one that
 * the first instance puts into Redis, mixed with what the instances are configured with. Who sees the keys cannot test
 * guesses of a password with them; who can read Redis whole cannot either, as long as there is a configured secret that
 * he does not have.
 */
export class RedisGrants implements SharedGrants {
  readonly #redis: Redis;
  readonly #configured: string;
  /** The random part, as it was last seen in Redis. */
  #random: string | undefined;
  #secret: Uint8Array | undefined;

  constructor(redis: Redis, { configured = [] }: RedisGrantsOptions = {}) {
    this.#redis = redis;
    this.#configured = JSON.stringify(configured.map((secret) => secret ?? null));
  }

  /**
   * Agrees with the other instances on the random part, which may have gone with the rest of Redis. Never throws:
   * without it grants are not shared.
   */
  async agree(): Promise<void> {
    const key = this.#redis.key("secret");
    const proposal = this.#random ?? randomBytes(32).toString("base64");
    try {
      await this.#redis.command("SET", key, proposal, "NX");
      const random = await this.#redis.command("GET", key);
      if (typeof random !== "string" || random === this.#random) return;
      this.#random = random;
      this.#secret = createHmac("sha256", random).update(this.#configured).digest();
    } catch (error) {
      if (error instanceof RedisDownError) return;
      cacheLog.warn("Cannot share grants: {cause}", { cause: causeOf(error) });
    }
  }

  nameOf(credential: Credential, { registry, repository }: RepositoryKey): string | undefined {
    if (!this.#secret) return undefined;
    const text = JSON.stringify([credentialText(credential), registry, repository]);
    return createHmac("sha256", this.#secret).update(text).digest("base64url");
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
