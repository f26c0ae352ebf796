import { assert, assertEquals, assertMatch, assertNotEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { type Config, ConfigError, parseConfig, SETTINGS } from "../../lib/config/config.ts";
import { describeConfig } from "../../lib/config/describe.ts";
import type { Registry } from "../../lib/oci/registry.ts";

const HOUR = 3_600_000;

function readFile(path: string): string {
  if (path === "/secret") return "from file\n";
  if (path === "/accounts") return "# ours\nme:first\n\nbot:second:half\r\n";
  throw new Error(`No such file: ${path}`);
}

function problemsOf(env: Record<string, string>): readonly string[] {
  const error = assertThrows(() => parseConfig(env, { readFile }), ConfigError);
  assertEquals(error.message, error.problems.join("\n"));
  return error.problems;
}

function registryNamed(config: Config, name: string): Registry {
  const registry = config.registries.find((one) => one.name === name);
  assert(registry, `No registry ${name}`);
  return registry;
}

/** What `describeConfig` prints, read back. */
function linesOf(config: Config): Record<string, string> {
  return Object.fromEntries(
    describeConfig(config).split("\n").map((line) => {
      const [, name, value] = /^([A-Z0-9_]+)=(.*)$/.exec(line)!;
      return [name!, value!.replace(/^(['"`])(.*)\1$/, "$2")];
    }),
  );
}

Deno.test("every setting has a default", () => {
  const config = parseConfig({});
  assertEquals(config.customDomain, "localhost");
  assertEquals(config.listen, { host: "0.0.0.0", port: 8080, tls: undefined });
  assertEquals(config.cache?.dir, "./cache");
  assertEquals(config.cache?.maxSize, 10 * 2 ** 30);
  assertEquals(config.cache?.manifestTtl, HOUR / 12);
  assertEquals(config.cache?.blobTtl, 365 * 24 * HOUR);
  assertEquals(config.redirects, { followAll: true, blockedHosts: [], storageHosts: [] });
  assertEquals(config.allowPrivateNetworks, false);
  assertEquals(config.trustProxy, false);
  assertEquals(config.publicScheme, undefined);
  assertEquals(config.upstreamIdleTimeout, 30_000);
  assertEquals(config.shutdownTimeout, 30_000);
  assertEquals(config.log, { level: "info", format: "text" });
  assertEquals(config.debug, false);
  assertEquals(config.fallback, undefined);
});

const OLD_NAMES: readonly [
  old: string,
  name: string,
  value: string,
  get: (config: Config) => unknown,
][] = [
  ["CACHE_FILLS_SIZE", "CACHE_STAGING_SIZE", "1GiB", ({ cache }) => cache?.fillsSize],
  ["PEER_URL", "ADVERTISE_URL", "http://10.0.0.7:8080", ({ cache }) => cache?.peerUrl],
  ["CACHE_ONLY", "OFFLINE", "true", ({ cache }) => cache?.only],
];

for (const [old, name, value, get] of OLD_NAMES) {
  Deno.test(`${old} still works, and a warning names its replacement ${name}`, () => {
    const config = parseConfig({ [old]: value });
    assertEquals(get(config), get(parseConfig({ [name]: value })));
    assertNotEquals(get(config), get(parseConfig({})));
    assertEquals(config.warnings, [`${old}: Deprecated, use ${name}`]);
  });
}

Deno.test("a setting's current name takes precedence over its deprecated one", () => {
  const config = parseConfig({ OFFLINE: "false", CACHE_ONLY: "true" });
  assertEquals(config.cache?.only, false);
  assertEquals(config.warnings, ["CACHE_ONLY: Deprecated, use OFFLINE"]);
});

Deno.test("an invalid value under a deprecated name is reported under the current one", () => {
  const error = assertThrows(() => parseConfig({ CACHE_FILLS_SIZE: "much" }), ConfigError);
  assertMatch(error.problems.join(), /^CACHE_STAGING_SIZE: /);
});

Deno.test("eleven registries are configured by default, with their hosts", () => {
  const { registries } = parseConfig({});
  assertEquals(registries.map(({ name, url }) => [name, url.href]), [
    ["docker", "https://registry-1.docker.io/"],
    ["docker-staging", "https://registry-1.docker.io/"],
    ["quay", "https://quay.io/"],
    ["gcr", "https://gcr.io/"],
    ["k8s-gcr", "https://k8s.gcr.io/"],
    ["k8s", "https://registry.k8s.io/"],
    ["ghcr", "https://ghcr.io/"],
    ["cloudsmith", "https://docker.cloudsmith.io/"],
    ["ecr", "https://public.ecr.aws/"],
    ["mcr", "https://mcr.microsoft.com/"],
    ["nvcr", "https://nvcr.io/"],
  ]);
});

const VALID: readonly [env: Record<string, string>, get: (config: Config) => unknown, unknown][] = [
  [{ CUSTOM_DOMAIN: "Example.COM." }, (c) => c.customDomain, "example.com"],
  [{ CUSTOM_DOMAIN: "" }, (c) => c.customDomain, "localhost"],
  [{ HOST: "::1" }, (c) => c.listen.host, "::1"],
  [{ HOST: "[::]" }, (c) => c.listen.host, "::"],
  [{ HOST: "proxy_1.lan" }, (c) => c.listen.host, "proxy_1.lan"],
  [{ PORT: "0" }, (c) => c.listen.port, 0],
  [{ PORT: "65535" }, (c) => c.listen.port, 65535],
  [{ TLS_CERT: "a", TLS_KEY: "b" }, (c) => c.listen.tls, { cert: "a", key: "b" }],
  [{ CACHE_ENABLED: "No" }, (c) => c.cache, undefined],
  [{ CACHE_MAX_SIZE: "500MB" }, (c) => c.cache?.maxSize, 500_000_000],
  [{}, (c) => c.cache?.indexSize, 256 * 2 ** 20],
  [{ CACHE_INDEX_SIZE: "64MiB" }, (c) => c.cache?.indexSize, 64 * 2 ** 20],
  [{ CACHE_STAGING_SIZE: "1GiB" }, (c) => c.cache?.fillsSize, 2 ** 30],
  [{ CACHE_MANIFEST_TTL: "1d" }, (c) => c.cache?.manifestTtl, 24 * HOUR],
  [
    { BLOCKED_HOSTS: "*.Evil.example, .b.example c.example." },
    (c) => c.redirects.blockedHosts,
    ["evil.example", "b.example", "c.example"],
  ],
  [{ FOLLOW_ALL_REDIRECTS: "off" }, (c) => c.redirects.followAll, false],
  [{ CACHE_ENABLED: "false" }, (c) => c.redirects.followAll, false],
  [
    { CACHE_ENABLED: "false", FOLLOW_ALL_REDIRECTS: "true" },
    (c) => c.redirects.followAll,
    true,
  ],
  [{ PUBLIC_SCHEME: "HTTP" }, (c) => c.publicScheme, "http"],
  [{ PUBLIC_SCHEME: "auto" }, (c) => c.publicScheme, undefined],
  [{ DEBUG: "1" }, (c) => c.log.level, "debug"],
  [{ MODE: "debug" }, (c) => c.debug, true],
  [{ MODE: "debug", DEBUG: "false" }, (c) => c.debug, false],
  [{ DEBUG: "true", LOG_LEVEL: "warn" }, (c) => c.log.level, "warning"],
  [{ LOG_FORMAT: "JSON" }, (c) => c.log.format, "json"],
  [{ SHUTDOWN_TIMEOUT: "0s" }, (c) => c.shutdownTimeout, 0],
  [{ TRUST_PROXY: "on" }, (c) => c.trustProxy, true],
  [{ TRUST_PROXY: "10.0.0.0/8, ::1" }, (c) => c.trustProxy, ["10.0.0.0/8", "::1/128"]],
  [{}, (c) => c.limits?.maxFills, 64],
  [
    { DENY_REPOS: "ghcr.io/secret/* quay/*" },
    (c) => c.limits?.repositories,
    { allow: [], deny: ["ghcr.io/secret/*", "quay/*"] },
  ],
  [{ ALLOW_CLIENTS: "10.0.0.0/8" }, (c) => c.limits?.clients, ["10.0.0.0/8"]],
  [
    { RATE_LIMIT: "misses=500/3h" },
    (c) => c.limits?.rate,
    { hits: undefined, misses: { count: 500, period: 3 * HOUR } },
  ],
  [{ MAX_CONCURRENT_FILLS: "4" }, (c) => c.limits?.maxFills, 4],
  [{ QUOTA_THRESHOLD: "30" }, (c) => c.quota.threshold, { count: 30 }],
  [{ OFFLINE: "true" }, (c) => c.cache?.only, true],
  [{ ADMIN_ADDR: "off" }, (c) => c.admin, undefined],
  [
    { ADMIN_ADDR: "0.0.0.0:9000", ADMIN_TOKEN: "hunter2hunter2hunter2" },
    (c) => c.admin,
    { host: "0.0.0.0", port: 9000, token: "hunter2hunter2hunter2", isWanted: true },
  ],
  [
    { WARM_IMAGES: "nginx:1.27, ghcr.io/owner/image", WARM_PLATFORMS: "linux/amd64" },
    (c) => [c.warm.images, c.warm.platforms, c.warm.interval],
    [["nginx:1.27", "ghcr.io/owner/image"], ["linux/amd64"], HOUR],
  ],
  [{ https_proxy: "http://proxy:3128" }, (c) => c.outboundProxy, true],
  [{ NO_PROXY: "localhost" }, (c) => c.outboundProxy, false],
  [{ DENO_CERT: "/ca.pem" }, (c) => c.authoritiesFile, "/ca.pem"],
  [
    { DEBUG: "true", TARGET_UPSTREAM: "registry-1.docker.io" },
    (c) => [c.fallback?.url.href, c.fallback?.library],
    ["https://registry-1.docker.io/", true],
  ],
  [
    { MODE: "debug", TARGET_UPSTREAM: "http://127.0.0.1:5000/base/" },
    (c) => [c.fallback?.id, c.fallback?.library],
    ["127.0.0.1:5000/base", false],
  ],
];

Deno.test("each setting is parsed as documented", () => {
  for (const [env, get, expected] of VALID) {
    assertEquals(get(parseConfig(env)), expected, JSON.stringify(env));
  }
});

Deno.test("the cache is off on Deno Deploy, even with CACHE_ENABLED=true", () => {
  for (const name of ["DENO_DEPLOY", "DENO_DEPLOYMENT_ID"]) {
    const config = parseConfig({ [name]: "1", CACHE_ENABLED: "true" });
    assertEquals(config.cache, undefined);
    assertEquals(config.redirects.followAll, false);
  }
  assert(parseConfig({ DENO_DEPLOY: "0" }).cache);
});

Deno.test("UPSTREAM_<NAME> overrides a registry's URL and keeps its aliases and library prefix", () => {
  const docker = registryNamed(parseConfig({ UPSTREAM_DOCKER: "http://127.0.0.1:5000" }), "docker");
  assertEquals(docker.url.href, "http://127.0.0.1:5000/");
  assertEquals(docker.library, true);
  assert(docker.aliases.includes("docker.io"));
  assert(docker.aliases.includes("127.0.0.1:5000"));
  const ghcr = registryNamed(parseConfig({ UPSTREAM_GHCR: "https://mirror.example" }), "ghcr");
  assert(ghcr.aliases.includes("ghcr.io"));
});

Deno.test("UPSTREAM_<NAME> adds a registry, https unless the URL says otherwise", () => {
  const config = parseConfig({ UPSTREAM_MY_CORP: "registry.corp.example/base" });
  const added = registryNamed(config, "my-corp");
  assertEquals(added.url.href, "https://registry.corp.example/base");
  assertEquals(added.library, false);
  assertEquals(added.sharePrivate, false);
});

Deno.test("two ports of one host are two registries, including default ports", () => {
  const config = parseConfig({
    UPSTREAM_A: "https://registry.corp.example",
    UPSTREAM_B: "http://registry.corp.example",
    UPSTREAM_C: "https://registry.corp.example:8443",
    UPSTREAM_D: "https://registry.corp.example:443/",
    UPSTREAM_E: "https://registry.corp.example/base",
  });
  assertEquals(["a", "b", "c", "d", "e"].map((name) => registryNamed(config, name).id), [
    "registry.corp.example",
    "registry.corp.example:80",
    "registry.corp.example:8443",
    "registry.corp.example",
    "registry.corp.example/base",
  ]);
});

Deno.test("Docker Hub has the library prefix under any name, and no other registry does", () => {
  const { registries } = parseConfig({
    UPSTREAM_HUB: "https://registry-1.docker.io",
    UPSTREAM_CORP: "https://registry.corp.example",
  });
  const named = Object.fromEntries(registries.map(({ name, library }) => [name, library]));
  assertEquals([named["hub"], named["corp"], named["docker"], named["ghcr"]], [
    true,
    false,
    true,
    false,
  ]);
});

Deno.test("accounts from a file follow the one from the environment", () => {
  const config = parseConfig({
    UPSTREAM_DOCKER_USERNAME: "own",
    UPSTREAM_DOCKER_PASSWORD: "pass",
    UPSTREAM_DOCKER_CREDENTIALS_FILE: "/accounts",
  }, { readFile });
  assertEquals(registryNamed(config, "docker").credentials, [
    { username: "own", password: "pass" },
    { username: "me", password: "first" },
    { username: "bot", password: "second:half" },
  ]);
  const text = describeConfig(config);
  assert(text.includes("UPSTREAM_DOCKER_CREDENTIALS_FILE=/accounts"), text);
  assert(!/first|second/.test(text), text);
});

Deno.test("a service credential is read from the environment or a file", () => {
  const config = parseConfig({
    UPSTREAM_DOCKER_USERNAME: "me",
    UPSTREAM_DOCKER_PASSWORD: "pass",
    UPSTREAM_K8S_GCR_USERNAME: "bot",
    UPSTREAM_K8S_GCR_PASSWORD_FILE: "/secret",
    UPSTREAM_K8S_GCR_SHARE_PRIVATE: "true",
  }, { readFile });
  assertEquals(registryNamed(config, "docker").credential, { username: "me", password: "pass" });
  assertEquals(registryNamed(config, "docker").sharePrivate, false);
  const k8s = registryNamed(config, "k8s-gcr");
  assertEquals(k8s.credential, { username: "bot", password: "from file" });
  assertEquals(k8s.sharePrivate, true);
});

const INVALID: readonly [env: Record<string, string>, problem: RegExp][] = [
  [{ CUSTOM_DOMAIN: "https://example.com" }, /^CUSTOM_DOMAIN: Expected a host name/],
  [{ CUSTOM_DOMAIN: "example.com:8080" }, /^CUSTOM_DOMAIN: Expected a host name/],
  [{ HOST: "0.0.0.0:8080" }, /^HOST: Expected an address or a host name, without port/],
  [{ PORT: "-1" }, /^PORT: Expected a port/],
  [{ PORT: "65536" }, /^PORT: Expected a port/],
  [{ PORT: "80a" }, /^PORT: Expected a port/],
  [{ TLS_CERT: "cert.pem" }, /^TLS_CERT: Set both/],
  [{ TLS_KEY: "key.pem" }, /^TLS_CERT: Set both/],
  [{ CACHE_ENABLED: "maybe" }, /^CACHE_ENABLED: Expected true or false: maybe/],
  [{ CACHE_MAX_SIZE: "10 monkeys" }, /^CACHE_MAX_SIZE: Expected a size/],
  [{ CACHE_MANIFEST_TTL: "5" }, /^CACHE_MANIFEST_TTL: Expected a duration/],
  [{ CACHE_BLOB_TTL: "never" }, /^CACHE_BLOB_TTL: Expected a duration/],
  [{ BLOCKED_HOSTS: "a.example,https://b" }, /^BLOCKED_HOSTS: Expected a host name/],
  [{ STORAGE_HOSTS: "a/b" }, /^STORAGE_HOSTS: Expected a host name/],
  [{ FOLLOW_ALL_REDIRECTS: "2" }, /^FOLLOW_ALL_REDIRECTS: Expected true/],
  [{ ALLOW_PRIVATE_NETWORKS: "x" }, /^ALLOW_PRIVATE_NETWORKS: Expected true/],
  [{ TRUST_PROXY: "sometimes" }, /^TRUST_PROXY: Expected /],
  [{ PUBLIC_SCHEME: "ftp" }, /^PUBLIC_SCHEME: Expected auto, http, https: ftp/],
  [{ UPSTREAM_IDLE_TIMEOUT: "0s" }, /^UPSTREAM_IDLE_TIMEOUT: Expected a longer time/],
  [{ UPSTREAM_IDLE_TIMEOUT: "1M" }, /^UPSTREAM_IDLE_TIMEOUT: Expected at most 24d/],
  [{ SHUTDOWN_TIMEOUT: "1y" }, /^SHUTDOWN_TIMEOUT: Expected at most 24d/],
  [{ ALLOW_REPOS: "nginx" }, /^ALLOW_REPOS: Expected registry\/repository/],
  [{ DENY_REPOS: "https://quay.io/x" }, /^DENY_REPOS: Expected registry\/repository/],
  [{ ALLOW_CLIENTS: "10.0.0.0/33" }, /^ALLOW_CLIENTS: Expected /],
  [{ RATE_LIMIT: "often" }, /^RATE_LIMIT: Expected a rate such as 500\/3h/],
  [{ MAX_CONCURRENT_FILLS: "0" }, /^MAX_CONCURRENT_FILLS: Expected a number from 1/],
  [{ QUOTA_THRESHOLD: "120%" }, /^QUOTA_THRESHOLD: Expected a number of pulls or a share/],
  [{ QUOTA_MANIFEST_TTL: "soon" }, /^QUOTA_MANIFEST_TTL: Expected a duration/],
  [{ WARM_IMAGES: "nginx:?" }, /^WARM_IMAGES: .*: nginx:\?$/],
  [{ WARM_PLATFORMS: "amiga" }, /^WARM_PLATFORMS: Expected all, or platforms/],
  [{ WARM_INTERVAL: "0s" }, /^WARM_INTERVAL: Expected a longer time/],
  [{ CACHE_STORE: "s3:bucket" }, /^CACHE_STORE: Expected /],
  [{ CACHE_INDEX: "redis://redis.example" }, /^CACHE_INDEX: A shared index needs/],
  [{ STORE_REDIRECT: "true" }, /^STORE_REDIRECT: Needs CACHE_STORE=s3/],
  [{ AWS_ACCESS_KEY_ID: "id" }, /^AWS_ACCESS_KEY_ID: Set both/],
  [{ CACHE_ENABLED: "false", OFFLINE: "true" }, /^OFFLINE: Needs the cache/],
  [{ ADMIN_ADDR: "9090" }, /^ADMIN_ADDR: Expected an address with a port, or off: 9090/],
  [{ ADMIN_ADDR: "0.0.0.0:9090" }, /^ADMIN_TOKEN: Needed where ADMIN_ADDR is not a loopback/],
  [{ ADMIN_TOKEN: "15 characters.." }, /^ADMIN_TOKEN: Expected at least 16 characters$/],
  [{ ADMIN_TOKEN: "sixteen or more \u00e4" }, /^ADMIN_TOKEN: Expected ASCII characters/],
  [{ ADMIN_TOKEN: "sixteen or more " }, /^ADMIN_TOKEN: Expected ASCII characters/],
  [{ DEBUG: "verbose" }, /^DEBUG: Expected true/],
  [{ MODE: "staging" }, /^MODE: Expected production, debug: staging/],
  [{ LOG_LEVEL: "loud" }, /^LOG_LEVEL: Expected debug, info, warning or error/],
  [{ LOG_FORMAT: "xml" }, /^LOG_FORMAT: Expected text, json/],
  [{ DEBUG: "true", TARGET_UPSTREAM: "ftp://a" }, /^TARGET_UPSTREAM: Expected an http or https/],
  [{ UPSTREAM_CORP: "http://" }, /^UPSTREAM_CORP: Expected an http or https URL/],
  [{ UPSTREAM_CORP: "https://a.example?x=1" }, /^UPSTREAM_CORP: Expected a URL without query/],
  [{ UPSTREAM_CORP_USERNAME: "me", UPSTREAM_CORP_PASSWORD: "x" }, /^UPSTREAM_CORP: Missing/],
  [{ UPSTREAM__X: "https://a.example" }, /^UPSTREAM__X: Not a registry name/],
  [
    { UPSTREAM_GCR_PASSWRD: "hunter2" },
    /^UPSTREAM_GCR_PASSWRD: Unknown setting, did you mean UPSTREAM_GCR_PASSWORD\?$/,
  ],
  [
    { UPSTREAM_MCR_TOKEN: "hunter2" },
    /^UPSTREAM_MCR_TOKEN: Unknown setting, did you mean UPSTREAM_MCR_PASSWORD\?$/,
  ],
  [
    { UPSTREAM_NVCR_URL: "https://a.example" },
    /^UPSTREAM_NVCR_URL: Unknown setting, did you mean UPSTREAM_NVCR\?$/,
  ],
  [
    { UPSTREAM_ECR_SHAREPRIVATE: "true" },
    /^UPSTREAM_ECR_SHAREPRIVATE: Unknown setting, did you mean UPSTREAM_ECR_SHARE_PRIVATE\?$/,
  ],
  [{ UPSTREAM_WORD: "hunter2" }, /^UPSTREAM_WORD: Expected an http or https URL, or a host/],
  [{ UPSTREAM_DOCKER_USERNAME: "me" }, /^UPSTREAM_DOCKER_PASSWORD: Required with/],
  [{ UPSTREAM_DOCKER_PASSWORD: "x" }, /^UPSTREAM_DOCKER_USERNAME: Required with/],
  [{ UPSTREAM_QUAY_SHARE_PRIVATE: "true" }, /^UPSTREAM_QUAY_SHARE_PRIVATE: Needs/],
  [{ UPSTREAM_QUAY_SHARE_PRIVATE: "x" }, /^UPSTREAM_QUAY_SHARE_PRIVATE: Expected true/],
  [
    { UPSTREAM_QUAY_USERNAME: "me", UPSTREAM_QUAY_PASSWORD_FILE: "/missing" },
    /^UPSTREAM_QUAY_PASSWORD_FILE: No such file: \/missing$/,
  ],
  [
    { UPSTREAM_GHCR_CREDENTIALS_FILE: "/secret" },
    /^UPSTREAM_GHCR_CREDENTIALS_FILE: Expected username:password in line 1$/,
  ],
  [
    {
      UPSTREAM_QUAY_USERNAME: "me",
      UPSTREAM_QUAY_PASSWORD: "x",
      UPSTREAM_QUAY_PASSWORD_FILE: "/secret",
    },
    /^UPSTREAM_QUAY_PASSWORD: Set only one of this and _PASSWORD_FILE/,
  ],
];

Deno.test("each invalid value is one problem that names its setting", () => {
  for (const [env, problem] of INVALID) {
    const problems = problemsOf(env);
    assertEquals(problems.length, 1, `${JSON.stringify(env)}: ${problems.join(" | ")}`);
    assert(problem.test(problems[0]!), `${problem}: ${problems[0]}`);
  }
});

Deno.test("all problems are reported at once, one line each", () => {
  // Every example whose setting no other one has used: they do not stand in each other's way.
  const env: Record<string, string> = {};
  const expected: RegExp[] = [];
  const groupOf = (name: string) => {
    if (name.startsWith("ADMIN_")) return "admin";
    if (/^(CACHE_STORE|CACHE_INDEX|STORE_|AWS_)/.test(name)) return "engines";
    if (/^(CACHE_ENABLED|OFFLINE|WARM_IMAGES)$/.test(name)) return "cache";
    return /^(UPSTREAM_[A-Z]+|TLS)_/.exec(name + "_")?.[1] ?? name;
  };
  for (const [one, problem] of INVALID) {
    const taken = new Set(Object.keys(env).map(groupOf));
    const isFree = Object.keys(one).every((name) =>
      !taken.has(groupOf(name)) && !["DEBUG", "TARGET_UPSTREAM"].includes(name)
    );
    if (!isFree) continue;
    Object.assign(env, one);
    expected.push(problem);
  }
  assert(expected.length > 12, `only ${expected.length} at once`);
  const problems = problemsOf(env);
  assertEquals(problems.length, expected.length, problems.join("\n"));
  for (const problem of expected) assert(problems.some((one) => problem.test(one)), `${problem}`);
  for (const problem of problems) assert(!problem.includes("\n"));
});

Deno.test("conflicts between settings are reported together with invalid values", () => {
  const problems = problemsOf({ PORT: "x", TLS_CERT: "a", STORE_REDIRECT: "true" });
  assertEquals(problems.map((problem) => problem.split(":")[0]), [
    "TLS_CERT",
    "STORE_REDIRECT",
    "PORT",
  ]);
});

Deno.test("a password in a URL is rejected and not repeated in the message", () => {
  for (
    const url of ["https://me:hunter2@a.example", "ftp://me:hunter2@x", "me:hunter2@a.example"]
  ) {
    const [problem] = problemsOf({ UPSTREAM_CORP: url });
    assert(/Credentials do not belong/.test(problem!), problem);
    assert(!problem!.includes("hunter2"), problem);
  }
});

Deno.test("a password under a misspelled name is neither printed nor used as a registry's host", () => {
  for (
    const name of ["CORP", "DOCKER_PASSWRD", "DOCKER_PASSWORDFILE", "GHCR_TOKEN", "K8S_GCR_PW"]
  ) {
    for (const problem of problemsOf({ [`UPSTREAM_${name}`]: "hunter2" })) {
      assert(!problem.includes("hunter2"), problem);
    }
    assert(problemsOf({ [`UPSTREAM_${name}`]: "hunter2" }).length > 0, name);
  }
});

Deno.test("the whole configuration is frozen", () => {
  const assertFrozen = (value: unknown, path: string) => {
    if (typeof value !== "object" || value === null || value instanceof URL) return;
    assert(Object.isFrozen(value), `${path} is not frozen`);
    for (const [key, inner] of Object.entries(value)) assertFrozen(inner, `${path}.${key}`);
  };
  assertFrozen(
    parseConfig({ TLS_CERT: "a", TLS_KEY: "b", UPSTREAM_A: "b.example", BLOCKED_HOSTS: "c" }),
    "config",
  );
});

Deno.test("config prints every setting, and its output parses to the same configuration", () => {
  const env = {
    CUSTOM_DOMAIN: "example.com",
    HOST: "127.0.0.1",
    PORT: "8443",
    TLS_CERT: "/etc/my certs/cert.pem",
    TLS_KEY: "/etc/key#1.pem",
    CACHE_DIR: "/var/cache/it's here",
    CACHE_MAX_SIZE: "1234567",
    CACHE_MANIFEST_TTL: "90s",
    BLOCKED_HOSTS: "a.example b.example",
    STORAGE_HOSTS: "c.example",
    FOLLOW_ALL_REDIRECTS: "false",
    ALLOW_PRIVATE_NETWORKS: "true",
    TRUST_PROXY: "true",
    PUBLIC_SCHEME: "https",
    UPSTREAM_IDLE_TIMEOUT: "1.5s",
    DEBUG: "true",
    LOG_LEVEL: "warning",
    LOG_FORMAT: "json",
    ALLOW_REPOS: "docker.io/library/*",
    DENY_REPOS: "*/secret/*",
    ALLOW_CLIENTS: "10.0.0.0/8,::1",
    RATE_LIMIT: "misses=500/3h,hits=20000/1h",
    MAX_CONCURRENT_FILLS: "8",
    QUOTA_THRESHOLD: "30",
    QUOTA_MANIFEST_TTL: "2h",
    WARM_IMAGES: "nginx:1.27,ghcr.io/owner/image",
    WARM_INTERVAL: "30m",
    WARM_PLATFORMS: "linux/amd64",
    OFFLINE: "true",
    CACHE_STORE: "s3://bucket/prefix?endpoint=https://s3.example",
    CACHE_INDEX: "redis://redis.example:6380/2",
    CACHE_INDEX_SIZE: "100MiB",
    CACHE_STAGING_SIZE: "3GiB",
    STORE_REDIRECT: "true",
    ADVERTISE_URL: "http://10.0.0.5:8080",
    ADMIN_ADDR: "[::1]:9999",
    TARGET_UPSTREAM: "https://a.example/base",
    UPSTREAM_MY_CORP: "https://registry.corp.example/base",
  };
  for (const one of [env, {}, { CACHE_ENABLED: "false" }, { ADMIN_ADDR: "off" }]) {
    const config = parseConfig(one);
    const { admin } = config;
    const names = describeConfig(config).split("\n").map((line) => line.split("=")[0]);
    assertEquals(names.length, new Set(names).size, `printed twice: ${names}`);
    // What is printed is asked for, so that the operator's listener must start then.
    assertEquals(parseConfig(linesOf(config)), {
      ...config,
      admin: admin && { ...admin, isWanted: true },
    });
  }
});

Deno.test("config prints no secret", () => {
  const text = describeConfig(parseConfig({
    UPSTREAM_DOCKER_USERNAME: "me",
    UPSTREAM_DOCKER_PASSWORD: "hunter2",
    UPSTREAM_QUAY_USERNAME: "bot",
    UPSTREAM_QUAY_PASSWORD_FILE: "/secret",
    CACHE_STORE: "s3://bucket",
    AWS_ACCESS_KEY_ID: "id",
    AWS_SECRET_ACCESS_KEY: "hunter3",
    CACHE_INDEX: "redis://:hunter4@redis.example",
    ADMIN_TOKEN: "hunter5hunter5hunter5hunter5hunter5",
  }, { readFile }));
  assert(text.includes("UPSTREAM_DOCKER_USERNAME=me\nUPSTREAM_DOCKER_PASSWORD=********"), text);
  assert(text.includes("UPSTREAM_QUAY_PASSWORD=********"), text);
  assert(!/hunter|from file/.test(text), text);
});

Deno.test("variables of Deno or the platform do not become registries", () => {
  assert(SETTINGS.includes("UPSTREAM_IDLE_TIMEOUT"));
  const names = parseConfig({ UPSTREAM_IDLE_TIMEOUT: "5s" }).registries.map(({ name }) => name);
  assert(!names.includes("idle-timeout"));
});

Deno.test("parseConfig throws nothing but ConfigError, whatever the environment", () => {
  const name = fc.oneof(
    fc.constantFrom(...SETTINGS),
    fc.stringMatching(/^UPSTREAM_[A-Z0-9_]{0,6}(_PASSWORD|_USERNAME|_SHARE_PRIVATE)?$/),
  );
  const value = fc.oneof(fc.string(), fc.constantFrom("true", "5m", "a.example", "https://b", "1"));
  fc.assert(fc.property(fc.dictionary(name, value, { maxKeys: 6 }), (env) => {
    try {
      assert(Object.isFrozen(parseConfig(env, { readFile })));
    } catch (error) {
      assert(error instanceof ConfigError, String(error));
      for (const problem of error.problems) assert(/^[A-Z0-9_]+: ./s.test(problem), problem);
    }
  }));
});
