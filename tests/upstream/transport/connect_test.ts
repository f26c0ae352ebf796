import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { gzipSync } from "node:zlib";
import { OciError } from "../../../lib/oci/error.ts";
import { decoded } from "../../../lib/upstream/download/body.ts";
import {
  type ConnectOptions,
  createConnect,
  type Lookup,
} from "../../../lib/upstream/transport/connect.ts";
import { makeCertificate } from "../../support/certificate.ts";
import { passing } from "../../support/connect_child.ts";
import { startHttpServer } from "../../support/http_server.ts";
import { must } from "../../support/process.ts";
import { tempDir } from "../../support/temp.ts";

const headers = () => new Headers({ "x-test": "yes" });

/** A resolver that gives every name these addresses, one call after the other. */
function resolver(...answers: readonly string[][]) {
  const asked: string[] = [];
  const lookup: Lookup = (hostname, _options, callback) => {
    const addresses = answers[Math.min(asked.length, answers.length - 1)]!;
    asked.push(hostname);
    callback(
      null,
      addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
    );
  };
  return { lookup, asked };
}

/** How to reach a server of this machine as if an upstream had named it. */
function foreign(options: Partial<ConnectOptions> = {}) {
  const connect = createConnect({ allowPrivate: false, ...options });
  return {
    get: (url: string, { signal = new AbortController().signal, method = "GET" } = {}) =>
      connect(new URL(url), {
        registry: { url: new URL("http://registry.example:5000") },
        method,
        headers: headers(),
        signal,
      }),
    [Symbol.dispose]: () => connect[Symbol.dispose](),
  };
}

/** A server that answers every request with these bytes and closes the connection. */
async function startRaw(answer: string) {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const serve = async (conn: Deno.Conn) => {
    await conn.read(new Uint8Array(4096));
    const bytes = Uint8Array.from(answer, (char) => char.charCodeAt(0));
    for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
    await conn.closeWrite();
    await conn.read(new Uint8Array(1)).catch(() => {}); // until the client has left
    conn.close();
  };
  const done = (async () => {
    const serving: Promise<void>[] = [];
    for await (const conn of listener) serving.push(serve(conn).catch(() => {}));
    await Promise.all(serving);
  })();
  await Promise.resolve();
  return {
    url: `http://127.0.0.1:${port}`,
    host: `http://named.example:${port}`,
    async [Symbol.asyncDispose]() {
      listener.close();
      await done;
    },
  };
}

Deno.test("a name that resolves to private addresses only is not connected to", async () => {
  await using server = await startHttpServer(() => ({ status: 200, headers: [] }));
  for (
    const addresses of [
      ["127.0.0.1"],
      ["::1"],
      ["169.254.169.254"],
      ["10.0.0.1", "fd00::1", "::ffff:127.0.0.1"],
    ]
  ) {
    const { lookup, asked } = resolver(addresses);
    using way = foreign({ lookup });
    const error = await assertRejects(
      () => way.get(`http://named.example:${server.port}/`),
      OciError,
      "private addresses",
    );
    assertEquals([error.status, error.detail], [502, { host: "named.example" }]);
    assertEquals(asked, ["named.example"]);
  }
  assertEquals(server.accepted, 0);
});

Deno.test("localhost, by the system's own resolver, is not connected to", async () => {
  await using server = await startHttpServer(() => ({ status: 200, headers: [] }));
  using way = foreign();
  for (const name of ["localhost", "LOCALHOST"]) {
    const url = `http://${name}:${server.port}/`;
    await assertRejects(() => way.get(url), OciError, "private addresses");
  }
  assertEquals(server.accepted, 0);
});

Deno.test("private networks are connected to where they are allowed", async () => {
  await using server = await startHttpServer(({ method, headers }) => ({
    status: 200,
    headers: [["x-said", headers.get("x-test") ?? ""]],
    body: method,
  }));
  using way = foreign({ allowPrivate: true });
  const response = await way.get(`${server.url}/`);
  assertEquals([response.status, response.headers.get("x-said")], [200, "yes"]);
  assertEquals(await response.text(), "GET");
});

Deno.test("a registry's own private address is connected to, another port of it is not", async () => {
  await using server = await startHttpServer(() => ({ status: 200, headers: [], body: "own" }));
  await using other = await startHttpServer(() => ({ status: 200, headers: [] }));
  using connect = createConnect({ allowPrivate: false });
  const registry = { url: new URL(`${server.url}/base`) };
  const { signal } = new AbortController();
  const get = (url: string) =>
    connect(new URL(url), { registry, method: "GET", headers: headers(), signal });
  assertEquals(await (await get(`${server.url}/v2/`)).text(), "own");
  await assertRejects(() => get(`${other.url}/v2/`), OciError, "a private address");
  assertEquals(other.accepted, 0);
});

Deno.test("redirects are handed back, never followed", async () => {
  await using server = await startHttpServer(() => ({
    status: 302,
    headers: [["location", "/elsewhere"]],
  }));
  using way = foreign({ allowPrivate: true });
  const response = await way.get(`${server.url}/`);
  await response.body?.cancel();
  assertEquals([response.status, response.headers.get("location")], [302, "/elsewhere"]);
});

/** {@linkcode passing}, counted: what is tested behind it is the way of hosts that an upstream named. */
function counted() {
  const counts = { lookups: 0 };
  const lookup: Lookup = (...args) => {
    counts.lookups++;
    passing(...args);
  };
  return { lookup, counts };
}

