import { assert, assertEquals, assertRejects } from "@std/assert";
import { type Answer, plainAnswer } from "../../../lib/response/answer.ts";
import type { ByteSource } from "../../../lib/response/byte_source.ts";
import type { HotRequest } from "../../../lib/response/response_cache.ts";
import type { Handler } from "../../../lib/server/http1/handler.ts";
import {
  type Http1Server,
  serveHttp1,
  type ServeOptions,
} from "../../../lib/server/http1/server.ts";
import { MemoryBudget } from "../../../lib/util/memory_budget.ts";
import { openRaw, type RawAnswer, rawRequest } from "../../support/http.ts";
import { until } from "../../support/until.ts";

type Respond = (request: Request) => Response | Answer | Promise<Response | Answer>;

interface Listening extends Http1Server {
  readonly at: string;
  [Symbol.dispose](): void;
}

/** Serves what `respond` says: `using server = serve(() => new Response())`. */
function serve(
  respond: Respond,
  options: Partial<ServeOptions> & Pick<Handler, "quick"> = {},
): Listening {
  const { quick, ...settings } = options;
  const server = serveHttp1({ hostname: "127.0.0.1", port: 0, ...settings }, {
    quick,
    async answer(request) {
      const answer = await respond(request);
      return answer instanceof Response ? plainAnswer(answer) : answer;
    },
  });
  return Object.assign(server, {
    at: `127.0.0.1:${server.addr.port}`,
    [Symbol.dispose]: () => server.close(),
  });
}

/** An answer whose body is `size` bytes of a source, and how that ended. */
function sourced(
  size: number,
  { read = fill, headers = { "content-length": String(size) } as HeadersInit } = {},
) {
  const ended = Promise.withResolvers<number>();
  let at = 0;
  const source: ByteSource = {
    async read(buffer) {
      const n = await read(buffer, size - at);
      at += n;
      return n > 0 ? buffer.subarray(0, n) : undefined;
    },
    end: (sent) => ended.resolve(sent),
  };
  // The body that must not be touched where there is a source.
  const body = new ReadableStream({
    pull() {
      throw new Error("The stream was read");
    },
  }, { highWaterMark: 0 });
  const response = new Response(body, { headers });
  const answer: Answer = { response, source, delivered: { bytes: 0, complete: true } };
  return { answer, ended: ended.promise };
}

function fill(buffer: Uint8Array, left: number): number | Promise<number> {
  return buffer.fill(7, 0, left).subarray(0, left).byteLength;
}

const text = ({ body }: RawAnswer) => new TextDecoder().decode(body);

Deno.test("a request reaches the handler with method, URL and headers", async () => {
  using server = serve((request) =>
    Response.json({
      method: request.method,
      url: request.url,
      host: request.headers.get("host"),
      accept: request.headers.get("accept"),
    })
  );
  const headers = [["Accept", "a"], ["accept", "b"], ["Host", "hub.example:80"]] as const;
  const answer = await rawRequest(server.at, { path: "/v2/?n=1", headers });
  assertEquals(JSON.parse(text(answer)), {
    method: "GET",
    url: "http://hub.example/v2/?n=1",
    host: "hub.example:80",
    accept: "a, b",
  });
});

Deno.test("one connection carries requests one after the other", async () => {
  using server = serve((request) => new Response(new URL(request.url).pathname));
  const client = await openRaw(server.at);
  for (const path of ["/1", "/2", "/3"]) {
    await client.write(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
    assertEquals(text(await client.answer()), path);
  }
  client.close();
});

Deno.test("requests sent without waiting are answered in their order", async () => {
  const first = Promise.withResolvers<void>();
  using server = serve(async (request) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/1") await first.promise;
    return new Response(pathname);
  });
  const client = await openRaw(server.at);
  await client.write(
    [1, 2, 3].map((n) => `GET /${n} HTTP/1.1\r\nHost: a\r\n\r\n`).join(""),
  );
  first.resolve();
  for (const path of ["/1", "/2", "/3"]) assertEquals(text(await client.answer()), path);
  client.close();
});

