import { assertEquals, assertRejects } from "@std/assert";
import { Server } from "node:net";
import { plainAnswer } from "../../../lib/response/answer.ts";
import type { RequestInfo } from "../../../lib/server/http1/handler.ts";
import type { Http1Server } from "../../../lib/server/http1/server.ts";
import { canOwnTls } from "../../../lib/server/listener.ts";
import { serveTls, type ServeTlsOptions } from "../../../lib/server/tls/server.ts";
import { connectionOf } from "../../support/http.ts";
import { connectTls, testCertificate } from "../../support/secure.ts";
import { until } from "../../support/until.ts";

const test = canOwnTls() ? Deno.test : Deno.test.ignore;

type Respond = (request: Request, info: RequestInfo) => Response | Promise<Response>;

const TICK = 10;
const HEAD = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

interface Listening extends Http1Server, AsyncDisposable {
  readonly port: number;
  readonly url: string;
}

/** Serves what `respond` says over TLS. */
async function serve(
  respond: Respond,
  options: Partial<ServeTlsOptions> = {},
): Promise<Listening> {
  const tls = await testCertificate();
  const server = await serveTls({ hostname: "127.0.0.1", port: 0, tls, tick: TICK, ...options }, {
    answer: async (request, info) => plainAnswer(await respond(request, info)),
  });
  return Object.assign(server, {
    port: server.addr.port,
    url: `https://localhost:${server.addr.port}`,
    async [Symbol.asyncDispose]() {
      server.close();
      await server.finished;
    },
  });
}

/** `fetch` that knows the certificate. Offers HTTP/2 too, as most clients do. */
async function makeClient(options: { localAddress?: string } = {}) {
  const { ca } = await testCertificate();
  return Deno.createHttpClient({ caCerts: [ca], poolMaxIdlePerHost: 1, ...options });
}

/** A body without an end, and how it was ended. */
function endless() {
  const ended = Promise.withResolvers<void>();
  const body = () =>
    new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(new Uint8Array(64 * 1024)),
      cancel: () => ended.resolve(),
    }, { highWaterMark: 0 });
  return { body, ended: ended.promise };
}

/** What `server` answers to a client of its own. */
async function textOf(server: Listening): Promise<string> {
  using client = await makeClient();
  return await (await fetch(server.url, { client })).text();
}

/** Waits until the server has ended `conn`. */
async function ended(conn: Deno.Conn): Promise<void> {
  const buffer = new Uint8Array(64 * 1024);
  while (await conn.read(buffer).catch(() => null) !== null);
}

async function connect(port: number): Promise<Deno.TcpConn> {
  return await Deno.connect({ hostname: "127.0.0.1", port });
}

/** The beginning of a handshake, which announces more. */
const HALF_A_HANDSHAKE = new Uint8Array([0x16, 3, 1, 2, 0, 1]);

test("a client that offers HTTP/2 too is served HTTP/1.1, and its address is known", async () => {
  const seen: RequestInfo[] = [];
  await using server = await serve((request, info) => {
    seen.push(info);
    return new Response(new URL(request.url).pathname);
  });
  const localAddress = "127.0.0.9";
  using client = await makeClient({ localAddress });
  const response = await fetch(`${server.url}/here`, { client });
  assertEquals(await response.text(), "/here");
  const { remoteAddr, scheme } = seen.pop()!;
  assertEquals([(remoteAddr as Deno.NetAddr).hostname, scheme], [localAddress, "https"]);
  const { ca } = await testCertificate();
  using conn = await Deno.connectTls({
    hostname: "localhost",
    port: server.port,
    caCerts: [ca],
    alpnProtocols: ["h2", "http/1.1"],
  });
  assertEquals((await conn.handshake()).alpnProtocol, "http/1.1");
});

test("a client that offers no protocol is served HTTP/1.1", async () => {
  await using server = await serve(() => new Response("served"));
  const { ca } = await testCertificate();
  const conn = await Deno.connectTls({ hostname: "localhost", port: server.port, caCerts: [ca] });
  const client = connectionOf(conn);
  await client.write(HEAD);
  assertEquals(new TextDecoder().decode((await client.answer()).body), "served");
  client.close();
});

test("a client that speaks HTTP/2 only is told so in the handshake, and breaks nobody off", async () => {
  await using server = await serve(() => new Response("served"));
  await assertRejects(() => connectTls(server.port, { protocol: "h2" }));
  using client = await makeClient();
  assertEquals(await (await fetch(server.url, { client })).text(), "served");
});

test("who makes no handshake, half of one, or says nothing after it is broken off", async (t) => {
  await t.step("no handshake", async () => {
    await using server = await serve(() => new Response(), { patience: { "rest of request": 1 } });
    using silent = await connect(server.port);
    await ended(silent);
  });
  await t.step("half a handshake", async () => {
    await using server = await serve(() => new Response(), { patience: { "rest of request": 1 } });
    using half = await connect(server.port);
    await half.write(HALF_A_HANDSHAKE);
    await ended(half);
  });
  await t.step("no handshake but something else", async () => {
    await using server = await serve(() => new Response());
    using other = await connect(server.port);
    await other.write(new TextEncoder().encode(HEAD));
    await ended(other);
  });
  await t.step("nothing after it", async () => {
    await using server = await serve(() => new Response(), { patience: { "request": 1 } });
    using silent = await connectTls(server.port);
    await ended(silent);
  });
  await t.step("half a request", async () => {
    await using server = await serve(() => new Response(), { patience: { "rest of request": 1 } });
    using half = await connectTls(server.port);
    await half.write(new TextEncoder().encode("GET / HT"));
    await ended(half);
  });
});

