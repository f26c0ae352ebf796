/**
 * Determines the registry and the resource of a request.
 *
 * @module
 */
import {
  defaultRegistry,
  hostnameOf,
  isPathHost,
  registryNamed,
  type RouteTable,
  type Stripped,
  stripRegistry,
} from "../oci/registry_table.ts";
import { detached } from "../util/lru.ts";
import { parseDigest } from "../oci/digest.ts";
import { OciError } from "../oci/error.ts";
import { isRepository, parseReference } from "../oci/reference.ts";
import { DEFAULT_REGISTRIES, type Registry } from "../oci/registry.ts";
import { cut } from "../util/text.ts";

/** A resource of a repository. */
export interface Target {
  /** Its registry. */
  readonly registry: Registry;
  /** The repository's name at the registry. */
  readonly repository: string;
  /** The kind of resource. */
  readonly kind: TargetKind;
  /** A tag or digest. Empty for `tags`. */
  readonly reference: string;
  /**
   * The client's path up to the repository: "/v2/", "/v2/ghcr.io/", "/prefix/v2/". Location and Link
   * headers for this client start with it.
   */
  readonly base: string;
  /**
   * The prefix that this client must put before the repository in a token scope, so that `/v2/auth` finds
   * the registry: "ghcr.io/", or "" if the host identifies it.
   */
  readonly prefix: string;
}

/** The kinds of resources. */
export type TargetKind = "manifest" | "blob" | "tags" | "referrers";

/** The meaning of a request. */
export type Route =
  | { readonly kind: "home" }
  | { readonly kind: "health" }
  | { readonly kind: "unrouted"; readonly routes: Record<string, string> }
  | { readonly kind: "ping"; readonly registry: Registry; readonly base: string } & HostedRoute
  | { readonly kind: "token"; readonly registry: Registry; readonly pathMode: boolean }
    & HostedRoute
  | { readonly kind: "catalog"; readonly registry: Registry; readonly base: string } & HostedRoute
  | { readonly kind: "target"; readonly target: Target } & HostedRoute;

/** A way to a registry. */
export interface HostedRoute {
  /**
   * The registry that the host itself means: Docker Hub in path mode. A client logs in to a host, so that what
   * credentials it sends there are for this registry, and for no other that a path or `ns` chooses.
   */
  readonly hosted: Registry;
}

/** The parts of a request that routing uses. */
export interface RouteRequest {
  /** The normalized URL as the client sees it. */
  readonly url: URL;
  /** The host as the client named it, including the port. */
  readonly host: string;
}

const KINDS: ReadonlyMap<string, TargetKind> = new Map([
  ["manifests", "manifest"],
  ["blobs", "blob"],
  ["referrers", "referrers"],
]);

/**
 * Returns what `request` is for.
 *
 * @throws {OciError} `NAME_INVALID` or `DIGEST_INVALID` (400) for a malformed path, `NAME_UNKNOWN`
 * (404) for an unknown `ns` and for a path below `/v2/` that is not of this API.
 */
export function route(request: RouteRequest, table: RouteTable): Route {
  const { url, host } = request;
  if (url.pathname === "/health" || url.pathname === "/healthz") return { kind: "health" };

  const unrouted = () => ({ kind: "unrouted", routes: routesOf(table) }) as const;
  const pathMode = isPathHost(host, table);
  const hosted = pathMode ? defaultRegistry(table) : hostRegistry(host, table);
  if (hosted === undefined) return unrouted();
  if (url.pathname === "/") return { kind: "home" };

  const parts = url.pathname.split("/").slice(1);
  const v2 = parts.indexOf("v2");
  if (v2 < 0) return unrouted();
  const left = parts.slice(0, v2).map(decodePart);
  // An empty part would make the base "//host/v2/", and a redirect to it would leave this proxy.
  if (left.includes("")) throw invalid("Malformed path");
  const right = parts.slice(v2 + 1).map(decodePart);

  const ns = url.searchParams.get("ns") || undefined;
  const named = left.length === 1 ? registryNamed(table, left[0] ?? "") : undefined;
  const byPrefix = pathMode ? named : undefined;
  const isToken = right.length === 1 && right[0] === "auth";
  if (left.length > 0 && !ns && !isToken && (pathMode ? !byPrefix : named !== hosted)) {
    return unrouted();
  }
  const byNs = ns === undefined ? undefined : registryNamed(table, ns);
  if (ns !== undefined && byNs === undefined) {
    throw new OciError("NAME_UNKNOWN", "Unknown registry in ns", { detail: { ns: cut(ns, 255) } });
  }
  const chosen = byNs ?? byPrefix;
  const registry = chosen ?? hosted;
  if (isToken) {
    return { kind: "token", registry, pathMode: pathMode && chosen === undefined, hosted };
  }

  const stripped = byPrefix && !byNs ? undefined : pathPrefix(right, { table, pathMode, byNs });
  const base = "/" + parts.slice(0, v2 + (stripped ? 2 : 1)).join("/") + "/";
  const rest = stripped ? right.slice(1) : right;
  const to = stripped?.registry ?? registry;
  if (rest.length === 0 || rest.join("/") === "") {
    return { kind: "ping", registry: to, base, hosted };
  }
  if (rest.length === 1 && rest[0] === "_catalog") {
    return { kind: "catalog", registry: to, base, hosted };
  }

  const written = stripped?.written ?? ns ?? (byPrefix ? left[0] : undefined);
  const prefix = pathMode && written !== undefined ? `${written}/` : "";
  const target = { ...parseRest(rest, to), registry: to, base, prefix };
  return { kind: "target", target, hosted };
}

