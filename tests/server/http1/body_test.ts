import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Buffer } from "node:buffer";
import { type Inbound, readBody } from "../../../lib/server/http1/body.ts";
import { HttpError } from "../../../lib/server/http1/head.ts";

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
  const trailers = fc.array(fc.constantFrom("a: b", "x-y:", "A:\xe9"), { maxLength: 3 });
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

/** What reading `text` as a body in chunks comes to: its text, or the status it is refused with. */
async function read(text: string): Promise<number | string> {
  const { inbound } = connection([ascii(text)]);
  try {
    const body = await readBody(inbound, { kind: "chunked" }, { limit: LIMIT });
    return Buffer.from(body).toString("latin1");
  } catch (error) {
    assert(error instanceof HttpError, `${error}`);
    return error.status;
  }
}

Deno.test("a chunked body that two readers could understand differently is refused", async () => {
  assertEquals(await read("3\r\nabc\r\n0\r\nA: b\r\n\r\n"), "abc");
  const table: Record<string, string> = {
    "a line feed alone after a size": "3\nabc\r\n0\r\n\r\n",
    "a line feed alone after a chunk": "3\r\nabc\n0\r\n\r\n",
    "a line feed alone after the last size": "3\r\nabc\r\n0\n\r\n",
    "a line feed alone in an extension": "3;a\n\r\nabc\r\n0\r\n\r\n",
    "a carriage return alone in an extension": "3;a\rb\r\nabc\r\n0\r\n\r\n",
    "a line feed alone after a trailer": "0\r\nA: b\n\r\n",
    "a line feed alone in a trailer": "0\r\nA: b\nC: d\r\n\r\n",
    "a carriage return alone in a trailer": "0\r\nA: b\rC: d\r\n\r\n",
    "a line feed alone at the end": "0\r\n\n",
    "a request in place of a trailer": "0\r\nGET / HTTP/1.1\r\n\r\n",
    "a folded trailer": "0\r\nA: b\r\n c\r\n\r\n",
    "a trailer without a name": "0\r\n: b\r\n\r\n",
    "a blank before the colon": "0\r\nA : b\r\n\r\n",
    "a blank after a size": "3 \r\nabc\r\n0\r\n\r\n",
    "a sign": "+3\r\nabc\r\n0\r\n\r\n",
    "no size": ";a\r\n0\r\n\r\n",
  };
  for (const [what, text] of Object.entries(table)) assertEquals(await read(text), 400, what);
});

Deno.test("chunk extensions, trailers and chunks are bounded in number and size", async () => {
  const extension = `1;${"x".repeat(1000)}\r\na\r\n`;
  assertEquals(await read(`${extension.repeat(8)}0\r\n\r\n`), "aaaaaaaa");
  assertEquals(await read(`${extension.repeat(9)}0\r\n\r\n`), 431);
  assertEquals(await read(`0\r\n${"a: b\r\n".repeat(32)}\r\n`), "");
  assertEquals(await read(`0\r\n${"a: b\r\n".repeat(33)}\r\n`), 431);
  assertEquals(await read(`0\r\n${`a: ${"b".repeat(1000)}\r\n`.repeat(9)}\r\n`), 431);
  assertEquals(await read(`0\r\na: ${"b".repeat(2000)}\r\n\r\n`), 400);
});