Deno.test("a head may come byte by byte, and be larger than the first buffer", async () => {
  using server = serve((request) => new Response(request.headers.get("authorization")));
  const client = await openRaw(server.at);
  for (const char of "GET / HTTP/1.1\r\nHost: a\r\n") await client.write(char);
  const token = "x".repeat(10_000);
  await client.write(`Authorization: ${token}\r\n\r\n`);
  assertEquals(text(await client.answer()), token);
  client.close();
});

Deno.test("a head without an end is refused when it has become too large", async () => {
  using server = serve(() => new Response());
  const client = await openRaw(server.at);
  await client.write(`GET / HTTP/1.1\r\nA: ${"x".repeat(80_000)}`);
  const answer = await client.answer();
  assertEquals([answer.status, answer.headers.get("connection")], [431, "close"]);
  client.close();
});

Deno.test("what clients send while the event loop stands still is in time", async () => {
  const patience = { "rest of request": 300 };
  using server = serve((request) => new Response(new URL(request.url).pathname), {
    tick: 50,
    patience,
  });
  const client = await openRaw(server.at);
  await client.write("GET / HTTP/1.1\r\nHost: a\r\n");
  // Once another is answered, that has been read.
  const other = await openRaw(server.at);
  await other.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  await other.answer();
  other.close();
  const sent = client.write("\r\n");
  for (const until = performance.now() + 1_000; performance.now() < until;);
  await sent;
  assertEquals(text(await client.answer()), "/");
  client.close();
});

Deno.test("the hundred-and-first header field is refused as soon as it is there, whatever is to come", async () => {
  using server = serve(() => new Response("ok"));
  const inTime = await openRaw(server.at);
  await inTime.write(`GET / HTTP/1.1\r\nHost: a\r\n${"a: b\r\n".repeat(99)}\r\n`);
  assertEquals((await inTime.answer()).status, 200);
  inTime.close();
  for (const pieces of [1, 102]) {
    const client = await openRaw(server.at);
    const head = `GET / HTTP/1.1\r\nHost: a\r\n${"a: b\r\n".repeat(100)}`;
    const size = Math.ceil(head.length / pieces);
    for (let at = 0; at < head.length; at += size) await client.write(head.slice(at, at + size));
    const answer = await client.answer();
    assertEquals([answer.status, answer.headers.get("connection")], [431, "close"]);
    client.close();
  }
});

Deno.test("what is no HTTP gets an error as this API has it, and the end of the connection", async () => {
  using server = serve(() => new Response());
  const client = await openRaw(server.at);
  await client.write("hello\r\n\r\n");
  const answer = await client.answer();
  assertEquals([answer.status, answer.headers.get("connection")], [400, "close"]);
  assertEquals(JSON.parse(text(answer)).errors[0].message, "Malformed request line");
  assertEquals((await client.answer()).status, 0);
  client.close();
});

Deno.test("a TLS handshake is refused at once: its client then tries plain http", async () => {
  using server = serve(() => new Response());
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: server.addr.port });
  const tls = await Deno.startTls(conn, { hostname: "localhost" });
  // Not after the time-out for clients that say half of something.
  await assertRejects(() => tls.handshake(), Deno.errors.InvalidData);
  tls.close();
});

Deno.test("a Host that is none is refused before anything depends on it", async () => {
  using server = serve(() => new Response("reached"));
  for (const host of ["a/b", "a@b", "a:99999"]) {
    const answer = await rawRequest(server.at, { path: "/", headers: [["Host", host]] });
    assertEquals(answer.status, 400);
    assertEquals(JSON.parse(text(answer)).errors[0].code, "NAME_INVALID");
  }
});

