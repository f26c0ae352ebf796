/**
 * Requests to an S3 service: below one prefix of one bucket, none that can hang, tried again where that may
 * help, and not at all while the service is down. Trouble with one object is that object's: the service counts as down
 * only if it has no answer to a question about another one either.
 *
 * @module
 */
import { S3Client, S3Errors } from "@bradenmacdonald/s3-lite-client";
import { DeadlineError, within } from "../../../util/deadline.ts";
import type { S3Setting } from "../../../config/engine_url.ts";
import { backoff } from "../../../upstream/transport/send.ts";
import { BlobUnavailableError, UnreachableError } from "../blob_store.ts";

/** One request may take this long until its headers are here, ms; a part is 8 MiB. */
export const REQUEST_TIMEOUT = 60_000;
const ATTEMPTS = 3;
/** While it is down, it is tried this often, ms. */
const TRY_AGAIN = 2_000;
/** What a client waits for is suspect after this, ms: then it is found out whether the service answers at all. */
const SUSPECT_AFTER = 2_000;
/** How long it has to answer that, ms. */
const PROBE_TIMEOUT = 3_000;
/** An object that nobody stores: who can be asked for it and says that there is none is well. */
const PROBE = "probe";
/**
 * So many different objects that fail within this, ms, with none read to its end meanwhile, are no accident: a service that
 * has lost a disk may well know what it does not have.
 */
const MANY = 3;
const MANY_WITHIN = 30_000;
const SILENT = `The store did not answer in ${(SUSPECT_AFTER + PROBE_TIMEOUT) / 1000} s`;

/** Whether the service answered that it does not have what was asked for. */
export function isMissing(error: unknown): boolean {
  return error instanceof S3Errors.ServerError && error.statusCode === 404 &&
    error.code !== "NoSuchBucket";
}

/** Whether the service answered that it has too much to do, or a fault of its own: asking again may help. */
function isBusy(error: unknown): boolean {
  return error instanceof S3Errors.ServerError &&
    (error.statusCode >= 500 || error.statusCode === 429);
}

/** Hears whether the service is there. */
export interface S3Events {
  /** Called once each time it goes. */
  onDown(cause: unknown): void;
  /** Called once each time it is back. */
  onUp(): void;
}

/** One request that the client library has no method for. */
export interface S3Request {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  readonly query?: string | Record<string, string>;
  readonly payload?: Uint8Array<ArrayBuffer>;
  readonly status?: number;
  /** @default {REQUEST_TIMEOUT} */
  readonly ms?: number;
  readonly onHeaders?: (headers: Headers) => void;
}

/**
 * Asks the service. Methods throw an `UnreachableError` where it does not answer, a `BlobUnavailableError` where it does
 * and only this request fails, and what the client throws where it has not what is asked for.
 */
export class S3Requests {
  readonly client: S3Client;
  /** Of every key, `/` included. */
  readonly prefix: string;
  readonly #events: S3Events | undefined;
  #isUp = true;
  /** Ends the waits that would be in vain. */
  readonly #waiting = new Set<(error: UnreachableError) => void>();
  #probing: Promise<boolean> | undefined;
  /** Objects that failed since one was last read to its end, and when. At most {@linkcode MANY}. */
  readonly #failing = new Map<string, number>();
  /** While it is down: when it is tried again. */
  #tryAt = 0;

  constructor(location: S3Setting, events?: S3Events) {
    this.#events = events;
    const { endpoint, region, bucket, prefix, pathStyle } = location;
    this.client = new S3Client({
      endPoint: endpoint,
      region,
      bucket,
      pathStyle,
      accessKey: location.accessKey,
      secretKey: location.secretKey,
      sessionToken: location.sessionToken,
    });
    this.prefix = prefix && `${prefix}/`;
  }

  /** Whether it answered when it was last asked. */
  get isUp(): boolean {
    return this.#isUp;
  }

  /**
   * What `work` gives within `ms`, again while the service is busy. While it is down it is tried once in a
   * while only. What comes too late goes to `discard`; `key` is the object that is to be read, if any.
   */
  async ask<T>(
    work: () => Promise<T>,
    ms: number,
    discard: (late: T) => unknown = () => {},
    key?: string,
  ): Promise<T> {
    await this.#ensureUp();
    for (let n = 1;; n++) {
      const pending = work();
      try {
        const result = await this.#orDown(pending, ms);
        this.#reached();
        return result;
      } catch (error) {
        const isLate = error instanceof DeadlineError || error instanceof UnreachableError;
        if (isLate) pending.then(discard).catch(() => {});
        if (n < ATTEMPTS && isBusy(error)) {
          await new Promise((resolve) => setTimeout(resolve, backoff(n)));
          continue;
        }
        throw await this.judged(error, key);
      }
    }
  }

