/**
 * Checks settings that conflict with or depend on each other. It reads the environment rather than the
 * parsed configuration, so these problems are reported together with those of single settings.
 *
 * @module
 */
import * as v from "valibot";
import { checkEngines } from "./engine_url.ts";
import { resolveImage } from "../oci/image_name.ts";
import type { Registry } from "../oci/registry.ts";
import { Environment } from "./environment.ts";
import { isLoopback } from "./values.ts";

const AdminSettings = v.pick(Environment, ["ADMIN_ADDR", "ADMIN_TOKEN"]);
const EngineSettings = v.pick(Environment, [
  "CACHE_STORE",
  "CACHE_INDEX",
  "STORE_REDIRECT",
  "AWS_REGION",
  "AWS_ACCESS_KEY_ID",
  "AWS_SECRET_ACCESS_KEY",
  "AWS_SESSION_TOKEN",
]);

/** Checks the settings of TLS, the operator's listener and the cache backends. */
export function combinationProblems(set: Readonly<Record<string, string>>): string[] {
  const problems: string[] = [];
  if ((set["TLS_CERT"] === undefined) !== (set["TLS_KEY"] === undefined)) {
    problems.push("TLS_CERT: Set both TLS_CERT and TLS_KEY, or neither");
  }
  const admin = v.safeParse(AdminSettings, set);
  if (admin.success && admin.output.ADMIN_TOKEN === undefined) {
    const { ADMIN_ADDR: address } = admin.output;
    if (typeof address === "object" && !isLoopback(address.host)) {
      problems.push("ADMIN_TOKEN: Needed where ADMIN_ADDR is not a loopback address");
    }
  }
  const engines = v.safeParse(EngineSettings, set);
  if (engines.success) checkEngines(engines.output, problems);
  return problems;
}

const CacheSettings = v.pick(Environment, [
  "CACHE_ENABLED",
  "OFFLINE",
  "CUSTOM_DOMAIN",
  "WARM_IMAGES",
]);

/** Checks settings that need the cache, and the image names in `WARM_IMAGES`. */
export function cacheProblems(
  set: Readonly<Record<string, string>>,
  registries: readonly Registry[],
): string[] {
  const settings = v.safeParse(CacheSettings, set);
  if (!settings.success) return [];
  const { CACHE_ENABLED, OFFLINE, CUSTOM_DOMAIN: customDomain, WARM_IMAGES } = settings.output;
  const problems: string[] = [];
  if (CACHE_ENABLED === false && OFFLINE) {
    problems.push("OFFLINE: Needs the cache, and CACHE_ENABLED is false");
  }
  if (CACHE_ENABLED === false && WARM_IMAGES.length > 0) {
    problems.push("WARM_IMAGES: Needs the cache, and CACHE_ENABLED is false");
  }
  for (const image of WARM_IMAGES) {
    try {
      resolveImage(image, { customDomain, registries });
    } catch (error) {
      problems.push(`WARM_IMAGES: ${(error as Error).message}: ${image}`);
    }
  }
  return problems;
}
