/**
 * Checks the operator's token, and limits how often it can be guessed.
 *
 * @module
 */
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { adminLog } from "../telemetry/log.ts";
import { ByteLru } from "../util/lru.ts";
import { rateLimitKey } from "../transforms/policy.ts";
import type { Refusal } from "./guard.ts";

/** The name of the cookie that a login sets. */
const COOKIE = "operator";
const ATTRIBUTES = "HttpOnly; SameSite=Strict; Path=/";

/** Number of wrong tokens from one address that cause no pause. */
const FREE_FAILURES = 5;
/** The pause after the next wrong token, in ms. It doubles with each further one. */
const FIRST_PAUSE = 500;
/**
 * The longest pause, in ms. It still lets in an operator who shares an address with a misconfigured
 * scraper.
 */
const LONGEST_PAUSE = 8_000;
/** Failures are forgotten after this time without another one, in ms. */
const FORGET_AFTER = 10 * 60_000;
/** Maximum memory for addresses, in bytes. */
const ADDRESSES_MEMORY = 2 ** 20;

interface Failures {
  readonly count: number;
  readonly at: number;
  /** No token is checked before this time. */
  readonly until: number;
}

function digest(text: string): Uint8Array {
  return createHash("sha256").update(text).digest();
}

/** Compares two secrets in constant time. */
export function isSame(one: string, other: string): boolean {
  return timingSafeEqual(digest(one), digest(other));
}

/** Options for {@linkcode Login}. */
export interface LoginOptions {
  /** The token. If undefined, every client is let in. */
  readonly token?: string;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/**
 * Checks the operator's token. Wrong tokens pause the address that sends them: until the pause ends, no
 * token from there is checked, not even the right one, because otherwise guessing would continue at full
 * speed. Other addresses are unaffected, and so are browsers that have logged in, because a cookie is not a
 * guess at the token.
 */
export class Login {
  readonly #token: string | undefined;
  readonly #now: () => number;
  /**
   * The value of the cookie. It is random: if it were derived from the token, guesses at the token could be
   * tried as cookies. It is not the token itself, because browsers send a cookie to every port of a host. A
   * restart invalidates it.
   */
  readonly #session: string;
  /** Failures by client address. An IPv6 address counts as its network, because one client has all of it. */
  readonly #failures = new ByteLru<Failures>({ bytes: ADDRESSES_MEMORY, sizeOf: () => 60 });

  constructor({ token, now = Date.now }: LoginOptions) {
    this.#token = token;
    this.#now = now;
    this.#session = token === undefined
      ? ""
      : createHmac("sha256", randomBytes(32)).update(token).digest("base64url");
  }

  /**
   * Returns why a request of `client` with these headers is rejected, or undefined if it is authenticated.
   */
  refuse(headers: Headers, client: string): Refusal | undefined {
    if (this.#token === undefined) return undefined;
    const authorization = headers.get("authorization") ?? "";
    const bearer = /^Bearer +(\S.*)$/i.exec(authorization)?.[1];
    if (bearer === undefined) {
      const cookie = cookieOf(headers);
      return cookie !== undefined && isSame(cookie, this.#session)
        ? undefined
        : { status: 401, reason: "The operator's token is required" };
    }
    // The Authorization header takes precedence over the cookie that a browser adds.
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
    // Log only some of them, so that guesses do not fill the log.
    if (Number.isInteger(Math.log2(count))) {
      adminLog.warn("Wrong operator's token from {client}", { client: address, count });
    }
    return { status: 401, reason: "Wrong operator's token" };
  }

  /** Returns the Set-Cookie header of a successful login. */
  cookie(): string {
    return `${COOKIE}=${this.#session}; ${ATTRIBUTES}`;
  }

  /** Returns the Set-Cookie header that deletes the cookie. */
  static forgetCookie(): string {
    return `${COOKIE}=; ${ATTRIBUTES}; Max-Age=0`;
  }
}

function cookieOf(headers: Headers): string | undefined {
  const cookies = (headers.get("cookie") ?? "").split(";").map((pair) => pair.trim());
  return cookies.find((pair) => pair.startsWith(`${COOKIE}=`))?.slice(COOKIE.length + 1);
}
