/**
 * The proxy in this process, on a free port, with a cache folder of its own.
 *
 * @module
 */
import { type Config, parseConfig } from "../../lib/config/config.ts";
import { listen } from "../../lib/server/listener.ts";
import { Proxy } from "../../lib/proxy/proxy.ts";
import type { Stats } from "../../lib/telemetry/stats.ts";
import { removeDir } from "./temp.ts";

/** A proxy that listens in this process. */
export interface TestProxy {
  /** `http://127.0.0.1:PORT`, or https with `tls`. */
  readonly url: string;
  /** `127.0.0.1:PORT` */
  readonly host: string;
  readonly port: number;
  readonly config: Config;
  readonly cacheDir: string;
  /** The current one: another after `restart`. */
  readonly proxy: Proxy;
  readonly stats: Stats;
  /**
   * Stops the proxy and starts it again on the same port and cache folder, waiting `grace` ms (0) for fills;
   * `between` runs while it is down.
   */
  restart(options?: {
    grace?: number;
    env?: Readonly<Record<string, string>>;
    between?: () => void | Promise<void>;
  }): Promise<void>;
  /** Stops it; removes a cache folder that was not given. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Options for {@linkcode startTestProxy}. */
export interface TestProxyOptions {
  /** Upstreams by registry name: each becomes `UPSTREAM_<NAME>`. */
  readonly upstreams?: Readonly<Record<string, { readonly url: string } | string>>;
  /** Further settings. `CACHE_DIR` is a temporary folder where it is not given. */
  readonly env?: Readonly<Record<string, string>>;
  /** PEM: it then listens with https. */
  readonly tls?: { readonly cert: string; readonly key: string };
}

/** Starts a proxy whose cache is open: `await using proxy = await startTestProxy({ upstreams: { docker } })`. */
export async function startTestProxy(options: TestProxyOptions = {}): Promise<TestProxy> {
  const { upstreams = {}, tls } = options;
  const cacheDir = options.env?.CACHE_DIR ?? await Deno.makeTempDir({ prefix: "proxy-cache-" });
  const env: Record<string, string> = { CACHE_DIR: cacheDir, ...options.env };
  for (const [name, upstream] of Object.entries(upstreams)) {
    env[`UPSTREAM_${name.toUpperCase().replaceAll("-", "_")}`] = typeof upstream === "string"
      ? upstream
      : upstream.url;
  }
  // Instances that share a cache tell each other where they listen.
  let port = Number(env.PORT ?? 0);
  let config = parseConfig(env);
  let { proxy, server } = await start();

  async function start() {
    const proxy = new Proxy(config);
    try {
      await proxy.ready;
    } catch (error) {
      await proxy.close();
      throw error;
    }
    const server = await listening(proxy);
    port = server.addr.port;
    return { proxy, server };
  }

  /** A connection of another test may have the port that was free during a restart, for a moment. */
  async function listening(proxy: Proxy) {
    for (let attempt = 1;; attempt++) {
      try {
        return await listen(proxy, { hostname: "127.0.0.1", port, tls });
      } catch (error) {
        if (!(error instanceof Deno.errors.AddrInUse) || attempt === 100) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  async function stop(grace: number) {
    const closing = proxy.close({ grace });
    // Clients still reading are cut off: a test that wants them served waits for them first.
    server.close();
    await closing;
    await server.finished;
  }

  async function close() {
    await stop(0);
    if (options.env?.CACHE_DIR === undefined) await removeDir(cacheDir);
  }

  const host = `127.0.0.1:${port}`;
  return {
    url: `${tls ? "https" : "http"}://${host}`,
    host,
    port,
    cacheDir,
    get config() {
      return config;
    },
    get proxy() {
      return proxy;
    },
    get stats() {
      return proxy.stats;
    },
    async restart({ grace = 0, env: changes = {}, between } = {}) {
      await stop(grace);
      await between?.();
      config = parseConfig({ ...env, ...changes });
      ({ proxy, server } = await start());
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}