test("who does not take an answer is broken off, and its body is ended", async () => {
  const { body, ended: gone } = endless();
  await using server = await serve(() => new Response(body()), { patience: { "client": 100 } });
  using client = await connectTls(server.port);
  await client.write(new TextEncoder().encode(HEAD));
  await gone;
});

test("an answer that takes long to make is waited for, however little patience there is", async () => {
  const go = Promise.withResolvers<void>();
  const patience = { "request": 50, "rest of request": 50, "client": 50 };
  await using server = await serve(async () => {
    await go.promise;
    return new Response("made");
  }, { patience });
  const answer = textOf(server);
  // Others, who come later, have lost theirs by then.
  using silent = await connectTls(server.port);
  await ended(silent);
  go.resolve();
  assertEquals(await answer, "made");
});

test("of too many connections the longest idle go, so that another has room", async (t) => {
  const kinds = {
    "without a handshake": connect,
    "with one": connectTls,
  };
  for (const [kind, open] of Object.entries(kinds)) {
    await t.step(kind, async () => {
      await using server = await serve(() => new Response("served"), { most: 20 });
      const idle: Deno.Conn[] = [];
      // The clock that tells who has waited longest is coarse.
      for (let i = 0; i < 60; i++) idle.push(await open(server.port));
      let gone = 0;
      const all = idle.map((conn) => ended(conn).then(() => gone++));
      assertEquals(await textOf(server), "served");
      await until(() => gone >= 40);
      for (const conn of idle) conn.close();
      await Promise.all(all);
    });
  }
});

test("of too many connections of one address the longest idle go, and where all are busy another is refused", async () => {
  const go = Promise.withResolvers<void>();
  let [asked, refused] = [0, 0];
  await using server = await serve(async () => {
    asked++;
    await go.promise;
    return new Response("done");
  }, { mostOfOne: 2, onRefused: () => refused++ });
  const idle = await Promise.all([1, 2, 3, 4].map(() => connect(server.port)));
  const answers = [textOf(server), textOf(server)];
  await until(() => asked === 2);
  for (const conn of idle) conn.close();
  await ended(await connect(server.port));
  assertEquals(refused, 1);
  go.resolve();
  assertEquals(await Promise.all(answers), ["done", "done"]);
});

test("where all connections have something under way another is refused, and none of them ends", async () => {
  const go = Promise.withResolvers<void>();
  let asked = 0;
  await using server = await serve(async () => {
    asked++;
    await go.promise;
    return new Response("done");
  }, { most: 2 });
  const answers = [textOf(server), textOf(server)];
  await until(() => asked === 2);
  await assertRejects(() => connectTls(server.port));
  go.resolve();
  assertEquals(await Promise.all(answers), ["done", "done"]);
});

test("shutting down ends idle connections, and lets answers under way finish", async () => {
  const go = Promise.withResolvers<void>();
  let asked = 0;
  await using server = await serve(async () => {
    asked++;
    await go.promise;
    return new Response("done");
  }, { patience: { "goodbye": 100 } });
  using handshaking = await connect(server.port);
  using idle = await connectTls(server.port);
  const answer = textOf(server);
  await until(() => asked === 1);
  const ending = server.shutdown();
  await ended(handshaking);
  await ended(idle);
  await assertRejects(() => connect(server.port));
  go.resolve();
  assertEquals(await answer, "done");
  await ending;
});

test("closing breaks everything off at once", async () => {
  const { body, ended: gone } = endless();
  const server = await serve(() => new Response(body()));
  using half = await connect(server.port);
  await half.write(HALF_A_HANDSHAKE);
  using client = await makeClient();
  const response = await fetch(server.url, { client });
  server.close();
  await assertRejects(() => response.bytes());
  await ended(half);
  await gone;
  await server.finished;
});

test("a listener that accepts nothing any more is found out, and listens anew at its port", async () => {
  // As one of node:net does for good when it had no handle left once.
  const servers: Server[] = [];
  const { listen } = Server.prototype;
  Server.prototype.listen = function (this: Server, ...args: Parameters<typeof listen>) {
    servers.push(this);
    return listen.apply(this, args);
  } as typeof listen;
  try {
    await using server = await serve(() => new Response("served"), { watch: 10 });
    for (const times of [1, 2]) {
      servers.at(-1)!.close();
      await until(() => servers.length > times);
      using client = await makeClient();
      const isServed = () =>
        fetch(server.url, { client })
          .then(async (response) => await response.text() === "served", () => false);
      await until(isServed);
    }
  } finally {
    Server.prototype.listen = listen;
  }
});

test("with TLS an HTTP/1 connection ends with a word, so that nobody takes it for cut off", async () => {
  await using server = await serve(() => new Response("all of it"));
  const conn = await connectTls(server.port);
  const client = connectionOf(conn);
  await client.write("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n");
  const answer = await client.answer();
  // The end of the connection is the end of the body: without the word reading it fails.
  assertEquals([answer.complete, new TextDecoder().decode(answer.body)], [true, "all of it"]);
  client.close();
});

test("a port that is taken, or a key that is none, is an error at once", async () => {
  await using server = await serve(() => new Response());
  await assertRejects(
    () => serve(() => new Response(), { port: server.port }),
    Deno.errors.AddrInUse,
  );
  const { cert } = await testCertificate();
  await assertRejects(() => serve(() => new Response(), { tls: { cert, key: "none" } }));
});
