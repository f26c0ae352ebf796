import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { parseConfig } from "../../lib/config/config.ts";
import { OciError } from "../../lib/oci/error.ts";
import { addressOf, isHost, RequestReader } from "../../lib/request/request_context.ts";

function readerOf(env: Record<string, string> = {}): RequestReader {
  return new RequestReader(parseConfig({ CACHE_ENABLED: "false", ...env }));
}

function read(
  reader: RequestReader,
  { url = "http://127.0.0.1/v2/", headers = {}, peer = "192.0.2.1", target, method = "GET" }: {
    url?: string;
    headers?: Record<string, string>;
    peer?: string;
    target?: string;
    method?: string;
  },
) {
  const request = new Request(url, { headers, method });
  const remoteAddr = { transport: "tcp", hostname: peer, port: 1 } as const;
  return reader.read(request, { remoteAddr, target });
}

const refused = (url: string, host: string | null) =>
  assertThrows(() => addressOf(url, host), OciError, undefined, `${url} ${host}`).status;

Deno.test("a client is who connected, unless a proxy that is trusted says otherwise", () => {
  const headers = { "x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https" };
  const table = [
    ["", "192.0.2.1", "http"],
    ["true", "203.0.113.9", "https"],
    ["192.0.2.0/24", "203.0.113.9", "https"],
    ["198.51.100.0/24", "192.0.2.1", "http"],
  ] as const;
  for (const [trusted, client, scheme] of table) {
    const reader = readerOf(trusted ? { TRUST_PROXY: trusted } : {});
    const context = read(reader, { headers });
    assertEquals([context.client, context.scheme], [client, scheme], trusted);
  }
});

Deno.test("the host is the one that was named, port included and in lower case; one that is none is 400", () => {
  const reader = readerOf();
  assertEquals(read(reader, { url: "http://localhost:8080/v2/" }).host, "localhost:8080");
  for (const host of ["GHCR.example.com", "[2001:DB8::1]:5000", "a_b.example"]) {
    const context = read(reader, { url: `http://${host}/v2/`, headers: { host } });
    assertEquals([context.host, context.refusal], [host.toLowerCase(), undefined]);
    assertEquals(context.url.host, host.toLowerCase());
  }
  for (const host of ["a/b", "a b", "a@b", "", "a:123456", "[::1", `${"a".repeat(256)}:50000`]) {
    assertEquals(read(reader, { headers: { host } }).refusal?.status, 400, host);
    assertEquals(isHost(host), false, host);
  }
});

Deno.test("a host that is written twice the same way is one host", () => {
  const same: [string, string | null, string][] = [
    ["http://docker.example.com/v2/", null, "docker.example.com"],
    ["http://docker.example.com/v2/", "docker.example.com", "docker.example.com"],
    ["http://docker.example.com/v2/", "Docker.Example.COM", "docker.example.com"],
    ["HTTP://DOCKER.example.com/v2/", "docker.example.com", "docker.example.com"],
    ["http://docker.example.com/v2/", "docker.example.com:80", "docker.example.com:80"],
    ["http://docker.example.com:80/v2/", "docker.example.com", "docker.example.com"],
    ["https://docker.example.com/v2/", "docker.example.com:443", "docker.example.com:443"],
    ["http://[2001:db8::1]:5000/v2/", "[2001:DB8:0::1]:5000", "[2001:db8:0::1]:5000"],
  ];
  for (const [url, named, host] of same) {
    assertEquals(addressOf(url, named), { host, target: "/v2/" }, `${url} ${named}`);
  }
});

Deno.test("two hosts in one request are 400, however alike", () => {
  const url = "http://docker.example.com/v2/";
  for (
    const host of [
      "ghcr.example.com",
      "docker.example.com.",
      "docker.example.com:443",
      "docker.example.com:8080",
      "docker.example.com, docker.example.com",
      "docker.example.com,ghcr.example.com",
      "docker.example.co",
      "localhost",
      "127.0.0.1",
      "",
      "user@docker.example.com",
      "docker%2eexample.com",
    ]
  ) assertEquals(refused(url, host), 400, host);
  assertEquals(refused("https://docker.example.com/v2/", "docker.example.com:80"), 400);
});

