/**
 * Everything that is read from a request, once: which host it names, by which scheme, who sent it, what it
 * asks for. Routing, keys, limits and the log work with this, and never with the request itself: Host and URL
 * of one request can name two hosts (`:authority` beside `host` in HTTP/2, an absolute target beside Host in
 * HTTP/1), and whoever may choose which of them a key is made of writes answers under other people's names.
 *
 * @module
 */
import type { Config } from "../config/config.ts";
import { OciError } from "../oci/error.ts";
import { checkRequest } from "./bounds.ts";
import { publicScheme } from "../transforms/auth.ts";
import { type AddressSet, addressSet, clientAddress } from "../transforms/policy.ts";
import { plainAddress } from "../util/address.ts";

/** What is known of a connection besides its request. `Deno.ServeHandlerInfo` is one. */
export interface ConnectionInfo {
  /** The address at the other end. */
  readonly remoteAddr?: Deno.Addr;
  /** Path and query as they were sent, where that is known; `request.url` is normalized. */
  readonly target?: string;
  /** What the connection was accepted with. @default {what the request's URL says} */
  readonly scheme?: "http" | "https";
  /** Aborted when the client leaves before its answer has begun. @default {the request's own signal} */
  readonly left?: () => AbortSignal;
}

/** Where a request goes. */
export interface RequestAddress {
  /** The one host that the request names: in lower case, with the port as the client wrote it. */
  readonly host: string;
  /** Path and query, beginning with `/`; as they were sent where that is known. */
  readonly target: string;
}

/** What a {@linkcode RequestContext} is made of. */
export interface RequestContextOptions extends RequestAddress {
  readonly request: Request;
  readonly scheme: "http" | "https";
  /** The address of the client. */
  readonly client: string | undefined;
  /** See {@linkcode ConnectionInfo.left}. */
  readonly left?: () => AbortSignal;
  /** Why the request cannot be answered. */
  readonly refusal?: OciError;
}

/** A request as it is read at the start. */
export class RequestContext implements RequestAddress {
  readonly method: string;
  readonly host: string;
  readonly target: string;
  readonly scheme: "http" | "https";
  /** The address of the client, where there is one. */
  readonly client: string | undefined;
  /** Aborted when the client leaves before its answer has begun, and perhaps after. */
  readonly left: () => AbortSignal;
  readonly headers: Headers;
  /** Of POST; no other body is read. */
  readonly body: ReadableStream<Uint8Array> | null;
  /** When it was read, ms, by `performance.now()`. */
  readonly started = performance.now();
  /** Set where it names no host, or two, or says too much: host and target then are for the log only. */
  readonly refusal: OciError | undefined;
  #url: URL | null | undefined;

  constructor({ request, host, target, scheme, client, left, refusal }: RequestContextOptions) {
    // Now: of a request whose client has left, Deno tells nothing any more but throws.
    const { method, headers } = request;
    this.method = method;
    this.headers = headers;
    this.body = method === "POST" ? request.body : null;
    this.host = host;
    this.target = target;
    this.scheme = scheme;
    this.client = client;
    this.left = left ?? (() => request.signal);
    this.refusal = refusal;
  }

  /** Returns a field's value; null without one, joined by commas where there are several. */
  header(name: string): string | null {
    return this.headers.get(name);
  }

  /**
   * The URL as the client sees it, normalized: its path is the one to route by.
   *
   * @throws {OciError} `NAME_INVALID` (400) where the host is none that a URL may have.
   */
  get url(): URL {
    const url = this.#parsed();
    if (!url) throw malformedHost();
    return url;
  }

  /** The normalized path, for the log; "-" where there is none. Without the query: that may hold a secret. */
  get path(): string {
    return this.#parsed()?.pathname ?? "-";
  }

  #parsed(): URL | null {
    return this.#url ??= URL.parse(`${this.scheme}://${this.host}${this.target}`);
  }
}

