import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { OciError } from "../../../lib/oci/error.ts";
import {
  checkRealm,
  checkUrl,
  isOwnOrigin,
  isPrivateAddress,
  literalOf,
} from "../../../lib/upstream/transport/guard.ts";

const registryAt = (url: string) => ({ url: new URL(url) });
const HUB = registryAt("https://registry-1.docker.io");

/** First and last address, as numbers, of what RFC 6890 and its successors set apart. */
const SPECIAL_V4: readonly (readonly [first: number, last: number])[] = [
  [0x00000000, 0x00ffffff], // this network
  [0x0a000000, 0x0affffff], // private
  [0x64400000, 0x647fffff], // carrier-grade NAT
  [0x7f000000, 0x7fffffff], // loopback
  [0xa9fe0000, 0xa9feffff], // link-local, clouds' metadata
  [0xac100000, 0xac1fffff], // private
  [0xc0000000, 0xc00000ff], // protocol assignments
  [0xc0000200, 0xc00002ff], // documentation
  [0xc0586300, 0xc05863ff], // 6to4 relays
  [0xc0a80000, 0xc0a8ffff], // private
  [0xc6120000, 0xc613ffff], // benchmarks
  [0xc6336400, 0xc63364ff], // documentation
  [0xcb007100, 0xcb0071ff], // documentation
  [0xe0000000, 0xefffffff], // multicast
  [0xf0000000, 0xffffffff], // reserved, broadcast
];

function isSpecialV4(address: number): boolean {
  return SPECIAL_V4.some(([first, last]) => first <= address && address <= last);
}

const octets = (address: number) => [24, 16, 8, 0].map((shift) => address >>> shift & 255);
const dotted = (address: number) => octets(address).join(".");
const hex = (n: number) => `0x${n.toString(16)}`;
const octal = (n: number) => `0${n.toString(8)}`;

/** How one IPv4 address can be written in a URL. */
const WRITTEN: Readonly<Record<string, (address: number) => string>> = {
  "dotted": dotted,
  "one number": String,
  "one hex number": hex,
  "one octal number": octal,
  "hex parts": (address) => octets(address).map(hex).join("."),
  "octal parts": (address) => octets(address).map(octal).join("."),
  "two parts": (address) => `${address >>> 24}.${address & 0xffffff}`,
  "three parts": (address) => `${address >>> 24}.${address >>> 16 & 255}.${hex(address & 0xffff)}`,
  "a dot at the end": (address) => `${dotted(address)}.`,
  "percent-encoded": (address) => dotted(address).replace(/\d/g, (digit) => `%3${digit}`),
  "full-width digits": (address) =>
    dotted(address).replace(/\d/g, (digit) => String.fromCodePoint(0xff10 + Number(digit))),
};

/** Addresses at, just inside and just outside of the edges of the special ranges, and any others. */
const addressV4 = fc.oneof(
  fc.nat(0xffffffff),
  fc.constantFrom(...SPECIAL_V4.flat()).chain((edge) =>
    fc.integer({ min: -2, max: 2 }).map((by) => Math.min(0xffffffff, Math.max(0, edge + by)))
  ),
);

Deno.test("an IPv4 address is private exactly where the registries of special addresses say so", () => {
  fc.assert(fc.property(addressV4, (address) => {
    assertEquals(isPrivateAddress(dotted(address)), isSpecialV4(address), dotted(address));
  }));
});

Deno.test("however an IPv4 address is written in a URL, the guard sees the same address", () => {
  const form = fc.constantFrom(...Object.keys(WRITTEN));
  fc.assert(fc.property(addressV4, form, (address, form) => {
    const url = new URL(`https://${WRITTEN[form]!(address)}/v2/`);
    assertEquals(literalOf(url), dotted(address), form);
    const check = () => checkUrl(url, { registry: HUB, allowPrivate: false });
    if (isSpecialV4(address)) assertThrows(check, OciError, "private address");
    else check();
  }));
});

/** An IPv6 address as its eight groups. */
type Groups = readonly number[];

const group = fc.nat(0xffff);
const groups = (n: number) => fc.array(group, { minLength: n, maxLength: n });

/** Prefixes that mean something, each filled up with anything. */
const addressV6 = fc.oneof(
  groups(8),
  fc.constantFrom<Groups>(
    [],
    [0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0xffff],
    [0, 0, 0, 0, 0xffff, 0],
    [0x64, 0xff9b],
    [0x64, 0xff9b, 0, 0, 0, 0],
    [0x64, 0xff9b, 1],
    [0x100, 0, 0, 0],
    [0x2000],
    [0x2001, 0],
    [0x2001, 0x1ff],
    [0x2001, 0x200],
    [0x2001, 0xdb8],
    [0x2002],
    [0x3fff, 0xfff],
    [0x3fff, 0x1000],
    [0x5f00],
    [0xfc00],
    [0xfdff],
    [0xfe80],
    [0xfec0],
    [0xff02],
  ).chain((prefix) => groups(8 - prefix.length).map((rest) => [...prefix, ...rest])),
);
/** IPv4 addresses inside IPv6 ones, where the inner address decides. */
const CARRIERS: Readonly<Record<string, (high: number, low: number) => Groups>> = {
  "mapped": (high, low) => [0, 0, 0, 0, 0, 0xffff, high, low],
  "compatible": (high, low) => [0, 0, 0, 0, 0, 0, high, low],
  "NAT64": (high, low) => [0x64, 0xff9b, 0, 0, 0, 0, high, low],
  "6to4": (high, low) => [0x2002, high, low, 0, 0, 0, 0, 1],
};

