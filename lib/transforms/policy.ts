/**
 * What the operator lets through: repositories by pattern, clients by address.
 *
 * @module
 */
import { BlockList, isIP } from "node:net";
import type { Registry } from "../oci/registry.ts";

/** Which repositories may be read. Patterns as {@linkcode parsePattern} gives them. */
export interface RepositoryRules {
  /** Empty: all of them. */
  readonly allow: readonly string[];
  /** Wins over `allow`. */
  readonly deny: readonly string[];
}

/** Whether a repository of a registry may be read. */
export type RepositoryPolicy = (registry: Registry, repository: string) => boolean;

/**
 * Returns the pattern in `text`: a registry's name, host or alias, and a repository, with `*` for any
 * characters, a slash too, and `?` for one: `docker.io/library/*`, `ghcr.io/*`.
 *
 * @throws {RangeError} for one without a registry, which would silently match nothing.
 */
export function parsePattern(text: string): string {
  const pattern = text.toLowerCase();
  if (!/^[a-z0-9.:*?_-]+(\/[a-z0-9.*?_-]+)+$/.test(pattern)) {
    throw new RangeError(`Expected registry/repository such as docker.io/library/*: ${text}`);
  }
  return pattern;
}

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

/** No address is longer, its zone, brackets and blanks around it included. */
const MAX_ADDRESS = 128;

/** The address in `text` without brackets and zone, an IPv4 one inside of IPv6 as itself; else undefined. */
export function plainAddress(text: string): string | undefined {
  if (text.length > MAX_ADDRESS) return undefined;
  const [bare = ""] = text.trim().replace(/^\[(.*)\]$/, "$1").toLowerCase().split("%", 1);
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(bare)?.[1];
  const address = mapped ?? bare;
  return isIP(address) === 0 ? undefined : address;
}

/**
 * Returns the network in `text`, `10.0.0.0/8`, `2001:db8::/32` or a single address, for
 * {@linkcode addressSet}.
 *
 * @throws {RangeError} for what is none.
 */
export function parseNetwork(text: string): string {
  const [, base = "", length] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  const address = plainAddress(base);
  const bits = address === undefined ? 0 : isIP(address) === 4 ? 32 : 128;
  const prefix = length === undefined ? bits : Number(length);
  if (address === undefined || prefix > bits) {
    throw new RangeError(`Expected an address or a network such as 10.0.0.0/8: ${text}`);
  }
  return `${address}/${prefix}`;
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
