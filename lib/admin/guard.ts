/**
 * Decides which requests may reach the operator's listener. Any web page can make a browser on the
 * operator's machine send requests here, so unknown Host headers (DNS rebinding) and cross-site requests
 * are rejected.
 *
 * @module
 */
import { isLoopback } from "../config/values.ts";

/** Why a request is rejected: 401 if a token is needed, 429 if it should be retried later. */
export interface Refusal {
  readonly status: 401 | 403 | 429;
  readonly reason: string;
  /** Seconds until a retry makes sense. */
  readonly retryAfter?: number;
}

/** The address of the listener. */
export interface GuardOptions {
  readonly host: string;
}

/** Returns the host of a Host header or origin in lower case, without port and brackets. */
function hostOf(text: string): string {
  return text.toLowerCase().replace(/:\d+$/, "").replace(/^\[|\]$/g, "");
}

/**
 * Whether `value` names this listener: its address, localhost, or any loopback address if it listens on
 * loopback.
 */
function isOwnHost(value: string, host: string): boolean {
  const named = hostOf(value);
  if (named === hostOf(host) || isLoopback(named)) return true;
  // On other addresses the token protects the listener. The names that the operator uses for it are
  // unknown.
  return !isLoopback(hostOf(host));
}

/** Rejects requests that come neither from the operator's tools nor from the page itself. */
export function refuseForeign(request: Request, { host }: GuardOptions): Refusal | undefined {
  const { headers } = request;
  if (!isOwnHost(headers.get("host") ?? "", host)) {
    return { status: 403, reason: "The Host header does not name this listener" };
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