const plain = (g: Groups) => g.map((one) => one.toString(16)).join(":");

/** How one IPv6 address can be written. */
const WRITTEN_V6: Readonly<Record<string, (g: Groups) => string>> = {
  "plain": plain,
  "upper case, all digits": (g) =>
    g.map((one) => one.toString(16).padStart(4, "0").toUpperCase()).join(":"),
  "compressed": (g) => plain(g).replace(/(^|:)0(:0)+(:|$)/, "::"),
  "dotted at its end": (g) => `${plain(g.slice(0, 6))}:${dotted((g[6]! << 16 | g[7]!) >>> 0)}`,
  "compressed and dotted": (g) =>
    `${plain(g.slice(0, 6))}:`.replace(/(^|:)0(:0)*:/, "::") + dotted((g[6]! << 16 | g[7]!) >>> 0),
};

Deno.test("an IPv6 address that carries an IPv4 one is as private as that", () => {
  const carrier = fc.constantFrom(...Object.keys(CARRIERS));
  const form = fc.constantFrom(...Object.keys(WRITTEN_V6));
  fc.assert(fc.property(addressV4, carrier, form, (address, carrier, form) => {
    const text = WRITTEN_V6[form]!(CARRIERS[carrier]!(address >>> 16, address & 0xffff));
    assertEquals(isPrivateAddress(text), isSpecialV4(address), `${carrier}: ${text}`);
  }));
});

Deno.test("an IPv6 address means the same however it is written, in a URL, and with a zone", () => {
  const form = fc.constantFrom(...Object.keys(WRITTEN_V6));
  fc.assert(fc.property(addressV6, form, (address, form) => {
    const expected = isPrivateAddress(plain(address));
    const text = WRITTEN_V6[form]!(address);
    assertEquals(isPrivateAddress(text), expected, text);
    assertEquals(isPrivateAddress(`${text}%eth0`), expected, text);
    assertEquals(isPrivateAddress(literalOf(new URL(`https://[${text}]/`))!), expected, text);
  }));
});

Deno.test("of IPv6 nothing outside of 2000::/3 is public but what carries a public IPv4 address", () => {
  fc.assert(fc.property(addressV6, (address) => {
    const [first = 0, second = 0] = address;
    const isCarrier = address.slice(0, 5).every((one) => one === 0) ||
      first === 0x64 && second === 0xff9b;
    if (!isCarrier && first >>> 13 !== 1) assert(isPrivateAddress(plain(address)));
  }));
});

const TABLE: readonly [address: string, isPrivate: boolean][] = [
  ["::", true],
  ["::1", true],
  ["::ffff:8.8.8.8", false],
  ["::ffff:127.0.0.1", true],
  ["::ffff:7f00:1", true],
  ["::ffff:0:127.0.0.1", true],
  ["fe80::1", true],
  ["fe80::1%eth0", true],
  ["fd00:ec2::254", true],
  ["ff02::1", true],
  ["64:ff9b::8.8.8.8", false],
  ["64:ff9b::169.254.169.254", true],
  ["64:ff9b:1::8.8.8.8", true],
  ["2002:808:808::1", false],
  ["2002:7f00:1::1", true],
  ["2001::1", true],
  ["2001:db8::1", true],
  ["2001:4860:4860::8888", false],
  ["2606:4700::1111", false],
  ["3fff::1", true],
  ["8.8.8.8", false],
  ["169.254.169.254", true],
  ["100.100.100.200", true],
];

for (const [address, expected] of TABLE) {
  Deno.test(`${address} is ${expected ? "private" : "public"}`, () => {
    assertEquals(isPrivateAddress(address), expected);
  });
}

Deno.test("what is no address counts as private, and nothing makes the check throw", () => {
  for (const text of ["", "localhost", "1.2.3", "1.2.3.4.5", "01.2.3.4", "8.8.8.8 ", ":::", "%"]) {
    assertEquals(isPrivateAddress(text), true, text);
  }
  const anything = fc.oneof(fc.string(), fc.stringMatching(/^[0-9a-f:.%x]{0,45}$/));
  fc.assert(fc.property(anything, (text) => {
    assertEquals(typeof isPrivateAddress(text), "boolean");
  }));
});

