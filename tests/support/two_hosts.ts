/**
 * Requests whose host is written twice, in whatever way a protocol allows: beside the request's own target, and
 * as a field.
 *
 * @module
 */
import type { Buffer } from "node:buffer";
import type { OutgoingHttpHeaders } from "node:http";
import { connect } from "node:http2";
import { connectionOf, openRaw, type RawConnection } from "./http.ts";
import type { ListenerName, ListenerTest } from "./listeners.ts";
import { connectTls, testCertificate } from "./secure.ts";

/** A request as {@linkcode Sender} sends it. */
export interface HostedRequest {
  /** In the target: an absolute one, or `:authority`. Left out of HTTP/1 where it is undefined. */
  readonly authority?: string;
  /** Fields `Host`, in this order. HTTP/1 needs one. */
  readonly hosts?: readonly string[];
  /** @default {"GET"} */
  readonly method?: string;
  readonly path: string;
  /** Further fields. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** What came back. */
export interface HostedAnswer {
  readonly status: number;
  readonly text: string;
  /** Of a header; null without it. */
  header(name: string): string | null;
}

/** Sends requests as they are. */
export interface Sender extends AsyncDisposable {
  send(request: HostedRequest): Promise<HostedAnswer>;
}

/** A client of the listener `name`; "mod.ts" hands requests over without a connection. */
export async function senderOf(
  name: ListenerName | "mod.ts",
  { proxy, origin }: Pick<ListenerTest, "proxy" | "origin">,
): Promise<Sender> {
  if (name === "mod.ts") return handing((request) => proxy.proxy.fetch(request));
  if (name === "Deno's HTTP/2") return await overHttp2(origin);
  const { host, port } = new URL(origin);
  const open = name === "our HTTPS/1"
    ? async () => connectionOf(await connectTls(Number(port)))
    : () => openRaw(host);
  return overHttp1(open);
}

function handing(fetch: (request: Request) => Promise<Response>): Sender {
  return {
    async send({ authority, hosts = [], method = "GET", path, headers = {} }) {
      const fields: [string, string][] = [
        ...hosts.map((host): [string, string] => ["host", host]),
        ...Object.entries(headers),
      ];
      const request = new Request(`http://${authority ?? hosts[0]}${path}`, {
        method,
        headers: fields,
      });
      const response = await fetch(request);
      const header = (name: string) => response.headers.get(name);
      return { status: response.status, text: await response.text(), header };
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

function overHttp1(open: () => Promise<RawConnection>): Sender {
  return {
    async send({ authority, hosts = [], method = "GET", path, headers = {} }) {
      const client = await open();
      try {
        const target = authority === undefined ? path : `http://${authority}${path}`;
        const lines = [
          `${method} ${target} HTTP/1.1`,
          ...hosts.map((host) => `Host: ${host}`),
          ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
          "Connection: keep-alive",
        ];
        await client.write(`${lines.join("\r\n")}\r\n\r\n`);
        const answer = await client.answer({ method });
        const text = new TextDecoder().decode(answer.body);
        return { status: answer.status, text, header: (name) => answer.headers.get(name) };
      } finally {
        client.close();
      }
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

async function overHttp2(origin: string): Promise<Sender> {
  const { ca } = await testCertificate();
  const session = connect(origin, { ca });
  return {
    send({ authority, hosts = [], method = "GET", path, headers = {} }) {
      const { promise, resolve, reject } = Promise.withResolvers<HostedAnswer>();
      const all: OutgoingHttpHeaders = { ":method": method, ":path": path, ...headers };
      if (authority !== undefined) all[":authority"] = authority;
      if (hosts.length > 0) all["host"] = hosts.join(", ");
      const stream = session.request(all);
      let status = 0;
      let fields: Record<string, unknown> = {};
      const chunks: string[] = [];
      stream.on("response", (said) => {
        status = Number(said[":status"]);
        fields = said;
      });
      stream.on("data", (chunk: Buffer) => chunks.push(chunk.toString("utf-8")));
      stream.on("end", () => {
        const header = (name: string) => (fields[name] as string | undefined) ?? null;
        resolve({ status, text: chunks.join(""), header });
      });
      stream.on("error", reject);
      stream.end();
      return promise;
    },
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        session.on("close", () => resolve());
        session.close();
      }),
  };
}
