/**
 * Requests to an S3 service: below one prefix of one bucket, none that can hang, tried again where that may
 * help, and not at all while the service is down.
 *
 * @module
 */
import { S3Client, S3Errors } from "@bradenmacdonald/s3-lite-client";
import { DeadlineError, within } from "../deadline.ts";
import type { S3Setting } from "../engine_url.ts";
import { backoff } from "../upstream/send.ts";
import { UnreachableError } from "./blob_store.ts";

/** One request may take this long until its headers are here, ms; a part is 8 MiB. */
export const REQUEST_TIMEOUT = 60_000;
const ATTEMPTS = 3;
/** While it is down, it is tried this often, ms. */
const TRY_AGAIN = 2_000;

/** Whether the service answered that it does not have what was asked for. */
export function isMissing(error: unknown): boolean {
  return error instanceof S3Errors.ServerError && error.statusCode === 404;
}

/** Whether the service answered that it has too much to do, or a fault of its own: asking again may help. */
function isBusy(error: unknown): boolean {
  return error instanceof S3Errors.ServerError &&
    (error.statusCode >= 500 || error.statusCode === 429);
}

/** Whether it tells of the service, or of our account there, and nothing of what was asked for. */
function isTrouble(error: unknown): boolean {
  if (!(error instanceof S3Errors.ServerError)) return true;
  const { statusCode, code } = error;
  return isBusy(error) || statusCode === 401 || statusCode === 403 ||
    ["NoSuchBucket", "ExpiredToken", "InvalidToken"].includes(code);
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
 * Asks the service. Methods throw an `UnreachableError` where it does not answer, and what the client throws
 * for what it answers.
 */
export class S3Requests {
  readonly client: S3Client;
  /** Of every key, `/` included. */
  readonly prefix: string;
  readonly #events: S3Events | undefined;
  #isUp = true;
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
   * while only. What comes too late goes to `discard`.
   */
  async ask<T>(
    work: () => Promise<T>,
    ms: number,
    discard: (late: T) => unknown = () => {},
  ): Promise<T> {
    const wasUp = this.#isUp;
    if (!wasUp && performance.now() < this.#tryAt) throw new UnreachableError("The store is down");
    for (let n = 1;; n++) {
      const pending = work();
      try {
        const result = await within(pending, { ms, what: "The store" });
        this.#reached();
        return result;
      } catch (error) {
        if (error instanceof DeadlineError) pending.then(discard).catch(() => {});
        if (wasUp && n < ATTEMPTS && isBusy(error)) {
          await new Promise((resolve) => setTimeout(resolve, backoff(n)));
          continue;
        }
        if (isTrouble(error)) throw this.#unreachable(error);
        this.#reached();
        throw error;
      }
    }
  }

  #reached(): void {
    if (this.#isUp) return;
    this.#isUp = true;
    this.#events?.onUp();
  }

  #unreachable(cause: unknown): UnreachableError {
    this.#tryAt = performance.now() + TRY_AGAIN;
    if (this.#isUp) {
      this.#isUp = false;
      this.#events?.onDown(cause);
    }
    return new UnreachableError("The store is down", { cause });
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
    for (let n = 1;; n++) {
      try {
        const text = await within(attempt(), { ms, what: "The store" });
        this.#reached();
        return text;
      } catch (error) {
        if (!isTrouble(error)) throw error;
        // An account that may not write will not a moment later.
        const mayPass = isBusy(error) || !(error instanceof S3Errors.ServerError);
        if (n === ATTEMPTS || !mayPass || error instanceof DeadlineError) {
          throw this.#unreachable(error);
        }
        await new Promise((resolve) => setTimeout(resolve, backoff(n)));
      }
    }
  }
}
