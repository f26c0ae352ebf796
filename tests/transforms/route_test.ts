import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { parseConfig } from "../../lib/config/config.ts";
import { OciError } from "../../lib/oci/error.ts";
import { DEFAULT_REGISTRIES, type Registry, registryOf } from "../../lib/oci/registry.ts";
import { type Route, route, routesOf } from "../../lib/transforms/route.ts";
import {
  defaultRegistry,
  hostnameOf,
  isIpLiteral,
  isPathHost,
  registryNamed,
  type RouteTable,
  stripRegistry,
} from "../../lib/oci/registry_table.ts";

const DIGEST = `sha256:${"0a".repeat(32)}`;
const DOMAIN = "proxy.example";

const registries: Registry[] = [
  ...Object.entries(DEFAULT_REGISTRIES).map(([name, { url, ...options }]) =>
    registryOf(name, new URL(url), options)
  ),
  registryOf("corp", new URL("https://registry.corp:5000/base"), { aliases: ["Corp.Example"] }),
  registryOf("local", new URL("http://localhost:5000")),
];
const table: RouteTable = { customDomain: DOMAIN, registries };
const debug: RouteTable = {
  ...table,
  fallback: registryOf("target", new URL("https://t.example")),
};

/** Host, path → `registry kind repository@reference base prefix`. */
const TARGETS: [host: string, path: string, expected: string][] = [
  // By host.
  [
    "docker.proxy.example",
    "/v2/library/nginx/manifests/1",
    "docker manifest library/nginx@1 /v2/ -",
  ],
  ["docker.proxy.example", "/v2/nginx/manifests/1", "docker manifest nginx@1 /v2/ -"],
  ["DOCKER.Proxy.Example.:8443", "/v2/a/b/tags/list", "docker tags a/b@ /v2/ -"],
  ["docker-staging.proxy.example", "/v2/a/b/tags/list", "docker-staging tags a/b@ /v2/ -"],
  ["ghcr.proxy.example", `/v2/a/b/blobs/${DIGEST}`, `ghcr blob a/b@${DIGEST} /v2/ -`],
  ["ghcr.proxy.example", `/v2/a/b/referrers/${DIGEST}`, `ghcr referrers a/b@${DIGEST} /v2/ -`],
  ["ghcr.proxy.example", `/v2/a/b/manifests/${DIGEST}`, `ghcr manifest a/b@${DIGEST} /v2/ -`],
  ["docker.proxy.example", "/v2/ghcr.io/a/b/tags/list", "docker tags ghcr.io/a/b@ /v2/ -"],
  ["docker.proxy.example", "/docker.io/v2/a/b/tags/list", "docker tags a/b@ /docker.io/v2/ -"],
  // The last match wins.
  ["ghcr.proxy.example", "/v2/a/manifests/b/manifests/1", "ghcr manifest a/manifests/b@1 /v2/ -"],
  ["ghcr.proxy.example", "/v2/a/tags/list/tags/list", "ghcr tags a/tags/list@ /v2/ -"],
  ["ghcr.proxy.example", "/v2/a/tags/manifests/list", "ghcr manifest a/tags@list /v2/ -"],
  ["ghcr.proxy.example", "/v2/v2/v2/manifests/v2", "ghcr manifest v2/v2@v2 /v2/ -"],
  // Decoded once.
  [
    "ghcr.proxy.example",
    `/v2/a/blobs/${DIGEST.replace(":", "%3A")}`,
    `ghcr blob a@${DIGEST} /v2/ -`,
  ],
  // By path.
  ["proxy.example", "/v2/ghcr.io/a/b/manifests/1", "ghcr manifest a/b@1 /v2/ghcr.io/ ghcr.io/"],
  ["proxy.example", "/v2/ghcr/a/b/manifests/1", "ghcr manifest a/b@1 /v2/ghcr/ ghcr/"],
  ["proxy.example", "/v2/GHCR.io/a/manifests/1", "ghcr manifest a@1 /v2/GHCR.io/ GHCR.io/"],
  ["proxy.example", "/v2/ghcr.io/manifests/1", "docker manifest ghcr.io@1 /v2/ -"],
  ["proxy.example", "/v2/nginx/manifests/1", "docker manifest nginx@1 /v2/ -"],
  ["proxy.example", "/v2/other.io/a/b/tags/list", "docker tags other.io/a/b@ /v2/ -"],
  [
    "proxy.example",
    "/v2/docker.io/nginx/tags/list",
    "docker tags nginx@ /v2/docker.io/ docker.io/",
  ],
  [
    "proxy.example",
    "/v2/registry.corp:5000/a/tags/list",
    "corp tags a@ /v2/registry.corp:5000/ registry.corp:5000/",
  ],
  [
    "proxy.example",
    "/v2/registry.corp%3A5000/a/tags/list",
    "corp tags a@ /v2/registry.corp%3A5000/ registry.corp:5000/",
  ],
  ["localhost:8080", "/v2/quay.io/a/b/tags/list", "quay tags a/b@ /v2/quay.io/ quay.io/"],
  ["127.0.0.1:8080", "/v2/quay.io/a/b/tags/list", "quay tags a/b@ /v2/quay.io/ quay.io/"],
  ["[::1]:8080", "/v2/quay.io/a/b/tags/list", "quay tags a/b@ /v2/quay.io/ quay.io/"],
  ["proxy.example", "/ghcr.io/v2/a/b/manifests/1", "ghcr manifest a/b@1 /ghcr.io/v2/ ghcr.io/"],
  [
    "proxy.example",
    "/ghcr.io/v2/quay.io/b/manifests/1",
    "ghcr manifest quay.io/b@1 /ghcr.io/v2/ ghcr.io/",
  ],
  // BuildKit's frontend is Docker Hub's repository `docker/dockerfile`.
  [
    "proxy.example",
    "/v2/docker/dockerfile/manifests/1",
    "docker manifest docker/dockerfile@1 /v2/ -",
  ],
  ["proxy.example", "/v2/docker/a/b/manifests/1", "docker manifest a/b@1 /v2/docker/ docker/"],
  [
    "proxy.example",
    "/v2/docker.io/docker/dockerfile/manifests/1",
    "docker manifest docker/dockerfile@1 /v2/docker.io/ docker.io/",
  ],
  // By ns.
  ["proxy.example", "/v2/a/b/manifests/1?ns=ghcr.io", "ghcr manifest a/b@1 /v2/ ghcr.io/"],
  ["proxy.example", "/v2/a/b/manifests/1?ns=GHCR.IO", "ghcr manifest a/b@1 /v2/ GHCR.IO/"],
  ["proxy.example", "/v2/a/b/manifests/1?ns=ghcr.io:443", "ghcr manifest a/b@1 /v2/ ghcr.io:443/"],
  [
    "proxy.example",
    "/v2/a/b/manifests/1?ns=corp.example",
    "corp manifest a/b@1 /v2/ corp.example/",
  ],
  [
    "proxy.example",
    "/v2/a/b/manifests/1?ns=localhost:5000",
    "local manifest a/b@1 /v2/ localhost:5000/",
  ],
  ["proxy.example", "/v2/a/b/manifests/1?ns=", "docker manifest a/b@1 /v2/ -"],
  ["docker.proxy.example", "/v2/a/b/manifests/1?ns=ghcr.io", "ghcr manifest a/b@1 /v2/ -"],
  [
    "proxy.example",
    "/v2/quay/busybox/manifests/1?ns=quay.io",
    "quay manifest quay/busybox@1 /v2/ quay.io/",
  ],
  [
    "proxy.example",
    "/v2/docker/dockerfile/manifests/1?ns=docker.io",
    "docker manifest docker/dockerfile@1 /v2/ docker.io/",
  ],
  [
    "proxy.example",
    "/v2/quay/busybox/manifests/1?ns=docker.io",
    "docker manifest quay/busybox@1 /v2/ docker.io/",
  ],
  [
    "proxy.example",
    "/prefix/v2/a/b/manifests/1?ns=ghcr.io",
    "ghcr manifest a/b@1 /prefix/v2/ ghcr.io/",
  ],
  ["proxy.example", "/a/b/v2/a/b/manifests/1?ns=ghcr.io", "ghcr manifest a/b@1 /a/b/v2/ ghcr.io/"],
  [
    "proxy.example",
    "/quay.io/v2/a/b/manifests/1?ns=ghcr.io",
    "ghcr manifest a/b@1 /quay.io/v2/ ghcr.io/",
  ],
  // containerd's override_path repeats the registry of ns in the path.
  [
    "proxy.example",
    "/v2/ghcr.io/a/b/manifests/1?ns=ghcr.io",
    "ghcr manifest a/b@1 /v2/ghcr.io/ ghcr.io/",
  ],
  [
    "proxy.example",
    "/v2/docker.io/library/nginx/manifests/1?ns=docker.io",
    "docker manifest library/nginx@1 /v2/docker.io/ docker.io/",
  ],
  [
    "docker.proxy.example",
    "/v2/ghcr.io/a/b/manifests/1?ns=ghcr.io",
    "ghcr manifest a/b@1 /v2/ghcr.io/ -",
  ],
];

