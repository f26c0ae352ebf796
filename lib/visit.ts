/**
 * What routing needs of a request: who asks, what host was named, by which scheme.
 *
 * @module
 */
import type { Config } from "./config.ts";
import { OciError } from "./oci/error.ts";
import { publicScheme } from "./transforms/auth.ts";
import { type AddressSet, addressSet, clientAddress, plainAddress } from "./transforms/policy.ts";

/** What is known of a connection besides its request. `Deno.ServeHandlerInfo` is one. */
export interface ConnectionInfo {
  readonly remoteAddr?: Deno.Addr;
  /** The request's URL as it was sent; `request.url` is normalized. */
  readonly address?: string;
  /** What the connection was accepted with. @default {what the request's URL says} */
  readonly scheme?: "http" | "https";
}

/** A request on its way through the pipeline. */
export interface Visit {
  readonly request: Request;
  readonly url: URL;
  /** As the client named it, port included. */
  readonly host: string;
  readonly scheme: "http" | "https";
  /** The address of who asked. */
  readonly client?: string;
}

/** Reads visits, and believes of what is said of a client what may be believed. */
export class Visits {
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

  /** Throws an `OciError` (400) for a Host that is none. */
  read(
    request: Request,
    { client, info }: { client: string | undefined; info: ConnectionInfo },
  ): Visit {
    const url = URL.parse(request.url);
    // HTTP/2 has no Host header, and an absolute-form request line overrides it: the URL has the host then.
    const named = request.headers.get("host") ?? url?.host ?? "";
    if (!url || !/^([\w.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?$/i.test(named)) {
      throw new OciError("NAME_INVALID", "Malformed Host");
    }
    const { publicScheme: setting, listen } = this.#config;
    const scheme = publicScheme({
      listener: info.scheme === "https" || listen.tls || url.protocol === "https:"
        ? "https"
        : "http",
      host: named,
      setting,
      trustProxy: this.#isTrusted(info),
      forwardedProto: request.headers.get("x-forwarded-proto"),
    });
    return { request, url, host: named, scheme, client };
  }

  #isTrusted(info: ConnectionInfo): boolean {
    const trusted = this.#trusted;
    if (trusted === undefined || trusted === "peer") return trusted === "peer";
    const peer = peerOf(info);
    return peer !== undefined && trusted.has(peer);
  }
}

/** The address at the other end of a connection, where there is one. */
export function peerOf({ remoteAddr }: ConnectionInfo): string | undefined {
  return remoteAddr && "hostname" in remoteAddr ? remoteAddr.hostname : undefined;
}
