/**
 * Upstream registries, and the default ones.
 *
 * @module
 */

import { withoutTrailingSlashes } from "../util/text.ts";

/** A service credential of the operator. It raises rate limits but never widens clients' access. */
export interface ServiceCredential {
  /** The username, without a colon. */
  readonly username: string;
  /** The password. May be empty. */
  readonly password: string;
}

/** An upstream registry. */
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
  /** Whether repositories with a single component live under `library/`, as on Docker Hub. */
  readonly library: boolean;
  /** The operator's first account, if any. */
  readonly credential?: ServiceCredential;
  /** The operator's accounts. Each has its own quota. */
  readonly credentials: readonly ServiceCredential[];
  /** The file that contains the last `count` of `credentials`. */
  readonly credentialsFile?: { readonly path: string; readonly count: number };
  /** Whether content that only the service credential can read may be served to every client. */
  readonly sharePrivate: boolean;
}

interface Seed {
  readonly url: string;
  readonly aliases?: readonly string[];
  readonly library?: boolean;
}

const HUB_ALIASES = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/** The default registries. */
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

/** The name of the registry for paths that name none. */
export const DEFAULT_REGISTRY = "docker";

/** Whether `url` is Docker Hub's own URL. */
export function isDockerHub({ hostname }: URL): boolean {
  return hostname === "registry-1.docker.io";
}

/** Options for {@linkcode registryOf}. */
export interface RegistryOptions {
  /** Other names of the registry. @default {[]} */
  readonly aliases?: readonly string[];
  /** Whether repositories with a single component live under `library/`. @default {false} */
  readonly library?: boolean;
  /** The operator's accounts. @default {[]} */
  readonly credentials?: readonly ServiceCredential[];
  /** The file that contains some of them. */
  readonly credentialsFile?: Registry["credentialsFile"];
  /** Whether content that only these accounts can read may be served to every client. @default {false} */
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

/** Returns the base path of the registry's API: empty, or `/base` without a trailing slash. */
export function basePath(registry: Pick<Registry, "url">): string {
  return registry.url.pathname.replace(/\/$/, "");
}

const LIBRARY = "library/";

/** Returns the full name of `name` at `registry`: "nginx" is "library/nginx" on Docker Hub. */
export function libraryScopeName(registry: Registry, name: string): string {
  return registry.library && !name.includes("/") ? LIBRARY + name : name;
}

/** A repository of a registry: the registry's `id` (not its name) and the upstream's repository name. */
export interface RepositoryKey {
  readonly registry: string;
  readonly repository: string;
}
