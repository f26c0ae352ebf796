/**
 * Which requests may come from the operator at all. A browser on the operator's own machine can be made to send
 * requests here by any page it shows: foreign Hosts (DNS rebinding) and cross-site requests are refused.
 *
 * @module
 */
import { isLoopback } from "../config/values.ts";

/** Why a request is refused: 401 where a token would do, 429 where it would later. */
export interface Refusal {
  readonly status: 401 | 403 | 429;
  readonly reason: string;
  /** Seconds. */
  readonly retryAfter?: number;
}

/** What the listener is. */
export interface GuardOptions {
  readonly host: string;
}

/** The host of a Host header or origin, without port and brackets, lower case. */
function hostOf(text: string): string {
  return text.toLowerCase().replace(/:\d+$/, "").replace(/^\[|\]$/g, "");
}

/** Whether `value` names this listener: its address, loopback where it is reached by that, or localhost. */
function isOwnHost(value: string, host: string): boolean {
  const named = hostOf(value);
  if (named === hostOf(host) || isLoopback(named)) return true;
  // Elsewhere the token is what protects; a name by which the operator reaches it is not known here.
  return !isLoopback(hostOf(host));
}

/** Refuses what does not come from the operator's own tools or from the page itself. */
export function refuseForeign(request: Request, { host }: GuardOptions): Refusal | undefined {
  const { headers } = request;
  if (!isOwnHost(headers.get("host") ?? "", host)) {
    return { status: 403, reason: "This listener is not known by that name" };
  }
  const site = headers.get("sec-fetch-site");
  const isNavigation = headers.get("sec-fetch-mode") === "navigate" && request.method === "GET";
  if (site !== null && site !== "same-origin" && site !== "none" && !isNavigation) {
    return { status: 403, reason: "Requests of other sites are refused" };
  }
  const origin = headers.get("origin");
  if (origin !== null && URL.parse(origin)?.host !== headers.get("host")) {
    return { status: 403, reason: "Requests of other sites are refused" };
  }
}
