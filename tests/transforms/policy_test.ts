import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { parseConfig } from "../../lib/config/config.ts";
import { registryOf } from "../../lib/oci/registry.ts";
import {
  addressSet,
  clientAddress,
  matchesPattern,
  rateLimitKey,
  repositoryPolicy,
} from "../../lib/transforms/policy.ts";
import { parseNetwork, parsePattern } from "../../lib/config/values.ts";
import { plainAddress } from "../../lib/util/address.ts";

const { registries } = parseConfig({ UPSTREAM_CORP: "https://registry.corp.example:5000" });
const named = (name: string) => registries.find((registry) => registry.name === name)!;

const RULES: readonly {
  allow?: string[];
  deny?: string[];
  registry: string;
  repository: string;
  expected: boolean;
  why: string;
}[] = [
  { registry: "quay", repository: "a/b", expected: true, why: "without rules all is allowed" },
  {
    allow: ["docker.io/library/*"],
    registry: "docker",
    repository: "library/nginx",
    expected: true,
    why: "a pattern with the alias of its registry",
  },
  {
    allow: ["docker.io/library/*"],
    registry: "docker",
    repository: "grafana/grafana",
    expected: false,
    why: "what no allow pattern matches is denied",
  },
  {
    allow: ["docker.io/library/*"],
    registry: "ghcr",
    repository: "library/nginx",
    expected: false,
    why: "the same repository of another registry is another one",
  },
  {
    allow: ["docker.io/*"],
    deny: ["docker.io/evil/*"],
    registry: "docker",
    repository: "evil/miner",
    expected: false,
    why: "deny wins over allow",
  },
  ...["docker.io", "docker", "index.docker.io", "registry-1.docker.io", "docker-staging"].map(
    (name) => ({
      deny: [`${name}/evil/*`],
      registry: "docker",
      repository: "evil/miner",
      expected: false,
      why: `a rule about ${name} holds for all names of the same upstream`,
    }),
  ),
  {
    deny: ["docker.io/evil/*"],
    registry: "docker-staging",
    repository: "evil/miner",
    expected: false,
    why: "another name of the proxy's for the same upstream does not get around a rule",
  },
  {
    deny: ["docker.io/nginx"],
    registry: "docker",
    repository: "library/nginx",
    expected: false,
    why: "library/ may be left out as people do",
  },
  {
    deny: ["ghcr.io/nginx"],
    registry: "ghcr",
    repository: "library/nginx",
    expected: true,
    why: "library/ is Docker Hub's habit alone",
  },
  {
    deny: ["registry.corp.example:5000/secret*"],
    registry: "corp",
    repository: "secret/a/b",
    expected: false,
    why: "a star spans slashes",
  },
  {
    deny: ["*/library/alpine"],
    registry: "docker",
    repository: "library/alpine",
    expected: false,
    why: "a star may stand for the registry",
  },
];

for (const { allow = [], deny = [], registry, repository, expected, why } of RULES) {
  Deno.test(`${registry}/${repository} is ${expected ? "allowed" : "denied"}: ${why}`, () => {
    const rules = { allow: allow.map(parsePattern), deny: deny.map(parsePattern) };
    const policy = repositoryPolicy(rules, registries);
    assertEquals(policy(named(registry), repository), expected);
  });
}

Deno.test("a registry that is not in the list goes by its own names", () => {
  const target = registryOf("target", new URL("https://other.example"));
  const policy = repositoryPolicy({ allow: [], deny: ["other.example/x"] }, registries);
  assertEquals([policy(target, "x"), policy(target, "y")], [false, true]);
});

for (const text of ["nginx", "/x", "docker.io/", "docker.io/a b", "docker.io/(x)"]) {
  Deno.test(`"${text}" is no pattern`, () => {
    assertThrows(() => parsePattern(text), RangeError, "Expected registry/repository");
  });
}

