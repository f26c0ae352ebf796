/**
 * Clients for tests: a whole answer with its digest, and bare sockets for what no decent client would send.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";

/** An answer that was read to its end. */
export interface Whole {
  readonly status: number;
  readonly headers: Headers;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly digest: string;
  readonly text: string;
  // deno-lint-ignore no-explicit-any
  readonly json: any;
}

/** Fetches and reads all of it, without following redirects; throws when the body breaks. */
export async function whole(
  url: string | URL,
  init: RequestInit & { readonly client?: Deno.HttpClient } = {},
): Promise<Whole> {
  const response = await fetch(url, { redirect: "manual", ...init });
  return wholeOf(response, await response.bytes());
}

/** The same from `server` (`host:port`), whatever the URL's host and scheme. */
export async function wholeAt(
  server: string,
  url: string | URL,
  { method, authorization }: { readonly method?: string; readonly authorization?: string } = {},
): Promise<Whole> {
  const { host, pathname, search } = new URL(url);
  const credential = authorization ? [["authorization", authorization] as const] : [];
  const headers = [["host", host] as const, ...credential];
  const answer = await rawRequest(server, { method, path: pathname + search, headers });
  return wholeOf(answer, answer.body);
}

function wholeOf(
  { status, headers }: Pick<Whole, "status" | "headers">,
  bytes: Uint8Array<ArrayBuffer>,
): Whole {
  return {
    status,
    headers,
    bytes,
    digest: "sha256:" + createHash("sha256").update(bytes).digest("hex"),
    get text() {
      return new TextDecoder().decode(bytes);
    },
    get json() {
      return JSON.parse(new TextDecoder().decode(bytes));
    },
  };
}

/** The size and digest of a stream that is too large to hold. */
export async function digestOfStream(
  stream: ReadableStream<Uint8Array>,
): Promise<{ size: number; digest: string }> {
  const hash = createHash("sha256");
  let size = 0;
  for await (const chunk of stream) {
    hash.update(chunk);
    size += chunk.length;
  }
  return { size, digest: "sha256:" + hash.digest("hex") };
}

/** Options for {@linkcode rawRequest}. */
export interface RawRequest {
  /** @default {"GET"} */
  readonly method?: string;
  /** The request target exactly as it is to be sent. */
  readonly path: string;
  /** In this order, duplicates kept. Without a `host` one with the address is put first; `host: null` leaves it out. */
  readonly headers?: readonly (readonly [string, string | null])[];
  /** Sent as it is; no Content-Length is added. */
  readonly body?: string | Uint8Array<ArrayBuffer>;
  /** @default {"HTTP/1.1"} */
  readonly version?: string;
  /** Closes the connection once that many body bytes have come. */
  readonly stopAfter?: number;
  /** Reads at most that many bytes per second. */
  readonly rate?: number;
  /** Milliseconds without a byte after which it gives up. @default {30000} */
  readonly timeout?: number;
}

/** What came back, however badly. */
export interface RawAnswer {
  /** 0 when the connection ended before a status line. */
  readonly status: number;
  readonly headers: Headers;
  /** The status line and header lines as they were sent. */
  readonly head: string;
  readonly body: Uint8Array<ArrayBuffer>;
  /** Whether the body ended where its framing says. */
  readonly complete: boolean;
  /** Why reading ended, when it was an error or a timeout. */
  readonly error?: string;
}

/** Sends one request over a connection of its own to `host:port` and reads the answer. */
export async function rawRequest(host: string, request: RawRequest): Promise<RawAnswer> {
  const connection = await openRaw(host);
  try {
    await connection.write(renderRequest(host, request));
    return await connection.answer(request);
  } finally {
    connection.close();
  }
}

/** The bytes of a request. */
export function renderRequest(host: string, request: RawRequest): Uint8Array<ArrayBuffer> {
  const { method = "GET", path, headers = [], version = "HTTP/1.1", body = "" } = request;
  const given = headers.some(([name]) => name.toLowerCase() === "host");
  const lines = [...given ? [] : [["host", host] as const], ...headers]
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `${name}: ${value}\r\n`);
  const head = encode(`${method} ${path} ${version}\r\n${lines.join("")}\r\n`);
  const tail = typeof body === "string" ? encode(body) : body;
  const out = new Uint8Array(head.length + tail.length);
  out.set(head);
  out.set(tail, head.length);
  return out;
}

/** A connection that sends bytes as they are, e.g. a head in slow pieces, and reads answers. */
export interface RawConnection {
  write(bytes: string | Uint8Array): Promise<void>;
  /** Reads one answer, framed as it says; `method` HEAD has no body. */
  answer(
    options?: Pick<RawRequest, "method" | "stopAfter" | "rate" | "timeout">,
  ): Promise<RawAnswer>;
  close(): void;
}