for (const [host, path, expected] of TARGETS) {
  Deno.test(`${host}${path.replaceAll(DIGEST, "…")} is ${expected.replaceAll(DIGEST, "…")}`, () => {
    const result = routed(host, path);
    assert(result.kind === "target", result.kind);
    const { registry, kind, repository, reference, base, prefix } = result.target;
    const actual = `${registry.name} ${kind} ${repository}@${reference} ${base} ${prefix || "-"}`;
    assertEquals(actual, expected);
  });
}

/** Host, path → `kind registry base` or `token registry pathMode`. */
const OTHERS: [host: string, path: string, expected: string][] = [
  ["docker.proxy.example", "/", "home"],
  ["proxy.example", "/", "home"],
  ["10.0.0.1", "/?x=y", "home"],
  ["elsewhere.example", "/", "unrouted"],
  ["elsewhere.example", "/health", "health"],
  ["", "/healthz", "health"],
  ["proxy.example", "/health/", "unrouted"],
  ["docker.proxy.example", "/v2", "ping docker /v2/"],
  ["ghcr.proxy.example", "/v2/", "ping ghcr /v2/"],
  ["proxy.example", "/v2/", "ping docker /v2/"],
  ["proxy.example", "/v2/?ns=ghcr.io", "ping ghcr /v2/"],
  ["proxy.example", "/v2/ghcr.io/", "ping ghcr /v2/ghcr.io/"],
  ["proxy.example", "/v2/ghcr.io", "ping ghcr /v2/ghcr.io/"],
  ["proxy.example", "/v2/docker/", "ping docker /v2/docker/"],
  ["proxy.example", "/ghcr.io/v2/", "ping ghcr /ghcr.io/v2/"],
  ["proxy.example", "/ghcr.io/v2", "ping ghcr /ghcr.io/v2/"],
  ["proxy.example", "/x/v2/?ns=ghcr.io", "ping ghcr /x/v2/"],
  ["proxy.example", "/x/v2/", "unrouted"],
  ["docker.proxy.example", "/ghcr.io/v2/", "unrouted"],
  ["ghcr.proxy.example", "/v2/auth", "token ghcr false"],
  ["proxy.example", "/v2/auth?scope=x", "token docker true"],
  ["proxy.example", "/ghcr.io/v2/auth", "token ghcr false"],
  ["proxy.example", "/x/v2/auth", "token docker true"],
  ["docker.proxy.example", "/ghcr.io/v2/auth", "token docker false"],
  ["proxy.example", "/v2/auth?ns=ghcr.io", "token ghcr false"],
  ["docker.proxy.example", "/v2/auth?ns=ghcr.io", "token ghcr false"],
  ["quay.proxy.example", "/v2/_catalog?n=1", "catalog quay /v2/"],
  ["proxy.example", "/v2/_catalog", "catalog docker /v2/"],
  ["proxy.example", "/v2/ghcr.io/_catalog", "catalog ghcr /v2/ghcr.io/"],
  ["proxy.example", "/ghcr.io/v2/_catalog", "catalog ghcr /ghcr.io/v2/"],
  ["proxy.example", "/favicon.ico", "unrouted"],
  ["proxy.example", "/v1/_ping", "unrouted"],
  ["docker.elsewhere.example", "/v2/", "unrouted"],
  ["docker.io.proxy.example", "/v2/", "unrouted"],
  ["dockerproxy.example", "/v2/", "unrouted"],
  ["a.docker.proxy.example", "/v2/", "unrouted"],
  ["elsewhere.example", "/v2/?ns=docker.io", "unrouted"],
  ["", "/v2/", "unrouted"],
];

