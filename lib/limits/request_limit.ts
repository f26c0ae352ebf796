/**
 * How many requests of one client may be under way at once, whatever they are for.
 *
 * Our own listener bounds them by the connections of an address. A proxy in front has one address for all of its clients,
 * and `Deno.serve` bounds nothing.
 *
 * @module
 */
import { OciError } from "../oci/error.ts";
import { type Answer, whileDelivered } from "../response/answer.ts";
import { rateLimitKey } from "../transforms/policy.ts";

/** Requests of one client address under way at once: as many as it may have connections. */
export const MAX_REQUESTS_PER_CLIENT = 256;

/** Options for {@linkcode RequestLimit}. */
export interface RequestLimitOptions {
  /** @default {MAX_REQUESTS_PER_CLIENT} */
  readonly perClient?: number;
  /** Called for each request that is refused. */
  readonly onRejected?: () => void;
}

/** Counts requests under way by client address, an IPv6 one by its /64. */
export class RequestLimit {
  readonly #perClient: number;
  readonly #onRejected: () => void;
  /** Clients with a request under way only: there are never more than such requests. */
  readonly #underWay = new Map<string, number>();

  constructor({ perClient = MAX_REQUESTS_PER_CLIENT, onRejected = () => {} }: RequestLimitOptions) {
    this.#perClient = perClient;
    this.#onRejected = onRejected;
  }

  /** How many clients have a request under way. */
  get clients(): number {
    return this.#underWay.size;
  }

  /**
   * Returns what `work` answers. The request is under way until the answer's body has ended or was cancelled.
   * Requests without a client address are not limited: nothing tells one client's from another's.
   *
   * @throws {OciError} `TOOMANYREQUESTS` (429) where the client has too many under way, before `work` is called.
   */
  async run(client: string | undefined, work: () => Promise<Answer>): Promise<Answer> {
    if (client === undefined) return await work();
    const key = rateLimitKey(client);
    const count = this.#underWay.get(key) ?? 0;
    if (count >= this.#perClient) {
      this.#onRejected();
      throw new OciError("TOOMANYREQUESTS", "Too many requests of this client are under way", {
        headers: { "retry-after": "5" },
      });
    }
    this.#underWay.set(key, count + 1);
    return await whileDelivered(work, () => this.#end(key));
  }

  #end(key: string): void {
    const count = this.#underWay.get(key)! - 1;
    if (count > 0) this.#underWay.set(key, count);
    else this.#underWay.delete(key);
  }
}
