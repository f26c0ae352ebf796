/**
 * The listener that fits: our own, or `Deno.serve` where Deno has to do it.
 *
 * @module
 */
import type { Config } from "../config/config.ts";
import { serveHttp1 } from "./http1/server.ts";
import type { Rejection } from "../limits/gate.ts";
import type { Proxy } from "../proxy/proxy.ts";
import { addressSet } from "../transforms/policy.ts";

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

/**
 * Listens for `proxy`. Rejects with what the system says: `Deno.errors.AddrInUse` for a port that is taken.
 */
export async function listen(proxy: Proxy, options: ListenOptions): Promise<Listener> {
  const { tls, onListen = () => {}, ...address } = options;
  const bounds = {
    isProxy: trustedProxies(proxy.config),
    onRefused: () => proxy.stats.rejected.add("connections" satisfies Rejection),
  };
  if (proxy.config.ownHttp && !tls) return serveHttp1({ ...address, ...bounds, onListen }, proxy);
  if (proxy.config.ownHttp && tls && canOwnTls()) {
    const { serveTls } = await import("./tls/server.ts");
    return await serveTls({ ...address, ...bounds, onListen, tls }, proxy);
  }
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

/** Whose connections come from many clients: those whose word on their addresses is believed. */
function trustedProxies({ trustProxy }: Pick<Config, "trustProxy">): (address: string) => boolean {
  if (typeof trustProxy !== "object") return () => trustProxy === true;
  const networks = addressSet(trustProxy);
  return (address) => networks.has(address);
}

/** Whether `node:tls` can serve: before Deno 2.9 it is made of what cannot give a connection up. */
export function canOwnTls(): boolean {
  const [major = 0, minor = 0] = Deno.version.deno.split(".").map(Number);
  return major > 2 || major === 2 && minor >= 9;
}