for (const [host, path, expected] of OTHERS) {
  Deno.test(`${host || "no host"}${path} is ${expected}`, () => {
    assertEquals(brief(routed(host, path)), expected);
  });
}

const REFUSED: [path: string, code: string, status: number][] = [
  ["/v2/a/b/manifests/1?ns=evil.example", "NAME_UNKNOWN", 404],
  ["/v2/A/manifests/1", "NAME_INVALID", 400],
  ["/v2/DOCKER/dockerfile/manifests/1", "NAME_INVALID", 400],
  ["/v2/a//b/manifests/1", "NAME_INVALID", 400],
  ["/v2/unknown.io:5000/a/manifests/1", "NAME_INVALID", 400],
  ["/v2/a/manifests/.x", "NAME_INVALID", 400],
  ["/v2/a/manifests/sha256:x", "DIGEST_INVALID", 400],
  ["/v2/a/blobs/latest", "DIGEST_INVALID", 400],
  ["/v2/a/blobs/sha256%253A", "DIGEST_INVALID", 400],
  ["/v2/a/referrers/latest", "DIGEST_INVALID", 400],
  ["/v2/a/blobs/uploads/", "NAME_UNKNOWN", 404],
  ["/v2/a/blobs/uploads/1-2", "NAME_UNKNOWN", 404],
  ["/v2/a/tags/list/", "NAME_UNKNOWN", 404],
  ["/v2/a/tags/other", "NAME_UNKNOWN", 404],
  ["/v2/a/manifests/", "NAME_UNKNOWN", 404],
  ["/v2/manifests/1", "NAME_UNKNOWN", 404],
  ["/v2/tags/list", "NAME_UNKNOWN", 404],
  ["/v2/a", "NAME_UNKNOWN", 404],
  ["/v2//", "NAME_UNKNOWN", 404],
  ["/v2/a%2fb/manifests/1", "NAME_INVALID", 400],
  ["/v2/a%5Cb/manifests/1", "NAME_INVALID", 400],
  ["/v2/..%2f..%2fetc/manifests/1", "NAME_INVALID", 400],
  ["/v2/a/manifests/1%00", "NAME_INVALID", 400],
  ["/v2/a/manifests/1%0a", "NAME_INVALID", 400],
  ["/v2/a%ff/manifests/1", "NAME_INVALID", 400],
  ["/v2/a%/manifests/1", "NAME_INVALID", 400],
  ["/v2/a%252fb/manifests/1", "NAME_INVALID", 400],
  ["/%2f/v2/a/manifests/1?ns=ghcr.io", "NAME_INVALID", 400],
  // Its base would send the client to evil.example with the redirect to library/.
  ["//evil.example/v2/nginx/manifests/1?ns=docker.io", "NAME_INVALID", 400],
  [`/v2/${"a".repeat(250)}/manifests/1`, "NAME_INVALID", 400],
];

