/**
 * What the operator lets through: repositories by pattern, clients by address.
 *
 * @module
 */
import type { RepositoryRules } from "../config/values.ts";
import { plainAddress } from "../util/address.ts";
import { BlockList, isIP } from "node:net";
import type { Registry } from "../oci/registry.ts";

/** Whether a repository of a registry may be read. */
export type RepositoryPolicy = (registry: Registry, repository: string) => boolean;

/** Whether all of `text` matches `pattern`. Takes time in proportion to both lengths, whatever they hold. */
export function matchesPattern(pattern: string, text: string): boolean {
  let [p, t] = [0, 0];
  let star = -1; // where to go on after a mismatch: the last `*`, and what it has taken so far
  let taken = 0;
  while (t < text.length) {
    if (pattern[p] === "*") {
      star = p++;
      taken = t;
    } else if (p < pattern.length && (pattern[p] === "?" || pattern[p] === text[t])) {
      p++;
      t++;
    } else if (star >= 0) {
      p = star + 1;
      t = ++taken;
    } else {
      return false;
    }
  }
  while (pattern[p] === "*") p++;
  return p === pattern.length;
}

/**
 * Every name of an upstream: a rule about `docker.io` holds whatever the client calls it, `docker`,
 * `index.docker.io` or another of the proxy's names for the same URL.
 */
function namesOf(registry: Registry, registries: readonly Registry[]): readonly string[] {
  const same = registries.filter(({ id }) => id === registry.id);
  const names = [registry, ...same].flatMap(({ name, id, aliases }) => [name, id, ...aliases]);
  return [...new Set(names.map((name) => name.toLowerCase()))];
}

/** The policy of `rules` for the configured `registries`. */
export function repositoryPolicy(
  { allow, deny }: RepositoryRules,
  registries: readonly Registry[],
): RepositoryPolicy {
  const known = new WeakMap<Registry, readonly string[]>();
  return (registry, repository) => {
    let names = known.get(registry);
    if (!names) known.set(registry, names = namesOf(registry, registries));
    // People write docker.io/nginx and mean docker.io/library/nginx.
    const short = registry.library && /^library\/([^/]+)$/.exec(repository)?.[1];
    const written = short ? [repository, short] : [repository];
    const matches = (patterns: readonly string[]) =>
      patterns.some((pattern) =>
        names.some((name) => written.some((path) => matchesPattern(pattern, `${name}/${path}`)))
      );
    return !matches(deny) && (allow.length === 0 || matches(allow));
  };
}

/** Addresses, singly and by network. */
export interface AddressSet {
  has(address: string): boolean;
}

/** The set of `networks`, as {@linkcode parseNetwork} gives them. What is no address is in no set. */
export function addressSet(networks: readonly string[]): AddressSet {
  const list = new BlockList();
  for (const network of networks) {
    const [address = "", prefix] = network.split("/");
    list.addSubnet(address, Number(prefix), isIP(address) === 4 ? "ipv4" : "ipv6");
  }
  return {
    has(text) {
      const address = plainAddress(text);
      return address !== undefined && list.check(address, isIP(address) === 4 ? "ipv4" : "ipv6");
    },
  };
}

/** What {@linkcode clientAddress} looks at. */
export interface ClientAddressOptions {
  /** The other end of the connection; undefined where it has no address. */
  readonly peer: string | undefined;
  /** `X-Forwarded-For`. */
  readonly forwardedFor: string | null;
  /** The proxies whose header is believed; `peer`: whoever it is that connects, and nobody behind it. */
  readonly trusted: AddressSet | "peer" | undefined;
}

/**
 * The client's address: the connection's, or, where that is a trusted proxy, the rightmost one in the
 * header that is not. Further left stands what anybody may have written.
 */
export function clientAddress(options: ClientAddressOptions): string | undefined {
  const { forwardedFor, trusted } = options;
  let client = options.peer === undefined ? undefined : plainAddress(options.peer);
  if (trusted === undefined || forwardedFor === null) return client;
  if (trusted !== "peer" && (client === undefined || !trusted.has(client))) return client;
  for (const entry of forwardedFor.split(",").reverse()) {
    // Some proxies write the port too.
    const text = entry.trim().replace(/^(\[.*\]|[\d.]+):\d+$/, "$1");
    const address = plainAddress(text);
    if (address === undefined) break; // "unknown", or no address at all: what is left of it is worth nothing
    client = address;
    if (trusted === "peer" || !trusted.has(address)) break;
  }
  return client;
}

/**
 * What an address is counted as: itself, or for IPv6 its /64, of which every customer of a provider's has
 * as many addresses as he likes.
 */
export function rateLimitKey(address: string): string {
  if (isIP(address) !== 6) return address;
  const [head = "", tail] = address.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail ? tail.split(":") : [];
  // A dotted end stands for two groups; only how many matters here.
  const count = right.length + (right.at(-1)?.includes(".") ? 1 : 0);
  const zeros = tail === undefined ? 0 : 8 - left.length - count;
  const groups = [...left, ...Array<string>(zeros).fill("0"), ...right].slice(0, 4);
  return `${groups.map((group) => parseInt(group, 16).toString(16)).join(":")}::/64`;
}
