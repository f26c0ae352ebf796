/**
 * The request lines of a proxy's log, as `LOG_FORMAT=json` writes them.
 *
 * @module
 */
import type { ProxyProcess } from "./proxy_process.ts";

/** One request, as the log tells it. */
export interface RequestLine {
  readonly method: string;
  readonly path: string;
  readonly host: string;
  readonly status: number;
  readonly kind: string;
  readonly registry?: string;
  readonly repository?: string;
  /** Tag or digest. */
  readonly reference?: string;
  /** `HIT`, `MISS`, `STALE` or `BYPASS`. */
  readonly cache?: string;
}

/** The requests in the log. It is written a little later than the answers: complete once the proxy was stopped. */
export function requestLines(proxy: Pick<ProxyProcess, "logs">): RequestLine[] {
  return proxy.logs().filter((line) => /"logger":"proxy.request",("id":\d+,)?"method"/.test(line))
    .map((line) => JSON.parse(line));
}
