/**
 * What in an environment looks like a setting and is none. No error: other programs' variables are there as well.
 *
 * @module
 */
import { closest } from "../util/suggest.ts";
import { RENAMED, SETTINGS } from "./environment.ts";

/** Settings of the predecessors that have no successor, and why. */
const GONE: Readonly<Record<string, string>> = {
  DNS_ENABLED: "the system's resolver is used",
  DNS_SERVERS: "the system's resolver is used",
  DNS_TIMEOUT: "the system's resolver is used",
};

/** An outbound proxy: Deno looks for these when it first connects. */
export const OUTBOUND_PROXY: readonly string[] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
  .flatMap((name) => [name, name.toLowerCase()]);

/** What else of that a file of settings may say. */
export const OUTBOUND: readonly string[] = [...OUTBOUND_PROXY, "NO_PROXY", "no_proxy"];

/** Shorter names resemble too much: HOME, HOST. */
const SHORTEST = 7;

/** Options for {@linkcode warningsAbout}. */
export interface WarningOptions {
  /** Names from a file of settings, where nothing else belongs: every unknown one is doubtful. @default {[]} */
  readonly file?: readonly string[];
  /** Whether `DEBUG` is on. @default {false} */
  readonly debug?: boolean;
}

/** One line for each doubtful one of `names`. */
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
    if (renamed) return [`${name}: Old name of ${renamed}: please use that`];
    const gone = Object.hasOwn(GONE, name) ? GONE[name] : undefined;
    if (gone) return [`${name}: Not used: ${gone}`];
    const isOurs = file.includes(name);
    if (isOurs && /^(DENO|OTEL)_/.test(name)) {
      return [`${name}: Read by Deno when it starts: set it in the environment`];
    }
    // The names of registries are anybody's to choose.
    const [first = "", ...rest] = name.split("_");
    if (rest.length > 0 && closest(first, ["UPSTREAM"])) {
      return [`${name}: Unknown setting, did you mean ${["UPSTREAM", ...rest].join("_")}?`];
    }
    const meant = name.length < SHORTEST ? undefined : closest(name, SETTINGS);
    if (meant) return [`${name}: Unknown setting, did you mean ${meant}?`];
    return isOurs ? [`${name}: Unknown setting`] : [];
  });
}
