/**
 * One upstream registry as the proxy knows it, and the registries it knows from the start.
 *
 * @module
 */

import { withoutTrailingSlashes } from "../util/text.ts";

/** A service credential of the operator's. It raises rate limits; it never widens access. */
export interface ServiceCredential {
  /** Without a colon. */
  readonly username: string;
  /** May be empty. */
  readonly password: string;
}

/** One upstream. */
export interface Registry {
  /** The first label of its host name below `CUSTOM_DOMAIN`, and its name in path mode: `docker`. */
  readonly name: string;
  /** The API's origin, with a base path where it has one; never a trailing slash in the path but `/`. */
  readonly url: URL;
  /**
   * What its cache keys begin with: the URL's host, its port unless it is https' own, and its base path. Two names of
   * one upstream share their entries; a name that is pointed elsewhere later does not inherit the old upstream's.
   */
  readonly id: string;
  /** Other names for path mode and `?ns=`: `docker.io`. The URL's own host is always one. */
  readonly aliases: readonly string[];
  /** Docker Hub's habit: a repository of one component lives under `library/`. */
  readonly library: boolean;
  /** The operator's own account there, if any: the first of `credentials`. */
  readonly credential?: ServiceCredential;
  /** All of the operator's accounts there, each with its own quota. */
  readonly credentials: readonly ServiceCredential[];
  /** The file that the last `count` of `credentials` came from. */
  readonly credentialsFile?: { readonly path: string; readonly count: number };
  /** Whether what only the service credential can read may be served to everybody. */
  readonly sharePrivate: boolean;
}

interface Seed {
  readonly url: string;
  readonly aliases?: readonly string[];
  readonly library?: boolean;
}

const HUB_ALIASES = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/** The registries every installation has: the predecessors' nine names, and two more. */
export const DEFAULT_REGISTRIES: Readonly<Record<string, Seed>> = {
  "docker": { url: "https://registry-1.docker.io", aliases: HUB_ALIASES, library: true },
  "docker-staging": { url: "https://registry-1.docker.io", library: true },
  "quay": { url: "https://quay.io" },
  "gcr": { url: "https://gcr.io" },
  "k8s-gcr": { url: "https://k8s.gcr.io" },
  "k8s": { url: "https://registry.k8s.io" },
  "ghcr": { url: "https://ghcr.io" },
  "cloudsmith": { url: "https://docker.cloudsmith.io" },
  "ecr": { url: "https://public.ecr.aws" },
  "mcr": { url: "https://mcr.microsoft.com" },
  "nvcr": { url: "https://nvcr.io" },
};

/** The name of the registry that a path without a registry in it means. */
export const DEFAULT_REGISTRY = "docker";

/** Whether `url` is Docker Hub's own, whatever name the registry has here. */
export function isDockerHub({ hostname }: URL): boolean {
  return hostname === "registry-1.docker.io";
}

/** Options for {@linkcode registryOf}. */
export interface RegistryOptions {
  /** Other names of it. @default {[]} */
  readonly aliases?: readonly string[];
  /** Whether a repository of one component lives under `library/`. @default {false} */
  readonly library?: boolean;
  /** The operator's accounts. @default {[]} */
  readonly credentials?: readonly ServiceCredential[];
  /** The file that some of them came from. */
  readonly credentialsFile?: Registry["credentialsFile"];
  /** Whether what only these accounts can read may be served to everybody. @default {false} */
  readonly sharePrivate?: boolean;
}

/** The registry `name` at `url` (http or https, without query or credentials). Returns it frozen. */
export function registryOf(name: string, url: URL, options: RegistryOptions = {}): Registry {
  const path = withoutTrailingSlashes(url.pathname);
  const aliases = new Set([...options.aliases ?? [], url.host, url.hostname]);
  return Object.freeze({
    name,
    url: new URL(path || "/", url),
    id: hostWithPort(url) + path,
    aliases: Object.freeze([...aliases]),
    library: options.library ?? false,
    credential: options.credentials?.[0],
    credentials: Object.freeze([...options.credentials ?? []]),
    credentialsFile: options.credentialsFile,
    sharePrivate: options.sharePrivate ?? false,
  });
}

/**
 * The host, with the port where that is not https' own: `http://registry` and `https://registry` are two servers,
 * and what one says of its repositories is nothing to the other.
 */
function hostWithPort({ protocol, host, port }: URL): string {
  return protocol === "http:" && port === "" ? `${host}:80` : host;
}

/** The path that the registry's API is below: empty, or `/base` without a trailing slash. */
export function basePath(registry: Pick<Registry, "url">): string {
  return registry.url.pathname.replace(/\/$/, "");
}

const LIBRARY = "library/";

/** Returns the repository that `name` is at `registry`: "nginx" is "library/nginx" at Docker Hub. */
export function libraryScopeName(registry: Registry, name: string): string {
  return registry.library && !name.includes("/") ? LIBRARY + name : name;
}

/** A repository of a registry: the registry's `id` (not its name) and the upstream's repository name. */
export interface RepositoryKey {
  readonly registry: string;
  readonly repository: string;
}
