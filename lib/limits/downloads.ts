/**
 * How many downloads from upstream there may be at once: into the cache, and passed through to one client.
 *
 * @module
 */
import type { Stats } from "../telemetry/stats.ts";
import { rateLimitKey } from "../transforms/policy.ts";
import type { Target } from "../transforms/route.ts";
import { FairQueue, type QueueOwner } from "./fair_queue.ts";
import type { Rejection } from "./gate.ts";

/** Downloads into the cache at once, and those of them that one client began: any number may join them. */
export const MAX_FILLS = 64;
export const MAX_FILLS_PER_CLIENT = 16;
/** The same for what is passed through. Nobody can join that: all clients behind one address need their own. */
export const MAX_PASSTHROUGH = 512;
export const MAX_PASSTHROUGH_PER_CLIENT = 64;

/** Where downloads wait for a place. */
export interface DownloadQueues {
  readonly fills: FairQueue;
  readonly passthrough: FairQueue;
}

/** The queues of one proxy; `maxFills` is `MAX_CONCURRENT_FILLS`. */
export function downloadQueues(
  { maxFills = MAX_FILLS, stats }: {
    readonly maxFills?: number;
    readonly stats: Pick<Stats, "rejected">;
  },
): DownloadQueues {
  // With few places warming leaves some to clients, who wait for them.
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

/** Clients without an address count as one. */
const UNKNOWN = "unknown";
/** Warming is a client of its own; no address looks like it. */
const WARMING = "warming";

/** What {@linkcode ownerOf} looks at. */
export interface OwnedRequest {
  readonly target: Pick<Target, "registry" | "repository">;
  /** The client's address, where it is known. */
  readonly client?: string;
  readonly warming?: boolean;
}

/** Whose turn a download for `request` takes: an IPv6 client is its /64. */
export function ownerOf({ target, client, warming }: OwnedRequest): QueueOwner {
  return {
    client: warming ? WARMING : client === undefined ? UNKNOWN : rateLimitKey(client),
    repository: `${target.registry.id}/${target.repository}`,
  };
}
