/**
 * Who is turned away, and told so: clients and repositories that the operator does not let through, and
 * clients that ask too often. Made only where something of it is configured.
 *
 * @module
 */
import type { Answer } from "../answer.ts";
import type { Config } from "../config.ts";
import { requestLog } from "../log.ts";
import { OciError } from "../oci/error.ts";
import type { Stats } from "../stats.ts";
import {
  type AddressSet,
  addressSet,
  countedAs,
  type RepositoryPolicy,
  repositoryPolicy,
} from "../transforms/policy.ts";
import type { Target } from "../transforms/route.ts";
import { MemoryRateCounter, type RateCounter, type RateLimits } from "./rate.ts";

/** Why a request was turned away, as it is counted. */
export type Rejection =
  | "client"
  | "repository"
  | "rate_hits"
  | "rate_misses"
  | "fill_queue"
  | "passthrough_queue"
  | "connections";

/** Options for {@linkcode Gate}. */
export interface GateOptions {
  readonly stats: Pick<Stats, "rejected">;
  /** @default {a {@linkcode MemoryRateCounter}} */
  readonly counter?: RateCounter;
}

/** Where clients without an address are counted. */
const NOWHERE = "unknown";

/** The gate. */
export class Gate {
  readonly #clients: AddressSet | undefined;
  readonly #mayRead: RepositoryPolicy | undefined;
  readonly #rate: RateLimits;
  #counter: RateCounter;
  readonly #stats: Pick<Stats, "rejected">;

  /** The gate that `config` asks for; undefined where everybody may come in as often as he likes. */
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

  /** Counts by `counter` from now on, which other instances count by too. */
  countBy(counter: RateCounter): void {
    this.#counter = counter;
  }

  /** Throws an `OciError` (403) for a client that may not use this proxy. */
  admitClient(client: string | undefined): void {
    if (!this.#clients || client !== undefined && this.#clients.has(client)) return;
    this.#stats.rejected.add("client");
    throw new OciError("DENIED", "This client may not use this proxy");
  }

  /** Throws an `OciError` (403) for a repository that this proxy does not serve. */
  admitRepository({ registry, repository }: Target): void {
    if (!this.#mayRead || this.#mayRead(registry, repository)) return;
    this.#stats.rejected.add("repository");
    throw new OciError("DENIED", "This proxy does not serve this repository", {
      detail: { registry: registry.name, repository },
    });
  }

  /**
   * What is to be called before upstream is asked for content on behalf of `client`: it throws an
   * `OciError` (429) where its misses are used up. Undefined where they are not counted.
   */
  beforeMiss(client: string | undefined): (() => Promise<void>) | undefined {
    const { misses } = this.#rate;
    if (!misses) return undefined;
    return async () => {
      const wait = await this.#counter.wait(keyOf("misses", client), misses);
      if (wait > 0) throw this.#tooMany("rate_misses", { client, wait });
    };
  }

  /**
   * Takes `answer` from the client's budget for what it turned out to be, and returns it. Throws an
   * `OciError` (429) in place of a hit that it has none left for.
   */
  async charge(client: string | undefined, answer: Answer): Promise<Answer> {
    const isHit = answer.cache === "HIT" || answer.cache === "STALE";
    const what = isHit ? "hits" : "misses";
    const rate = this.#rate[what];
    const wait = rate ? await this.#counter.take(keyOf(what, client), rate) : 0;
    // A miss has cost what it costs by now, and was let in before.
    if (wait === 0 || !isHit) return answer;
    await answer.response.body?.cancel();
    throw this.#tooMany("rate_hits", { client, wait });
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

/** The key of a budget: what is counted, and the client as it is counted. */
function keyOf(what: "hits" | "misses", client: string | undefined): string {
  return `${what} ${client === undefined ? NOWHERE : countedAs(client)}`;
}
