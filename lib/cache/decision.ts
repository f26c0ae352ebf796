/**
 * Why the cache answers as it does, for who follows a pull in the log.
 *
 * @module
 */
import { cacheLog } from "../telemetry/log.ts";
import type { Target } from "../transforms/route.ts";

const WORDS = {
  allowed: "here, and the caller may read it",
  unproved: "here, but nothing proves that the caller may read it: asking upstream",
  old: "here, older than its TTL: asking upstream",
  absent: "not here: asking upstream",
} as const;

/** Notes what was decided about `target`. Costs next to nothing unless the level is debug. */
export function logDecision(target: Target, decision: keyof typeof WORDS): void {
  cacheLog.debug("{what} {reference} of {repository}: {decision}", () => ({
    what: target.kind === "blob" ? "Blob" : "Manifest",
    reference: target.reference,
    repository: target.repository,
    decision: WORDS[decision],
    registry: target.registry.name,
  }));
}
