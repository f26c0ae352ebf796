/**
 * Finds names in the environment that look like misspelled or unused settings. They cause warnings, not
 * errors, because the environment also contains variables of other programs.
 *
 * @module
 */
import { closest } from "../util/suggest.ts";
import { RENAMED, SETTINGS } from "./environment.ts";

/** Settings of docker-proxy and go-docker-proxy that are no longer used, and why. */
const GONE: Readonly<Record<string, string>> = {
  DNS_ENABLED: "the system's resolver is used",
  DNS_SERVERS: "the system's resolver is used",
  DNS_TIMEOUT: "the system's resolver is used",
};

/** Variables of an outbound proxy. Deno reads them when it first connects. */
export const OUTBOUND_PROXY: readonly string[] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
  .flatMap((name) => [name, name.toLowerCase()]);

/** Other variables that an environment file may contain. */
export const OUTBOUND: readonly string[] = [...OUTBOUND_PROXY, "NO_PROXY", "no_proxy"];

/**
 * The minimum length of names that are compared. Shorter names resemble unrelated ones such as HOME and
 * HOST.
 */
const SHORTEST = 7;

/** Options for {@linkcode warningsAbout}. */
export interface WarningOptions {
  /** Names from an environment file. Every unknown name among them is reported. @default {[]} */
  readonly file?: readonly string[];
  /** Whether `DEBUG` is on. @default {false} */
  readonly debug?: boolean;
}

/** Returns one warning for each of `names` that looks like a mistake. */
export function warningsAbout(
  names: readonly string[],
  { file = [], debug = false }: WarningOptions = {},
): string[] {
  return names.flatMap((name) => {
    if (name === "TARGET_UPSTREAM" && !debug) {
      return [`${name}: Not used without DEBUG=true: it opens every host name to one upstream`];
    }
    if (SETTINGS.includes(name) || OUTBOUND.includes(name) || name.startsWith("UPSTREAM_")) {
      return [];
    }
    const renamed = Object.hasOwn(RENAMED, name) ? RENAMED[name] : undefined;
    if (renamed) return [`${name}: Deprecated, use ${renamed}`];
    const gone = Object.hasOwn(GONE, name) ? GONE[name] : undefined;
    if (gone) return [`${name}: Not used: ${gone}`];
    const isOurs = file.includes(name);
    if (isOurs && /^(DENO|OTEL)_/.test(name)) {
      return [`${name}: Read by Deno when it starts: set it in the environment`];
    }
    // Registry names are free to choose, so only the suffix is checked.
    const [first = "", ...rest] = name.split("_");
    if (rest.length > 0 && closest(first, ["UPSTREAM"])) {
      return [`${name}: Unknown setting, did you mean ${["UPSTREAM", ...rest].join("_")}?`];
    }
    const meant = name.length < SHORTEST ? undefined : closest(name, SETTINGS);
    if (meant) return [`${name}: Unknown setting, did you mean ${meant}?`];
    return isOurs ? [`${name}: Unknown setting`] : [];
  });
}
