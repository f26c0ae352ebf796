/**
 * A small HTTP/1.1 server on bare sockets, so that a test can have every byte of an answer wrong.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import * as net from "node:net";
import * as tls from "node:tls";
import { gzipSync } from "node:zlib";
import { CHUNK, type Content, contentOf } from "./content.ts";
import type { Fault } from "./faults.ts";

/** A request as it came in. */
export interface ServerRequest {
  readonly method: string;
  /** The request target as it was sent. */
  readonly target: string;
  /** The target on this server's own origin. */
  readonly url: URL;
  readonly headers: Headers;
  readonly body: Uint8Array<ArrayBuffer>;
}

/** What to answer. */
export interface ServerReply {
  readonly status: number;
  /** Without Content-Length, which is the body's own. */
  readonly headers: readonly (readonly [string, string])[];
  readonly body?: Content | string | Uint8Array<ArrayBuffer>;
  /** The part `[start, end)` of the body to send; Content-Length agrees with it. */
  readonly part?: readonly [number, number];
  readonly fault?: Fault;
  /** Called when this answer is over: how many body bytes were handed to the socket, and why it ended. */
  readonly ended?: (bytes: number, end: ServerEnd) => void;
}

/** `complete`: all was sent. `broken`: a fault ended it. `left`: the client closed first. */
export type ServerEnd = "complete" | "broken" | "left";

/** Options for {@linkcode startHttpServer}. */
export interface ServerOptions {
  /** @default {"127.0.0.1"} */
  readonly hostname?: string;
  /** @default {0} a free one */
  readonly port?: number;
  /** PEM. The server then speaks https. */
  readonly tls?: { readonly cert: string; readonly key: string };
}

/** A running server. */
export interface HttpServer {
  readonly hostname: string;
  readonly port: number;
  /** `host:port` */
  readonly host: string;
  /** `http://host:port`, without a slash. */
  readonly url: string;
  /** Connections open now. */
  readonly connections: number;
  /** Connections accepted since the start. */
  readonly accepted: number;
  /** Closes the listener and all connections; `up` brings the same port back. */
  down(): Promise<void>;
  up(): Promise<void>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** With the host, for a Deno that looks for it there. */
function tlsOptions(pem: { cert: string; key: string }, host: string): tls.TlsOptions {
  return { ...pem, host } as tls.TlsOptions;
}

/** Starts a server whose answers come from `handle`; an error thrown there is answered with 500. */
export async function startHttpServer(
  handle: (request: ServerRequest) => ServerReply | Promise<ServerReply>,
  options: ServerOptions = {},
): Promise<HttpServer> {
  const { hostname = "127.0.0.1" } = options;
  const scheme = options.tls ? "https" : "http";
  const sockets = new Set<net.Socket>();
  let server: net.Server | undefined;
  let port = options.port ?? 0;
  let accepted = 0;

  function accept(socket: net.Socket) {
    accepted++;
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => {});
    serve(socket, `${scheme}://${hostname}:${port}`, handle).catch(() => socket.destroy());
  }

  async function up() {
    if (server) return;
    const next = options.tls
      ? tls.createServer(
        tlsOptions(options.tls, hostname),
        accept as (socket: tls.TLSSocket) => void,
      )
      : net.createServer(accept);
    // Deno 2.5 takes the host of a TLS server from its options, and a second argument for the callback.
    const isOld = options.tls !== undefined && /^2\.[0-8]\./.test(Deno.version.deno);
    await new Promise<void>((resolve, reject) => {
      next.once("error", reject);
      if (isOld) next.listen(port, resolve);
      else next.listen(port, hostname, resolve);
    });
    port = (next.address() as net.AddressInfo).port;
    server = next;
  }

  async function down() {
    const old = server;
    server = undefined;
    const open = [...sockets].map((socket) =>
      socket.closed ? undefined : new Promise((resolve) => socket.once("close", resolve))
    );
    const closed = old && new Promise((resolve) => old.close(resolve));
    for (const socket of sockets) socket.destroy();
    // Deno 2.5 never tells of the end of a socket whose client left first: nothing comes through it any more.
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, 2000));
    await Promise.race([Promise.all([closed, ...open]), late]);
    clearTimeout(timer);
    sockets.clear();
  }

  await up();
  return {
    hostname,
    port,
    host: `${hostname}:${port}`,
    url: `${scheme}://${hostname}:${port}`,
    get connections() {
      return sockets.size;
    },
    get accepted() {
      return accepted;
    },
    up,
    down,
    close: down,
    [Symbol.asyncDispose]: down,
  };
}

/** Adds members to an object, getters as getters (which `Object.assign` would read once). */
export function extend<T extends object, U extends object>(object: T, members: U): T & U {
  return Object.defineProperties(object, Object.getOwnPropertyDescriptors(members)) as T & U;
}

/** Clients that may use plain http try https first: refused at once, as real servers do. */
const TLS_HANDSHAKE = 0x16;
const HEAD_LIMIT = 256 * 1024;

