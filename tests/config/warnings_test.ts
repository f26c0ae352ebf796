import { assertEquals } from "@std/assert";
import { parseConfig } from "../../lib/config/config.ts";
import { warningsAbout } from "../../lib/config/warnings.ts";
import { SETTINGS } from "../../lib/config/environment.ts";

Deno.test("a name that is nearly a setting is doubtful, other programs' variables are not", () => {
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

Deno.test("in a file of settings every unknown name is doubtful, and what Deno has read by then", () => {
  const file = ["PORT", "HTTPS_PROXY", "no_proxy", "UPSTREAM_CORP", "COLOUR", "OTEL_DENO"];
  assertEquals(warningsAbout(file, { file }), [
    "COLOUR: Unknown setting",
    "OTEL_DENO: Read by Deno when it starts: set it in the environment",
  ]);
});

Deno.test("settings of a predecessor that have no successor are told to be without effect", () => {
  const { doubts } = parseConfig({ DNS_SERVERS: "1.1.1.1", DNS_TIMEOUT: "", PORT: "80" });
  assertEquals(doubts, ["DNS_SERVERS: Not used: the system's resolver is used"]);
});

Deno.test("TARGET_UPSTREAM opens nothing without DEBUG=true, and that is told", () => {
  const TARGET_UPSTREAM = "https://registry.corp.example";
  const { fallback, doubts } = parseConfig({ TARGET_UPSTREAM });
  assertEquals([fallback, doubts], [undefined, [
    "TARGET_UPSTREAM: Not used without DEBUG=true: it opens every host name to one upstream",
  ]]);
  for (const on of [{ DEBUG: "true" }, { MODE: "debug" }]) {
    const { fallback, doubts } = parseConfig({ TARGET_UPSTREAM, ...on });
    assertEquals([fallback?.url.href, doubts], [`${TARGET_UPSTREAM}/`, []]);
  }
});

Deno.test("no setting is doubtful", () => {
  assertEquals(warningsAbout(SETTINGS, { file: SETTINGS, debug: true }), []);
});

Deno.test("with the settings that predecessors' own files have it starts, and tells what is without effect", () => {
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
  assertEquals(inDebug.doubts.map((line) => line.split(":")[0]), [
    "DNS_ENABLED",
    "DNS_SERVERS",
    "DNS_TIMEOUT",
  ]);
  assertEquals([inDebug.cache?.manifestTtl, inDebug.fallback?.library], [86_400_000, true]);
  const { fallback, doubts } = parseConfig({ ...go, DEBUG: "false" });
  assertEquals([fallback, doubts.at(-1)?.split(":")[0]], [undefined, "TARGET_UPSTREAM"]);
  const worker = { MODE: "production", TARGET_UPSTREAM: "", CUSTOM_DOMAIN: "example.com" };
  assertEquals(parseConfig(worker).doubts, []);
});
