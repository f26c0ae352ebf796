/**
 * Checks the operator's access rules: repositories by pattern, clients by address.
 *
 * @module
 */
import type { RepositoryRules } from "../config/values.ts";
import { plainAddress } from "../util/address.ts";
import { BlockList, isIP } from "node:net";
import type { Registry } from "../oci/registry.ts";

/** Returns whether a repository of a registry may be read. */
export type RepositoryPolicy = (registry: Registry, repository: string) => boolean;

/** Whether all of `text` matches `pattern`. Takes time in proportion to both lengths, whatever they hold. */
export function matchesPattern(pattern: string, text: string): boolean {
  let [p, t] = [0, 0];
  let star = -1; // where to resume after a mismatch: the last `*`, and how much it has matched
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
 * Returns every name of an upstream, so that a rule about `docker.io` applies to `docker`,
 * `index.docker.io` and any other configured name of the same URL.
 */
function namesOf(registry: Registry, registries: readonly Registry[]): readonly string[] {
  const same = registries.filter(({ id }) => id === registry.id);
  const names = [registry, ...same].flatMap(({ name, id, aliases }) => [name, id, ...aliases]);
  return [...new Set(names.map((name) => name.toLowerCase()))];
}

/** Returns the policy of `rules` for the configured `registries`. */
export function repositoryPolicy(
  { allow, deny }: RepositoryRules,
  registries: readonly Registry[],
): RepositoryPolicy {
  const known = new WeakMap<Registry, readonly string[]>();
  return (registry, repository) => {
    let names = known.get(registry);
    if (!names) known.set(registry, names = namesOf(registry, registries));
    // Users write docker.io/nginx for docker.io/library/nginx.
    const short = registry.library && /^library\/([^/]+)$/.exec(repository)?.[1];
    const written = short ? [repository, short] : [repository];
    const matches = (patterns: readonly string[]) =>
      patterns.some((pattern) =>
        names.some((name) => written.some((path) => matchesPattern(pattern, `${name}/${path}`)))
      );
    return !matches(deny) && (allow.length === 0 || matches(allow));
  };
}

/** A set of IP addresses and networks. */
export interface AddressSet {
  has(address: string): boolean;
}

/** Returns the set of `networks`, which {@linkcode parseNetwork} returns. Invalid addresses are in no set. */
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

/** The inputs of {@linkcode clientAddress}. */
export interface ClientAddressOptions {
  /** The peer's address. Undefined if the connection has none. */
  readonly peer: string | undefined;
  /** `X-Forwarded-For`. */
  readonly forwardedFor: string | null;
  /** The proxies whose header is trusted. `peer` trusts only the directly connected peer. */
  readonly trusted: AddressSet | "peer" | undefined;
}

/**
 * Returns the client's address: the peer's, or if that is a trusted proxy, the rightmost address in the
 * header that is not trusted. Anyone may have written the addresses further left.
 */
export function clientAddress(options: ClientAddressOptions): string | undefined {
  const { forwardedFor, trusted } = options;
  let client = options.peer === undefined ? undefined : plainAddress(options.peer);
  if (trusted === undefined || forwardedFor === null) return client;
  if (trusted !== "peer" && (client === undefined || !trusted.has(client))) return client;
  for (const entry of forwardedFor.split(",").reverse()) {
    // Some proxies include the port.
    const text = entry.trim().replace(/^(\[.*\]|[\d.]+):\d+$/, "$1");
    const address = plainAddress(text);
    if (address === undefined) break; // "unknown" or an invalid address: the rest of the header cannot be trusted
    client = address;
    if (trusted === "peer" || !trusted.has(address)) break;
  }
  return client;
}

/**
 * Returns the key under which an address is rate limited: the address, or for IPv6 its /64, because a
 * single customer usually gets a whole /64.
 */
export function rateLimitKey(address: string): string {
  if (isIP(address) !== 6) return address;
  const [head = "", tail] = address.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail ? tail.split(":") : [];
  // A dotted end counts as two groups. Only their number matters here.
  const count = right.length + (right.at(-1)?.includes(".") ? 1 : 0);
  const zeros = tail === undefined ? 0 : 8 - left.length - count;
  const groups = [...left, ...Array<string>(zeros).fill("0"), ...right].slice(0, 4);
  return `${groups.map((group) => parseInt(group, 16).toString(16)).join(":")}::/64`;
}