for (const [path, code, status] of REFUSED) {
  Deno.test(`${path.slice(0, 60)} is refused with ${code}`, () => {
    const error = assertThrows(() => routed(DOMAIN, path), OciError);
    assertEquals([error.code, error.status], [code, status]);
  });
}

Deno.test("an unknown ns is told apart from other unknown names by nothing internal", () => {
  const error = assertThrows(() => routed(DOMAIN, "/v2/?ns=evil.example"), OciError);
  assertEquals(error.detail, { ns: "evil.example" });
});

Deno.test("with a fallback every host that matches nothing goes there, and is not path mode", () => {
  assertEquals(brief(routed("elsewhere.example", "/v2/", debug)), "ping target /v2/");
  assertEquals(
    brief(routed("elsewhere.example", "/v2/ghcr.io/_catalog?ns=ghcr.io", debug)),
    "catalog ghcr /v2/ghcr.io/",
  );
  assertEquals(brief(routed("elsewhere.example", "/v2/auth", debug)), "token target false");
  assertEquals(brief(routed("elsewhere.example", "/", debug)), "home");
  assertEquals(brief(routed("quay.proxy.example", "/v2/", debug)), "ping quay /v2/");
  assertEquals(brief(routed("localhost", "/v2/", debug)), "ping docker /v2/");
  const result = routed("elsewhere.example", "/v2/ghcr.io/a/tags/list", debug);
  assert(result.kind === "target");
  assertEquals([result.target.registry.name, result.target.repository], ["target", "ghcr.io/a"]);
});

