/**
 * Every way the proxy can be listened to, for tests of what a client sees on each.
 *
 * @module
 */
import { startTestProxy, type TestProxy, type TestProxyOptions } from "./proxy.ts";
import { testCertificate } from "./secure.ts";

/**
 * The proxy's own listener without TLS and with it, and `Deno.serve` as programs that embed the proxy use it: HTTP/1,
 * and with TLS HTTP/2.
 */
export const LISTENERS = ["our HTTP/1", "our HTTPS/1", "Deno's HTTP/1", "Deno's HTTP/2"] as const;

export type ListenerName = typeof LISTENERS[number];

/** A proxy and a client of the kind that was asked for. */
export interface ListenerTest extends AsyncDisposable {
  readonly proxy: TestProxy;
  /** Where it is listened to: `https://127.0.0.1:PORT`. */
  readonly origin: string;
  /** `fetch` from the proxy's origin, redirects not followed. */
  get(path: string, init?: RequestInit): Promise<Response>;
}

/** Starts a proxy behind the listener `name`. */
export async function startListener(
  name: ListenerName,
  options: TestProxyOptions = {},
): Promise<ListenerTest> {
  const isHttp2 = name === "Deno's HTTP/2";
  const tls = isHttp2 || name === "our HTTPS/1" ? await testCertificate() : undefined;
  const isDeno = isHttp2 || name === "Deno's HTTP/1";
  const proxy = await startTestProxy({ ...options, tls: isDeno ? undefined : tls });
  const deno = isDeno ? denoServer(proxy, tls) : undefined;
  const client = Deno.createHttpClient({
    http1: !isHttp2,
    http2: isHttp2,
    caCerts: tls && [tls.ca],
    poolMaxIdlePerHost: 0,
  });
  const origin = deno?.url ?? proxy.url;
  return {
    proxy,
    origin,
    get: (path, init) => fetch(origin + path, { redirect: "manual", ...init, client }),
    async [Symbol.asyncDispose]() {
      client.close();
      await deno?.close();
      await proxy.close();
    },
  };
}

/** `Deno.serve` as `mod.ts` says to use it. */
function denoServer(proxy: TestProxy, tls?: { cert: string; key: string }) {
  const abort = new AbortController();
  // A variable: Deno 2.5 does not know all of its members.
  const settings = {
    hostname: "127.0.0.1",
    port: 0,
    signal: abort.signal,
    onListen() {},
    automaticCompression: false,
  };
  const server = Deno.serve(
    { ...settings, ...tls },
    (request, info) => proxy.proxy.fetch(request, info),
  );
  return {
    url: `${tls ? "https" : "http"}://127.0.0.1:${server.addr.port}`,
    async close() {
      abort.abort();
      await server.finished;
    },
  };
}
