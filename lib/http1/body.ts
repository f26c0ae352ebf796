/**
 * The body of an HTTP/1 request, taken from the bytes of its connection.
 *
 * @module
 */
import type { Buffer } from "node:buffer";
import { type Framing, HttpError } from "./head.ts";

/** What is buffered of a connection, and how to get more. */
export interface Inbound {
  /** The bytes received and not taken yet. */
  readonly bytes: Buffer;
  /** Takes `n` of them away. */
  take(n: number): void;
  /** Waits for more; false at the end of the connection. */
  more(): Promise<boolean>;
}

/** A chunk's size line, extensions included, is not longer than this. */
const LONGEST_LINE = 1024;

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
  while (true) {
    const size = chunkSize(await takeLine(inbound));
    if (size === 0) break;
    length += size;
    if (length > limit) throw tooLarge();
    const chunk = new Uint8Array(size);
    await takeInto(inbound, chunk);
    chunks.push(chunk);
    if (await takeLine(inbound) !== "") throw new HttpError(400, "Malformed chunk");
  }
  // Trailers are read and mean nothing here.
  for (let lines = 0; await takeLine(inbound) !== ""; lines++) {
    if (lines === 32) throw new HttpError(431, "Too many trailers");
  }
  const body = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    body.set(chunk, at);
    at += chunk.byteLength;
  }
  return body;
}

function chunkSize(line: string): number {
  const [, hex] = /^([0-9a-f]{1,8})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?$/i.exec(line) ?? [];
  if (hex === undefined) throw new HttpError(400, "Malformed chunk");
  return parseInt(hex, 16);
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

async function takeLine(inbound: Inbound): Promise<string> {
  while (true) {
    const text = inbound.bytes.toString("latin1", 0, LONGEST_LINE);
    const end = text.indexOf("\r\n");
    if (end >= 0) {
      inbound.take(end + 2);
      return text.slice(0, end);
    }
    if (text.length === LONGEST_LINE) throw new HttpError(400, "Malformed chunk");
    if (!await inbound.more()) throw cutShort();
  }
}

function tooLarge(): HttpError {
  return new HttpError(413, "The body is too large");
}

function cutShort(): HttpError {
  return new HttpError(400, "The body was cut short");
}