Deno.test("an unknown host is told the public registries with their URLs, without a trailing slash", () => {
  const routes = routesOf(table);
  assertEquals(routes["docker.proxy.example"], "https://registry-1.docker.io");
  assertEquals(Object.keys(routes).length, Object.keys(DEFAULT_REGISTRIES).length);
  const unrouted = routed("elsewhere.example", "/");
  assert(unrouted.kind === "unrouted");
  assertEquals(unrouted.routes, routes);
});

Deno.test("an unknown host is told neither registries that the operator added nor what stands in a public one's place", () => {
  const { registries } = parseConfig({
    UPSTREAM_CORP: "https://registry.corp.internal/base",
    UPSTREAM_DOCKER: "http://10.0.0.7:5000",
    UPSTREAM_QUAY: "https://quay.io/inside",
    UPSTREAM_GHCR: "ghcr.io",
  });
  const text = JSON.stringify(
    routed("elsewhere.example", "/", { customDomain: DOMAIN, registries }),
  );
  for (const hidden of ["corp", "10.0.0.7", "docker.proxy.example", "inside"]) {
    assert(!text.includes(hidden), hidden);
  }
  assert(text.includes('"ghcr.proxy.example":"https://ghcr.io"'), text);
});

const NAMED: [name: string, registry: string | undefined][] = [
  ["docker", "docker"],
  ["docker.io", "docker"],
  ["INDEX.docker.io", "docker"],
  ["registry-1.docker.io", "docker"],
  ["docker-staging", "docker-staging"],
  ["quay.io:443", "quay"],
  ["quay.io:80", undefined],
  ["registry.corp", "corp"],
  ["registry.corp:5000", "corp"],
  ["registry.corp:5001", undefined],
  ["localhost:5000", "local"],
  ["", undefined],
  ["io", undefined],
];

for (const [name, expected] of NAMED) {
  Deno.test(`${JSON.stringify(name)} names ${expected ?? "no registry"}`, () => {
    assertEquals(registryNamed(table, name)?.name, expected);
  });
}

Deno.test("a name goes before another registry's alias, and a host with its port before one without", () => {
  const a = registryOf("a", new URL("https://h.example:1"), { aliases: ["b"] });
  const b = registryOf("b", new URL("https://h.example"));
  const both = { customDomain: DOMAIN, registries: [a, b] };
  assertEquals(registryNamed(both, "b"), b);
  assertEquals(registryNamed(both, "h.example"), b);
  assertEquals(registryNamed(both, "h.example:1"), a);
});

Deno.test("a registry is found whatever the case of its configured name, and by its scheme's port", () => {
  const corp = registryOf("Corp", new URL("http://corp.example"));
  const one = { customDomain: DOMAIN, registries: [corp] };
  assertEquals(registryNamed(one, "corp"), corp);
  assertEquals(registryNamed(one, "corp.example:80"), corp);
  assertEquals(registryNamed(one, "corp.example:443"), undefined);
  assertEquals(brief(routed("corp.proxy.example", "/v2/", one)), "ping Corp /v2/");
});

Deno.test("path mode means the registry named docker, or else the first", () => {
  assertEquals(
    defaultRegistry({ customDomain: DOMAIN, registries: registries.toReversed() }),
    registries[0],
  );
  const others = registries.slice(1);
  assertEquals(defaultRegistry({ customDomain: DOMAIN, registries: others }), others[0]);
  const none = { customDomain: DOMAIN, registries: [] };
  assertEquals(brief(routed(DOMAIN, "/v2/", none)), "unrouted");
});

Deno.test("a repository in path mode is taken apart at its first component", () => {
  const stripped = stripRegistry("ghcr.io/a/b", table);
  assertEquals([stripped?.registry.name, stripped?.written, stripped?.repository], [
    "ghcr",
    "ghcr.io",
    "a/b",
  ]);
  for (const own of ["ghcr.io", "a/b", "docker/dockerfile", ""]) {
    assertEquals(stripRegistry(own, table), undefined);
  }
});