Deno.test("patterns match as the regular expressions they abbreviate", () => {
  const char = fc.constantFrom("a", "b", "/", "-");
  const text = fc.array(char, { maxLength: 12 }).map((chars) => chars.join(""));
  const pattern = fc.array(fc.oneof(char, fc.constantFrom("*", "?")), { maxLength: 8 })
    .map((chars) => chars.join(""));
  fc.assert(fc.property(pattern, text, (pattern, text) => {
    const source = pattern.replaceAll("*", ".*").replaceAll("?", ".");
    assertEquals(matchesPattern(pattern, text), new RegExp(`^${source}$`).test(text));
  }));
});

const ADDRESSES: readonly [string, string, boolean][] = [
  ["10.0.0.0/8", "10.255.0.1", true],
  ["10.0.0.0/8", "11.0.0.1", false],
  ["10.0.0.0/8", "::ffff:10.1.2.3", true],
  ["192.0.2.7", "192.0.2.7", true],
  ["192.0.2.7", "192.0.2.8", false],
  ["2001:db8::/32", "2001:db8:1::1", true],
  ["2001:db8::/32", "2001:db9::1", false],
  ["fe80::/10", "fe80::1%eth0", true],
  ["::1", "[::1]", true],
  ["0.0.0.0/0", "unknown", false],
  ["0.0.0.0/0", "::1", false],
];

for (const [network, address, expected] of ADDRESSES) {
  Deno.test(`${address} is ${expected ? "" : "not "}in ${network}`, () => {
    assertEquals(addressSet([parseNetwork(network)]).has(address), expected);
  });
}

for (const text of ["10.0.0.0/33", "2001:db8::/129", "localhost", "10.0.0.0/8/8", ""]) {
  Deno.test(`"${text}" is no network`, () => {
    assertThrows(() => parseNetwork(text), RangeError, "Expected an address or a network");
  });
}

const PROXIES = addressSet(["10.0.0.0/8", "fd00::/8"].map(parseNetwork));
const CLIENTS: readonly {
  peer?: string;
  forwardedFor?: string;
  trusted?: typeof PROXIES | "peer";
  expected: string | undefined;
  why: string;
}[] = [
  {
    peer: "203.0.113.9",
    forwardedFor: "198.51.100.1",
    expected: "203.0.113.9",
    why: "nobody's header is believed without TRUST_PROXY",
  },
  {
    peer: "203.0.113.9",
    forwardedFor: "198.51.100.1, 192.0.2.5",
    trusted: "peer",
    expected: "192.0.2.5",
    why: "one proxy is trusted, and what it wrote stands last",
  },
  {
    peer: "10.0.0.1",
    forwardedFor: "198.51.100.1, 192.0.2.5, 10.0.0.2",
    trusted: PROXIES,
    expected: "192.0.2.5",
    why:
      "trusted proxies are passed over from the right; left of the first other one may stand anything",
  },
  {
    peer: "203.0.113.9",
    forwardedFor: "198.51.100.1",
    trusted: PROXIES,
    expected: "203.0.113.9",
    why: "a peer that is no trusted proxy speaks for itself",
  },
  {
    peer: "10.0.0.1",
    forwardedFor: "10.0.0.3, 10.0.0.2",
    trusted: PROXIES,
    expected: "10.0.0.3",
    why: "where all are trusted it is the first",
  },
  {
    peer: "10.0.0.1",
    forwardedFor: "192.0.2.5, unknown, 10.0.0.2",
    trusted: PROXIES,
    expected: "10.0.0.2",
    why: "an entry that is no address ends the search",
  },
  {
    peer: "10.0.0.1",
    forwardedFor: "192.0.2.5:4711",
    trusted: PROXIES,
    expected: "192.0.2.5",
    why: "a port is taken off",
  },
  {
    peer: "fd00::1",
    forwardedFor: "[2001:db8::5]:4711",
    trusted: PROXIES,
    expected: "2001:db8::5",
    why: "and brackets",
  },
  { peer: "10.0.0.1", trusted: PROXIES, expected: "10.0.0.1", why: "no header, no proxy's word" },
  { forwardedFor: "192.0.2.5", expected: undefined, why: "no address at all" },
  {
    forwardedFor: "192.0.2.5",
    trusted: "peer",
    expected: "192.0.2.5",
    why: "a trusted proxy on a Unix socket",
  },
];