const HOST = /^([\w.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?$/i;
/** Characters: a name of 255, a colon and a port. */
const LONGEST_HOST = 261;
/** A URL that names a host; what stands for the host is checked by itself. */
const ABSOLUTE = /^([a-z][a-z\d+.-]*):\/\/([^/?#]*)([^#]*)/i;

/** Whether `text` is a host, with a port or without, and nothing that could change what a URL with it means. */
export function isHost(text: string): boolean {
  return text.length <= LONGEST_HOST && HOST.test(text);
}

/**
 * Returns where a request goes that was sent with the absolute `url` and the field `host`, null where there is
 * none. A host that is written twice must be the same twice, whatever the case and with the scheme's own port or
 * without.
 *
 * @throws {OciError} `NAME_INVALID` (400) where it names no host, or two.
 */
export function addressOf(url: string, host: string | null): RequestAddress {
  const [, scheme = "", authority = "", target = ""] = ABSOLUTE.exec(url) ?? [];
  const named = host ?? authority;
  if (!isHost(named) || !isHost(authority)) throw malformedHost();
  if (host !== null && !isSameHost(authority, host, scheme)) {
    throw new OciError("NAME_INVALID", "The request names two hosts", { status: 400 });
  }
  return {
    host: named.toLowerCase(),
    target: target.startsWith("/") ? target : `/${target}`,
  };
}

function isSameHost(a: string, b: string, scheme: string): boolean {
  if (a.toLowerCase() === b.toLowerCase()) return true;
  const normal = (host: string) =>
    URL.parse(`${scheme.toLowerCase() === "https" ? "https" : "http"}://${host}`)?.host;
  const first = normal(a);
  return first !== undefined && first === normal(b);
}

function malformedHost(): OciError {
  return new OciError("NAME_INVALID", "Malformed Host");
}

/** Reads requests, and believes of what is said of a client what may be believed. */
export class RequestReader {
  readonly #config: Pick<Config, "listen" | "publicScheme">;
  /** Whose word on the client's address and scheme is believed. */
  readonly #trusted: AddressSet | "peer" | undefined;

  constructor(config: Pick<Config, "listen" | "publicScheme" | "trustProxy">) {
    this.#config = config;
    const { trustProxy } = config;
    if (typeof trustProxy === "object") this.#trusted = addressSet(trustProxy);
    else this.#trusted = trustProxy ? "peer" : undefined;
  }

  /** The client's address, as a proxy that is trusted says, else the connection's (`peer`). */
  client(header: (name: string) => string | null, peer: string | undefined): string | undefined {
    const trusted = this.#trusted;
    // Where HOST is `::` an IPv4 client comes as an IPv6 one, and its /64 would be that of all of them.
    if (trusted === undefined) return peer?.startsWith("::ffff:") ? plainAddress(peer) : peer;
    return clientAddress({ peer, forwardedFor: header("x-forwarded-for"), trusted });
  }

  /** Reads `request`, which came by the connection `info`. Never throws: see {@linkcode RequestContext.refusal}. */
  read(request: Request, info: ConnectionInfo): RequestContext {
    const { url, headers } = request;
    const header = (name: string) => headers.get(name);
    const client = this.client(header, peerOf(info));
    const named = headers.get("host");
    try {
      checkRequest({ url, headers });
      const { host, target } = addressOf(url, named);
      const scheme = this.#scheme({ url, host, header, info });
      const { left } = info;
      const sent = info.target ?? target;
      return new RequestContext({ request, host, target: sent, scheme, client, left });
    } catch (error) {
      if (!(error instanceof OciError)) throw error;
      return new RequestContext({
        request,
        host: named ?? "",
        target: "/",
        scheme: "http",
        client,
        refusal: error,
      });
    }
  }

  #scheme({ url, host, header, info }: {
    url: string;
    host: string;
    header: (name: string) => string | null;
    info: ConnectionInfo;
  }): "http" | "https" {
    const { publicScheme: setting, listen } = this.#config;
    const isSecure = info.scheme === "https" || listen.tls || /^https:/i.test(url);
    return publicScheme({
      listener: isSecure ? "https" : "http",
      host,
      setting,
      trustProxy: this.#isTrusted(info),
      forwardedProto: header("x-forwarded-proto"),
    });
  }

  #isTrusted(info: ConnectionInfo): boolean {
    const trusted = this.#trusted;
    if (trusted === undefined || trusted === "peer") return trusted === "peer";
    const peer = peerOf(info);
    return peer !== undefined && trusted.has(peer);
  }
}

/** The address at the other end of a connection, where there is one. */
function peerOf({ remoteAddr }: ConnectionInfo): string | undefined {
  return remoteAddr && "hostname" in remoteAddr ? remoteAddr.hostname : undefined;
}
