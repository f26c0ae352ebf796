/**
 * Limits concurrent downloads from upstream: into the cache, and passed through to one client.
 *
 * @module
 */
import type { Stats } from "../telemetry/stats.ts";
import { rateLimitKey } from "../transforms/policy.ts";
import type { Target } from "../transforms/route.ts";
import { FairQueue, type QueueOwner } from "./fair_queue.ts";
import type { Rejection } from "./gate.ts";

/**
 * Maximum downloads into the cache, in total and started by one client. Any number of clients may join
 * them.
 */
export const MAX_FILLS = 64;
export const MAX_FILLS_PER_CLIENT = 16;
/**
 * The same for passed-through downloads. They cannot be joined, so all clients behind one address need
 * their own.
 */
export const MAX_PASSTHROUGH = 512;
export const MAX_PASSTHROUGH_PER_CLIENT = 64;

/** The queues of downloads. */
export interface DownloadQueues {
  readonly fills: FairQueue;
  readonly passthrough: FairQueue;
}

/** Creates the queues of one proxy. `maxFills` is `MAX_CONCURRENT_FILLS`. */
export function downloadQueues(
  { maxFills = MAX_FILLS, stats }: {
    readonly maxFills?: number;
    readonly stats: Pick<Stats, "rejected">;
  },
): DownloadQueues {
  // If there are few places, warming leaves some to clients.
  const forWarming = Math.max(1, Math.min(MAX_FILLS_PER_CLIENT, Math.floor(maxFills / 2)));
  const rejects = (reason: Rejection) => () => stats.rejected.add(reason);
  return {
    fills: new FairQueue({
      limit: maxFills,
      perClient: (client) => client === WARMING ? forWarming : MAX_FILLS_PER_CLIENT,
      onRejected: rejects("fill_queue"),
    }),
    passthrough: new FairQueue({
      limit: MAX_PASSTHROUGH,
      perClient: () => MAX_PASSTHROUGH_PER_CLIENT,
      onRejected: rejects("passthrough_queue"),
    }),
  };
}

/** Clients without an address share one entry. */
const UNKNOWN = "unknown";
/** Warming counts as one client. No address equals this key. */
const WARMING = "warming";

/** The inputs of {@linkcode ownerOf}. */
export interface OwnedRequest {
  readonly target: Pick<Target, "registry" | "repository">;
  /** The client's address, if known. */
  readonly client?: string;
  readonly warming?: boolean;
}

/** Returns the owner of a download for `request`. An IPv6 client is its /64. */
export function ownerOf({ target, client, warming }: OwnedRequest): QueueOwner {
  return {
    client: warming ? WARMING : client === undefined ? UNKNOWN : rateLimitKey(client),
    repository: `${target.registry.id}/${target.repository}`,
  };
}