for (const { peer, forwardedFor = null, trusted, expected, why } of CLIENTS) {
  Deno.test(`the client of ${peer} with X-Forwarded-For "${forwardedFor}" is ${expected}: ${why}`, () => {
    assertEquals(clientAddress({ peer, forwardedFor, trusted }), expected);
  });
}

const COUNTED: readonly [string, string][] = [
  ["192.0.2.5", "192.0.2.5"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
  ["2001:0db8:0001:0002::9", "2001:db8:1:2::/64"],
  ["2001:db8::1", "2001:db8:0:0::/64"],
  ["::1", "0:0:0:0::/64"],
  ["64:ff9b::192.0.2.5", "64:ff9b:0:0::/64"],
];

for (const [address, expected] of COUNTED) {
  Deno.test(`${address} is counted as ${expected}`, () => {
    assertEquals(rateLimitKey(address), expected);
  });
}

Deno.test("addresses of one /64 are counted together, of two apart", () => {
  const group = fc.integer({ min: 0, max: 0xffff }).map((n) => n.toString(16));
  const half = fc.array(group, { minLength: 4, maxLength: 4 }).map((groups) => groups.join(":"));
  fc.assert(fc.property(half, half, half, half, (network, other, host, host2) => {
    const of = (text: string) => rateLimitKey(plainAddress(text)!);
    assertEquals(of(`${network}:${host}`), of(`${network}:${host2}`));
    assertEquals(of(`${network}:${host}`) === of(`${other}:${host}`), network === other);
  }));
});

Deno.test("a network is read back the same and holds its own address; nothing makes it throw anything but a RangeError", () => {
  const network = fc.oneof(
    fc.tuple(fc.ipV4(), fc.nat(32)),
    fc.tuple(fc.ipV6(), fc.nat(128)),
  );
  fc.assert(fc.property(network, ([address, prefix]) => {
    if (plainAddress(address)?.includes(".") && prefix > 32) return; // an IPv4 one inside of IPv6
    const read = parseNetwork(`${address}/${prefix}`);
    assertEquals(parseNetwork(read), read);
    assert(addressSet([read]).has(address));
  }));
  const text = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.string({ unit: fc.constantFrom(..."0123456789.:/[]%abf") }),
  );
  fc.assert(fc.property(text, (text) => {
    for (const parse of [parseNetwork, parsePattern]) {
      try {
        const read = parse(text);
        assertEquals(parse(read), read);
      } catch (error) {
        assert(error instanceof RangeError, `${error}`);
      }
    }
  }));
});

Deno.test("whatever X-Forwarded-For says, the client is an address, and the peer's where that is not trusted", () => {
  const entry = fc.oneof(
    fc.ipV4(),
    fc.ipV6(),
    fc.ipV6().map((address) => `[${address}]:80`),
    fc.string({ unit: "binary" }),
  );
  const header = fc.array(entry).map((entries) => entries.join(","));
  const trusted = addressSet([parseNetwork("10.0.0.0/8")]);
  fc.assert(fc.property(header, (forwardedFor) => {
    const proxy = "10.1.2.3";
    for (const by of [trusted, "peer"] as const) {
      const client = clientAddress({ peer: proxy, forwardedFor, trusted: by });
      assert(client !== undefined && plainAddress(client) === client);
    }
    const stranger = "192.0.2.1";
    assertEquals(clientAddress({ peer: stranger, forwardedFor, trusted }), stranger);
    const appended = clientAddress({
      peer: proxy,
      forwardedFor: `${forwardedFor}, 8.8.8.8`,
      trusted,
    });
    assertEquals(appended, "8.8.8.8");
  }));
});

Deno.test("a rule about one name of an upstream holds whichever of its names was asked for first", () => {
  const [here, there] = ["here", "there"].map((name) =>
    registryOf(name, new URL("https://same.example"), { aliases: [`${name}.example`] })
  );
  for (const order of [[here!, there!], [there!, here!]]) {
    // What `TARGET_UPSTREAM` makes is not among the configured ones.
    const mayRead = repositoryPolicy({ allow: [], deny: ["there.example/*"] }, [here!]);
    assertEquals(order.map((registry) => mayRead(registry, "a")), order.map((one) => one === here));
  }
});
