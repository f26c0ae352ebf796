/**
 * An upstream's refusal or failure, in the words of the distribution API.
 *
 * @module
 */
import { OciError, type OciErrorCode } from "../oci/error.ts";
import type { TargetKind } from "../transforms/route.ts";
import { readBounded } from "./download/body.ts";

const MAX_ERROR_BODY = 64 * 1024;

const NOT_FOUND: Readonly<Record<TargetKind | "catalog", OciErrorCode>> = {
  manifest: "MANIFEST_UNKNOWN",
  blob: "BLOB_UNKNOWN",
  tags: "NAME_UNKNOWN",
  referrers: "MANIFEST_UNKNOWN",
  catalog: "NAME_UNKNOWN",
};

const CLIENT_ERRORS: Readonly<Record<number, OciErrorCode>> = {
  405: "UNSUPPORTED",
  416: "RANGE_INVALID",
};

/** What upstream's own error body says, where it is one of the specification's. */
async function readErrors(response: Response): Promise<{ message?: string; detail?: unknown }> {
  try {
    const bytes = await readBounded(response, {
      limit: MAX_ERROR_BODY,
      deadline: 5_000,
      what: "error",
    });
    const first = JSON.parse(new TextDecoder().decode(bytes))?.errors?.[0];
    const message = typeof first?.message === "string" ? first.message : undefined;
    return { message, detail: first?.detail ?? undefined };
  } catch {
    return {}; // the status alone says enough
  }
}

/**
 * The error to answer for `response`, an upstream answer that is neither 2xx nor a redirect. 401, 403, 404
 * and 429 are passed on as what they are, with 429's Retry-After; what is upstream's own fault becomes 502
 * with the status in `detail`.
 */
export async function upstreamFailure(
  response: Response,
  options: { kind: TargetKind | "catalog"; host: string },
): Promise<OciError> {
  const { status } = response;
  const { message, detail } = await readErrors(response);
  switch (status) {
    case 401:
      return new OciError("UNAUTHORIZED", message ?? "Authentication required", { detail });
    case 403:
      return new OciError("DENIED", message ?? "Access denied", { detail });
    case 404:
      return notFound(options.kind, message ?? "Not found", detail);
    case 429:
      return new OciError("TOOMANYREQUESTS", message ?? "Too many requests", {
        detail,
        headers: { "retry-after": retryAfter(response.headers) },
      });
    default:
      if (status >= 400 && status < 500) {
        const code = CLIENT_ERRORS[status] ?? "UNKNOWN";
        return new OciError(code, message ?? `Upstream answers ${status}`, { status, detail });
      }
      return new OciError("UNAVAILABLE", `${options.host} answers ${status}`, {
        status: 502,
        detail: { host: options.host, status, message },
      });
  }
}

/** The error for something of `kind` that does not exist. */
export function notFound(
  kind: TargetKind | "catalog",
  message: string,
  detail?: unknown,
): OciError {
  return new OciError(NOT_FOUND[kind], message, { detail });
}

/** Upstream's Retry-After, seconds or a date; a minute where there is none that clients could read. */
export function retryAfter(headers: Headers): string {
  const value = headers.get("retry-after")?.trim() ?? "";
  const isDate = /^[A-Z][a-z]{2}, /.test(value) && !Number.isNaN(Date.parse(value));
  return /^\d{1,9}$/.test(value) || isDate ? value : "60";
}

/** Whether `error` is upstream's trouble, which a cached answer, however old, is better than. */
export function isUpstreamTrouble(error: unknown): error is OciError {
  return error instanceof OciError && (error.status >= 502 || error.status === 429);
}

/** What becomes of a request whose client has left. The status is nginx's; no client sees it. */
export function clientLeft(): OciError {
  return new OciError("UNKNOWN", "The client has left", { status: 499 });
}
