import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
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

Deno.test("whatever Host and X-Forwarded headers say, a visit has a host and a scheme, or is 400", () => {
  const visits = visitsOf({ TRUST_PROXY: "true" });
  const visible = fc.integer({ min: 0x20, max: 0x7e }).map((n) => String.fromCharCode(n));
  const text = fc.oneof(
    fc.string({ unit: visible }),
    fc.string({ unit: fc.constantFrom(..."abc.:[]0123@/%-_") }),
    fc.webAuthority({ withIPv4: true, withIPv6: true, withPort: true }),
  );
  fc.assert(fc.property(text, text, text, (host, proto, forwarded) => {
    const headers = { host, "x-forwarded-proto": proto, "x-forwarded-for": forwarded };
    try {
      const visit = read(visits, { headers });
      assertEquals(visit.host, host.trim());
      assert(["http", "https"].includes(visit.scheme) && !/[/@\s%]/.test(visit.host));
    } catch (error) {
      assert(error instanceof OciError && error.status === 400, `${error}`);
    }
  }));
});
