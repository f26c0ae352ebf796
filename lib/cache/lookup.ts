/**
 * What is known here of one request: with the index in this process one thing after the other, as needed;
 * with the index elsewhere everything in one journey.
 *
 * @module
 */
import type { Access, Caller, Proofs } from "../auth/access.ts";
import { isDigest } from "../oci/digest.ts";
import type { Target } from "../transforms/route.ts";
import { repositoryKey } from "../upstream/registry_client.ts";
import type { Content } from "./content/content.ts";
import type { BlobRow, ContentKind, LinkRow, TagRow } from "./index/index.ts";
import type { BestEffortIndex } from "./index/best_effort_index.ts";

/** What was found. */
export interface Known {
  /** Of a reference by tag. */
  readonly tag?: TagRow;
  /** Of the digest, or of the one that the tag means. */
  readonly link?: LinkRow;
  /** Where it was looked up too. */
  readonly row?: BlobRow;
  /** Where they were looked up too. */
  readonly proofs?: Proofs;
}

/** Where to look. */
export interface LookupOptions {
  readonly index: BestEffortIndex;
  readonly access: Pick<Access, "grantToLookFor">;
  readonly content: Pick<Content, "believed">;
}

/** What is known of `target` for `caller`. Never throws. */
export async function lookUp(
  { target, caller }: { readonly target: Target; readonly caller: Caller },
  { index, access, content }: LookupOptions,
): Promise<Known> {
  const key = repositoryKey(target);
  const { reference } = target;
  const kind: ContentKind = target.kind === "blob" ? "blob" : "manifest";
  if (index.look) {
    const by = isDigest(reference) ? { digest: reference } : { tag: reference };
    const facts = await index.look({ ...key, kind, by, grant: access.grantToLookFor(caller, key) });
    const { tag, link, row, publicSince, isGranted, grantedFor } = facts;
    const proofs = { publicSince, isGranted, grantedFor };
    return { tag, link, row: await content.believed(row), proofs };
  }
  const tag = isDigest(reference) ? undefined : await index.tag(key, reference);
  const digest = isDigest(reference) ? reference : tag?.digest;
  if (digest === undefined) return {};
  return { tag, link: await index.link({ ...key, digest, kind }) };
}
