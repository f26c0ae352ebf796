/**
 * Repository names, tags and image references.
 *
 * Names and tags: OCI distribution specification, "Pulling manifests". Image references:
 * distribution/reference (`normalize.go`), which Docker, containerd and podman share.
 *
 * @module
 */
import { isDigest, parseDigest } from "./digest.ts";
import { cut } from "../util/text.ts";
import { OciError } from "./error.ts";

const COMPONENT = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const REPOSITORY = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;
const LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?";
const HOST = new RegExp(`^(?:${LABEL}(?:\\.${LABEL})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`);

/** Maximum length of host + "/" + repository that clients accept, in characters. */
const MAX_NAME = 255;

/**
 * Whether `name` is a repository's name by the specification's grammar, and short enough together
 * with the `host` (port included) it lives on.
 */
export function isRepository(name: string, host?: string): boolean {
  const length = name.length + (host === undefined ? 0 : host.length + 1);
  return length <= MAX_NAME && REPOSITORY.test(name);
}

/** Whether `tag` is a tag by the specification's grammar: at most 128 characters. */
export function isTag(tag: string): boolean {
  return TAG.test(tag);
}

/** The reference of a manifest: a tag or a digest. */
export type Reference =
  | { readonly kind: "tag"; readonly tag: string }
  | { readonly kind: "digest"; readonly digest: string };

/**
 * Returns what `text` refers to.
 *
 * @throws {OciError} `DIGEST_INVALID` (400) where it has a colon and is no digest, `NAME_INVALID`
 * (400) where it is neither digest nor tag: the specification has no code for a tag of its own.
 */
export function parseReference(text: string): Reference {
  if (isDigest(text)) {
    parseDigest(text);
    return { kind: "digest", digest: text };
  }
  if (!isTag(text)) {
    throw new OciError("NAME_INVALID", "Malformed tag", { detail: { tag: cut(text, 128) } });
  }
  return { kind: "tag", tag: text };
}

/** A parsed image reference: `ghcr.io/owner/img:1.2@sha256:…`. */
export interface Image {
  /** Host and port. If undefined, the image is on Docker Hub. */
  readonly registry?: string;
  /** The repository as written, without adding `library/`. */
  readonly repository: string;
  readonly tag?: string;
  readonly digest?: string;
}

/**
 * Returns the parts of `text`. As Docker reads it, what stands before the first slash is a registry
 * only if it contains "." or ":" or is `localhost`; nothing is filled in where a part is absent.
 *
 * @throws {OciError} `NAME_INVALID` or `DIGEST_INVALID` (400).
 */
export function parseImage(text: string): Image {
  const [named = "", ...digests] = text.split("@");
  if (digests.length > 1) throw malformed(text);
  const [digest] = digests;
  if (digest !== undefined) parseDigest(digest);

  const slash = named.indexOf("/");
  const first = named.slice(0, Math.max(slash, 0));
  const registry = isRegistryPart(first) ? first : undefined;
  const rest = registry === undefined ? named : named.slice(slash + 1);

  const colon = rest.indexOf(":");
  const repository = colon < 0 ? rest : rest.slice(0, colon);
  const tag = colon < 0 ? undefined : rest.slice(colon + 1);

  if (!isRepository(repository, registry)) throw malformed(text);
  if (registry !== undefined && !HOST.test(registry)) throw malformed(text);
  if (tag !== undefined && !isTag(tag)) throw malformed(text);
  return {
    ...registry !== undefined && { registry },
    repository,
    ...tag !== undefined && { tag },
    ...digest !== undefined && { digest },
  };
}

/** Formats `image`. The inverse of {@linkcode parseImage}. */
export function formatImage(image: Image): string {
  const { registry, repository, tag, digest } = image;
  return (registry === undefined ? "" : `${registry}/`) + repository +
    (tag === undefined ? "" : `:${tag}`) + (digest === undefined ? "" : `@${digest}`);
}

function isRegistryPart(component: string): boolean {
  return /[.:]/.test(component) || component === "localhost";
}

function malformed(image: string): OciError {
  return new OciError("NAME_INVALID", "Malformed image reference", {
    detail: { image: cut(image, 512) },
  });
}
