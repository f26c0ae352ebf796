/**
 * The listener that fits: our own for plain HTTP/1, `Deno.serve` for TLS (HTTP/2 too) and where Deno has to
 * do it.
 *
 * @module
 */
import { serveHttp1 } from "./http1/server.ts";
import type { Proxy } from "./proxy.ts";

/** What the command line needs of a running listener. */
export interface Listener {
  readonly addr: Deno.NetAddr;
  /** Settles when it has ended. */
  readonly finished: Promise<void>;
  /** Accepts nothing more, and settles when the answers under way have been sent. */
  shutdown(): Promise<void>;
  /** Breaks every connection off. */
  close(): void;
}

/** Options for {@linkcode listen}. */
export interface ListenOptions {
  readonly hostname: string;
  readonly port: number;
  /** PEM. */
  readonly tls?: { readonly cert: string; readonly key: string };
  /** @default {() => {}} */
  readonly onListen?: (address: Deno.NetAddr) => void;
}

/** Listens for `proxy`. Throws what the system throws: `Deno.errors.AddrInUse` for a port that is taken. */
export function listen(proxy: Proxy, options: ListenOptions): Listener {
  const { tls, onListen = () => {}, ...address } = options;
  if (!tls && proxy.config.ownHttp) return serveHttp1({ ...address, onListen }, proxy);
  const abort = new AbortController();
  const { signal } = abort;
  const settings = { ...address, onListen, signal, automaticCompression: false };
  const server = Deno.serve({ ...settings, ...tls }, proxy.fetch);
  return {
    addr: server.addr as Deno.NetAddr,
    finished: server.finished,
    shutdown: () => server.shutdown(),
    close: () => abort.abort(),
  };
}
