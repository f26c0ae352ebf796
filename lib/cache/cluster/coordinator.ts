/**
 * What instances that share a cache do together: one download per digest, one question per tag.
 *
 * @module
 */
import type { Claim } from "../content/claim.ts";
import type { Caller } from "../../auth/access.ts";
import type { RepositoryKey } from "../../oci/registry.ts";
import { cacheLog } from "../../telemetry/log.ts";
import type { BlobStore } from "../store/blob_store.ts";
import type { Fill } from "../content/fill.ts";
import type { RedisGrants } from "./grants.ts";
import type { Lease, LeaseHolder, Leases } from "./lease.ts";
import {
  FollowedSource,
  type FollowedSourceOptions,
  PEER_PATH,
  peerHasNothing,
  type PeerRequest,
  peerResponse,
  showsKey,
  UnreachablePeers,
} from "./peer.ts";
import type { Quotas } from "../../limits/quota.ts";
import type { RateCounter } from "../../limits/rate_limit.ts";
import { type Redis, RedisDownError } from "../store/redis.ts";
import { causeOf } from "../../upstream/transport/send.ts";
import { RedisRateCounter, SharedQuotas } from "./shared_limits.ts";

/** How often a lease that somebody else has is looked at, ms. */
const LOOK_AGAIN = 50;
/** How long the answer of another instance is waited for before upstream is asked here too, ms. */
const PATIENCE = 5_000;

/** Who downloads: we, by a claim, or another instance, which is followed. */
export type Turn =
  | { readonly kind: "ours"; readonly claim: Claim }
  | { readonly kind: "theirs"; readonly holder: LeaseHolder };

/** Options for {@linkcode Coordinator}. */
export interface CoordinatorOptions {
  readonly leases: Leases;
  readonly grants: RedisGrants;
  readonly store: BlobStore;
  /** How the others reach this one. */
  readonly self: LeaseHolder;
  readonly redis: Redis;
}

/** The instances, as one of them sees them. */
export class Coordinator {
  readonly grants: RedisGrants;
  /** Budgets of clients, wherever they ask. */
  readonly rates: RateCounter;
  readonly #redis: Redis;
  readonly #leases: Leases;
  readonly #store: BlobStore;
  readonly #self: LeaseHolder;
  readonly #unreachable = new UnreachablePeers();

  constructor({ leases, grants, store, self, redis }: CoordinatorOptions) {
    this.#redis = redis;
    this.rates = new RedisRateCounter(redis);
    this.#leases = leases;
    this.grants = grants;
    this.#store = store;
    this.#self = self;
  }

  /** Shares what is heard of quotas, until the returned object is closed. */
  share(quotas: Quotas): { close(): void } {
    return new SharedQuotas(this.#redis, quotas);
  }

  /** Whose turn it is to download `digest`. While nobody can be asked it is everybody's. */
  async turn(digest: string): Promise<Turn> {
    const taken = await this.#acquire(digest);
    if (taken && "holder" in taken) return { kind: "theirs", holder: taken.holder };
    return { kind: "ours", claim: claimOf(taken?.lease) };
  }

  /** The download of another instance, and the claim that it becomes when that instance dies. */
  follow(
    digest: string,
    options: Pick<FollowedSourceOptions, "holder" | "upstream" | "open" | "check">,
  ): { readonly source: FollowedSource; readonly claim: Claim } {
    const leases = this.#leases;
    const store = this.#store;
    const unreachable = this.#unreachable;
    const source = new FollowedSource({ ...options, digest, leases, store, unreachable });
    const claim: Claim = {
      isOurs: () => source.isOurs,
      mayPublish: (closing) => source.mayPublish(closing),
      release: () => source.release(),
    };
    return { source, claim };
  }

  /**
   * What `caller` is called among the instances, for a lease of its own; it tells nothing of the credential. Undefined
   * while they have not agreed on that.
   */
  nameOf(caller: Caller, key: RepositoryKey): string | undefined {
    const { credential } = caller;
    return credential.kind === "anonymous" ? "anonymous" : this.grants.nameOf(credential, key);
  }

  /**
   * Runs `ask` on one instance at a time: the others wait a moment and look with `known` whether its answer
   * is theirs too.
   */
  async once<T>(
    name: string,
    { ask, known }: { ask: () => Promise<T>; known: () => Promise<T | undefined> },
  ): Promise<T> {
    const until = performance.now() + PATIENCE;
    while (true) {
      const taken = await this.#acquire(name);
      if (!taken || "lease" in taken) {
        try {
          return await ask();
        } finally {
          await taken?.lease.release();
        }
      }
      while (performance.now() < until && await this.#isTaken(name)) {
        await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN));
      }
      const answer = await known();
      if (answer !== undefined) return answer;
      if (performance.now() >= until) return await ask();
    }
  }

  /** What another instance is given of a fill of ours; undefined for any other request. */
  answer(
    request: PeerRequest,
    { filling }: { filling: (digest: string) => Fill | undefined },
  ): Response | undefined {
    const { path } = request;
    if (!path.startsWith(PEER_PATH) || !showsKey(request, this.#self.key)) return undefined;
    const fill = filling(path.slice(PEER_PATH.length));
    return fill ? peerResponse(request, fill) : peerHasNothing();
  }

  async #isTaken(name: string): Promise<boolean> {
    try {
      return await this.#leases.isTaken(name);
    } catch {
      return false; // then there is nobody to wait for
    }
  }

  async #acquire(name: string): Promise<Awaited<ReturnType<Leases["acquire"]>> | undefined> {
    try {
      return await this.#leases.acquire(name);
    } catch (error) {
      // Whatever it is, it is no reason not to serve: nobody can be asked who has it.
      if (error instanceof RedisDownError) return;
      cacheLog.warn("Cannot ask who has {name}: {cause}", { name, cause: causeOf(error) });
    }
  }
}

function claimOf(lease: Lease | undefined): Claim {
  return {
    isOurs: () => true,
    mayPublish: async () => await (lease?.isHeld() ?? true),
    release: async () => await lease?.release(),
  };
}