const HOSTS: [host: string, hostname: string, ip: boolean][] = [
  ["Proxy.Example:8080", "proxy.example", false],
  ["proxy.example.", "proxy.example", false],
  ["127.0.0.1:80", "127.0.0.1", true],
  ["[::1]:80", "::1", true],
  ["[2001:DB8::1]", "2001:db8::1", true],
  ["::1", "::1", true],
  ["256.0.0.1", "256.0.0.1", false],
  ["1.2.3", "1.2.3", false],
  ["1.2.3.4.5", "1.2.3.4.5", false],
  ["1:2:3", "1:2:3", false],
  ["0x1.0.0.1", "0x1.0.0.1", false],
  ["::1]:80/x", "::1]:80/x", false],
  ["[zz]", "zz", false],
  ["[::1", "", false],
  ["a:b", "", false],
  ["", "", false],
];

for (const [host, hostname, ip] of HOSTS) {
  Deno.test(`${JSON.stringify(host)} is the ${ip ? "address" : "name"} ${hostname}`, () => {
    assertEquals(hostnameOf(host), hostname);
    assertEquals(isIpLiteral(host), ip);
    assertEquals(hostnameOf(hostname), hostname);
  });
}

Deno.test("path hosts are the bare domain, localhost and addresses", () => {
  const paths = ["proxy.example:1", "localhost", "10.0.0.1", "[::1]"];
  assertEquals(paths.filter((host) => isPathHost(host, table)), paths);
  for (const host of ["docker.proxy.example", "docker.localhost", "", "x.example"]) {
    assert(!isPathHost(host, table), host);
  }
  assert(isPathHost("Other.Example", { ...table, customDomain: "other.example:8443" }));
});

const components = fc.array(
  fc.oneof(
    fc.stringMatching(/^[a-z0-9]{1,5}$/),
    fc.constantFrom("manifests", "blobs", "tags", "list", "referrers", "v2", "auth"),
  ),
  { minLength: 1, maxLength: 4 },
);

Deno.test("whatever its repository is called, a target is found again from its base", () => {
  const kinds = fc.constantFrom(
    "manifests/v2",
    `blobs/${DIGEST}`,
    "tags/list",
    `referrers/${DIGEST}`,
  );
  const hosts = fc.constantFrom("ghcr.proxy.example", "elsewhere.example");
  fc.assert(fc.property(hosts, components, kinds, (host, parts, kind) => {
    const result = routed(host, `/v2/${parts.join("/")}/${kind}`, debug);
    assert(result.kind === "target");
    assertEquals(result.target.repository, parts.join("/"));
    assertEquals(result.target.base, "/v2/");
  }));
});

Deno.test("no request makes routing throw anything but a 400 or 404, or accept a bad name", () => {
  const part = fc.oneof(
    fc.constantFrom(
      "v2",
      "ghcr.io",
      "docker",
      "a",
      "manifests",
      "tags",
      "list",
      "",
      "..",
      "%2e%2e",
    ),
    fc.constantFrom("%2f", "%", "%00", "sha256:x", "auth", "_catalog"),
    fc.string(),
  );
  const paths = fc.array(part, { maxLength: 7 }).map((parts) => "/" + parts.join("/"));
  const hosts = fc.oneof(fc.constantFrom(DOMAIN, "ghcr.proxy.example", "[::1]:1"), fc.string());
  const ns = fc.option(fc.oneof(fc.constantFrom("ghcr.io", "docker"), fc.string()));
  fc.assert(
    fc.property(hosts, paths, ns, (host, path, ns) => {
      const url = new URL("http://proxy.example");
      url.pathname = path;
      if (ns !== null) url.searchParams.set("ns", ns);
      try {
        const result = route({ url, host }, table);
        if (result.kind !== "target") return;
        assert(url.pathname.startsWith(result.target.base));
        assert(/^\/(?!\/)/.test(result.target.base));
        assert(/^[a-z0-9][a-z0-9._/-]*$/.test(result.target.repository));
      } catch (error) {
        assert(error instanceof OciError && [400, 404].includes(error.status), String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

function routed(host: string, path: string, routes: RouteTable = table): Route {
  // As a server sees it: a path that begins with two slashes is a path.
  return route({ url: new URL(`http://proxy.example${path}`), host }, routes);
}

function brief(result: Route): string {
  switch (result.kind) {
    case "ping":
    case "catalog":
      return `${result.kind} ${result.registry.name} ${result.base}`;
    case "token":
      return `token ${result.registry.name} ${result.pathMode}`;
    default:
      return result.kind;
  }
}
