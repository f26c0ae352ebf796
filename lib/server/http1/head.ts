/**
 * The head of an HTTP/1 request, parsed strictly (RFC 9112): where two readers of the same bytes could
 * disagree about where a request ends, it is refused.
 *
 * @module
 */
import type { Buffer } from "node:buffer";
import { OciError } from "../../oci/error.ts";
import { addressOf, isHost, type RequestAddress } from "../../request/request_context.ts";
import { isFieldTooLong, MAX_FIELDS, MAX_HEADERS } from "../../request/bounds.ts";

/** A request's head. */
export interface RequestHead {
  readonly method: string;
  /** As it was sent. */
  readonly target: string;
  /** Of HTTP/1: 0 or 1. */
  readonly minor: number;
  /** Names, in lower case, and values in turn, in the order they were sent. */
  readonly fields: readonly string[];
  /** The bytes it took. */
  readonly length: number;
}

/** A request that is not answered as such; the connection ends with it. */
export class HttpError extends Error {
  override readonly name = "HttpError";
  readonly status: number;
  /** The code in its body. */
  readonly code: string;
  /** When to try again, seconds. */
  readonly retryAfter?: number;

  constructor(status: number, message: string, code = "UNKNOWN", retryAfter?: number) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** What begins like TLS. Clients that may use plain http try https first, and wait 10 s for an answer. */
export class TlsHelloError extends HttpError {
  constructor() {
    super(400, "TLS, and only plain http is spoken here");
  }
}

const LF = 0x0a;
const TLS_HELLO = "\x16";
const TOKEN = /^[!#$%&'*+\-.^_`|~\w]+$/;
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
const REQUEST_LINE = /^([!#$%&'*+\-.^_`|~\w]+) ([\x21-\x7e]+) HTTP\/1\.([01])$/;

/**
 * Parses the head that begins at `start` of `buffer`, of which the bytes before `end` have been received.
 * Undefined while it is incomplete. Throws an {@linkcode HttpError} (400) for what is no HTTP/1 request.
 */
export function parseHead(
  buffer: Buffer,
  { start, end }: { start: number; end: number },
): RequestHead | undefined {
  const text = buffer.toString("latin1", start, end);
  // Blank lines before a request line are skipped (RFC 9112 §2.2).
  let from = 0;
  while (text.startsWith("\r\n", from)) from += 2;
  if (text[from] === TLS_HELLO) throw new TlsHelloError();
  // At once, too: what is no request may have no end either.
  if (from < text.length && text[from] !== "\r" && !TOKEN.test(text[from]!)) {
    throw new HttpError(400, "Malformed request line");
  }
  const to = text.indexOf("\r\n\r\n", from);
  if (to < 0) {
    // Before its end comes, which with bare line feeds would be never.
    if (/(?:^|[^\r])\n/.test(text)) throw new HttpError(400, "Malformed header");
    return undefined;
  }
  // No more of them than it takes to see that there are too many.
  const lines = text.slice(from, to).split("\r\n", MAX_FIELDS + 2);
  if (lines.length > MAX_FIELDS + 1) throw tooMuch("Too many header fields");
  const [, method, target, minor] = REQUEST_LINE.exec(lines[0]!) ?? [];
  if (!method || !target) throw new HttpError(400, "Malformed request line");
  if (to - from - lines[0]!.length > MAX_HEADERS) throw tooMuch("Header fields too large");
  const fields: string[] = [];
  for (let i = 1; i < lines.length; i++) {
    const line = lines[i]!;
    const colon = line.indexOf(":");
    const name = line.slice(0, Math.max(0, colon));
    const value = line.slice(colon + 1);
    if (!isField(name, value)) throw new HttpError(400, "Malformed header");
    const known = name.toLowerCase();
    if (isFieldTooLong(known, value)) throw tooMuch("Header field too long");
    fields.push(known, trimmed(value));
  }
  return { method, target, minor: Number(minor), fields, length: to + 4 };
}

/**
 * Whether these are the name and the value of a header or a trailer. No space before the colon, no folded line, no bare
 * CR or LF: others read those differently.
 */
export function isField(name: string, value: string): boolean {
  return TOKEN.test(name) && VALUE.test(value);
}

function tooMuch(message: string): HttpError {
  return new HttpError(431, message, "UNSUPPORTED");
}

/** Counts the lines of a head while it is received, so that one with too many is refused before its end. */
export class LineCount {
  #seen = 0;
  #lines = 0;

  /**
   * Looks at what has come since the last time. Returns whether there is anything in it that ends a line: without,
   * the head is as incomplete as before. Throws an {@linkcode HttpError} (431).
   */
  isMore(received: Buffer): boolean {
    const from = this.#seen;
    const before = this.#lines;
    this.#seen = received.byteLength;
    for (let at = received.indexOf(LF, from); at >= 0; at = received.indexOf(LF, at + 1)) {
      if (++this.#lines > MAX_FIELDS + 1) throw tooMuch("Too many header fields");
    }
    return this.#lines > before;
  }
}

/** Without the spaces and tabs around it. Not `trim`: that takes other bytes for spaces too. */
function trimmed(value: string): string {
  let start = 0;
  let end = value.length;
  while (start < end && isBlank(value.charCodeAt(start))) start++;
  while (end > start && isBlank(value.charCodeAt(end - 1))) end--;
  return value.slice(start, end);
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}

/** The value of the field `name` (lower case); null without one, joined by commas where there are several. */
export function field({ fields }: RequestHead, name: string): string | null {
  let found: string | null = null;
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] === name) found = found === null ? fields[i + 1]! : `${found}, ${fields[i + 1]}`;
  }
  return found;
}

/** How many fields `name` (lower case) there are. */
function count({ fields }: RequestHead, name: string): number {
  let n = 0;
  for (let i = 0; i < fields.length; i += 2) if (fields[i] === name) n++;
  return n;
}

/** How a request's body is delimited. */
export type Framing = { readonly kind: "length"; readonly length: number } | {
  readonly kind: "chunked";
};

const NO_BODY: Framing = Object.freeze({ kind: "length", length: 0 });

/**
 * How the body of a request is delimited (RFC 9112 §6.3). Throws an {@linkcode HttpError} for one that
 * says it twice or in a way that is not understood here, since a server in front may have believed the other.
 */
export function framingOf(head: RequestHead): Framing {
  const coding = field(head, "transfer-encoding");
  const length = field(head, "content-length");
  if (coding !== null) {
    if (length !== null || head.minor === 0) throw new HttpError(400, "Ambiguous body length");
    if (coding.toLowerCase() !== "chunked") throw new HttpError(501, "Unknown transfer coding");
    return { kind: "chunked" };
  }
  if (length === null) return NO_BODY;
  if (!/^\d{1,15}$/.test(length)) throw new HttpError(400, "Malformed Content-Length");
  return { kind: "length", length: Number(length) };
}

/** Whether the client means to send another request on this connection. */
export function keepsAlive(head: RequestHead): boolean {
  const options = field(head, "connection");
  if (options === null) return head.minor === 1;
  const words = options.toLowerCase().split(",").map((word) => word.trim());
  if (words.includes("close")) return false;
  return head.minor === 1 || words.includes("keep-alive");
}

/**
 * Where a request goes. `fallback` is the host of requests that need none (HTTP/1.0). Throws an
 * {@linkcode HttpError} (400) for no host, two, and one that would change what the rest of the URL means.
 */
export function targetOf(head: RequestHead, fallback: string): RequestAddress {
  const { target, minor } = head;
  const hosts = count(head, "host");
  if (hosts > 1 || hosts === 0 && minor === 1) {
    throw new HttpError(400, "Exactly one Host is needed", "NAME_INVALID");
  }
  const host = field(head, "host");
  if (target.startsWith("/")) {
    const named = host ?? fallback;
    if (!isHost(named)) throw new HttpError(400, "Malformed Host", "NAME_INVALID");
    return { host: named.toLowerCase(), target };
  }
  if (!/^https?:\/\//i.test(target)) throw new HttpError(400, "Malformed request target");
  try {
    return addressOf(target, host);
  } catch (error) {
    if (!(error instanceof OciError)) throw error;
    throw new HttpError(error.status, error.message, error.code);
  }
}
