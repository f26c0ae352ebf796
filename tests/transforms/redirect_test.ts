import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { OciError } from "../../lib/oci/error.ts";
import {
  classifyRedirect,
  FOLLOW_SUFFIXES,
  isRedirect,
  matchesSuffix,
  MAX_HOPS,
  mayCarryAuthorization,
  nextHop,
  type RedirectPolicy,
  STORAGE_SUFFIXES,
} from "../../lib/transforms/redirect.ts";

const SUFFIXES: [host: string, suffixes: string[], matches: boolean][] = [
  ["docker.io", ["docker.io"], true],
  ["auth.docker.io", ["docker.io"], true],
  ["AUTH.Docker.IO.", ["docker.io"], true],
  ["auth.docker.io", ["Docker.IO."], true],
  ["auth.docker.io", [".docker.io"], true],
  ["auth.docker.io", ["*.docker.io"], true],
  ["auth.docker.io", ["x.y", " docker.io "], true],
  ["evildocker.io", ["docker.io"], false],
  ["docker.io.evil.example", ["docker.io"], false],
  ["docker.io", ["auth.docker.io"], false],
  ["docker.io", [], false],
  ["docker.io", ["", ".", "*."], false],
];

for (const [host, suffixes, matches] of SUFFIXES) {
  Deno.test(`${host} is ${matches ? "" : "not "}at or below ${JSON.stringify(suffixes)}`, () => {
    assertEquals(matchesSuffix(host, suffixes), matches);
  });
}

Deno.test("a host matches a suffix only where a label begins", () => {
  const label = fc.stringMatching(/^[a-z0-9]{1,8}$/);
  fc.assert(fc.property(label, label, (a, b) => {
    assert(matchesSuffix(`${a}.${b}.example`, [`${b}.example`]));
    assert(!matchesSuffix(`${a}${b}.example`, [`${b}.example`]));
  }));
  fc.assert(fc.property(fc.string(), fc.string(), (host, suffix) => {
    assertEquals(typeof matchesSuffix(host, [suffix]), "boolean");
  }));
});

/** Host, what happens with FOLLOW_ALL_REDIRECTS=false. With true everything is followed. */
const HOSTS: [host: string, action: "follow" | "hand-over"][] = [
  ["production.cloudflare.docker.com", "follow"],
  ["auth.docker.io", "follow"],
  ["notdocker.com", "follow"],
  ["bucket.s3.amazonaws.com", "hand-over"],
  ["d111.cloudfront.net", "hand-over"],
  ["x.r2.cloudflarestorage.com", "hand-over"],
  ["storage.googleapis.com", "hand-over"],
  ["googleapis.com", "follow"],
  ["x.blob.core.windows.net", "hand-over"],
  ["blocked.s3.amazonaws.com", "follow"],
  ["cdn.storage.example", "hand-over"],
  ["cdn02.quay.io", "follow"],
  ["elsewhere.example", "follow"],
];

for (const [host, action] of HOSTS) {
  Deno.test(`a redirect to ${host} is ${action}, and followed if all are`, () => {
    const policy: RedirectPolicy = {
      followAll: false,
      blockedHosts: ["blocked.s3.amazonaws.com"],
      storageHosts: ["storage.example"],
    };
    const location = new URL(`https://${host}/blob?sig=x`);
    assertEquals(classifyRedirect(location, policy), action);
    assertEquals(classifyRedirect(location, { ...policy, followAll: true }), "follow");
  });
}

Deno.test("blocked goes before storage, and nothing is both by default", () => {
  const both = { followAll: false, blockedHosts: ["a.example"], storageHosts: ["a.example"] };
  assertEquals(classifyRedirect(new URL("https://a.example"), both), "follow");
  const docker = { followAll: false, blockedHosts: [], storageHosts: ["docker.io", "docker.com"] };
  for (const host of ["auth.docker.io", "production.cloudflare.docker.com"]) {
    assertEquals(classifyRedirect(new URL(`https://${host}`), docker), "follow");
  }
  assertEquals(STORAGE_SUFFIXES.filter((host) => matchesSuffix(host, FOLLOW_SUFFIXES)), []);
});

Deno.test("redirects are 301 302 303 307 308, and ten are followed", () => {
  const statuses = Array.from({ length: 600 }, (_, status) => status);
  assertEquals(statuses.filter(isRedirect), [301, 302, 303, 307, 308]);
  assertEquals(MAX_HOPS, 10);
});

const from = new URL("https://gcr.io/v2/a/blobs/x?y=z");
const https = { url: new URL("https://gcr.io") };
const http = { url: new URL("http://localhost:5000") };

const LOCATIONS: [location: string, registry: { url: URL }, to: string][] = [
  ["https://cdn.example/b?sig=%2F+x#frag", https, "https://cdn.example/b?sig=%2F+x"],
  ["/artifacts/b?x=1", https, "https://gcr.io/artifacts/b?x=1"],
  ["b", https, "https://gcr.io/v2/a/blobs/b"],
  ["//cdn.example/b", https, "https://cdn.example/b"],
  ["http://cdn.example/b", http, "http://cdn.example/b"],
  ["https://cdn.example/b", http, "https://cdn.example/b"],
];

for (const [location, registry, to] of LOCATIONS) {
  Deno.test(`${location} from ${registry.url.protocol} leads to ${to}`, () => {
    assertEquals(nextHop({ from, location, registry }).href, to);
  });
}

const UNUSABLE: [location: string | null, registry: { url: URL }, reason: string][] = [
  [null, https, "No Location"],
  [" ", https, "No Location"],
  ["https://", https, "Malformed Location"],
  ["https://a:b:c/secret", https, "Malformed Location"],
  ["http://cdn.example/secret", https, "Scheme not allowed: http:"],
  ["file:///secret", http, "Scheme not allowed: file:"],
  ["data:,secret", https, "Scheme not allowed: data:"],
  ["https://secret@cdn.example/", https, "Credentials in Location"],
  ["https://:secret@cdn.example/", https, "Credentials in Location"],
];

for (const [location, registry, reason] of UNUSABLE) {
  Deno.test(`${location} from ${registry.url.protocol} leads nowhere: ${reason}`, () => {
    const error = assertThrows(() => nextHop({ from, location, registry }), OciError);
    assertEquals([error.code, error.status], ["UNAVAILABLE", 502]);
    assertEquals(error.detail, { host: "gcr.io", reason });
    assertEquals(error.cause, undefined);
  });
}

Deno.test("no Location leads anywhere but to https without credentials, or to a 502", () => {
  const texts = fc.oneof(fc.string(), fc.webUrl(), fc.stringMatching(/^(https?:)?\/\/[a-z@:/.]*$/));
  fc.assert(fc.property(texts, (location) => {
    try {
      const to = nextHop({ from, location, registry: https });
      assertEquals([to.protocol, to.username, to.password, to.hash], ["https:", "", "", ""]);
    } catch (error) {
      assert(error instanceof OciError && error.status === 502);
    }
  }));
});

const ORIGINS: [url: string, may: boolean][] = [
  ["https://gcr.io/v2/x", true],
  ["https://gcr.io:443/", true],
  ["https://gcr.io:444/", false],
  ["http://gcr.io/", false],
  ["https://www.gcr.io/", false],
  ["https://storage.googleapis.com/", false],
  ["data:,x", false],
];

for (const [url, may] of ORIGINS) {
  Deno.test(`${url} ${may ? "may" : "must not"} see the Authorization for gcr.io`, () => {
    assertEquals(mayCarryAuthorization(new URL(url), https), may);
  });
}
