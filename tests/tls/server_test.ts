import { assert, assertEquals, assertRejects } from "@std/assert";
import { Server } from "node:net";
import { plainAnswer } from "../../lib/answer.ts";
import type { RequestInfo } from "../../lib/http1/handler.ts";
import type { Http1Server } from "../../lib/http1/server.ts";
import { canOwnTls } from "../../lib/listener.ts";
import { serveTls, type ServeTlsOptions } from "../../lib/tls/server.ts";
import { connectionOf } from "../support/http.ts";
import { beginning, FRAME, frame, framesOf, get, joined } from "../support/http2.ts";
import { connectTls, testCertificate } from "../support/secure.ts";
import { until } from "../support/until.ts";

const test = canOwnTls() ? Deno.test : Deno.test.ignore;

type Respond = (request: Request, info: RequestInfo) => Response | Promise<Response>;

const TICK = 10;
const HEAD = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const PROTOCOLS = ["http/1.1", "h2"] as const;

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
    fetch: async (request, info) => await respond(request, info),
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

/** `fetch` that speaks one protocol. */
async function clientOf(protocol: typeof PROTOCOLS[number]) {
  const { ca } = await testCertificate();
  const http2 = protocol === "h2";
  return Deno.createHttpClient({ http1: !http2, http2, caCerts: [ca], poolMaxIdlePerHost: 1 });
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

test("HTTP/1 and HTTP/2 are served at one port, to clients whose address is known", async (t) => {
  const seen: RequestInfo[] = [];
  await using server = await serve((request, info) => {
    seen.push(info);
    return new Response(new URL(request.url).pathname);
  });
  const { ca } = await testCertificate();
  for (const protocol of PROTOCOLS) {
    await t.step(protocol, async () => {
      const localAddress = "127.0.0.9";
      using client = Deno.createHttpClient({
        http1: protocol !== "h2",
        http2: protocol === "h2",
        caCerts: [ca],
        localAddress,
      });
      const response = await fetch(`${server.url}/here`, { client });
      assertEquals(await response.text(), "/here");
      const { remoteAddr, scheme } = seen.pop()!;
      assertEquals([(remoteAddr as Deno.NetAddr).hostname, scheme], [localAddress, "https"]);
    });
  }
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
  for (const protocol of PROTOCOLS) {
    await t.step(`nothing after it, ${protocol}`, async () => {
      await using server = await serve(() => new Response(), { patience: { "request": 1 } });
      using silent = await connectTls(server.port, { protocol });
      await ended(silent);
    });
  }
  await t.step("half a request, http/1.1", async () => {
    await using server = await serve(() => new Response(), { patience: { "rest of request": 1 } });
    using half = await connectTls(server.port, { protocol: "http/1.1" });
    await half.write(new TextEncoder().encode("GET / HT"));
    await ended(half);
  });
  await t.step("half a request, h2", async () => {
    await using server = await serve(() => new Response(), { patience: { "request": 50 } });
    using half = await connectTls(server.port, { protocol: "h2" });
    // Headers that are to be continued.
    await half.write(joined([
      beginning(),
      frame(FRAME.headers, new Uint8Array([0x82]), {
        stream: 1,
      }),
    ]));
    await ended(half);
  });
  await t.step("nothing but pings, h2", async () => {
    await using server = await serve(() => new Response(), { patience: { "request": 100 } });
    using pinging = await connectTls(server.port, { protocol: "h2" });
    await pinging.write(beginning());
    const ping = joined(Array.from({ length: 8 }, () => frame(FRAME.ping, new Uint8Array(8))));
    const end = ended(pinging);
    let isOpen = true;
    end.then(() => isOpen = false);
    await until(async () => {
      await pinging.write(ping).catch(() => {});
      return !isOpen;
    });
  });
});

test("who does not take an answer is broken off, and its body is ended", async (t) => {
  const patience = { "client": 100 };
  await t.step("http/1.1", async () => {
    const { body, ended: gone } = endless();
    await using server = await serve(() => new Response(body()), { patience });
    using client = await connectTls(server.port, { protocol: "http/1.1" });
    await client.write(new TextEncoder().encode(HEAD));
    await gone;
  });
  await t.step("h2, whose connection takes nothing", async () => {
    const { body, ended: gone } = endless();
    await using server = await serve(() => new Response(body()), { patience });
    using client = await connectTls(server.port, { protocol: "h2" });
    const window = frame(FRAME.window, new Uint8Array([0x70, 0, 0, 0]));
    const request = get("/", { authority: "localhost" });
    await client.write(joined([beginning({ window: 2 ** 31 - 1 }), window, request]));
    await gone;
  });
  await t.step("h2, whose stream takes nothing while pings go on", async () => {
    const { body, ended: gone } = endless();
    await using server = await serve(() => new Response(body()), { patience });
    using client = await connectTls(server.port, { protocol: "h2" });
    await client.write(joined([beginning({ window: 0 }), get("/", { authority: "localhost" })]));
    const ping = joined(Array.from({ length: 8 }, () => frame(FRAME.ping, new Uint8Array(8))));
    const reading = ended(client);
    let isGone = false;
    gone.then(() => isGone = true);
    await until(async () => {
      await client.write(ping).catch(() => {});
      return isGone;
    });
    await reading;
  });
});

test("an answer that takes long to make is waited for, however little patience there is", async () => {
  const go = Promise.withResolvers<void>();
  const patience = { "request": 50, "rest of request": 50, "client": 50 };
  await using server = await serve(async () => {
    await go.promise;
    return new Response("made");
  }, { patience });
  const answers = PROTOCOLS.map(async (protocol) => {
    using client = await clientOf(protocol);
    return await (await fetch(server.url, { client })).text();
  });
  // Others, who come later, have lost theirs by then.
  using silent = await connectTls(server.port, { protocol: "h2" });
  await ended(silent);
  go.resolve();
  assertEquals(await Promise.all(answers), ["made", "made"]);
});

test("of too many connections the longest idle go, so that another has room", async (t) => {
  const kinds = {
    "without a handshake": connect,
    "http/1.1": (port: number) => connectTls(port, { protocol: "http/1.1" }),
    "h2": (port: number) => connectTls(port, { protocol: "h2" }),
  };
  for (const [kind, open] of Object.entries(kinds)) {
    await t.step(kind, async () => {
      await using server = await serve(() => new Response("served"), { most: 20 });
      const idle: Deno.Conn[] = [];
      // The clock that tells who has waited longest is coarse.
      for (let i = 0; i < 60; i++) idle.push(await open(server.port));
      let gone = 0;
      const all = idle.map((conn) => ended(conn).then(() => gone++));
      for (const protocol of PROTOCOLS) {
        using client = await clientOf(protocol);
        assertEquals(await (await fetch(server.url, { client })).text(), "served");
      }
      await until(() => gone >= 40);
      for (const conn of idle) conn.close();
      await Promise.all(all);
    });
  }
});

test("where all connections have something under way another is refused, and none of them ends", async () => {
  const go = Promise.withResolvers<void>();
  let asked = 0;
  await using server = await serve(async () => {
    asked++;
    await go.promise;
    return new Response("done");
  }, { most: 2 });
  const answers = PROTOCOLS.map(async (protocol) => {
    using client = await clientOf(protocol);
    return await (await fetch(server.url, { client })).text();
  });
  await until(() => asked === 2);
  await assertRejects(() => connectTls(server.port, { protocol: "h2" }));
  go.resolve();
  assertEquals(await Promise.all(answers), ["done", "done"]);
});

test("many requests at once on one connection of HTTP/2 get their own bodies", async () => {
  const bodyOf = (n: number) => new Uint8Array(50_000 + n * 1000).fill(n);
  await using server = await serve((request) =>
    new Response(new Blob([bodyOf(Number(new URL(request.url).pathname.slice(1)))]).stream())
  );
  using client = await clientOf("h2");
  await Promise.all(Array.from({ length: 60 }, async (_, n) => {
    const response = await fetch(`${server.url}/${n}`, { client });
    assertEquals(await response.bytes(), bodyOf(n));
  }));
});

test("a request of HTTP/2 that is given up ends its body, and leaves the others alone", async () => {
  const { body, ended: gone } = endless();
  const go = Promise.withResolvers<void>();
  await using server = await serve(async (request) => {
    if (request.url.endsWith("/endless")) return new Response(body());
    await go.promise;
    return new Response("fine");
  });
  using client = await clientOf("h2");
  const other = fetch(`${server.url}/other`, { client });
  const response = await fetch(`${server.url}/endless`, { client });
  await response.body!.cancel();
  await gone;
  go.resolve();
  assertEquals(await (await other).text(), "fine");
});

test("a request of HTTP/2 that is given up before its answer counts no more, then or later", async () => {
  const go = Promise.withResolvers<void>();
  const late = Promise.withResolvers<void>();
  let asked = 0;
  const patience = { "request": 100, "client": 100 };
  await using server = await serve(async (request) => {
    asked++;
    await (request.url.endsWith("/late") ? late : go).promise;
    return new Response("made");
  }, { patience });
  using idle = await connectTls(server.port, { protocol: "h2" });
  using other = await connectTls(server.port, { protocol: "h2" });
  const given = get("/", { authority: "localhost" });
  const reset = frame(FRAME.reset, new Uint8Array(4), { stream: 1 });
  for (const conn of [idle, other]) await conn.write(joined([beginning(), given]));
  await until(() => asked === 2);
  await other.write(get("/late", { authority: "localhost", stream: 3 }));
  await until(() => asked === 3);
  for (const conn of [idle, other]) await conn.write(reset);
  const kinds: number[] = [];
  const reading = (async () => {
    for await (const { type, stream } of framesOf(other)) if (stream === 3) kinds.push(type);
  })();
  go.resolve();
  await ended(idle);
  // The other has waited as long, but for an answer.
  using silent = await connectTls(server.port, { protocol: "h2" });
  await ended(silent);
  late.resolve();
  await reading;
  assertEquals(kinds[0], FRAME.headers);
});

test("a client of HTTP/2 that leaves ends the bodies of all its requests", async () => {
  const bodies = [endless(), endless()];
  let asked = 0;
  await using server = await serve(() => new Response(bodies[asked++]!.body()));
  const conn = await connectTls(server.port, { protocol: "h2" });
  const authority = "localhost";
  const requests = [get("/", { authority }), get("/", { authority, stream: 3 })];
  await conn.write(joined([beginning(), ...requests]));
  await until(() => asked === 2);
  conn.close();
  await Promise.all(bodies.map(({ ended }) => ended));
});

test("shutting down says goodbye to idle clients, and lets answers under way finish", async () => {
  const go = Promise.withResolvers<void>();
  let asked = 0;
  await using server = await serve(async () => {
    asked++;
    await go.promise;
    return new Response("done");
  }, { patience: { "goodbye": 100 } });
  using handshaking = await connect(server.port);
  using idle1 = await connectTls(server.port, { protocol: "http/1.1" });
  using idle2 = await connectTls(server.port, { protocol: "h2" });
  await idle2.write(beginning());
  const frames = framesOf(idle2);
  await frames.next(); // its settings: it is known
  const answers = PROTOCOLS.map(async (protocol) => {
    using client = await clientOf(protocol);
    return await (await fetch(server.url, { client })).text();
  });
  await until(() => asked === 2);
  const ending = server.shutdown();
  await ended(handshaking);
  await ended(idle1);
  const kinds: number[] = [];
  for await (const { type } of frames) kinds.push(type);
  assert(kinds.includes(FRAME.goaway), `${kinds}`);
  await assertRejects(() => connect(server.port));
  go.resolve();
  assertEquals(await Promise.all(answers), ["done", "done"]);
  await ending;
});

test("closing breaks everything off at once", async () => {
  const { body, ended: gone } = endless();
  const server = await serve(() => new Response(body()));
  using half = await connect(server.port);
  await half.write(HALF_A_HANDSHAKE);
  using client = await clientOf("h2");
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
      for (const protocol of PROTOCOLS) {
        using client = await clientOf(protocol);
        const isServed = () =>
          fetch(server.url, { client })
            .then(async (response) => await response.text() === "served", () => false);
        await until(isServed);
      }
    }
  } finally {
    Server.prototype.listen = listen;
  }
});

test("with TLS an HTTP/1 connection ends with a word, so that nobody takes it for cut off", async () => {
  await using server = await serve(() => new Response("all of it"));
  const conn = await connectTls(server.port, { protocol: "http/1.1" });
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
