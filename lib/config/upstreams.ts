/**
 * Reads the registries from `UPSTREAM_<NAME>` and related settings.
 *
 * @module
 */
import { closest } from "../util/suggest.ts";
import {
  DEFAULT_REGISTRIES,
  isDockerHub,
  type Registry,
  registryOf,
  type ServiceCredential,
} from "../oci/registry.ts";
import { SETTINGS } from "./environment.ts";
import { parseBoolean, parseCredentials, parseUpstream } from "./values.ts";

/** The suffixes of a registry's settings, after `UPSTREAM_<NAME>`. */
export const UPSTREAM_SUFFIXES = [
  "_PASSWORD_FILE",
  "_CREDENTIALS_FILE",
  "_PASSWORD",
  "_USERNAME",
  "_SHARE_PRIVATE",
] as const;

const UPSTREAM_PREFIX = "UPSTREAM_";
type UpstreamSuffix = typeof UPSTREAM_SUFFIXES[number] | "";

interface UpstreamSettings {
  readonly values: Partial<Record<UpstreamSuffix, string>>;
}

/** Groups `UPSTREAM_K8S_GCR_PASSWORD` and related settings by registry name (`k8s-gcr`). */
function groupUpstreams(env: Readonly<Record<string, string>>): Map<string, UpstreamSettings> {
  const groups = new Map<string, UpstreamSettings>();
  for (const [key, value] of Object.entries(env)) {
    if (!key.startsWith(UPSTREAM_PREFIX) || SETTINGS.includes(key)) continue;
    const suffix = UPSTREAM_SUFFIXES.find((known) => key.endsWith(known)) ?? "";
    const name = key.slice(UPSTREAM_PREFIX.length, key.length - suffix.length)
      .toLowerCase().replaceAll("_", "-");
    const group = groups.get(name) ?? { values: {} };
    group.values[suffix] = value;
    groups.set(name, group);
  }
  return groups;
}

/** Returns the full name of a setting: (`k8s-gcr`, `_PASSWORD`) → `UPSTREAM_K8S_GCR_PASSWORD`. */
function upstreamKey(name: string, suffix: UpstreamSuffix): string {
  return UPSTREAM_PREFIX + name.toUpperCase().replaceAll("-", "_") + suffix;
}

/** Common misspellings and synonyms of the suffixes. */
const SYNONYMS: Readonly<Record<string, UpstreamSuffix>> = {
  URL: "",
  HOST: "",
  USER: "_USERNAME",
  LOGIN: "_USERNAME",
  PASS: "_PASSWORD",
  PASSWD: "_PASSWORD",
  TOKEN: "_PASSWORD",
  SECRET: "_PASSWORD",
};

/**
 * Returns the setting that `name` probably misspells. Without this check, `UPSTREAM_DOCKER_PASSWRD=hunter2`
 * would add a registry `docker-passwrd` at the host `hunter2`, and error messages would show that host to
 * clients.
 */
function meantInstead(name: string, isRegistry: (name: string) => boolean): string | undefined {
  const parts = name.toUpperCase().split("-");
  for (const count of [1, 2]) {
    const registry = parts.slice(0, -count).join("-").toLowerCase();
    const tail = parts.slice(-count).join("_");
    if (registry === "") continue;
    const suffix = closest(`_${tail}`, UPSTREAM_SUFFIXES) ??
      (isRegistry(registry) && Object.hasOwn(SYNONYMS, tail) ? SYNONYMS[tail] : undefined);
    if (suffix !== undefined) return upstreamKey(registry, suffix);
  }
}

/** Reads the settings of one registry. Adds what is wrong with them to `problems`. */
function readUpstream(
  name: string,
  { values }: UpstreamSettings,
  context: { readFile: (path: string) => string; problems: string[] },
): Registry | undefined {
  const seed = DEFAULT_REGISTRIES[name];
  const attempt = <T>(suffix: UpstreamSuffix, read: (text: string) => T): T | undefined => {
    const text = values[suffix];
    if (text === undefined) return undefined;
    try {
      return read(text);
    } catch (error) {
      context.problems.push(`${upstreamKey(name, suffix)}: ${(error as Error).message}`);
    }
  };
  if (!/^[a-z0-9]+(-[a-z0-9]+)*$/.test(name)) {
    context.problems.push(`${upstreamKey(name, "")}: Not a registry name: ${name}`);
    return undefined;
  }
  const url = attempt("", parseUpstream);
  const sharePrivate = attempt("_SHARE_PRIVATE", parseBoolean);
  const passwordFromFile = attempt("_PASSWORD_FILE", (path) => context.readFile(path).trimEnd());
  const password = values._PASSWORD ?? passwordFromFile;
  const username = values._USERNAME;
  if (!url && values[""] === undefined && !seed) {
    context.problems.push(
      `${upstreamKey(name, "")}: Missing, and there is no default registry ${name}`,
    );
  }
  if (values._PASSWORD !== undefined && values._PASSWORD_FILE !== undefined) {
    context.problems.push(
      `${upstreamKey(name, "_PASSWORD")}: Set only one of this and _PASSWORD_FILE`,
    );
  }
  const hasPassword = values._PASSWORD !== undefined || values._PASSWORD_FILE !== undefined;
  if ((username === undefined) === hasPassword) {
    const [missing, present]: [UpstreamSuffix, UpstreamSuffix] = hasPassword
      ? ["_USERNAME", "_PASSWORD"]
      : ["_PASSWORD", "_USERNAME"];
    context.problems.push(
      `${upstreamKey(name, missing)}: Required with ${upstreamKey(name, present)}`,
    );
  }
  const fromFile = attempt("_CREDENTIALS_FILE", (path) => parseCredentials(context.readFile(path)));
  if (sharePrivate && username === undefined && values._CREDENTIALS_FILE === undefined) {
    context.problems.push(
      `${upstreamKey(name, "_SHARE_PRIVATE")}: Needs ${upstreamKey(name, "_USERNAME")}`,
    );
  }
  const credentials: ServiceCredential[] = [
    ...username !== undefined && password !== undefined
      ? [Object.freeze({ username, password })]
      : [],
    ...fromFile ?? [],
  ];
  const base = url ?? (seed && new URL(seed.url));
  return base && registryOf(name, base, {
    // An override keeps the default registry's host as an alias, because clients keep using "ghcr.io".
    aliases: seed && [...seed.aliases ?? [], new URL(seed.url).host],
    library: seed?.library ?? isDockerHub(base),
    credentials,
    credentialsFile: fromFile && { path: values._CREDENTIALS_FILE!, count: fromFile.length },
    sharePrivate,
  });
}

/**
 * Returns the default registries with their overrides, followed by registries that only the environment
 * names.
 */
export function readRegistries(
  env: Readonly<Record<string, string>>,
  context: { readFile: (path: string) => string; problems: string[] },
): readonly Registry[] {
  const groups = groupUpstreams(env);
  const names = new Set([...Object.keys(DEFAULT_REGISTRIES), ...groups.keys()]);
  const registries = [...names].map((name) => {
    const settings = groups.get(name) ?? { values: {} };
    const isSet = settings.values[""] !== undefined && !DEFAULT_REGISTRIES[name];
    const meant = isSet &&
      meantInstead(name, (other) => other in DEFAULT_REGISTRIES || groups.has(other));
    if (!meant) return readUpstream(name, settings, context);
    context.problems.push(`${upstreamKey(name, "")}: Unknown setting, did you mean ${meant}?`);
  });
  return Object.freeze(registries.filter((registry) => registry !== undefined));
}