  /** `pending` within `ms`; an `UnreachableError` as soon as the service turns out to be down meanwhile. */
  async #orDown<T>(pending: Promise<T>, ms: number): Promise<T> {
    const down = Promise.withResolvers<never>();
    this.#waiting.add(down.reject);
    const suspicion = setTimeout(() => {
      this.#answers().then((isThere) => isThere || this.#unreachable(new DeadlineError(SILENT)));
    }, SUSPECT_AFTER);
    try {
      return await within(Promise.race([pending, down.promise]), { ms, what: "The store" });
    } finally {
      clearTimeout(suspicion);
      this.#waiting.delete(down.reject);
    }
  }

  /**
   * What `error` means that reading `key`, or something else, ended with: of the object alone if the service has an answer to
   * another question, and others do not fail too; else of all.
   */
  async judged(error: unknown, key?: string): Promise<unknown> {
    if (isMissing(error) || error instanceof UnreachableError) return error;
    if (await this.#answers() && !(key !== undefined && this.#isOneOfMany(key))) {
      return new BlobUnavailableError("The store does not give the object", { cause: error });
    }
    return this.#unreachable(error);
  }

  #isOneOfMany(key: string): boolean {
    const now = performance.now();
    this.#failing.delete(key);
    this.#failing.set(key, now);
    for (const [oldest, at] of this.#failing) {
      if (now - at < MANY_WITHIN && this.#failing.size <= MANY) break;
      this.#failing.delete(oldest);
    }
    return this.#failing.size >= MANY;
  }

  /** Notes that an object was read to its end. */
  succeeded(): void {
    this.#failing.clear();
  }

  /** Throws an `UnreachableError` while the service is down; one caller in a while finds out whether it still is. */
  async #ensureUp(): Promise<void> {
    if (this.#isUp) return;
    if (performance.now() >= this.#tryAt) {
      this.#tryAt = performance.now() + TRY_AGAIN;
      if (await this.#answers()) return this.#reached();
    }
    throw new UnreachableError("The store is down");
  }

  /** Whether the service answers a question about an object of no importance; asked once for all who want to know. */
  #answers(): Promise<boolean> {
    return this.#probing ??= this.#probe().finally(() => this.#probing = undefined);
  }

  async #probe(): Promise<boolean> {
    const objectName = this.prefix + PROBE;
    const pending = this.client.makeRequest({ method: "GET", objectName });
    try {
      await within(pending, { ms: PROBE_TIMEOUT, what: "The store" });
      return true;
    } catch (error) {
      if (error instanceof DeadlineError) pending.catch(() => {}); // nobody waits for it any more
      return isMissing(error);
    }
  }

  #reached(): void {
    if (this.#isUp) return;
    this.#isUp = true;
    this.#events?.onUp();
  }

  #unreachable(cause: unknown): UnreachableError {
    const error = new UnreachableError("The store is down", { cause });
    this.#tryAt = performance.now() + TRY_AGAIN;
    if (this.#isUp) {
      this.#isUp = false;
      this.#events?.onDown(cause);
    }
    for (const reject of this.#waiting) reject(error);
    return error;
  }

  /** A request with its answer's text; again after passing trouble. */
  async request(key: string, request: S3Request): Promise<string> {
    const { method, query, payload, status, ms = REQUEST_TIMEOUT, onHeaders } = request;
    const attempt = async () => {
      const response = await this.client.makeRequest({
        method,
        objectName: this.prefix + key,
        query,
        payload,
        statusCode: status,
        returnBody: true,
      });
      onHeaders?.(response.headers);
      return await response.text();
    };
    await this.#ensureUp();
    for (let n = 1;; n++) {
      try {
        const text = await within(attempt(), { ms, what: "The store" });
        this.#reached();
        return text;
      } catch (error) {
        // An account that may not write will not a moment later.
        const mayPass = isBusy(error) || !(error instanceof S3Errors.ServerError);
        if (n === ATTEMPTS || !mayPass || error instanceof DeadlineError) {
          throw await this.judged(error);
        }
        await new Promise((resolve) => setTimeout(resolve, backoff(n)));
      }
    }
  }
}
