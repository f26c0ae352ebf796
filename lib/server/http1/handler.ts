/**
 * What answers the requests of a listener's connections, and what it is told of them.
 *
 * @module
 */
import type { QuickAnswer } from "../../response/wire.ts";
import type { Answer } from "../../response/answer.ts";
import type { HotRequest } from "../../response/response_cache.ts";

/** Who answers. */
export interface Handler {
  /** An answer that is in memory, if there is one and this client may have it. */
  quick?(request: HotRequest, client: string): QuickAnswer | undefined;
  /** Any answer. */
  answer(request: Request, info: RequestInfo): Promise<Answer>;
}

/** What is known of a request besides itself. */
export interface RequestInfo {
  readonly remoteAddr: Deno.Addr;
  /** What its connection was accepted with. */
  readonly scheme: Scheme;
  /** Path and query as they were sent, not normalized. */
  readonly target: string;
  /** Aborted when the client leaves before its answer has begun. */
  readonly left?: () => AbortSignal;
}

/** What a connection is accepted with. */
export type Scheme = "http" | "https";
