/**
 * One HTTP request to one URL: no redirects, no credentials of its own, no decoding, and no connection
 * to where the guard says no.
 *
 * @module
 */
import { lookup as systemLookup } from "node:dns";
import type { IncomingMessage, RequestOptions } from "node:http";
import type { LookupFunction } from "node:net";
import { OciError } from "../../oci/error.ts";
import type { Registry } from "../../oci/registry.ts";
import { checkUrl, isOwnOrigin, isPrivateAddress } from "./guard.ts";
import { bodyOfMessage } from "./message_body.ts";

/** One request as {@linkcode Connect} takes it. */
export interface ConnectRequest {
  readonly registry: Pick<Registry, "url">;
  readonly method: string;
  readonly headers: Headers;
  readonly body?: string;
  /** Aborting it ends the request or, later, the body. */
  readonly signal: AbortSignal;
}

/** Sends a request; resolves when the status and headers are here. */
export type Connect = (url: URL, request: ConnectRequest) => Promise<Response>;

/** Resolves a host name to addresses, as `node:dns` `lookup` with `all` does. */
export type Lookup = (
  hostname: string,
  options: { all: true },
  callback: (error: Error | null, addresses: { address: string; family: number }[]) => void,
) => void;

/** Options for {@linkcode createConnect}. */
export interface ConnectOptions {
  readonly allowPrivate: boolean;
  /**
   * Whether an outbound proxy makes the connections: then it also resolves the names, and only literal
   * addresses can be checked here. @default {false}
   */
  readonly proxied?: boolean;
  /** A file of authorities to trust beside Deno's own, PEM: that of `DENO_CERT`. */
  readonly authoritiesFile?: string;
  /** @default {node:dns lookup} */
  readonly lookup?: Lookup;
}

/** The narrowest view of node's `lookup` option: it is called with either form of options. */
type NodeLookup = (
  hostname: string,
  options: { all?: boolean },
  callback: (error: Error | null, address?: unknown, family?: number) => void,
) => void;

/**
 * A lookup that hides private addresses. The address it returns is the one that is then connected to,
 * so a name cannot change its mind between the check and the connection.
 */
function guardedLookup(lookup: Lookup): NodeLookup {
  return (hostname, options, callback) =>
    lookup(hostname, { all: true }, (error, addresses) => {
      if (error) return callback(error);
      const allowed = addresses.filter(({ address }) => !isPrivateAddress(address));
      const first = allowed[0];
      if (!first) return callback(refusal("the name has only private addresses", hostname));
      if (options.all) callback(null, allowed);
      else callback(null, first.address, first.family);
    });
}

function refusal(why: string, host: string): OciError {
  return new OciError("UNAVAILABLE", `Refusing to connect: ${why}`, {
    status: 502,
    detail: { host },
  });
}

/** Statuses whose answers have no body, whatever is sent. */
const WITHOUT_BODY: ReadonlySet<number> = new Set([204, 205, 304]);

/** Throws for a status that is no final answer's: nothing else about it can be relied on either. */
function responseOf(message: IncomingMessage): Response {
  const headers = new Headers();
  for (const [name, value] of Object.entries(message.headersDistinct)) {
    for (const one of value ?? []) headers.append(name, one);
  }
  const status = message.statusCode ?? 0;
  if (status < 200 || status > 599) throw new Error(`Status ${status} is none`);
  if (WITHOUT_BODY.has(status)) {
    message.resume();
    return new Response(null, { status, headers });
  }
  return new Response(bodyOfMessage(message), { status, headers });
}

/**
 * Deno before 2.7.13: its `node:http` takes no lookup, but a connection that has one, and puts TLS on that, for
 * the URL's host. Never with a later one, which sends on it in clear.
 */
