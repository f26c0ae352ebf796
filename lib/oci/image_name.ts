/**
 * Image names as people write them, as this proxy's registries know them.
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

/** An image at one of this proxy's registries. */
export interface ImageName {
  readonly registry: Registry;
  /** As the registry knows it, `library/` included. */
  readonly repository: string;
  /** The digest where there is one (a tag beside it means nothing, as to Docker), else the tag. */
  readonly reference: string;
  /** In full, for people: `docker.io/library/nginx:latest`. */
  readonly name: string;
}

/**
 * The name that clients know the registry by: `docker.io`, `ghcr.io` (wherever an override leads), else the
 * host and port of its URL.
 */
export function clientName({ name, url, aliases }: Registry): string {
  if (aliases.includes("docker.io")) return "docker.io";
  const seed = DEFAULT_REGISTRIES[name];
  const host = seed ? new URL(seed.url).host : url.host;
  return aliases.includes(host) ? host : url.host;
}

/** What the first part of a name says, where it is one of this proxy's own hosts. */
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
      throw new OciError("NAME_UNKNOWN", `No registry is called ${image.registry}`, {
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
