/**
 * Where the proxy may connect. Everything an upstream names — a redirect's target, a token realm —
 * passes through here before a connection is made.
 *
 * @module
 */
import { BlockList, isIP } from "node:net";
import { OciError } from "../../oci/error.ts";
import type { Registry } from "../../oci/registry.ts";

/** Ranges that are nobody's public server: RFC 6890 and its successors in IANA's two registries. */
const SPECIAL: readonly (readonly [address: string, prefix: number])[] = [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.0.2.0", 24],
  ["192.88.99.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["198.51.100.0", 24],
  ["203.0.113.0", 24],
  ["224.0.0.0", 4],
  ["240.0.0.0", 4],
];

const special = new BlockList();
for (const [address, prefix] of SPECIAL) special.addSubnet(address, prefix, "ipv4");

/** The eight 16-bit groups of a valid IPv6 address, without its zone. */
function groupsOf(address: string): number[] {
  const [bare = ""] = address.split("%");
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(bare);
  const text = dotted
    ? dotted[1]! +
      [2, 4].map((i) => (Number(dotted[i]) * 256 + Number(dotted[i + 1])).toString(16)).join(":")
    : bare;
  const [head = "", tail] = text.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = !tail ? [] : tail.split(":");
  const zeros = tail === undefined ? 0 : 8 - left.length - right.length;
  return [...left, ...Array<string>(zeros).fill("0"), ...right].map((group) => parseInt(group, 16));
}

function dottedOf(high: number, low: number): string {
  return [high >> 8, high & 255, low >> 8, low & 255].join(".");
}

/**
 * Whether `address` (an IPv4 or IPv6 literal, without brackets) is private, loopback, link-local,
 * multicast or otherwise not a public unicast address. What is no address at all counts as such.
 */
export function isPrivateAddress(address: string): boolean {
  const family = isIP(address.split("%")[0]!);
  if (family === 4) return special.check(address, "ipv4");
  if (family !== 6) return true;
  const g = groupsOf(address);
  // Addresses that carry an IPv4 one: mapped, compatible, translated (NAT64), 6to4.
  const leadingZeros = g.slice(0, 5).every((group) => group === 0);
  if (leadingZeros && (g[5] === 0xffff || g[5] === 0)) {
    return isPrivateAddress(dottedOf(g[6]!, g[7]!));
  }
  // The well-known prefix only: a network's own (64:ff9b:1::/48) leads to wherever that network says.
  const isNat64 = g[0] === 0x64 && g[1] === 0xff9b && g.slice(2, 6).every((group) => group === 0);
  if (isNat64) return isPrivateAddress(dottedOf(g[6]!, g[7]!));
  if (g[0] === 0x2002) return isPrivateAddress(dottedOf(g[1]!, g[2]!));
  // Global unicast is 2000::/3; in it, 2001::/23 (Teredo and other protocols) and documentation are not.
  if ((g[0]! & 0xe000) !== 0x2000) return true;
  return g[0] === 0x2001 && (g[1]! < 0x200 || g[1] === 0xdb8) || g[0] === 0x3fff && g[1]! < 0x1000;
}

/** The host of `url` if it is an IP literal, without brackets. */
export function literalOf(url: URL): string | undefined {
  const host = url.hostname.replace(/^\[|\]$/g, "");
  return isIP(host) ? host : undefined;
}

/** Whether `url` is on the registry's own configured origin: scheme, host and port. */
export function isOwnOrigin(url: URL, registry: Pick<Registry, "url">): boolean {
  return url.origin === registry.url.origin;
}

function refused(what: string, url: URL): OciError {
  return new OciError("UNAVAILABLE", `Refusing to connect: ${what}`, {
    status: 502,
    detail: { host: url.host },
  });
}

/** Options for {@linkcode checkUrl}. */
export interface GuardOptions {
  readonly registry: Pick<Registry, "url">;
  readonly allowPrivate: boolean;
}

/**
 * Throws an {@linkcode OciError} (502) unless the proxy may connect to `url` on behalf of the
 * registry, as far as the URL alone tells: an address behind a name is checked when it is connected.
 */
export function checkUrl(url: URL, { registry, allowPrivate }: GuardOptions): void {
  // Not even to the registry itself: fetch would make an Authorization of them.
  if (url.username || url.password) throw refused("credentials in the URL", url);
  if (isOwnOrigin(url, registry)) return;
  if (
    url.protocol !== "https:" && !(url.protocol === "http:" && registry.url.protocol === "http:")
  ) {
    throw refused(`${url.protocol}// is not allowed for this registry`, url);
  }
  const literal = literalOf(url);
  if (!allowPrivate && literal !== undefined && isPrivateAddress(literal)) {
    throw refused("a private address", url);
  }
}

/**
 * Throws unless credentials for the registry may be sent to the token realm `url`: the realm is on the
 * registry's own registrable domain (the public suffix list decides), or, where the registry is an
 * IP literal, on the very same origin.
 */
export async function checkRealm(url: URL, options: GuardOptions): Promise<void> {
  const { registry } = options;
  checkUrl(url, options);
  if (isOwnOrigin(url, registry)) return;
  if (literalOf(registry.url) !== undefined || literalOf(url) !== undefined) {
    throw refused("the token realm is not on the registry's own origin", url);
  }
  // Loaded when first needed: the list is large and most realms are met after the first answer.
  const { getDomain } = await import("tldts");
  const domainOf = ({ hostname }: URL) =>
    getDomain(hostname, { allowPrivateDomains: true }) ?? hostname;
  if (domainOf(url) !== domainOf(registry.url)) {
    throw refused("the token realm is not on the registry's own domain", url);
  }
}
