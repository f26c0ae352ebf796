import { assertEquals } from "@std/assert";
import { parseConfig } from "../../lib/config/config.ts";
import { warningsAbout } from "../../lib/config/warnings.ts";
import { SETTINGS } from "../../lib/config/environment.ts";

Deno.test("a name that resembles a setting causes a warning, other programs' variables do not", () => {
  const names = [
    "CACHE_ENABLE",
    "TRUSTPROXY",
    "PATH",
    "HOME",
    "HOSTS",
    "CACHE_PORT",
    "LC_TIME",
    "UPSTREM_CORP",
  ];
  assertEquals(warningsAbout(names), [
    "CACHE_ENABLE: Unknown setting, did you mean CACHE_ENABLED?",
    "TRUSTPROXY: Unknown setting, did you mean TRUST_PROXY?",
    "UPSTREM_CORP: Unknown setting, did you mean UPSTREAM_CORP?",
  ]);
});

Deno.test("an environment file causes a warning for every unknown name, and for variables that Deno has already read", () => {
  const file = ["PORT", "HTTPS_PROXY", "no_proxy", "UPSTREAM_CORP", "COLOUR", "OTEL_DENO"];
  assertEquals(warningsAbout(file, { file }), [
    "COLOUR: Unknown setting",
    "OTEL_DENO: Read by Deno when it starts: set it in the environment",
  ]);
});

Deno.test("settings of a predecessor that no longer exist cause a warning", () => {
  const { warnings } = parseConfig({ DNS_SERVERS: "1.1.1.1", DNS_TIMEOUT: "", PORT: "80" });
  assertEquals(warnings, ["DNS_SERVERS: Not used: the system's resolver is used"]);
});

Deno.test("TARGET_UPSTREAM has no effect without DEBUG=true, and causes a warning", () => {
  const TARGET_UPSTREAM = "https://registry.corp.example";
  const { fallback, warnings } = parseConfig({ TARGET_UPSTREAM });
  assertEquals([fallback, warnings], [undefined, [
    "TARGET_UPSTREAM: Not used without DEBUG=true: it opens every host name to one upstream",
  ]]);
  for (const on of [{ DEBUG: "true" }, { MODE: "debug" }]) {
    const { fallback, warnings } = parseConfig({ TARGET_UPSTREAM, ...on });
    assertEquals([fallback?.url.href, warnings], [`${TARGET_UPSTREAM}/`, []]);
  }
});

Deno.test("no setting causes a warning", () => {
  assertEquals(warningsAbout(SETTINGS, { file: SETTINGS, debug: true }), []);
});

Deno.test("the predecessors' example files are accepted, with warnings about unused settings", () => {
  const go = {
    PORT: "8080",
    CUSTOM_DOMAIN: "example.com",
    CACHE_DIR: "/cache",
    CACHE_ENABLED: "true",
    CACHE_MANIFEST_TTL: "1d",
    CACHE_BLOB_TTL: "1y",
    FOLLOW_ALL_REDIRECTS: "true",
    BLOCKED_HOSTS: "",
    DNS_ENABLED: "false",
    DNS_SERVERS: "8.8.8.8:53,8.8.4.4:53",
    DNS_TIMEOUT: "5s",
    DEBUG: "true",
    TARGET_UPSTREAM: "https://registry-1.docker.io",
  };
  const inDebug = parseConfig(go);
  assertEquals(inDebug.warnings.map((line) => line.split(":")[0]), [
    "DNS_ENABLED",
    "DNS_SERVERS",
    "DNS_TIMEOUT",
  ]);
  assertEquals([inDebug.cache?.manifestTtl, inDebug.fallback?.library], [86_400_000, true]);
  const { fallback, warnings } = parseConfig({ ...go, DEBUG: "false" });
  assertEquals([fallback, warnings.at(-1)?.split(":")[0]], [undefined, "TARGET_UPSTREAM"]);
  const worker = { MODE: "production", TARGET_UPSTREAM: "", CUSTOM_DOMAIN: "example.com" };
  assertEquals(parseConfig(worker).warnings, []);
});
