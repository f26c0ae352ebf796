/**
 * Frames of HTTP/2, for clients that do what no decent one would (RFC 9113).
 *
 * @module
 */

/** Kinds of frames. */
export const FRAME = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  window: 8,
} as const;

const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END_STREAM = 1;
const END_HEADERS = 4;

/** One frame. */
export function frame(
  type: number,
  payload: Uint8Array = new Uint8Array(),
  { stream = 0, flags = 0 }: { stream?: number; flags?: number } = {},
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(9 + payload.byteLength);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, payload.byteLength << 8 | type);
  view.setUint8(4, flags);
  view.setUint32(5, stream);
  bytes.set(payload, 9);
  return bytes;
}

/** How a client begins: its preface, and settings where each stream may be sent `window` bytes unasked. */
export function beginning({ window = 65_535 }: { window?: number } = {}): Uint8Array<ArrayBuffer> {
  const settings = new Uint8Array(6);
  const view = new DataView(settings.buffer);
  view.setUint16(0, 4);
  view.setUint32(2, window);
  return joined([new TextEncoder().encode(PREFACE), frame(FRAME.settings, settings)]);
}

/** A GET without a body. */
export function get(
  path: string,
  { authority, stream = 1 }: { authority: string; stream?: number },
): Uint8Array<ArrayBuffer> {
  // HPACK (RFC 7541): :method GET and :scheme https are in its table, the others are literals.
  const fields = joined([
    new Uint8Array([0x82, 0x87]),
    literal(0x04, path),
    literal(0x01, authority),
  ]);
  return frame(FRAME.headers, fields, { stream, flags: END_STREAM | END_HEADERS });
}

function literal(name: number, value: string): Uint8Array {
  return joined([new Uint8Array([name, value.length]), new TextEncoder().encode(value)]);
}

/** All of `parts` in one. */
export function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parts.reduce((sum, { byteLength }) => sum + byteLength, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.byteLength;
  }
  return bytes;
}

/** A frame as it was received. */
export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Uint8Array;
}

/** The frames that come on `conn` until it ends, however it does. */
export async function* framesOf(conn: Deno.Conn): AsyncGenerator<Frame> {
  let bytes = new Uint8Array();
  while (true) {
    while (bytes.byteLength >= 9) {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const length = view.getUint32(0) >>> 8;
      if (bytes.byteLength < 9 + length) break;
      const { type, flags, stream } = {
        type: view.getUint8(3),
        flags: view.getUint8(4),
        stream: view.getUint32(5),
      };
      yield { type, flags, stream, payload: bytes.slice(9, 9 + length) };
      bytes = bytes.slice(9 + length);
    }
    const buffer = new Uint8Array(64 * 1024);
    const n = await conn.read(buffer).catch(() => null);
    if (n === null) return;
    bytes = joined([bytes, buffer.subarray(0, n)]);
  }
}
