/**
 * Proof of the operator's token, and how often it may be guessed.
 *
 * @module
 */
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { adminLog } from "../telemetry/log.ts";
import { ByteLru } from "../util/lru.ts";
import { rateLimitKey } from "../transforms/policy.ts";
import type { Refusal } from "./guard.ts";

/** The cookie that a login sets. */
const COOKIE = "operator";
const ATTRIBUTES = "HttpOnly; SameSite=Strict; Path=/";

/** Wrong tokens of one address that cost it nothing yet. */
const FREE_FAILURES = 5;
/** The pause after the next wrong token, ms. It doubles with each one. */
const FIRST_PAUSE = 500;
/** Short enough for an operator who shares the address of a misconfigured scraper to get in between. */
const LONGEST_PAUSE = 8_000;
/** Failures are forgotten after this much time without another, ms. */
const FORGET_AFTER = 10 * 60_000;
/** Memory for addresses, bytes. */
const ADDRESSES_MEMORY = 2 ** 20;

interface Failures {
  readonly count: number;
  readonly at: number;
  /** No token is looked at before. */
  readonly until: number;
}

function digest(text: string): Uint8Array {
  return createHash("sha256").update(text).digest();
}

/** Whether two secrets are the same, in a time that tells nothing of where they differ. */
export function isSame(one: string, other: string): boolean {
  return timingSafeEqual(digest(one), digest(other));
}

/** Options for {@linkcode Login}. */
export interface LoginOptions {
  /** Absent: everybody is let in. */
  readonly token?: string;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/**
 * Checks the operator's token. Wrong tokens slow down the address that they come from: while it pauses, no token from
 * there is looked at, not even the right one, or guessing would go on at full speed. Other addresses are not
 * concerned, and neither is a browser that has logged in: its cookie is no guess at the token.
 */
export class Login {
  readonly #token: string | undefined;
  readonly #now: () => number;
  /**
   * The value of the cookie. It cannot be computed from the token, or guesses at the token could be tried as cookies.
   * Browsers show a cookie to every port of a host, so it is not the token itself either. A restart ends it.
   */
  readonly #session: string;
  /** By client address, an IPv6 one by its network: one client has all of that. */
  readonly #failures = new ByteLru<Failures>({ bytes: ADDRESSES_MEMORY, sizeOf: () => 60 });

  constructor({ token, now = Date.now }: LoginOptions) {
    this.#token = token;
    this.#now = now;
    this.#session = token === undefined
      ? ""
      : createHmac("sha256", randomBytes(32)).update(token).digest("base64url");
  }

  /** Why a request of `client` with these headers is refused: without the token, or too many wrong ones. */
  refuse(headers: Headers, client: string): Refusal | undefined {
    if (this.#token === undefined) return undefined;
    const authorization = headers.get("authorization") ?? "";
    const bearer = /^Bearer +(\S.*)$/i.exec(authorization)?.[1];
    if (bearer === undefined) {
      const cookie = cookieOf(headers);
      return cookie !== undefined && isSame(cookie, this.#session)
        ? undefined
        : { status: 401, reason: "The operator's token is needed" };
    }
    // What a tool says aloud counts, not what a browser adds.
    return this.#refuseToken(bearer, this.#token, rateLimitKey(client));
  }

  #refuseToken(shown: string, token: string, address: string): Refusal | undefined {
    const now = this.#now();
    const known = this.#failures.get(address);
    if (known && known.until > now) {
      const retryAfter = Math.ceil((known.until - now) / 1000);
      return { status: 429, reason: "Too many wrong tokens from this address", retryAfter };
    }
    if (isSame(shown, token)) {
      this.#failures.delete(address);
      return undefined;
    }
    const count = known && now - known.at < FORGET_AFTER ? known.count + 1 : 1;
    const pause = count < FREE_FAILURES
      ? 0
      : Math.min(FIRST_PAUSE * 2 ** (count - FREE_FAILURES), LONGEST_PAUSE);
    this.#failures.set(address, { count, at: now, until: now + pause });
    // Not each one: what guesses would fill the log.
    if (Number.isInteger(Math.log2(count))) {
      adminLog.warn("Wrong operator's token from {client}", { client: address, count });
    }
    return { status: 401, reason: "That is not the operator's token" };
  }

  /** The Set-Cookie of who has shown the token. */
  cookie(): string {
    return `${COOKIE}=${this.#session}; ${ATTRIBUTES}`;
  }

  /** The Set-Cookie that takes it back. */
  static forgetCookie(): string {
    return `${COOKIE}=; ${ATTRIBUTES}; Max-Age=0`;
  }
}

function cookieOf(headers: Headers): string | undefined {
  const cookies = (headers.get("cookie") ?? "").split(";").map((pair) => pair.trim());
  return cookies.find((pair) => pair.startsWith(`${COOKIE}=`))?.slice(COOKIE.length + 1);
}
