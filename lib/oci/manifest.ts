/**
 * What a manifest refers to.
 *
 * Everything read here is what the publisher *claims*: no proof that the repository contains it.
 *
 * @module
 */
import { isWellFormed } from "./digest.ts";
import { OciError } from "./error.ts";
import { essence, isIndex, isManifestType } from "./media_type.ts";
import { parseJson } from "../util/json.ts";

/** A descriptor (OCI image specification, descriptor.md). */
export interface Descriptor {
  /** The digest. Always well-formed. */
  readonly digest: string;
  /** The size in bytes, or -1 if the manifest does not state it. */
  readonly size: number;
  /** The media type in lower case without parameters, or "" if the manifest does not state it. */
  readonly mediaType: string;
  /** The platform, `os/architecture` or `os/architecture/variant`: `linux/arm64/v8`. */
  readonly platform?: string;
  /** The URLs of a foreign layer, which the registry may not have. */
  readonly urls?: readonly string[];
}

/** A parsed manifest or index, as {@linkcode readManifest} returns it. */
export interface Manifest {
  /** The Content-Type if it is a manifest type, else the type in the body. */
  readonly mediaType: string;
  /** The manifests of an index. Empty for other types. */
  readonly children: readonly Descriptor[];
  readonly config?: Descriptor;
  /** Layers of an image, or blobs of an artifact. Empty for an index. */
  readonly layers: readonly Descriptor[];
  readonly subject?: Descriptor;
}

/**
 * Returns what `bytes`, sent as `mediaType`, refers to. Unknown fields are ignored and descriptors
 * without a well-formed digest are left out: a client must be able to pull what we cannot read.
 *
 * @throws {OciError} `MANIFEST_INVALID` (502: upstream sent it) where the bytes are no JSON object.
 */
export function readManifest(bytes: Uint8Array, mediaType: string): Manifest {
  const body = parseObject(bytes);
  const type = typeOf(body, mediaType);
  const subject = descriptor(body.subject);
  // An index that also has layers is read as an index only (CVE-2021-41190): its type decides.
  if (isIndex(type)) {
    return {
      mediaType: type,
      children: list(body.manifests),
      layers: [],
      ...subject && { subject },
    };
  }
  const config = descriptor(body.config);
  return {
    mediaType: type,
    children: [],
    ...config && { config },
    layers: [...list(body.layers), ...list(body.blobs), ...list(body.fsLayers)],
    ...subject && { subject },
  };
}

type JsonObject = Readonly<Record<string, unknown>>;

function parseObject(bytes: Uint8Array): JsonObject {
  let body: unknown;
  try {
    body = parseJson(bytes);
  } catch (cause) {
    throw new OciError("MANIFEST_INVALID", "Manifest is not JSON", { status: 502, cause });
  }
  if (!isObject(body)) {
    throw new OciError("MANIFEST_INVALID", "Manifest is not a JSON object", { status: 502 });
  }
  return body;
}

function typeOf(body: JsonObject, mediaType: string): string {
  if (isManifestType(mediaType)) return essence(mediaType);
  if (typeof body.mediaType === "string" && body.mediaType !== "") return essence(body.mediaType);
  // OCI allows both to omit the field. Then the list that is present decides.
  if (Array.isArray(body.manifests)) return "application/vnd.oci.image.index.v1+json";
  if (Array.isArray(body.layers)) return "application/vnd.oci.image.manifest.v1+json";
  return essence(mediaType);
}

function list(value: unknown): Descriptor[] {
  return Array.isArray(value) ? value.map(descriptor).filter((found) => found !== undefined) : [];
}

function descriptor(value: unknown): Descriptor | undefined {
  if (!isObject(value)) return undefined;
  const digest = value.digest ?? value.blobSum; // Docker's schema 1 uses `blobSum`
  if (typeof digest !== "string" || !isWellFormed(digest)) return undefined;
  const platform = platformOf(value.platform);
  const urls = Array.isArray(value.urls)
    ? value.urls.filter((url): url is string => typeof url === "string")
    : [];
  return {
    digest,
    size: Number.isSafeInteger(value.size) && Number(value.size) >= 0 ? Number(value.size) : -1,
    mediaType: typeof value.mediaType === "string" ? essence(value.mediaType) : "",
    ...platform !== undefined && { platform },
    ...urls.length > 0 && { urls },
  };
}

function platformOf(value: unknown): string | undefined {
  if (!isObject(value)) return undefined;
  const { os, architecture, variant } = value;
  if (typeof os !== "string" || typeof architecture !== "string") return undefined;
  return [os, architecture, ...typeof variant === "string" && variant ? [variant] : []].join("/");
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