async function serve(
  socket: net.Socket,
  origin: string,
  handle: (request: ServerRequest) => ServerReply | Promise<ServerReply>,
): Promise<void> {
  const input = new Input(socket);
  while (true) {
    const head = await input.head();
    if (head === undefined) return void socket.destroy();
    const [line = "", ...lines] = head.split("\r\n");
    const [method = "", target = ""] = line.split(" ");
    const headers = new Headers();
    for (const header of lines) {
      const colon = header.indexOf(":");
      if (colon > 0) headers.append(header.slice(0, colon), header.slice(colon + 1).trim());
    }
    const body = await input.body(headers);
    const url = new URL(target.startsWith("/") ? origin + target : target, origin);
    let reply: ServerReply;
    try {
      reply = await handle({ method, target, url, headers, body });
    } catch (error) {
      reply = { status: 500, headers: [["content-type", "text/plain"]], body: String(error) };
    }
    const sent = { bytes: 0 };
    const end = await send(socket, method, reply, sent);
    reply.ended?.(sent.bytes, end);
    if (end !== "complete") return;
    if (headers.get("connection")?.toLowerCase() === "close") return void socket.end();
  }
}

/** The client's bytes, cut into heads and bodies. */
class Input {
  #buffer = Buffer.alloc(0);
  #ended = false;
  #wake?: () => void;

  constructor(socket: net.Socket) {
    socket.on("data", (data) => {
      this.#buffer = Buffer.concat([this.#buffer, data as Buffer]);
      this.#wake?.();
    });
    const end = () => {
      this.#ended = true;
      this.#wake?.();
    };
    socket.on("end", end);
    socket.on("close", end);
  }