/**
 * Returns host → URL of the public registries that are routed by host. Anybody gets this: a registry that the operator
 * added, or put in a public one's place, is not in it, for its name and URL may be internal.
 */
export function routesOf(table: RouteTable): Record<string, string> {
  const isSeed = ({ name, url }: Registry) =>
    Object.hasOwn(DEFAULT_REGISTRIES, name) &&
    new URL(DEFAULT_REGISTRIES[name]!.url).href === url.href;
  return Object.fromEntries(
    table.registries.filter(isSeed)
      .map(({ name, url }) => [`${name}.${table.customDomain}`, url.origin]),
  );
}

function hostRegistry(host: string, table: RouteTable): Registry | undefined {
  const hostname = hostnameOf(host);
  const domain = hostnameOf(table.customDomain);
  return table.registries.find(({ name }) => hostname === `${name.toLowerCase()}.${domain}`) ??
    table.fallback;
}

interface PathPrefixOptions {
  readonly table: RouteTable;
  readonly pathMode: boolean;
  readonly byNs: Registry | undefined;
}

type PathPrefix = Pick<Stripped, "registry" | "written">;

/** Returns the registry named by the first part after `/v2/`, if that part is to be removed. */
function pathPrefix(right: readonly string[], options: PathPrefixOptions): PathPrefix | undefined {
  const { table, pathMode, byNs } = options;
  const [written = "", ...rest] = right;
  const registry = registryNamed(table, written);
  if (byNs !== undefined) {
    // With ns the path is the repository: "quay/busybox" is one on quay.io. Only a host that says
    // the same again is containerd's override_path, and no repository begins with one.
    return registry === byNs && /[.:]/.test(written) ? { registry, written } : undefined;
  }
  if (!pathMode || registry === undefined) return undefined;
  const isRoot = rest.join("/") === "" || rest.join("/") === "_catalog";
  return isRoot ? { registry, written } : stripRegistry(right.slice(0, -2).join("/"), table);
}

/** Parses `<name>/<kind>/<reference>`. The last match wins, so that names may contain any word. */
function parseRest(
  rest: readonly string[],
  registry: Registry,
): Pick<Target, "repository" | "kind" | "reference"> {
  const [word = "", last = ""] = rest.slice(-2);
  const repository = rest.slice(0, -2).join("/");
  const kind = word === "tags" && last === "list" ? "tags" : KINDS.get(word);
  if (kind === undefined || rest.length < 3 || last === "") {
    throw new OciError("NAME_UNKNOWN", "Unknown path");
  }
  if (!isRepository(repository, registry.url.host)) throw invalid("Malformed repository name");
  if (kind === "manifest") parseReference(last);
  if (kind === "blob" || kind === "referrers") parseDigest(last);
  // They are parts of keys that outlive the request.
  const reference = kind === "tags" ? "" : detached(last);
  return { repository: detached(repository), kind, reference };
}

/**
 * Decodes once: what is still encoded after that fails the grammar of names and references, and dot
 * segments, encoded or not, are gone since the URL was parsed.
 */
function decodePart(part: string): string {
  let text: string;
  try {
    text = decodeURIComponent(part);
  } catch (cause) {
    throw invalid("Malformed percent-encoding in path", cause);
  }
  if (/[/\\\p{Cc}]/u.test(text)) throw invalid("Malformed path");
  return text;
}

function invalid(message: string, cause?: unknown): OciError {
  return new OciError("NAME_INVALID", message, cause === undefined ? {} : { cause });
}
