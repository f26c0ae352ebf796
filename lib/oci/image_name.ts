/**
 * Resolves image names to this proxy's registries.
 *
 * @module
 */
import { OciError } from "./error.ts";
import { formatImage, parseImage } from "./reference.ts";
import { DEFAULT_REGISTRIES, libraryScopeName, type Registry } from "./registry.ts";
import {
  defaultRegistry,
  isPathHost,
  registryNamed,
  type RouteTable,
  stripRegistry,
} from "./registry_table.ts";

/** An image at one of the configured registries. */
export interface ImageName {
  readonly registry: Registry;
  /** The repository's name at the registry, including `library/`. */
  readonly repository: string;
  /** The digest if given (a tag beside it is ignored, as in Docker), else the tag. */
  readonly reference: string;
  /** The full name: `docker.io/library/nginx:latest`. */
  readonly name: string;
}

/**
 * Returns the name under which clients know the registry: `docker.io`, `ghcr.io` (even if overridden), else
 * the host and port of its URL.
 */
export function clientName({ name, url, aliases }: Registry): string {
  if (aliases.includes("docker.io")) return "docker.io";
  const seed = DEFAULT_REGISTRIES[name];
  const host = seed ? new URL(seed.url).host : url.host;
  return aliases.includes(host) ? host : url.host;
}

/** Returns the registry selected by the first part of a name, if that is one of this proxy's hosts. */
function ownHost(host: string, table: RouteTable): Registry | "path" | undefined {
  if (isPathHost(host, table)) return "path";
  const hostname = host.toLowerCase().replace(/:\d+$/, "");
  return table.registries.find(({ name }) => hostname === `${name}.${table.customDomain}`);
}

/**
 * Returns what `text` means here: `nginx`, `ghcr.io/owner/img:1`, `quay/org/img@sha256:…`, and names that
 * go through this proxy already (`docker.<CUSTOM_DOMAIN>/nginx`). Without tag and digest it is `latest`.
 *
 * @throws {OciError} `NAME_INVALID` or `DIGEST_INVALID` (400) for what is no name, `NAME_UNKNOWN` (404)
 * for a registry that is not configured.
 */
export function resolveImage(text: string, table: RouteTable): ImageName {
  const image = parseImage(text.trim());
  const { tag, digest } = image;
  let registry: Registry | undefined;
  let { repository } = image;
  if (image.registry !== undefined) {
    const named = registryNamed(table, image.registry) ?? ownHost(image.registry, table);
    if (named === undefined) {
      throw new OciError("NAME_UNKNOWN", `Unknown registry: ${image.registry}`, {
        detail: { image: text },
      });
    }
    if (named !== "path") registry = named;
  }
  if (!registry) {
    const stripped = stripRegistry(repository, table);
    registry = stripped?.registry ?? defaultRegistry(table);
    repository = stripped?.repository ?? repository;
  }
  if (!registry) throw new OciError("NAME_UNKNOWN", "No registry is configured");
  repository = libraryScopeName(registry, repository);
  const named = digest === undefined ? { tag: tag ?? "latest" } : { digest };
  return {
    registry,
    repository,
    reference: digest ?? tag ?? "latest",
    name: formatImage({ registry: clientName(registry), repository, ...named }),
  };
}
