/**
 * What makes a success a registry's answer to the question that was asked, and no page, no text and no JSON that
 * something says to everything.
 *
 * @module
 */
import { isDigest } from "../oci/digest.ts";
import { essence, isManifestType } from "../oci/media_type.ts";
import type { Target, TargetKind } from "../transforms/route.ts";
import { parseJson } from "../util/json.ts";
import { announcedLength } from "./download/body.ts";
import type { UpstreamAnswer } from "./client.ts";

/**
 * Whether `answer` to a HEAD tells of a manifest: status 200, a manifest's type, a well-formed digest (of a target by
 * digest the same) and a length of at most `limit` bytes.
 */
export function isManifestHead(
  { response: { status, headers } }: Pick<UpstreamAnswer, "response">,
  { reference }: Pick<Target, "reference">,
  limit = Infinity,
): boolean {
  const said = headers.get("docker-content-digest") ?? "";
  const size = announcedLength(headers);
  return status === 200 && isManifestType(essence(headers.get("content-type") ?? "")) &&
    (isDigest(reference) ? said === reference : isDigest(said)) &&
    size !== undefined && size > 0 && size <= limit;
}

/**
 * Whether `content`, parsed JSON, is a manifest or an index: it has a schema version, or says that it is of a
 * manifest's type.
 */
export function isManifest(content: Readonly<Record<string, unknown>>): boolean {
  const own = content["mediaType"];
  const version = content["schemaVersion"];
  return version === 1 || version === 2 || typeof own === "string" && isManifestType(own);
}

/** What a list of each kind has its entries under. */
const ENTRIES: Readonly<Partial<Record<TargetKind | "catalog", string>>> = {
  tags: "tags",
  catalog: "repositories",
  referrers: "manifests",
};

/** Whether the JSON in `body` is a list of `kind`. Some registries say null for an empty one. */
export function isList(body: Uint8Array, kind: TargetKind | "catalog"): boolean {
  const name = ENTRIES[kind];
  if (name === undefined) return false;
  try {
    const list = parseJson(body, { fatal: true }) as Readonly<Record<string, unknown>> | null;
    const entries = list?.[name];
    return Array.isArray(entries) ||
      kind === "tags" && entries === null && typeof list?.["name"] === "string";
  } catch {
    return false;
  }
}