  async head(): Promise<string | undefined> {
    while (true) {
      const at = this.#buffer.indexOf("\r\n\r\n");
      if (at >= 0) return this.#take(at + 4).toString("latin1").slice(0, -4);
      const foreign = this.#buffer[0] === TLS_HANDSHAKE;
      if (foreign || this.#ended || this.#buffer.length > HEAD_LIMIT) return undefined;
      await this.#more();
    }
  }

  async body(headers: Headers): Promise<Uint8Array<ArrayBuffer>> {
    if (headers.get("transfer-encoding")?.includes("chunked")) return await this.#chunks();
    return new Uint8Array(await this.#exactly(Number(headers.get("content-length") ?? 0)));
  }

  async #chunks(): Promise<Uint8Array<ArrayBuffer>> {
    const chunks: Buffer[] = [];
    while (true) {
      let at: number;
      while ((at = this.#buffer.indexOf("\r\n")) < 0 && !this.#ended) await this.#more();
      const size = parseInt(this.#take(at + 2).toString("latin1"), 16);
      const chunk = await this.#exactly(size + 2);
      if (!size) return new Uint8Array(Buffer.concat(chunks));
      chunks.push(chunk.subarray(0, size));
    }
  }

  async #exactly(size: number): Promise<Buffer> {
    while (this.#buffer.length < size) {
      if (this.#ended) throw new Error("Client left in a body");
      await this.#more();
    }
    return this.#take(size);
  }

  #more(): Promise<void> {
    return new Promise((resolve) => this.#wake = resolve);
  }

  #take(size: number): Buffer {
    const taken = this.#buffer.subarray(0, size);
    this.#buffer = this.#buffer.subarray(size);
    return taken;
  }
}

async function send(
  socket: net.Socket,
  method: string,
  reply: ServerReply,
  sent: { bytes: number },
): Promise<ServerEnd> {
  const fault = reply.fault ?? {};
  const wire = new Wire(socket);
  if (fault.delay && !await wire.sleep(fault.delay)) return "left";
  if (fault.never) return await wire.gone(), "left";
  if (fault.hangUp) return socket.destroy(), "broken";

  let status = reply.status;
  let headers = reply.headers.map(([name, value]): [string, string] => [name, value]);
  let source = asContent(reply.body);
  let [start, end] = reply.part ?? [0, source.size];
  const replace = (bytes: Uint8Array<ArrayBuffer>) => {
    source = contentOf(bytes);
    [start, end] = [0, bytes.length];
  };
  if (fault.status !== undefined) {
    status = fault.status;
    headers = [["content-type", "application/json"]];
    replace(encode(`{"errors":[{"code":"UNKNOWN","message":"Fault on purpose: ${status}"}]}`));
  }
  if (fault.body !== undefined) {
    replace(typeof fault.body === "string" ? encode(fault.body) : fault.body);
  }
  if (fault.gzip) {
    replace(new Uint8Array(gzipSync(source.read(start, end))));
    headers.push(["content-encoding", "gzip"]);
  }
  if (fault.truncateTo !== undefined) end = Math.min(end, start + fault.truncateTo);
  const extra = fault.extra ?? 0;
  const size = end - start + extra;
  const chunked = fault.endless || fault.contentLength === null;
  if (chunked) headers.push(["transfer-encoding", "chunked"]);
  else if (status !== 304 && status !== 204) {
    headers.push(["content-length", String(fault.contentLength ?? size)]);
  }
  for (const [name, value] of Object.entries(fault.headers ?? {})) {
    headers = headers.filter(([other]) => other.toLowerCase() !== name.toLowerCase());
    if (value !== null) headers.push([name, value]);
  }
  for (const [name, value] of fault.extraHeaders ?? []) headers.push([name, value]);
  if (fault.hugeHeaders) headers.push(["x-padding", "x".repeat(fault.hugeHeaders)]);
  const head = headers.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  const bodyless = method === "HEAD" || status === 304 || status === 204;
  if (
    !await wire.write(encode(`HTTP/1.1 ${status} ${REASONS[status] ?? "Status"}\r\n${head}\r\n`))
  ) {
    return "left";
  }
  if (bodyless) return "complete";

  const breakAt = Math.min(fault.cutAt ?? Infinity, fault.resetAt ?? Infinity);
  const stops = [breakAt, fault.stallAt ?? Infinity];
  const step = fault.rate ? Math.max(1, Math.min(CHUNK, Math.ceil(fault.rate / 20))) : CHUNK;
  const firstByte = performance.now();
  for (let at = 0; at < size || fault.endless;) {
    if (at === fault.stallAt && !await wire.sleep(fault.stallFor ?? Infinity)) return "left";
    if (at === breakAt) return breakNow(socket, fault), "broken";
    const next = Math.min(
      fault.endless ? Infinity : size,
      at + step,
      ...stops.filter((stop) => stop > at),
    );
    const bytes = new Uint8Array(next - at);
    const real = Math.max(0, Math.min(next, end - start) - at);
    if (real) bytes.set(source.read(start + at, start + at + real));
    if (fault.corruptAt !== undefined && fault.corruptAt >= at && fault.corruptAt < next) {
      bytes[fault.corruptAt - at]! ^= 0xFF;
    }
    const framed = chunked
      ? Buffer.concat([encode(`${bytes.length.toString(16)}\r\n`), bytes, encode("\r\n")])
      : bytes;
    if (!await wire.write(framed)) return "left";
    at = next;
    sent.bytes = at;
    if (fault.rate) {
      const due = at / fault.rate * 1000 - (performance.now() - firstByte);
      if (due > 0 && !await wire.sleep(due)) return "left";
    }
  }
  if (size === fault.stallAt && !await wire.sleep(fault.stallFor ?? Infinity)) return "left";
  if (size === breakAt) return breakNow(socket, fault), "broken";
  if (chunked && !await wire.write(encode("0\r\n\r\n"))) return "left";
  if (typeof fault.contentLength === "number" && fault.contentLength !== size) {
    return socket.end(), "broken";
  }
  return "complete";
}

/** Writes with backpressure; every wait ends when the client leaves, with `false`. */
class Wire {
  #socket: net.Socket;

  constructor(socket: net.Socket) {
    this.#socket = socket;
  }

  write(bytes: Uint8Array): Promise<boolean> {
    if (this.#socket.destroyed) return Promise.resolve(false);
    if (this.#socket.write(bytes)) return Promise.resolve(true);
    return this.#until((done) => {
      const drained = () => done(true);
      this.#socket.once("drain", drained);
      return () => this.#socket.off("drain", drained);
    });
  }

  sleep(ms: number): Promise<boolean> {
    return this.#until((done) => {
      if (ms === Infinity) return () => {};
      const timer = setTimeout(() => done(true), ms);
      return () => clearTimeout(timer);
    });
  }

  async gone(): Promise<void> {
    await this.sleep(Infinity);
  }

  #until(start: (done: (here: boolean) => void) => () => void): Promise<boolean> {
    const socket = this.#socket;
    if (socket.destroyed) return Promise.resolve(false);
    return new Promise((resolve) => {
      const left = () => done(false);
      const done = (here: boolean) => {
        stop();
        socket.off("close", left);
        socket.off("end", left);
        resolve(here && !socket.destroyed);
      };
      const stop = start(done);
      socket.once("close", left);
      socket.once("end", left);
    });
  }
}

function breakNow(socket: net.Socket, fault: Fault): void {
  const reset = (fault.resetAt ?? Infinity) <= (fault.cutAt ?? Infinity);
  if (reset && !(socket instanceof tls.TLSSocket)) socket.resetAndDestroy();
  else socket.end(() => socket.destroy());
}

function asContent(body: ServerReply["body"]): Content {
  if (body === undefined) return contentOf(new Uint8Array());
  if (typeof body === "string") return contentOf(encode(body));
  return body instanceof Uint8Array ? contentOf(body) : body;
}

function encode(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

const REASONS: Readonly<Record<number, string>> = {
  200: "OK",
  206: "Partial Content",
  301: "Moved Permanently",
  302: "Found",
  303: "See Other",
  304: "Not Modified",
  307: "Temporary Redirect",
  308: "Permanent Redirect",
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  416: "Range Not Satisfiable",
  429: "Too Many Requests",
  500: "Internal Server Error",
  503: "Service Unavailable",
};
