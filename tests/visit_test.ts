import { assertEquals, assertThrows } from "@std/assert";
import { parseConfig } from "../lib/config.ts";
import { OciError } from "../lib/oci/error.ts";
import { peerOf, Visits } from "../lib/visit.ts";

function visitsOf(env: Record<string, string>): Visits {
  return new Visits(parseConfig({ CACHE_ENABLED: "false", ...env }));
}

function read(
  visits: Visits,
  { url = "http://127.0.0.1/v2/", headers = {}, peer = "192.0.2.1" }: {
    url?: string;
    headers?: Record<string, string>;
    peer?: string;
  },
) {
  const request = new Request(url, { headers });
  const info = { remoteAddr: { transport: "tcp", hostname: peer, port: 1 } as const };
  const client = visits.client((name) => request.headers.get(name), peerOf(info));
  return visits.read(request, { client, info });
}

Deno.test("a client is who connected, unless a proxy that is trusted says otherwise", () => {
  const headers = { "x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https" };
  const table = [
    ["", "192.0.2.1", "http"],
    ["true", "203.0.113.9", "https"],
    ["192.0.2.0/24", "203.0.113.9", "https"],
    ["198.51.100.0/24", "192.0.2.1", "http"],
  ] as const;
  for (const [trusted, client, scheme] of table) {
    const visits = visitsOf(trusted ? { TRUST_PROXY: trusted } : {});
    const visit = read(visits, { headers });
    assertEquals([visit.client, visit.scheme], [client, scheme], trusted);
  }
});

Deno.test("the host is the one that was named, port included; one that is none is 400", () => {
  const visits = visitsOf({});
  assertEquals(read(visits, { url: "http://localhost:8080/v2/" }).host, "localhost:8080");
  for (const host of ["GHCR.example.com", "[2001:db8::1]:5000", "a_b.example"]) {
    assertEquals(read(visits, { headers: { host } }).host, host);
  }
  for (const host of ["a/b", "a b", "a@b", "", "a:123456", "[::1"]) {
    const error = assertThrows(() => read(visits, { headers: { host } }), OciError, "Host");
    assertEquals(error.status, 400, host);
  }
});
