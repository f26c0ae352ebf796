/**
 * Docker Hub's `library/` prefix of repositories with a single component.
 *
 * @module
 */
import { libraryScopeName } from "../oci/registry.ts";
import type { Target, TargetKind } from "./route.ts";

const SUFFIX: Readonly<Record<TargetKind, (reference: string) => string>> = {
  manifest: (reference) => `/manifests/${reference}`,
  blob: (reference) => `/blobs/${reference}`,
  tags: () => "/tags/list",
  referrers: (reference) => `/referrers/${reference}`,
};

/**
 * Returns the path to send the client to where its repository needs `library/`, else undefined.
 * Without a query: the caller appends the original one, or `ns` and `last` would be lost.
 */
export function library(target: Target): string | undefined {
  const { registry, repository, kind, reference, base } = target;
  const name = libraryScopeName(registry, repository);
  return name === repository ? undefined : base + name + SUFFIX[kind](reference);
}
