/**
 * The proxy as a library.
 *
 * ```ts
 * import { createProxy, parseConfig } from "./mod.ts";
 *
 * const proxy = createProxy(parseConfig({ CUSTOM_DOMAIN: "example.com", CACHE_ENABLED: "false" }));
 * const server = Deno.serve({ port: 8080 }, proxy.fetch);
 * await server.finished;
 * await proxy.close();
 * ```
 *
 * @module
 */
import type { Config } from "./lib/config/config.ts";
import { type ConnectionInfo, Proxy } from "./lib/proxy/proxy.ts";

export { type Config, ConfigError, type ConfigOptions, parseConfig } from "./lib/config/config.ts";
export type {
  IndexSetting,
  RedisLocation,
  S3Setting,
  StoreSetting,
} from "./lib/config/engine_url.ts";
export type { QuotaThreshold, Rate, RateLimits, RepositoryRules } from "./lib/config/values.ts";
export type { Platforms } from "./lib/oci/platform.ts";
export type { RouteTable } from "./lib/oci/registry_table.ts";
export type { LogLevel, LogSettings } from "./lib/telemetry/log.ts";
export type { ConnectionInfo } from "./lib/proxy/proxy.ts";
export {
  type Registry,
  registryOf,
  type RegistryOptions,
  type ServiceCredential,
} from "./lib/oci/registry.ts";
export { OciError, type OciErrorCode, renderError } from "./lib/oci/error.ts";
export * from "./lib/transforms/auth.ts";
export * from "./lib/transforms/headers.ts";
export * from "./lib/transforms/library.ts";
export * from "./lib/transforms/range.ts";
export * from "./lib/transforms/redirect.ts";
export * from "./lib/transforms/route.ts";

/** A proxy that is running. */
export interface RunningProxy {
  /**
   * Answers one request; fits `Deno.serve`. It can be passed on without its object. A request whose URL and `Host` name
   * two hosts is answered with 400.
   */
  fetch(request: Request, info?: ConnectionInfo): Promise<Response>;
  /** Settles when the cache is open; rejects when it cannot be, and so does every `fetch` then. */
  readonly ready: Promise<void>;
  /** Ends; downloads under way are waited for up to `grace` ms (0 without). */
  close(options?: { grace?: number }): Promise<void>;
}

/** Starts a proxy; {@linkcode parseConfig} makes the configuration. Opens nothing to listen on. */
export function createProxy(config: Config): RunningProxy {
  return new Proxy(config);
}
