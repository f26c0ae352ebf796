/**
 * The body of an HTTP/1 request, taken from the bytes of its connection.
 *
 * @module
 */
import type { Buffer } from "node:buffer";
import { type Framing, HttpError, isField } from "./head.ts";

/** What is buffered of a connection, and how to get more. */
export interface Inbound {
  /** The bytes received and not taken yet. */
  readonly bytes: Buffer;
  /** Takes `n` of them away. */
  take(n: number): void;
  /** Waits for more; false at the end of the connection. */
  more(): Promise<boolean>;
}

/** A line of the framing, its extensions included, is not longer than this, bytes. */
const LONGEST_LINE = 1024;
/** What the framing of one body may hold beside its sizes: extensions and trailers, bytes. */
const MAX_EXTRAS = 8 * 1024;
const MAX_TRAILERS = 32;
/** A client that means well sends a token request in one chunk, or a few. */
const MAX_CHUNKS = 4096;

/** Reads a body of at most `limit` bytes. Throws an {@linkcode HttpError}: 413 for a longer one. */
export async function readBody(
  inbound: Inbound,
  framing: Framing,
  { limit }: { limit: number },
): Promise<Uint8Array<ArrayBuffer>> {
  if (framing.kind === "length") {
    if (framing.length > limit) throw tooLarge();
    const body = new Uint8Array(framing.length);
    await takeInto(inbound, body);
    return body;
  }
  const chunks: Uint8Array[] = [];
  let length = 0;
  let extras = 0;
  const addExtra = (bytes: number) => {
    extras += bytes;
    if (extras > MAX_EXTRAS) throw new HttpError(431, "Too many chunk extensions or trailers");
  };
  while (true) {
    const { size, extension } = parseChunkLine(await takeLine(inbound));
    addExtra(extension);
    if (size === 0) break;
    length += size;
    if (length > limit || chunks.length === MAX_CHUNKS) throw tooLarge();
    const chunk = new Uint8Array(size);
    await takeInto(inbound, chunk);
    chunks.push(chunk);
    if (await takeLine(inbound) !== "") throw malformed();
  }
  // Trailers mean nothing here, but another reader must not take one for the next request.
  for (let count = 0;; count++) {
    const line = await takeLine(inbound);
    if (line === "") break;
    if (count === MAX_TRAILERS) throw new HttpError(431, "Too many trailers");
    const colon = Math.max(0, line.indexOf(":"));
    if (!isField(line.slice(0, colon), line.slice(colon + 1))) {
      throw new HttpError(400, "Malformed trailer");
    }
    addExtra(line.length);
  }
  const body = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    body.set(chunk, at);
    at += chunk.byteLength;
  }
  return body;
}

/** A chunk's size, and how long its extensions are, in bytes. */
function parseChunkLine(line: string): { size: number; extension: number } {
  const hex = /^[0-9a-f]{1,8}/i.exec(line)?.[0] ?? "";
  const extension = line.slice(hex.length);
  if (hex === "" || !/^(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?$/.test(extension)) throw malformed();
  return { size: parseInt(hex, 16), extension: extension.length };
}

async function takeInto(inbound: Inbound, target: Uint8Array): Promise<void> {
  for (let done = 0; done < target.byteLength;) {
    const part = inbound.bytes.subarray(0, target.byteLength - done);
    target.set(part, done);
    done += part.byteLength;
    inbound.take(part.byteLength);
    if (done < target.byteLength && !await inbound.more()) throw cutShort();
  }
}

/** The next line without its CRLF. A bare LF ends none: another reader might think so. */
async function takeLine(inbound: Inbound): Promise<string> {
  while (true) {
    const text = inbound.bytes.toString("latin1", 0, LONGEST_LINE);
    const end = text.indexOf("\n");
    if (end >= 0) {
      if (text[end - 1] !== "\r") throw malformed();
      inbound.take(end + 1);
      return text.slice(0, end - 1);
    }
    if (text.length === LONGEST_LINE) throw malformed();
    if (!await inbound.more()) throw cutShort();
  }
}

function malformed(): HttpError {
  return new HttpError(400, "Malformed chunk");
}

function tooLarge(): HttpError {
  return new HttpError(413, "The body is too large");
}

function cutShort(): HttpError {
  return new HttpError(400, "The body was cut short");
}
