import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Buffer } from "node:buffer";
import { type Inbound, readBody } from "../../lib/http1/body.ts";
import { HttpError } from "../../lib/http1/head.ts";

const LIMIT = 4096;

/** A connection on which these pieces come, and what is left of them when a body has been taken. */
function connection(pieces: readonly Uint8Array[]) {
  let bytes = Buffer.alloc(0);
  const coming = [...pieces];
  const inbound: Inbound = {
    get bytes() {
      return bytes;
    },
    take: (n) => void (bytes = bytes.subarray(n)),
    more() {
      const next = coming.shift();
      if (next) bytes = Buffer.concat([bytes, next]);
      return Promise.resolve(next !== undefined);
    },
  };
  return { inbound, left: () => Buffer.concat([bytes, ...coming]).toString("latin1") };
}

/** `bytes`, cut at these places. */
function cut(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const at = [...new Set(places.map((n) => n % (bytes.byteLength + 1)))].sort((a, b) => a - b);
  return [...at, bytes.byteLength].map((end, i) => bytes.subarray(at[i - 1] ?? 0, end));
}

const ascii = (text: string) => Buffer.from(text, "latin1");
const chunk = fc.uint8Array({ minLength: 1, maxLength: 100 });
const extension = fc.constantFrom("", ";a=b", " ;x", ";\xe9");

Deno.test("a body in chunks is read back the same, however it comes, and what follows is left", async () => {
  const chunks = fc.array(fc.tuple(chunk, extension, fc.boolean()), { maxLength: 20 });
  const places = fc.array(fc.nat(), { maxLength: 30 });
  const trailers = fc.array(fc.constantFrom("a: b", "x-y:"), { maxLength: 3 });
  await fc.assert(fc.asyncProperty(chunks, trailers, places, async (chunks, trailers, places) => {
    const sent = Buffer.concat([
      ...chunks.flatMap(([bytes, extension, isUpper]) => {
        const size = bytes.byteLength.toString(16);
        const line = `${isUpper ? size.toUpperCase() : size}${extension}\r\n`;
        return [ascii(line), Buffer.from(bytes), ascii("\r\n")];
      }),
      ascii(["0", ...trailers, "", "NEXT"].join("\r\n")),
    ]);
    const { inbound, left } = connection(cut(sent, places));
    const body = await readBody(inbound, { kind: "chunked" }, { limit: LIMIT });
    assertEquals(Buffer.from(body), Buffer.concat(chunks.map(([bytes]) => bytes)));
    assertEquals(left(), "NEXT");
  }));
});

Deno.test("a body of a known length is read back the same, and what follows is left", async () => {
  const places = fc.array(fc.nat(), { maxLength: 10 });
  const bytes = fc.uint8Array({ maxLength: 2 * LIMIT });
  await fc.assert(fc.asyncProperty(bytes, places, async (bytes, places) => {
    const { inbound, left } = connection(cut(Buffer.concat([bytes, ascii("NEXT")]), places));
    const length = bytes.byteLength;
    try {
      const body = await readBody(inbound, { kind: "length", length }, { limit: LIMIT });
      assertEquals(Buffer.from(body), Buffer.from(bytes));
      assertEquals([length <= LIMIT, left()], [true, "NEXT"]);
    } catch (error) {
      assert(error instanceof HttpError && error.status === 413 && length > LIMIT, `${error}`);
    }
  }));
});

Deno.test("nothing that anybody may send makes reading a body throw anything but its own error", async () => {
  const piece = fc.oneof(
    fc.uint8Array({ maxLength: 50 }),
    fc.string({ unit: fc.constantFrom(..."0123456789abcdefx;\r\n \t") }).map(ascii),
    fc.constantFrom("0\r\n\r\n", "5\r\n", "ffffffff\r\n", "-1\r\n", "0x5\r\n", "\r\n").map(ascii),
  );
  await fc.assert(fc.asyncProperty(fc.array(piece), async (pieces) => {
    const { inbound } = connection(pieces);
    try {
      const body = await readBody(inbound, { kind: "chunked" }, { limit: LIMIT });
      assert(body.byteLength <= LIMIT);
    } catch (error) {
      assert(error instanceof HttpError, `${error}`);
    }
  }));
});