Deno.test("a name is looked up once: what was checked is what is connected to", async () => {
  await using server = await startHttpServer(() => ({ status: 200, headers: [] }));
  const { lookup, counts } = counted();
  using way = foreign({ lookup });
  // Nobody else could resolve it.
  const response = await way.get(`http://named.invalid:${server.port}/`);
  await response.body?.cancel();
  assertEquals([response.status, counts.lookups, server.accepted], [200, 1, 1]);
});

Deno.test("with TLS too the address is the one checked, and the certificate the name's", async () => {
  await using dir = await tempDir();
  const { caPath, cert, key } = await makeCertificate(dir.path, ["named.example"]);
  const seen: string[] = [];
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, cert, key, onListen() {} },
    ({ url }) => {
      seen.push(url);
      return new Response("right");
    },
  );
  const { port } = server.addr;
  const child = new URL("../../support/connect_child.ts", import.meta.url).pathname;
  const urls = [`https://named.example:${port}/a`, `https://other.example:${port}/b`];
  const printed = await must(Deno.execPath(), ["run", "-A", "--no-check", child, ...urls], {
    env: { DENO_CERT: caPath, NO_COLOR: "1" },
  });
  const [named, other] = printed.trim().split("\n");
  assertEquals(named, "200 right");
  assertMatch(other!, /^failed: /);
  assertEquals(seen, [urls[0]]);
});

Deno.test("nothing is asked for encoded", async () => {
  const seen: (string | null)[] = [];
  await using server = await startHttpServer(({ headers }) => {
    seen.push(headers.get("accept-encoding"));
    return { status: 200, headers: [] };
  });
  for (const options of [{ allowPrivate: true }, { lookup: passing }]) {
    using way = foreign(options);
    const host = options.allowPrivate ? server.host : `named.example:${server.port}`;
    await (await way.get(`http://${host}/`)).body?.cancel();
  }
  assertEquals(new Set(seen), new Set(["identity"]));
});

const WAYS: Readonly<Record<string, Partial<ConnectOptions>>> = {
  "a host that upstream named": { lookup: passing },
  "a host that is trusted": { allowPrivate: true },
};

for (const [name, options] of Object.entries(WAYS)) {
  const isNamed = options.lookup !== undefined;
  const at = (server: { host: string; url: string }) => isNamed ? server.host : server.url;

  Deno.test(`${name}: an answer comes with all its headers and its body`, async () => {
    await using server = await startRaw(
      "HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 4\r\n\r\nbody",
    );
    using way = foreign(options);
    const response = await way.get(at(server));
    assertEquals(response.headers.getSetCookie(), ["a=1", "b=2"]);
    assertEquals(response.headers.get("content-length"), "4");
    assertEquals(await response.text(), "body");
  });

  Deno.test(`${name}: a list that is encoded all the same can be read`, async () => {
    const body = String.fromCharCode(...gzipSync(`{"tags":[]}`));
    await using server = await startRaw(
      `HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    using way = foreign(options);
    const response = decoded(await way.get(at(server)), "list");
    assertEquals(await response.json(), { tags: [] });
  });

  const ANSWERS: Readonly<Record<string, string>> = {
    "what is no HTTP": "hello\r\n\r\n",
    "nothing": "",
    "half a status line": "HTTP/1.1 2",
    "a header with a control character": "HTTP/1.1 200 OK\r\na: b\x01c\r\n\r\n",
    "two lengths": "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
    "a length below zero": "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nabc",
    "a megabyte of headers": `HTTP/1.1 200 OK\r\na: ${"x".repeat(2 ** 20)}\r\n\r\n`,
  };
  for (const [what, answer] of Object.entries(ANSWERS)) {
    Deno.test(`${name}: ${what} for an answer is a failure`, async () => {
      await using server = await startRaw(answer);
      using way = foreign(options);
      // Before 2.7.13 Deno's node:http waits on where the connection ends without an answer.
      const stop = new AbortController();
      const timer = setTimeout(() => stop.abort(), 2_000);
      await assertRejects(() => way.get(at(server), stop), Error);
      clearTimeout(timer);
    });
  }

  for (const status of [101, 205, 304, 600, 999]) {
    Deno.test(`${name}: status ${status} harms nobody`, async () => {
      await using server = await startRaw(`HTTP/1.1 ${status} Odd\r\ncontent-length: 0\r\n\r\n`);
      using way = foreign(options);
      let seen: number | undefined;
      try {
        const response = await way.get(at(server));
        await response.body?.cancel();
        seen = response.status;
      } catch (error) {
        assert(error instanceof Error);
      }
      assert(seen === undefined || seen === status);
      if (isNamed) assertEquals(seen, [205, 304].includes(status) ? status : undefined);
    });
  }

  Deno.test(`${name}: an abort ends the wait for an answer that does not come`, async () => {
    await using server = await startHttpServer(() => ({
      status: 200,
      headers: [],
      fault: { never: true },
    }));
    using way = foreign(options);
    const stop = new AbortController();
    const asked = way.get(isNamed ? `http://named.example:${server.port}/` : server.url, {
      signal: stop.signal,
    });
    stop.abort();
    await assertRejects(() => asked);
  });

  Deno.test(`${name}: an abort ends a body that stands still`, async () => {
    await using server = await startHttpServer(() => ({
      status: 200,
      headers: [],
      body: "some text",
      fault: { stallAt: 4 },
    }));
    using way = foreign(options);
    const stop = new AbortController();
    const response = await way.get(isNamed ? `http://named.example:${server.port}/` : server.url, {
      signal: stop.signal,
    });
    const reader = response.body!.getReader();
    assertEquals(new TextDecoder().decode((await reader.read()).value), "some");
    stop.abort();
    await assertRejects(() => reader.read());
  });
}