const URLS: readonly {
  url: string;
  registry?: string;
  allowPrivate?: boolean;
  refused?: string;
}[] = [
  { url: "https://cdn.example/blob" },
  { url: "https://cdn.example:8443/blob" },
  { url: "http://cdn.example/blob", refused: "http:// is not allowed" },
  { url: "http://cdn.example/blob", registry: "http://registry.example:5000" },
  { url: "ftp://cdn.example/blob", refused: "ftp:// is not allowed" },
  { url: "file:///etc/passwd", refused: "file:// is not allowed" },
  { url: "data:text/plain,x", refused: "data:// is not allowed" },
  { url: "blob:https://cdn.example/1", refused: "blob:// is not allowed" },
  { url: "https://user@cdn.example/", refused: "credentials" },
  { url: "https://:secret@cdn.example/", refused: "credentials" },
  { url: "https://user:secret@registry-1.docker.io/", refused: "credentials" },
  { url: "https://127.0.0.1/", refused: "a private address" },
  { url: "https://[::1]/", refused: "a private address" },
  { url: "https://10.0.0.1/", allowPrivate: true },
  { url: "http://10.0.0.1/", allowPrivate: true, refused: "http:// is not allowed" },
  // The operator's own choice, private or not; another port is not it.
  { url: "http://10.0.0.1:5000/v2/", registry: "http://10.0.0.1:5000" },
  { url: "http://10.0.0.1:6379/", registry: "http://10.0.0.1:5000", refused: "a private address" },
  { url: "https://10.0.0.1:5000/", registry: "http://10.0.0.1:5000", refused: "a private address" },
];

for (const { url, registry = HUB.url.href, allowPrivate = false, refused } of URLS) {
  const outcome = refused === undefined ? "may be connected to" : "is refused";
  Deno.test(`${url} ${outcome} for ${registry}${allowPrivate ? " on private networks" : ""}`, () => {
    const options = { registry: registryAt(registry), allowPrivate };
    const check = () => checkUrl(new URL(url), options);
    if (refused === undefined) return check();
    const error = assertThrows(check, OciError, refused);
    assertEquals([error.code, error.status], ["UNAVAILABLE", 502]);
    assert(!JSON.stringify([error.message, error.detail]).includes("secret"));
  });
}

const REALMS: readonly {
  realm: string;
  registry?: string;
  allowPrivate?: boolean;
  refused?: string;
}[] = [
  { realm: "https://auth.docker.io/token" },
  { realm: "https://registry-1.docker.io/token" },
  { realm: "https://docker.io/token" },
  { realm: "https://auth.docker.io:8443/token" },
  { realm: "http://auth.docker.io/token", refused: "http:// is not allowed" },
  { realm: "https://evil.example/token", refused: "not on the registry's own domain" },
  { realm: "https://evildocker.io/token", refused: "not on the registry's own domain" },
  { realm: "https://docker.io.evil.example/token", refused: "not on the registry's own domain" },
  { realm: "https://user:secret@auth.docker.io/token", refused: "credentials" },
  { realm: "https://169.254.169.254/token", refused: "private address" },
  { realm: "https://8.8.8.8/token", refused: "not on the registry's own origin" },
  // A public suffix is nobody's domain: two sites below it have nothing to do with each other.
  {
    realm: "https://b.github.io/token",
    registry: "https://a.github.io",
    refused: "not on the registry's own domain",
  },
  {
    realm: "https://evil.co.uk/token",
    registry: "https://registry.co.uk",
    refused: "not on the registry's own domain",
  },
  { realm: "https://sso.corp.co.uk/token", registry: "https://registry.corp.co.uk" },
  { realm: "http://localhost:5001/token", registry: "http://localhost:5000" },
  {
    realm: "http://auth:5001/token",
    registry: "http://registry:5000",
    refused: "not on the registry's own domain",
  },
  // An address has no domain: the very same origin, even where private networks are allowed.
  { realm: "http://10.0.0.1:5000/token", registry: "http://10.0.0.1:5000" },
  {
    realm: "http://10.0.0.1:5001/token",
    registry: "http://10.0.0.1:5000",
    allowPrivate: true,
    refused: "not on the registry's own origin",
  },
  {
    realm: "http://localhost:5001/token",
    registry: "http://127.0.0.1:5000",
    allowPrivate: true,
    refused: "not on the registry's own origin",
  },
];

for (const { realm, registry = HUB.url.href, allowPrivate = false, refused } of REALMS) {
  const outcome = refused === undefined ? "may have" : "does not get";
  Deno.test(`the realm ${realm} ${outcome} credentials for ${registry}`, async () => {
    const options = { registry: registryAt(registry), allowPrivate };
    const check = () => checkRealm(new URL(realm), options);
    if (refused === undefined) return await check();
    const error = await assertRejects(check, OciError, refused);
    assertEquals([error.code, error.status], ["UNAVAILABLE", 502]);
    assert(!JSON.stringify([error.message, error.detail]).includes("secret"));
  });
}

Deno.test("a registry's own origin is scheme, host and port", () => {
  const registry = registryAt("https://registry.example/base");
  assert(isOwnOrigin(new URL("https://REGISTRY.example:443/elsewhere"), registry));
  for (const url of ["http://registry.example/", "https://registry.example:444/"]) {
    assert(!isOwnOrigin(new URL(url), registry));
  }
});