async function connectionWith(lookup: NodeLookup): Promise<RequestOptions> {
  const { connect } = await import("node:net");
  return {
    createConnection: ({ host, port }) =>
      connect({
        host: host ?? "",
        port: Number(port),
        lookup: lookup as LookupFunction,
        autoSelectFamily: true,
      }),
  };
}

/** From 2.9 on Deno's `fetch` knows of the authorities in `DENO_CERT`, and its `node:https` does not. */
async function trustAuthorities(file: string): Promise<void> {
  const tls: Partial<DefaultAuthorities> = await import("node:tls");
  if (!tls.getCACertificates || !tls.setDefaultCACertificates) return;
  const known = tls.getCACertificates("default");
  tls.setDefaultCACertificates([...known, await Deno.readTextFile(file)]);
}

/** What of `node:tls` Deno's types do not all have yet, nor its versions before 2.8. */
interface DefaultAuthorities {
  getCACertificates(type: "default"): string[];
  setDefaultCACertificates(certificates: readonly string[]): void;
}

/** The route through `node:http(s)`, for hosts that an upstream named: only it can pin the address. */
async function guardedRequest(
  url: URL,
  init: ConnectRequest,
  pinned: RequestOptions,
): Promise<Response> {
  const { request } = url.protocol === "https:"
    ? await import("node:https")
    : await import("node:http");
  return await new Promise<Response>((resolve, reject) => {
    // Not left to `request`: it says nothing of an abort while it waits for what comes after a 101.
    init.signal.addEventListener("abort", () => reject(init.signal.reason), { once: true });
    const outgoing = request(url, {
      method: init.method,
      headers: Object.fromEntries(init.headers),
      signal: init.signal,
      ...pinned,
    }, (message) => {
      // Before 2.7.13 Deno leaves a body that stands still as it is.
      init.signal.addEventListener("abort", () => message.destroy(), { once: true });
      try {
        resolve(responseOf(message));
      } catch (error) {
        message.destroy();
        reject(error);
      }
    });
    outgoing.on("error", reject);
    outgoing.on("upgrade", (_message, socket) => {
      socket.destroy();
      reject(new Error("Status 101 was not asked for"));
    });
    outgoing.end(init.body);
  });
}

/**
 * Returns the way out. It throws an `OciError` (502) for a URL the guard refuses, and whatever the
 * network throws otherwise.
 */
export function createConnect(options: ConnectOptions): Connect & Disposable {
  // HTTP/2 to a registry would let three unread blobs stall every other request to it.
  const client = Deno.createHttpClient({ http2: false, poolMaxIdlePerHost: 32 });
  const guarded = guardedLookup(options.lookup ?? systemLookup as Lookup);
  let trusted: Promise<void> | undefined;
  // node's own type wants one overload; both forms are answered
  let pinned: RequestOptions = { lookup: guarded as LookupFunction };
  const connect: Connect = async (url, given) => {
    checkUrl(url, { registry: given.registry, allowPrivate: options.allowPrivate });
    const headers = new Headers(given.headers);
    // Otherwise fetch asks for whatever it can decode, decodes it, and leaves the header in place.
    headers.set("accept-encoding", "identity");
    const request = { ...given, headers };
    const isOpen = options.allowPrivate || options.proxied || isOwnOrigin(url, request.registry);
    if (!isOpen) {
      if (url.protocol === "https:" && options.authoritiesFile !== undefined) {
        await (trusted ??= trustAuthorities(options.authoritiesFile));
      }
      try {
        return await guardedRequest(url, request, pinned);
      } catch (error) {
        if ((error as { code?: unknown }).code !== "ERR_NOT_IMPLEMENTED") throw error;
        pinned = await connectionWith(guarded);
        return await guardedRequest(url, request, pinned);
      }
    }
    return await fetch(url, {
      method: request.method,
      headers: request.headers,
      body: request.body,
      signal: request.signal,
      redirect: "manual",
      client,
    });
  };
  return Object.assign(connect, { [Symbol.dispose]: () => client.close() });
}
