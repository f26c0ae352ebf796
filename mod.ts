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

/** A running proxy. */
export interface RunningProxy {
  /**
   * Answers one request. Fits `Deno.serve`, and does not depend on `this`. Returns 400 if the request's URL
   * and `Host` header name different hosts.
   */
  fetch(request: Request, info?: ConnectionInfo): Promise<Response>;
  /** Resolves when the cache is open. If it cannot be opened, this and every `fetch` reject. */
  readonly ready: Promise<void>;
  /** Closes the proxy. Waits up to `grace` ms for downloads in progress (default 0). */
  close(options?: { grace?: number }): Promise<void>;
}

/**
 * Creates and starts a proxy. {@linkcode parseConfig} creates its configuration. Does not listen on any
 * port.
 */
export function createProxy(config: Config): RunningProxy {
  return new Proxy(config);
}
