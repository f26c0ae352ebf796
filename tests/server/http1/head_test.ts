import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { Buffer } from "node:buffer";
import {
  field,
  framingOf,
  HttpError,
  keepsAlive,
  parseHead,
  type RequestHead,
  targetOf,
} from "../../../lib/server/http1/head.ts";

function parse(text: string): RequestHead | undefined {
  const buffer = Buffer.from(text, "latin1");
  return parseHead(buffer, { start: 0, end: buffer.byteLength });
}

function get(...fields: string[]): RequestHead {
  const lines = ["GET / HTTP/1.1", "Host: a", ...fields];
  return parse(`${lines.join("\r\n")}\r\n\r\n`)!;
}

function refused(work: () => unknown): number {
  return assertThrows(work, HttpError).status;
}

Deno.test("a head is taken apart, its names in lower case and its values without blanks around them", () => {
  const text =
    "HEAD /v2/?ns=docker.io HTTP/1.0\r\nHost: a:80\r\nX-Thing: \t one two \r\nEmpty:\r\n\r\n";
  assertEquals(parse(text + "GET"), {
    method: "HEAD",
    target: "/v2/?ns=docker.io",
    minor: 0,
    fields: ["host", "a:80", "x-thing", "one two", "empty", ""],
    length: text.length,
  });
});

Deno.test("blank lines before a request line are skipped and counted", () => {
  assertEquals(parse("\r\n\r\nGET / HTTP/1.1\r\n\r\n")?.length, 22);
});

Deno.test("a head is incomplete until its blank line has come, wherever it is cut", () => {
  const text = "GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
  for (let end = 0; end < text.length; end++) assertEquals(parse(text.slice(0, end)), undefined);
  assertEquals(parse(text)?.length, text.length);
});

Deno.test("bytes outside of ASCII in a value are kept as they are", () => {
  assertEquals(field(get("User-Agent: caf\xe9"), "user-agent"), "caf\xe9");
});

Deno.test("a request that two readers could understand differently is refused", async (t) => {
  const heads = {
    "a folded line": "GET / HTTP/1.1\r\nA: b\r\n c: d\r\n\r\n",
    "a blank before the colon": "GET / HTTP/1.1\r\nContent-Length : 3\r\n\r\n",
    "a line feed alone": "GET / HTTP/1.1\r\nA: b\nContent-Length: 3\r\n\r\n",
    "a line feed alone after the request line": "GET / HTTP/1.1\nHost: a\r\n\r\n",
    "a line feed alone, and no end yet": "GET / HTTP/1.1\r\nHost: a\n\n",
    "a blank line that is a line feed alone": "\r\n\nGET / HTTP/1.1\r\n\r\n",
    "a carriage return alone": "GET / HTTP/1.1\r\nA: b\rContent-Length: 3\r\n\r\n",
    "a zero byte": "GET / HTTP/1.1\r\nA: b\0\r\n\r\n",
    "a header without a name": "GET / HTTP/1.1\r\n: b\r\n\r\n",
    "a header without a colon": "GET / HTTP/1.1\r\nA\r\n\r\n",
    "two blanks in the request line": "GET  / HTTP/1.1\r\n\r\n",
    "a blank in the target": "GET /a b HTTP/1.1\r\n\r\n",
    "a byte outside of ASCII in the target": "GET /\xe9 HTTP/1.1\r\n\r\n",
    "no version": "GET /\r\n\r\n",
    "another version": "GET / HTTP/2.0\r\n\r\n",
    "the preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "the beginning of TLS": "\x16\x03\x01\x02\r\n\r\n",
  };
  for (const [name, head] of Object.entries(heads)) {
    await t.step(name, () => assertEquals(refused(() => parse(head)), 400));
  }
});

Deno.test("parsing what anybody may send gives a head, asks for more or refuses", () => {
  const piece = fc.oneof(
    fc.constantFrom("GET", " ", "/", "HTTP/1.1", "\r\n", "\r\n\r\n", ":", "host", "\n", "\r", "\0"),
    fc.string({ unit: "binary", maxLength: 6 }),
  );
  fc.assert(fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
    try {
      const head = parse(pieces.join(""));
      if (head) assertEquals(head.fields.some((text) => /[\r\n\0]/.test(text)), false);
    } catch (error) {
      if (!(error instanceof HttpError)) throw error;
    }
  }));
});

