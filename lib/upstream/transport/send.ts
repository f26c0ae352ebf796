/**
 * A request with a time limit and retries, and the network's failures in the proxy's own words.
 *
 * @module
 */
import { OciError } from "../../oci/error.ts";
import type { Registry } from "../../oci/registry.ts";
import type { Stats } from "../../telemetry/stats.ts";
import { noteRequest } from "../../telemetry/loop_lag.ts";
import { startTimeout } from "../../util/timeout.ts";
import type { Connect } from "./connect.ts";

/** One request as {@linkcode Send} takes it. */
export interface SendRequest {
  readonly registry: Registry;
  readonly method: string;
  readonly headers: Headers;
  readonly body?: string;
  /** How long to wait for status and headers, ms. @default {30_000} */
  readonly timeout?: number;
  /** Gives it up, the body included: then its reason is thrown. */
  readonly signal?: AbortSignal;
}

/** An answer whose headers are here. */
export interface Sent {
  readonly response: Response;
  /** Ends the connection, whatever of the body is still to come. */
  abort(): void;
}

/** Sends one request. Throws an `OciError`, 502 or 504 with the cause in `detail`. */
export type Send = (url: URL, request: SendRequest) => Promise<Sent>;

/** Options for {@linkcode createSend}. */
export interface SendOptions {
  readonly connect: Connect;
  readonly stats: Stats;
  /** Waits `ms`; tests pass one that does not. @default {setTimeout} */
  readonly sleep?: (ms: number) => Promise<void>;
}

const HEADER_TIMEOUT = 30_000;
const ATTEMPTS = 3;

/** Waits `ms`. */
export function sleepFor(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** What a log may have of `url`: the paths of storage are credentials. */
function shown({ host, origin, pathname }: URL, { url }: Registry): string {
  return origin === url.origin ? host + pathname : host;
}

/** The {@linkcode Send} of who never asks upstream (`OFFLINE`): every request fails, at once. */
export const sendNothing: Send = (url) =>
  Promise.reject(
    new OciError("UNAVAILABLE", `Not asking ${url.host}: OFFLINE is set`, {
      status: 504,
      detail: { host: url.host },
    }),
  );

/** The pause before attempt `n` (from 1): doubling from `base` ms up to 5 s, the half of it by chance. */
export function backoff(n: number, base = 100): number {
  const ceiling = Math.min(base * 2 ** (n - 1), 5_000);
  return ceiling / 2 + Math.random() * ceiling / 2;
}

/**
 * A network failure in words: the innermost cause says most. Without the query of a URL in it: that of
 * presigned storage is a credential, and clients and logs get these words.
 */
export function causeOf(error: unknown): string {
  let message = String(error);
  for (let inner = error; inner instanceof Error; inner = inner.cause) message = inner.message;
  return message.replaceAll(/[\r\n]+/g, " ").replaceAll(
    /(https?:\/\/[^\s?#]*)(?:[?#][^\s)]*)?/g,
    "$1",
  )
    // As fetch says it; which path was asked for is told beside it.
    .replace(
      /^error sending request for url \((https?:\/\/[^/\s)]*)(?:[/\s][^)]*)?\): (client error \(\w+\): )?/,
      "$1: ",
    );
}

/**
 * Returns a {@linkcode Send}. GET and HEAD are tried again after a connection failure (not after a
 * time-out, which has cost the client enough already), with backoff and jitter.
 */
export function createSend({ connect, stats, sleep = sleepFor }: SendOptions): Send {
  const attempt = async (url: URL, request: SendRequest): Promise<Sent> => {
    const controller = new AbortController();
    const limit = request.timeout ?? HEADER_TIMEOUT;
    let timedOut = false;
    const stop = startTimeout(limit, () => {
      timedOut = true;
      controller.abort();
    });
    const started = performance.now();
    const signal = request.signal
      ? AbortSignal.any([controller.signal, request.signal])
      : controller.signal;
    try {
      const response = await connect(url, { ...request, signal });
      noteRequest({ method: request.method, target: shown(url, request.registry) }, undefined);
      stats.upstreamAnswered(request.registry.name, response.status, performance.now() - started);
      return { response, abort: () => controller.abort() };
    } catch (error) {
      // Given up by us: that says nothing about upstream.
      request.signal?.throwIfAborted();
      if (error instanceof OciError) throw error;
      stats.upstreamFailed(request.registry.name, timedOut ? "timeout" : "network");
      const cause = timedOut ? `no answer within ${limit / 1000} s` : causeOf(error);
      throw new OciError("UNAVAILABLE", `Cannot reach ${url.host}`, {
        status: timedOut ? 504 : 502,
        detail: { host: url.host, cause },
        cause: error,
      });
    } finally {
      stop();
    }
  };
  return async (url, request) => {
    const attempts = request.body === undefined ? ATTEMPTS : 1;
    for (let n = 1;; n++) {
      try {
        return await attempt(url, request);
      } catch (error) {
        // Only what the network did is tried again; a refusal by the guard stays one.
        const isNetwork = error instanceof OciError && error.status === 502 &&
          error.cause !== undefined;
        if (n >= attempts || !isNetwork || error.cause instanceof OciError) throw error;
        stats.upstreamRetried(request.registry.name);
        await sleep(backoff(n));
      }
    }
  };
}
