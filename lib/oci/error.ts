/**
 * The proxy's error class, and its rendering as an answer.
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

/** The default HTTP status of each code. */
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
  /** Shown to the client. Must not contain secrets or signed URLs. */
  readonly detail?: unknown;
  /** Additional headers of the answer: `retry-after`, `www-authenticate`, `allow`. */
  readonly headers?: Readonly<Record<string, string>>;
  /** The cause for the log. Never shown to the client. */
  readonly cause?: unknown;
}

/** An error with an HTTP answer. {@linkcode renderError} renders it. */
export class OciError extends Error {
  /** The name of this class of error. */
  override readonly name = "OciError";
  /** The error code of the distribution API. */
  readonly code: OciErrorCode;
  /** The HTTP status. */
  readonly status: number;
  /** Details for the client. */
  readonly detail?: unknown;
  /** Additional headers. */
  readonly headers?: Readonly<Record<string, string>>;

  /** Creates an error. The status defaults to that of the code. */
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
