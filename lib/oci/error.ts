/**
 * The one error class of the proxy, and the one place where it becomes an answer.
 *
 * @module
 */
import { API_VERSION } from "./api_version.ts";

/**
 * The codes of the OCI distribution specification ("Error Codes") that this proxy answers with, and
 * two of the Docker registry's that clients know as well: `UNAVAILABLE` and `UNKNOWN`.
 */
export type OciErrorCode =
  | "BLOB_UNKNOWN"
  | "DENIED"
  | "DIGEST_INVALID"
  | "MANIFEST_INVALID"
  | "MANIFEST_UNKNOWN"
  | "NAME_INVALID"
  | "NAME_UNKNOWN"
  | "RANGE_INVALID"
  | "TOOMANYREQUESTS"
  | "UNAUTHORIZED"
  | "UNAVAILABLE"
  | "UNKNOWN"
  | "UNSUPPORTED";

/** The HTTP status a code means where the thrower says nothing else. */
const STATUS: Readonly<Record<OciErrorCode, number>> = {
  BLOB_UNKNOWN: 404,
  DENIED: 403,
  DIGEST_INVALID: 400,
  MANIFEST_INVALID: 400,
  MANIFEST_UNKNOWN: 404,
  NAME_INVALID: 400,
  NAME_UNKNOWN: 404,
  RANGE_INVALID: 416,
  TOOMANYREQUESTS: 429,
  UNAUTHORIZED: 401,
  UNAVAILABLE: 502,
  UNKNOWN: 500,
  UNSUPPORTED: 405,
};

/** Options for {@linkcode OciError}. */
export interface OciErrorOptions {
  /** @default the status the code usually has: 502 for `UNAVAILABLE`, 404 for `NAME_UNKNOWN` */
  readonly status?: number;
  /** Shown to the client as it is: never a secret, never a signed URL. */
  readonly detail?: unknown;
  /** Headers of the answer: `retry-after`, `www-authenticate`, `allow`. */
  readonly headers?: Readonly<Record<string, string>>;
  /** For the log; never shown to the client. */
  readonly cause?: unknown;
}

/** An error that has an answer: thrown anywhere, rendered at the edge by {@linkcode renderError}. */
export class OciError extends Error {
  /** Tells it from other errors. */
  override readonly name = "OciError";
  /** The code of the distribution API. */
  readonly code: OciErrorCode;
  /** The status of the answer. */
  readonly status: number;
  /** What the answer says beside the message. */
  readonly detail?: unknown;
  /** Headers of the answer. */
  readonly headers?: Readonly<Record<string, string>>;

  /** Makes an error; the status is the code's own unless the options say another. */
  constructor(code: OciErrorCode, message: string, options: OciErrorOptions = {}) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.code = code;
    this.status = options.status ?? STATUS[code];
    this.detail = options.detail;
    this.headers = options.headers;
  }
}

/**
 * Returns the answer for `error`: the specification's JSON body with an exact Content-Length in
 * bytes. For HEAD the same headers with a null body: clients read the status and the length there.
 */
export function renderError(error: OciError, method = "GET"): Response {
  const { code, message, detail } = error;
  const body = new TextEncoder().encode(JSON.stringify({ errors: [{ code, message, detail }] }));
  const headers = new Headers(error.headers);
  for (const [name, value] of Object.entries(API_VERSION)) headers.set(name, value);
  headers.set("cache-control", "no-store");
  headers.set("content-type", "application/json");
  headers.set("content-length", String(body.byteLength));
  return new Response(method === "HEAD" ? null : body, { status: error.status, headers });
}