Deno.test("a body's length is what exactly one header says", () => {
  assertEquals(framingOf(get()), { kind: "length", length: 0 });
  assertEquals(framingOf(get("Content-Length: 12")), { kind: "length", length: 12 });
  assertEquals(framingOf(get("Transfer-Encoding: Chunked")), { kind: "chunked" });
});

Deno.test("a body's length that is said twice, or strangely, is refused", async (t) => {
  const cases: Record<string, readonly [string[], number]> = {
    "both headers": [["Content-Length: 3", "Transfer-Encoding: chunked"], 400],
    "two lengths": [["Content-Length: 3", "Content-Length: 3"], 400],
    "a list of lengths": [["Content-Length: 3, 4"], 400],
    "a sign": [["Content-Length: +3"], 400],
    "a negative length": [["Content-Length: -3"], 400],
    "hexadecimal": [["Content-Length: 0x10"], 400],
    "no length": [["Content-Length:"], 400],
    "another coding": [["Transfer-Encoding: gzip, chunked"], 501],
    "chunked twice": [["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], 501],
  };
  for (const [name, [fields, status]] of Object.entries(cases)) {
    await t.step(name, () => assertEquals(refused(() => framingOf(get(...fields))), status));
  }
  await t.step("chunked in HTTP/1.0", () => {
    const head = parse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")!;
    assertEquals(refused(() => framingOf(head)), 400);
  });
});

Deno.test("a connection stays open as its version and the Connection header say", () => {
  const old = (...fields: string[]) => parse(["GET / HTTP/1.0", ...fields, "", ""].join("\r\n"))!;
  assertEquals(keepsAlive(get()), true);
  assertEquals(keepsAlive(get("Connection: Keep-Alive")), true);
  assertEquals(keepsAlive(get("Connection: TE, Close")), false);
  assertEquals(keepsAlive(old()), false);
  assertEquals(keepsAlive(old("Connection: keep-alive")), true);
});

Deno.test("a request goes to its Host header's host, with the target as it was sent", () => {
  const head = parse("GET /v2/a/../b?x=%2f HTTP/1.1\r\nHost: hub.example:8080\r\n\r\n")!;
  assertEquals(targetOf(head, "here"), {
    host: "hub.example:8080",
    target: "/v2/a/../b?x=%2f",
  });
});

Deno.test("a target in absolute form goes to the host that the Host header names too", () => {
  const head = (target: string, host: string) =>
    parse(`GET ${target} HTTP/1.1\r\nHost: ${host}\r\n\r\n`)!;
  for (const target of ["http://one.example/v2/?a", "HTTP://One.Example:80/v2/?a"]) {
    const address = { host: "one.example", target: "/v2/?a" };
    assertEquals(targetOf(head(target, "one.example"), "here"), address);
    assertEquals(refused(() => targetOf(head(target, "two.example"), "here")), 400);
  }
  const old = parse("GET http://one.example/v2/ HTTP/1.0\r\n\r\n")!;
  assertEquals(targetOf(old, "here"), { host: "one.example", target: "/v2/" });
});

Deno.test("HTTP/1.0 may leave out the Host, HTTP/1.1 may not", () => {
  const old = parse("GET /x HTTP/1.0\r\n\r\n")!;
  assertEquals(targetOf(old, "127.0.0.1:80"), {
    host: "127.0.0.1:80",
    target: "/x",
  });
  assertEquals(refused(() => targetOf(parse("GET /x HTTP/1.1\r\n\r\n")!, "here")), 400);
});

Deno.test("two Hosts, a Host that is none and a target that is none are refused", () => {
  const withHost = (host: string) => parse(`GET /v2/ HTTP/1.1\r\nHost: ${host}\r\n\r\n`)!;
  for (const host of ["a/b", "a@b", "a?b", "a#b", "a b", "", "[::1", "a:b", "a\\b"]) {
    assertEquals(refused(() => targetOf(withHost(host), "here")), 400, host);
  }
  assertEquals(refused(() => targetOf(get("Host: b"), "here")), 400);
  for (const target of ["*", "a:443", "ftp://a/", "http://user@a/", "http:///x y", "http:////a/"]) {
    const head: RequestHead = { ...get(), target };
    assertEquals(refused(() => targetOf(head, "here")), 400, target);
  }
});