/** Opens a connection to `host:port`. */
export async function openRaw(host: string): Promise<RawConnection> {
  const { hostname, port } = new URL(`http://${host}`);
  const conn = await Deno.connect({
    hostname: hostname.replace(/^\[|\]$/g, ""),
    port: Number(port || 80),
  });
  return connectionOf(conn);
}

/** The same over a connection that is open already, e.g. of `Deno.connectTls`. */
export function connectionOf(conn: Deno.Conn): RawConnection {
  let buffer = new Uint8Array(0);
  let closed = false;

  async function more(timeout: number, limit: number): Promise<boolean> {
    const chunk = new Uint8Array(limit);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`Timeout: ${timeout} ms without a byte`)), timeout);
    });
    try {
      const count = await Promise.race([conn.read(chunk), late]);
      if (!count) return false;
      const next = new Uint8Array(buffer.length + count);
      next.set(buffer);
      next.set(chunk.subarray(0, count), buffer.length);
      buffer = next;
      return true;
    } finally {
      clearTimeout(timer);
    }
  }

  function take(count: number): Uint8Array<ArrayBuffer> {
    const taken = buffer.slice(0, count);
    buffer = buffer.slice(count);
    return taken;
  }

  function indexOf(text: string): number {
    return new TextDecoder("latin1").decode(buffer).indexOf(text);
  }

  async function answer(
    options: Pick<RawRequest, "method" | "stopAfter" | "rate" | "timeout"> = {},
  ): Promise<RawAnswer> {
    const { method = "GET", stopAfter = Infinity, rate, timeout = 30_000 } = options;
    const limit = rate ? Math.max(1, Math.ceil(rate / 20)) : 64 * 1024;
    const headers = new Headers();
    const parts: Uint8Array[] = [];
    let size = 0;
    let head = "";
    let status = 0;
    const result = (complete: boolean, error?: unknown): RawAnswer => {
      const body = new Uint8Array(size);
      let at = 0;
      for (const part of parts) {
        body.set(part, at);
        at += part.length;
      }
      const why = error === undefined ? undefined : String(error);
      return { status, headers, head, body, complete, error: why };
    };
    const firstByte = performance.now();
    async function put(wanted: number): Promise<boolean> {
      while (wanted > 0 && size < stopAfter) {
        if (!buffer.length && !await more(timeout, limit)) return false;
        const part = take(Math.min(wanted, buffer.length, stopAfter - size));
        parts.push(part);
        size += part.length;
        wanted -= part.length;
        const due = rate ? size / rate * 1000 - (performance.now() - firstByte) : 0;
        if (due > 0) await new Promise((resolve) => setTimeout(resolve, due));
      }
      return wanted === 0;
    }
    try {
      let end: number;
      while ((end = indexOf("\r\n\r\n")) < 0) if (!await more(timeout, limit)) return result(false);
      head = new TextDecoder("latin1").decode(take(end + 4));
      const [first = "", ...lines] = head.split("\r\n");
      status = Number(first.split(" ")[1]);
      for (const line of lines) {
        const colon = line.indexOf(":");
        if (colon > 0) headers.append(line.slice(0, colon), line.slice(colon + 1).trim());
      }
      if (method === "HEAD" || status === 304 || status === 204) return result(true);
      const length = headers.get("content-length");
      if (length !== null) return result(await put(Number(length)));
      if (!headers.get("transfer-encoding")?.includes("chunked")) {
        await put(Infinity);
        return result(size < stopAfter);
      }
      while (size < stopAfter) {
        let line: number;
        while ((line = indexOf("\r\n")) < 0) if (!await more(timeout, limit)) return result(false);
        const chunk = parseInt(new TextDecoder().decode(take(line + 2)), 16);
        if (!await put(chunk)) return result(false);
        while (buffer.length < 2) if (!await more(timeout, limit)) return result(false);
        take(2);
        if (chunk === 0) return result(true);
      }
      return result(false);
    } catch (error) {
      return result(false, error);
    }
  }

  return {
    async write(bytes) {
      const all = typeof bytes === "string" ? encode(bytes) : bytes;
      for (let at = 0; at < all.length;) at += await conn.write(all.subarray(at));
    },
    answer,
    close() {
      if (!closed) conn.close();
      closed = true;
    },
  };
}

function encode(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

/**
 * Whether this Deno's fetch undoes an encoding that nobody asked for (2.5 does, and leaves no trace of it): what
 * comes of it then is right, or found out by its digest.
 */
export async function fetchDecodes(): Promise<boolean> {
  const encoded = new Uint8Array(gzipSync("text"));
  const headers = { "content-encoding": "gzip", "content-length": String(encoded.byteLength) };
  await using server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => new Response(encoded, { headers }),
  );
  const url = `http://127.0.0.1:${server.addr.port}/`;
  const response = await fetch(url, { headers: { "accept-encoding": "identity" } });
  return await response.text() === "text";
}
