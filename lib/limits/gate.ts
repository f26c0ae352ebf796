/**
 * Rejects clients and repositories that the operator does not allow, and clients that exceed their rate
 * limit. Only created if any of these is configured.
 *
 * @module
 */
import type { Answer } from "../response/answer.ts";
import type { Config } from "../config/config.ts";
import { requestLog } from "../telemetry/log.ts";
import { OciError } from "../oci/error.ts";
import type { Stats } from "../telemetry/stats.ts";
import {
  type AddressSet,
  addressSet,
  rateLimitKey,
  type RepositoryPolicy,
  repositoryPolicy,
} from "../transforms/policy.ts";
import type { Target } from "../transforms/route.ts";
import { MemoryRateCounter, type RateCounter } from "./rate_limit.ts";
import type { RateLimits } from "../config/values.ts";

/** Why a request was rejected, as counted in the metrics. */
export type Rejection =
  | "client"
  | "repository"
  | "rate_hits"
  | "rate_misses"
  | "fill_queue"
  | "passthrough_queue"
  | "requests"
  | "connections";

/** Options for {@linkcode Gate}. */
export interface GateOptions {
  readonly stats: Pick<Stats, "rejected">;
  /** @default {a {@linkcode MemoryRateCounter}} */
  readonly counter?: RateCounter;
}

/** The key of clients without an address. */
const NOWHERE = "unknown";

/** Enforces the operator's access rules and rate limits. */
export class Gate {
  readonly #clients: AddressSet | undefined;
  readonly #mayRead: RepositoryPolicy | undefined;
  readonly #rate: RateLimits;
  #counter: RateCounter;
  readonly #stats: Pick<Stats, "rejected">;

  /** Returns the gate for `config`, or undefined if it sets no limits. */
  static of(config: Config, options: GateOptions): Gate | undefined {
    const { repositories, clients, rate } = config.limits ?? {};
    return repositories || clients || rate ? new Gate(config, options) : undefined;
  }

  private constructor({ limits, registries }: Config, { stats, counter }: GateOptions) {
    const { repositories, clients, rate = {} } = limits ?? {};
    this.#clients = clients && addressSet(clients);
    this.#mayRead = repositories && repositoryPolicy(repositories, registries);
    this.#rate = rate;
    this.#counter = counter ?? new MemoryRateCounter();
    this.#stats = stats;
  }

  /** Switches to `counter`, which other instances share. */
  countBy(counter: RateCounter): void {
    this.#counter = counter;
  }

  /** Throws an `OciError` (403) if the client is not allowed. */
  admitClient(client: string | undefined): void {
    if (!this.#clients || client !== undefined && this.#clients.has(client)) return;
    this.#stats.rejected.add("client");
    throw new OciError("DENIED", "This client may not use this proxy");
  }

  /** Throws an `OciError` (403) if the repository is not allowed. */
  admitRepository({ registry, repository }: Target): void {
    if (!this.#mayRead || this.#mayRead(registry, repository)) return;
    this.#stats.rejected.add("repository");
    throw new OciError("DENIED", "This proxy does not serve this repository", {
      detail: { registry: registry.name, repository },
    });
  }

  /** Returns the budget of one request of `client`, or undefined without rate limits. */
  budget(client: string | undefined): RequestBudget | undefined {
    const { hits, misses } = this.#rate;
    if (!hits && !misses) return undefined;
    return new RequestBudget(this.#rate, {
      counter: () => this.#counter,
      client,
      tooMany: (reason, wait) => this.#tooMany(reason, { client, wait }),
    });
  }

  #tooMany(
    reason: Rejection,
    { client, wait }: { client: string | undefined; wait: number },
  ): OciError {
    this.#stats.rejected.add(reason);
    requestLog.debug("Too many requests of {client}: {reason}", { client, reason });
    return new OciError(
      "TOOMANYREQUESTS",
      "Too many requests: this proxy's limit, not upstream's",
      {
        headers: { "retry-after": String(Math.ceil(wait / 1000)) },
      },
    );
  }
}

/** The inputs of a {@linkcode RequestBudget}. */
interface BudgetParts {
  counter(): RateCounter;
  readonly client: string | undefined;
  tooMany(reason: Rejection, wait: number): OciError;
}

/**
 * What one request takes of its client's budgets. One miss is taken before upstream is asked, so that failures count
 * and no burst passes, and given back where it turns out to be a hit.
 */
export class RequestBudget {
  readonly #rate: RateLimits;
  readonly #parts: BudgetParts;
  /** Of the miss: 0 once it is taken. */
  #taking: Promise<number> | undefined;

  constructor(rate: RateLimits, parts: BudgetParts) {
    this.#rate = rate;
    this.#parts = parts;
  }

  /** Takes a miss, once. Throws an `OciError` (429) where there is none left. */
  async takeMiss(): Promise<void> {
    const wait = await this.#take();
    if (wait > 0) throw this.#parts.tooMany("rate_misses", wait);
  }

  async #take(): Promise<number> {
    const { misses } = this.#rate;
    if (!misses) return 0;
    const { counter, client } = this.#parts;
    this.#taking ??= (async () => await counter().take(keyOf("misses", client), misses))();
    return await this.#taking;
  }

  /**
   * Settles what `work` turned out to be, and returns its answer. Whatever is no hit counts as a miss, errors too. Throws an
   * `OciError` (429) in place of a hit that there is none left for.
   */
  async settle(work: () => Promise<Answer>): Promise<Answer> {
    let answer: Answer;
    try {
      answer = await work();
    } catch (error) {
      await this.#take();
      throw error;
    }
    const { counter, client } = this.#parts;
    const { hits, misses } = this.#rate;
    if (answer.cache !== "HIT" && answer.cache !== "STALE") {
      await this.#take(); // it has cost what it costs by now
      return answer;
    }
    if (misses && await this.#taking === 0) {
      await counter().giveBack(keyOf("misses", client), misses);
    }
    const wait = hits ? await counter().take(keyOf("hits", client), hits) : 0;
    if (wait === 0) return answer;
    await answer.response.body?.cancel();
    throw this.#parts.tooMany("rate_hits", wait);
  }
}

/** The key of a budget: what is counted, and the client as it is counted. */
function keyOf(what: "hits" | "misses", client: string | undefined): string {
  return `${what} ${client === undefined ? NOWHERE : rateLimitKey(client)}`;
}
