/**
 * Finds registries by name or host.
 *
 * @module
 */
import { DEFAULT_REGISTRY, type Registry } from "./registry.ts";

/** The settings that routing uses. */
export interface RouteTable {
  /** The domain below which each registry has its own host name. */
  readonly customDomain: string;
  /** The upstream registries. */
  readonly registries: readonly Registry[];
  /** The upstream for every unmatched host (`TARGET_UPSTREAM` with `DEBUG=true`). */
  readonly fallback?: Registry;
}

/**
 * Returns the registry that `name` is the name, the URL's host or an alias of, in this order of
 * preference and whatever the case; a port that is the scheme's own may be written out.
 */
export function registryNamed(table: RouteTable, name: string): Registry | undefined {
  const wanted = name.toLowerCase();
  const { registries } = table;
  return registries.find((registry) => registry.name.toLowerCase() === wanted) ??
    registries.find(({ url }) => url.host === wanted || hostAndPort(url) === wanted) ??
    registries.find(({ aliases }) => aliases.some((alias) => alias.toLowerCase() === wanted));
}

/** Returns the registry for paths that name none. */
export function defaultRegistry(table: RouteTable): Registry | undefined {
  return table.registries.find(({ name }) => name === DEFAULT_REGISTRY) ?? table.registries[0];
}

/** A repository in path mode, split at its registry. */
export interface Stripped {
  readonly registry: Registry;
  /** The first component, as the client wrote it. */
  readonly written: string;
  /** The repository's name at the registry. */
  readonly repository: string;
}

/**
 * Returns what `repository` means in path mode if its first component names a registry, else
 * undefined: it is the default registry's own.
 *
 * `docker/<one component>` is undefined too: Docker Hub's repositories have exactly two components,
 * and `docker/dockerfile` is the frontend that every BuildKit build pulls.
 */
export function stripRegistry(repository: string, table: RouteTable): Stripped | undefined {
  const [written = "", ...rest] = repository.split("/");
  if (rest.length === 0) return undefined;
  if (rest.length === 1 && written.toLowerCase() === DEFAULT_REGISTRY) return undefined;
  const registry = registryNamed(table, written);
  return registry && { registry, written, repository: rest.join("/") };
}

/** Returns `host` in lower case without port, brackets and trailing dot, or "" if it is invalid. */
export function hostnameOf(host: string): string {
  const text = host.toLowerCase();
  if (text.split(":").length > 2 && !text.includes("[")) return text; // a bare IPv6 address
  const [, ipv6, name = ""] = /^(?:\[([^[\]]*)\]|([^:[\]]*))(?::\d*)?$/.exec(text) ?? [];
  return ipv6 ?? name.replace(/\.$/, "");
}

/** Whether `host` (port and brackets allowed) is an IPv4 or IPv6 address. */
export function isIpLiteral(host: string): boolean {
  const hostname = hostnameOf(host);
  if (hostname.includes(":")) {
    return /^[0-9a-f:.]+$/.test(hostname) && URL.canParse(`http://[${hostname}]`);
  }
  const parts = hostname.split(".");
  return parts.length === 4 && parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256);
}

/** Whether `host` is one on which the path names the registry. */
export function isPathHost(host: string, table: RouteTable): boolean {
  const hostname = hostnameOf(host);
  return hostname !== "" &&
    (hostname === hostnameOf(table.customDomain) || hostname === "localhost" || isIpLiteral(host));
}

function hostAndPort(url: URL): string {
  return `${url.hostname}:${url.port || (url.protocol === "https:" ? "443" : "80")}`;
}
