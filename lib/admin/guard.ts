/**
 * Who may talk to the operator's listener. A browser on the operator's own machine can be made to send
 * requests here by any page it shows: foreign Hosts (DNS rebinding) and cross-site requests are refused.
 *
 * @module
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { isLoopback } from "../settings/values.ts";

/** Why a request is refused: `login` where a token would do. */
export interface Refusal {
  readonly status: 401 | 403;
  readonly reason: string;
}

/** What the listener is. */
export interface GuardOptions {
  readonly host: string;
  readonly token?: string;
}

/** The cookie that a login sets. */
export const COOKIE = "operator";

function digest(text: string): Uint8Array {
  return createHash("sha256").update(text).digest();
}

/** Whether two secrets are the same, in a time that tells nothing of where they differ. */
export function isSame(one: string, other: string): boolean {
  return timingSafeEqual(digest(one), digest(other));
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

/**
 * What the cookie of a login holds: proof of the token, from which it cannot be had. Browsers send cookies to
 * every port of a host, so that other programs there see them.
 */
export function sessionOf(token: string): string {
  return createHmac("sha256", token).update("the operator's cookie").digest("base64url");
}

function cookieOf(headers: Headers): string | undefined {
  const cookies = (headers.get("cookie") ?? "").split(/; */);
  return cookies.find((pair) => pair.startsWith(`${COOKIE}=`))?.slice(COOKIE.length + 1);
}

/** Whether a request shows the token, as bearer or by the cookie of a login. */
function shows(token: string, headers: Headers): boolean {
  const bearer = /^Bearer +(\S+)$/i.exec(headers.get("authorization") ?? "")?.[1];
  // What a tool says aloud counts, not what a browser adds.
  if (bearer !== undefined) return isSame(bearer, token);
  const cookie = cookieOf(headers);
  return cookie !== undefined && isSame(cookie, sessionOf(token));
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

/** Refuses who does not show the token, where there is one. */
export function refuseStranger(headers: Headers, { token }: GuardOptions): Refusal | undefined {
  if (token === undefined || shows(token, headers)) return undefined;
  return { status: 401, reason: "The operator's token is needed" };
}