Deno.test("HEAD has the length of what GET would give, and no body", async () => {
  using server = serve(() => new Response(null, { headers: { "content-length": "1234" } }));
  const client = await openRaw(server.at);
  for (let i = 0; i < 2; i++) {
    await client.write("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    const answer = await client.answer({ method: "HEAD" });
    assertEquals([answer.status, answer.headers.get("content-length")], [200, "1234"]);
  }
  client.close();
});

Deno.test("304 has neither body nor length; an empty answer says that it is empty", async () => {
  using server = serve((request) =>
    new Response(null, { status: request.url.endsWith("/304") ? 304 : 200 })
  );
  const unchanged = await rawRequest(server.at, { path: "/304" });
  assertEquals([unchanged.status, unchanged.headers.has("content-length")], [304, false]);
  const empty = await rawRequest(server.at, { path: "/" });
  assertEquals([empty.complete, empty.headers.get("content-length")], [true, "0"]);
});

Deno.test("a stream of unknown length is chunked, and by the connection's end for HTTP/1.0", async () => {
  using server = serve(() => new Response(ReadableStream.from(["one ", "", "two"].map(encode))));
  const answer = await rawRequest(server.at, { path: "/" });
  assertEquals(answer.headers.get("transfer-encoding"), "chunked");
  assertEquals([text(answer), answer.complete], ["one two", true]);
  const old = await rawRequest(server.at, { path: "/", version: "HTTP/1.0" });
  assertEquals(old.headers.get("transfer-encoding"), null);
  assertEquals([text(old), old.headers.get("connection")], ["one two", "close"]);
});

Deno.test("a source is sent whole, and told how much of it was", async () => {
  const size = 3 * 2 ** 20 + 5;
  const { answer, ended } = sourced(size);
  using server = serve(() => answer);
  const { body, complete } = await rawRequest(server.at, { path: "/" });
  assertEquals([body.byteLength, complete, body.every((byte) => byte === 7)], [size, true, true]);
  assertEquals(await ended, size);
});

Deno.test("a source of unknown length is chunked", async () => {
  let left = 3;
  const { answer } = sourced(0, {
    headers: {},
    read: (buffer) => left-- > 0 ? fill(buffer, 10) : 0,
  });
  using server = serve(() => answer);
  const { body, complete } = await rawRequest(server.at, { path: "/" });
  assertEquals([body.byteLength, complete], [30, true]);
});

Deno.test("a body that breaks off breaks the connection, never ends it well", async () => {
  let reads = 0;
  const broken = sourced(100, {
    read(buffer) {
      if (reads++ > 0) throw new Error("Gone");
      return fill(buffer, 40);
    },
  });
  const short = sourced(100, { read: (buffer) => reads++ === 2 ? fill(buffer, 40) : 0 });
  const chunked = new Response(
    new ReadableStream({
      start: (controller) => controller.enqueue(encode("part")),
      pull: (controller) => controller.error(new Error("Gone")),
    }, { highWaterMark: 0 }),
  );
  const answers = [broken.answer, short.answer, chunked];
  using server = serve(() => answers.shift()!);
  for (let i = 0; i < 3; i++) {
    const answer = await rawRequest(server.at, { path: "/" });
    assertEquals([answer.status, answer.complete], [200, false]);
  }
  assertEquals([await broken.ended, await short.ended], [40, 40]);
});

Deno.test("a client that leaves in the middle of a body ends its source", async () => {
  const { answer, ended } = sourced(2 ** 40);
  using server = serve(() => answer);
  await rawRequest(server.at, { path: "/", stopAfter: 100_000 });
  assert(await ended >= 100_000);
});

Deno.test("a client that leaves while its body stands still ends it", async () => {
  const cancelled = Promise.withResolvers<void>();
  using server = serve(() =>
    new Response(
      new ReadableStream({
        start: (controller) => controller.enqueue(encode("part")),
        pull: () => new Promise(() => {}),
        cancel: () => cancelled.resolve(),
      }),
      { headers: { "content-length": String(2 ** 20) } },
    )
  );
  const client = await openRaw(server.at);
  await client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  assertEquals((await client.answer({ stopAfter: 4 })).status, 200);
  client.close();
  await cancelled.promise;
});

Deno.test("a client that leaves before its answer is there gets none of it made", async () => {
  const asked = Promise.withResolvers<void>();
  const go = Promise.withResolvers<void>();
  const { answer, ended } = sourced(2 ** 20);
  using server = serve(async () => {
    asked.resolve();
    await go.promise;
    return answer;
  });
  const client = await openRaw(server.at);
  await client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  await asked.promise;
  client.close();
  go.resolve();
  assert(await ended < 2 ** 20);
});

Deno.test("the body of a POST is read, by length and in chunks", async () => {
  using server = serve(async (request) => new Response(await request.text()));
  const client = await openRaw(server.at);
  const head = "POST /v2/auth HTTP/1.1\r\nHost: a\r\n";
  await client.write(`${head}Content-Length: 6\r\n\r\na=1&b=`);
  assertEquals(text(await client.answer()), "a=1&b=");
  await client.write(`${head}Transfer-Encoding: chunked\r\n\r\n`);
  for (const part of ["3;x=y\r\na=1", "\r\n", "2\r\n&b\r\n0\r\nTrailer: x\r\n", "\r\n"]) {
    await client.write(part);
  }
  assertEquals(text(await client.answer()), "a=1&b");
  await client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  assertEquals((await client.answer()).status, 200);
  client.close();
});

Deno.test("a client that asks whether it may send its body is told to", async () => {
  using server = serve(async (request) => new Response(await request.text()));
  const client = await openRaw(server.at);
  await client.write(
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n",
  );
  assertEquals((await client.answer({ stopAfter: 0 })).status, 100);
  await client.write("body");
  assertEquals(text(await client.answer()), "body");
  client.close();
});

Deno.test("a body that is too large, malformed or ambiguous is refused", async (t) => {
  using server = serve(async (request) => new Response(await request.text()));
  const cases: Record<string, readonly [head: string, body: string, status: number]> = {
    "too large": ["Content-Length: 70000", "", 413],
    "too large in chunks": ["Transfer-Encoding: chunked", "fffff\r\n", 413],
    "a chunk that is too long": ["Transfer-Encoding: chunked", "1\r\nxy\r\n0\r\n\r\n", 400],
    "a chunk size that is none": ["Transfer-Encoding: chunked", "0x1\r\nx\r\n", 400],
    "two lengths": ["Content-Length: 1\r\nTransfer-Encoding: chunked", "0\r\n\r\n", 400],
  };
  for (const [name, [head, body, status]] of Object.entries(cases)) {
    await t.step(name, async () => {
      const headers = head.split("\r\n").map((line) => line.split(": ") as [string, string]);
      const answer = await rawRequest(server.at, { method: "POST", path: "/", headers, body });
      assertEquals([answer.status, answer.headers.get("connection")], [status, "close"]);
    });
  }
});

Deno.test("the body of a method that has none here is not taken for the next request", async () => {
  const seen: string[] = [];
  using server = serve((request) => {
    seen.push(`${request.method} ${new URL(request.url).pathname}`);
    return new Response("no", { status: 405 });
  });
  const client = await openRaw(server.at);
  const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
  await client.write(
    `PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
  );
  const answer = await client.answer();
  assertEquals([answer.status, answer.headers.get("connection")], [405, "close"]);
  assertEquals((await client.answer()).status, 0);
  assertEquals(seen, ["PUT /"]);
  client.close();
});

Deno.test("methods that no handler could be asked for are refused", async () => {
  using server = serve(() => new Response());
  for (const method of ["TRACE", "CONNECT"]) {
    assertEquals((await rawRequest(server.at, { method, path: "/" })).status, 405);
  }
});

Deno.test("HTTP/1.0 and Connection: close end the connection, keep-alive does not", async () => {
  using server = serve(() => new Response("x", { headers: { "content-length": "1" } }));
  const closing = await openRaw(server.at);
  await closing.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  assertEquals((await closing.answer()).headers.get("connection"), "close");
  assertEquals((await closing.answer()).status, 0);
  closing.close();
  const old = await openRaw(server.at);
  for (let i = 0; i < 2; i++) {
    await old.write("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assertEquals((await old.answer()).headers.get("connection"), "keep-alive");
  }
  old.close();
});

Deno.test("a handler that fails is a 500 to its client alone", async () => {
  using server = serve((request) => {
    if (request.url.endsWith("/bad")) throw new Error("secret");
    return new Response("fine");
  });
  const bad = await rawRequest(server.at, { path: "/bad" });
  assertEquals([bad.status, text(bad).includes("secret")], [500, false]);
  assertEquals((await rawRequest(server.at, { path: "/" })).status, 200);
});

Deno.test("an answer from memory goes out as it is, and its client is told", async () => {
  const sent: string[] = [];
  const quick = ({ method, target, header }: HotRequest, client: string) =>
    header("x-slow") === null && method === "GET" && target === "/quick"
      ? {
        bytes: encode("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nquick"),
        sent: () => void sent.push(client),
      }
      : undefined;
  using server = serve(() => new Response("slow"), { quick });
  const client = await openRaw(server.at);
  const ask = async (request: string) => {
    await client.write(`${request}\r\nHost: a\r\n\r\n`);
    return text(await client.answer());
  };
  assertEquals(await ask("GET /quick HTTP/1.1"), "quick");
  assertEquals(await ask("GET /other HTTP/1.1"), "slow");
  assertEquals(await ask("GET /quick HTTP/1.1\r\nX-Slow: yes"), "slow");
  assertEquals(await ask("GET /quick HTTP/1.1\r\nContent-Length: 0"), "slow");
  assertEquals(await ask("GET /quick HTTP/1.1"), "quick");
  assertEquals(sent, ["127.0.0.1", "127.0.0.1"]);
  client.close();
});

Deno.test("who says nothing, says half, or takes nothing is broken off after a while", async (t) => {
  const tick = 10;
  await t.step("no request", async () => {
    using server = serve(() => new Response(), { tick, patience: { "request": 1 } });
    const client = await openRaw(server.at);
    assertEquals((await client.answer()).status, 0);
    client.close();
  });
  await t.step("half a request", async () => {
    using server = serve(() => new Response(), { tick, patience: { "rest of request": 1 } });
    const client = await openRaw(server.at);
    await client.write("GET / HT");
    assertEquals((await client.answer()).status, 0);
    client.close();
  });
  await t.step("nothing taken of an answer", async () => {
    const { answer, ended } = sourced(2 ** 40);
    using server = serve(() => answer, { tick, patience: { "client": 50 } });
    const client = await openRaw(server.at);
    await client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert(await ended < 2 ** 40);
    client.close();
  });
});

Deno.test("of too many connections the longest idle go, so that another has room", async () => {
  using server = serve(() => new Response("served"), { most: 20 });
  const idle = [];
  for (let i = 0; i < 60; i++) {
    const client = await openRaw(server.at);
    if (i % 2) await client.write("GET / HT");
    idle.push(client);
  }
  assertEquals(text(await rawRequest(server.at, { path: "/" })), "served");
  let gone = 0;
  const answers = idle.map((client) => client.answer().then(() => gone++));
  await until(() => gone >= 40);
  for (const client of idle) client.close();
  await Promise.all(answers);
});

Deno.test("of too many connections of one address the longest idle goes, and where all are busy another gets 429 at once", async () => {
  const go = Promise.withResolvers<void>();
  let [asked, refused] = [0, 0];
  using server = serve(async (request) => {
    if (request.url.endsWith("/quick")) return new Response("served");
    asked++;
    await go.promise;
    return new Response("done");
  }, { mostOfOne: 3, onRefused: () => refused++ });
  const idle = await Promise.all([1, 2, 3, 4, 5].map(() => openRaw(server.at)));
  assertEquals(text(await rawRequest(server.at, { path: "/quick" })), "served");
  for (const client of idle) client.close();
  assertEquals(refused, 0);
  const answers = [1, 2, 3].map(() => rawRequest(server.at, { path: "/" }));
  await until(() => asked === 3);
  const answer = await rawRequest(server.at, { path: "/quick" });
  assertEquals([answer.status, JSON.parse(text(answer)).errors[0].code], [429, "TOOMANYREQUESTS"]);
  assertEquals(refused, 1);
  go.resolve();
  assertEquals((await Promise.all(answers)).map(text), ["done", "done", "done"]);
  assertEquals(text(await rawRequest(server.at, { path: "/quick" })), "served");
});

Deno.test("connections of a trusted proxy are not counted as one client's", async () => {
  using server = serve(() => new Response("served"), { mostOfOne: 1, isProxy: () => true });
  const idle = await Promise.all([1, 2, 3, 4].map(() => openRaw(server.at)));
  for (const client of idle) {
    await client.write("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assertEquals(text(await client.answer()), "served");
    client.close();
  }
});

Deno.test("where all connections have something under way another is refused, and none of them ends", async () => {
  const go = Promise.withResolvers<void>();
  let asked = 0;
  using server = serve(async () => {
    asked++;
    await go.promise;
    return new Response("done");
  }, { most: 2 });
  const answers = [1, 2].map(() => rawRequest(server.at, { path: "/" }));
  await until(() => asked === 2);
  const refused = await openRaw(server.at);
  assertEquals((await refused.answer()).status, 0);
  refused.close();
  go.resolve();
  assertEquals((await Promise.all(answers)).map(text), ["done", "done"]);
});

Deno.test("shutting down ends idle connections, and lets answers under way finish", async () => {
  const asked = Promise.withResolvers<void>();
  const go = Promise.withResolvers<void>();
  using server = serve(async () => {
    asked.resolve();
    await go.promise;
    return new Response("done");
  });
  const idle = await openRaw(server.at);
  const busy = await openRaw(server.at);
  await busy.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  await asked.promise;
  const ending = server.shutdown();
  assertEquals((await idle.answer()).status, 0);
  await assertRejects(() => openRaw(server.at));
  go.resolve();
  const answer = await busy.answer();
  assertEquals([text(answer), answer.headers.get("connection")], ["done", "close"]);
  await ending;
  await server.finished;
  idle.close();
  busy.close();
});

Deno.test("a port that is taken is an error at once", () => {
  using server = serve(() => new Response());
  let error: unknown;
  try {
    serve(() => new Response(), { port: server.addr.port }).close();
  } catch (caught) {
    error = caught;
  }
  assert(error instanceof Deno.errors.AddrInUse);
});

function encode(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

Deno.test("where memory is short, who takes nothing is broken off, and who reads gets all of it", async () => {
  const size = 24 * 2 ** 20;
  const bytes = new Uint8Array(size);
  const memory = new MemoryBudget({ limit: 2 ** 20 });
  using server = serve(() => ({
    response: new Response(null, { headers: { "content-length": String(size) } }),
    bytes,
    delivered: { bytes: size, complete: true },
  }), { memory, tick: 20 });
  const idle = await openRaw(server.at);
  await idle.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  await until(() => memory.used >= size);
  const reading = rawRequest(server.at, { path: "/", rate: 8 * 2 ** 20 });
  await until(() => memory.used >= 2 * size);
  // One of the two is gone, and it is not the one that reads.
  await until(() => memory.used < 2 * size);
  assertEquals((await reading).body.byteLength, size);
  await until(() => memory.used === 0);
  idle.close();
});

Deno.test("where memory is short, a large request is told to come again, and a small one answered", async () => {
  const memory = new MemoryBudget({ limit: 1000 });
  using server = serve(() => new Response("ok"), { memory });
  memory.add(1000);
  const large = await rawRequest(server.at, {
    path: "/",
    headers: [["x-long", "x".repeat(5_000)]],
  });
  assertEquals([large.status, large.headers.get("retry-after")], [503, "5"]);
  const middle = await rawRequest(server.at, {
    path: "/",
    headers: [["x-long", "x".repeat(1_500)]],
  });
  assertEquals([middle.status, text(middle)], [200, "ok"]);
  memory.remove(1000);
  // What is larger than all there is comes in alone.
  const again = await rawRequest(server.at, {
    path: "/",
    headers: [["x-long", "x".repeat(5_000)]],
  });
  assertEquals([again.status, text(again)], [200, "ok"]);
  await until(() => memory.used === 0);
});