Deno.test("what stands in a URL's place for the host is a host alone", () => {
  for (
    const url of [
      "http://user@a/v2/",
      "http://user:secret@a/v2/",
      "http://@a/v2/",
      "http:///a/v2/",
      "http:////a/v2/",
      "http:/a/v2/",
      "http:a/v2/",
      "http:\\\\a\\v2\\",
      "http://b\\@a/v2/",
      "http://a%2eb/v2/",
      "http://ä/v2/",
      "//a/v2/",
      "/v2/",
      "*",
      "",
    ]
  ) {
    assertEquals(refused(url, null), 400, url);
    assertEquals(refused(url, "a"), 400, url);
  }
});

Deno.test("path and query are the URL's, or as they were sent where that is known", () => {
  const table: [string, string][] = [
    ["http://a", "/"],
    ["http://a?x=1", "/?x=1"],
    ["http://a/v2/?x=1/2?3#part", "/v2/?x=1/2?3"],
    ["http://a//b/v2/%2e", "//b/v2/%2e"],
    ["http://a/http://b/v2/", "/http://b/v2/"],
  ];
  for (const [url, target] of table) assertEquals(addressOf(url, "a").target, target, url);
  const sent = { url: "http://a/v2/b", headers: { host: "a" }, target: "/v2/x/../b" };
  const context = read(readerOf(), sent);
  assertEquals([context.target, context.path], ["/v2/x/../b", "/v2/b"]);
});

Deno.test("a host that no URL may have is 400 when it is to be routed, and breaks no log line", () => {
  for (const host of ["999.999.999.999", "a:99999", "xn--", "[1:2]"]) {
    const request = new Request("http://a/v2/");
    const context = readerOf().read(request, {});
    assertEquals(context.path, "/v2/");
    const odd = readerOf().read(
      Object.defineProperty(request, "url", { value: `http://${host}/v2/` }),
      {},
    );
    assertEquals(odd.path, "-", host);
    assertEquals(assertThrows(() => odd.url, OciError).status, 400, host);
  }
});

Deno.test("a body is read of POST alone", () => {
  const request = (method: string) =>
    new Request("http://127.0.0.1/v2/auth", { method, body: "scope=x" });
  assert(readerOf().read(request("POST"), {}).body);
  assertEquals(readerOf().read(request("PUT"), {}).body, null);
});

Deno.test("whatever Host and X-Forwarded headers say, a request has one host and a scheme, or is refused", () => {
  const reader = readerOf({ TRUST_PROXY: "true" });
  const visible = fc.integer({ min: 0x20, max: 0x7e }).map((n) => String.fromCharCode(n));
  const text = fc.oneof(
    fc.string({ unit: visible }),
    fc.string({ unit: fc.constantFrom(..."abc.:[]0123@/%-_") }),
    fc.webAuthority({ withIPv4: true, withIPv6: true, withPort: true }),
  );
  const url = fc.oneof(
    fc.webUrl({ authoritySettings: { withIPv4: true, withIPv6: true, withPort: true } }),
    fc.constantFrom("http://a/", "http://a:80/v2/", "https://b.c/?x"),
  );
  fc.assert(fc.property(url, text, text, text, (url, host, proto, forwarded) => {
    const headers = { host, "x-forwarded-proto": proto, "x-forwarded-for": forwarded };
    const context = read(reader, { url, headers });
    if (context.refusal) {
      assertEquals(context.refusal.status, 400);
      return;
    }
    assertEquals(context.host, host.trim().toLowerCase());
    assertEquals(context.url.host, new URL(url).host);
    assert(["http", "https"].includes(context.scheme) && !/[/@\s%]/.test(context.host));
  }));
});
