/**
 * The head of an HTTP/1 answer, and how its body is delimited.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { STATUS_TEXT } from "@std/http";

/** How the end of an answer's body is told. */
export type BodyFraming =
  /** There is none, whatever the headers say. */
  | { readonly kind: "none" }
  | { readonly kind: "length"; readonly length: number }
  | { readonly kind: "chunked" }
  /** By the end of the connection. */
  | { readonly kind: "close" };

/** What decides on an answer's framing. */
export interface ReplyContext {
  readonly method: string;
  /** Of the client's HTTP/1: 0 or 1. */
  readonly minor: number;
  readonly hasBody: boolean;
}

/** How the body of an answer with `status` and `headers` is delimited (RFC 9112 §6.3). */
export function replyFraming(
  { status, headers }: { readonly status: number; readonly headers: Headers },
  { method, minor, hasBody }: ReplyContext,
): BodyFraming {
  if (method === "HEAD" || status === 204 || status === 304) return { kind: "none" };
  if (!hasBody) return { kind: "length", length: 0 };
  const length = headers.get("content-length");
  if (length !== null) return { kind: "length", length: Number(length) };
  return minor === 1 ? { kind: "chunked" } : { kind: "close" };
}

let second = 0;
let date = "";

/** The Date header's value at `now`, ms since the epoch. */
export function httpDate(now: number): string {
  const current = Math.floor(now / 1000);
  if (current !== second) {
    second = current;
    date = new Date(now).toUTCString();
  }
  return date;
}

/** What {@linkcode replyHead} says beyond the answer's own headers. */
export interface ReplyHeadOptions {
  readonly framing: BodyFraming;
  readonly keepAlive: boolean;
  /** Of the client's HTTP/1: 0 or 1. */
  readonly minor: number;
}

/** The status line and headers as they are sent. */
export function replyHead(
  { status, headers }: { readonly status: number; readonly headers: Headers },
  { framing, keepAlive, minor }: ReplyHeadOptions,
): Buffer {
  let text = statusLine(status);
  for (const [name, value] of headers) {
    // How the connection is used is said below, and by nobody else.
    if (name === "connection" || name === "transfer-encoding" || name === "date") continue;
    if (name === "content-length" && framing.kind === "length") continue;
    text += `${name}: ${value}\r\n`;
  }
  if (framing.kind === "length") text += `content-length: ${framing.length}\r\n`;
  if (framing.kind === "chunked") text += "transfer-encoding: chunked\r\n";
  text += connectionLine(keepAlive, minor);
  text += `date: ${httpDate(Date.now())}\r\n\r\n`;
  return Buffer.from(text, "latin1");
}

/** `HTTP/1.1 200 OK` with its line end. */
export function statusLine(status: number): string {
  return `HTTP/1.1 ${status} ${STATUS_TEXT[status as keyof typeof STATUS_TEXT] ?? ""}\r\n`;
}

/** The Connection header, where one has to be sent. */
export function connectionLine(keepAlive: boolean, minor: number): string {
  if (!keepAlive) return "connection: close\r\n";
  return minor === 0 ? "connection: keep-alive\r\n" : "";
}

/** An answer from memory. */
export interface QuickAnswer {
  /** As they go on the wire, body included. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Called when they were sent. */
  sent(): void;
}
