/**
 * Limits the concurrent requests of one client.
 *
 * Our own listener bounds them by the connections of an address. A proxy in front has one address for all of its clients,
 * and `Deno.serve` bounds nothing.
 *
 * @module
 */
import { OciError } from "../oci/error.ts";
import { type Answer, whileDelivered } from "../response/answer.ts";
import { rateLimitKey } from "../transforms/policy.ts";

/** Maximum concurrent requests per client address, equal to its maximum connections. */
export const MAX_REQUESTS_PER_CLIENT = 256;

/** Options for {@linkcode RequestLimit}. */
export interface RequestLimitOptions {
  /** @default {MAX_REQUESTS_PER_CLIENT} */
  readonly perClient?: number;
  /** Called for each rejected request. */
  readonly onRejected?: () => void;
}

/** Counts concurrent requests by client address. An IPv6 address counts as its /64. */
export class RequestLimit {
  readonly #perClient: number;
  readonly #onRejected: () => void;
  /** Only clients with concurrent requests, so its size is bounded by their number. */
  readonly #underWay = new Map<string, number>();

  constructor({ perClient = MAX_REQUESTS_PER_CLIENT, onRejected = () => {} }: RequestLimitOptions) {
    this.#perClient = perClient;
    this.#onRejected = onRejected;
  }

  /** Number of clients with concurrent requests. */
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
      throw new OciError("TOOMANYREQUESTS", "Too many concurrent requests from this client", {
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
