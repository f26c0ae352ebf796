import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { parseChallenges } from "../../lib/oci/challenge.ts";
import { OciError } from "../../lib/oci/error.ts";
import { DEFAULT_REGISTRIES, type Registry, registryOf } from "../../lib/oci/registry.ts";
import {
  ANONYMOUS_TOKEN,
  challengeFor,
  chooseTokenRegistry,
  clientScope,
  type Credential,
  credentialOf,
  encodeBasicToken,
  publicScheme,
  type PublicSchemeOptions,
  upstreamScopes,
} from "../../lib/transforms/auth.ts";
import type { RouteTable } from "../../lib/oci/registry_table.ts";

const table: RouteTable = {
  customDomain: "proxy.example",
  registries: Object.entries(DEFAULT_REGISTRIES).map(([name, { url, ...options }]) =>
    registryOf(name, new URL(url), options)
  ),
};
const hub = named("docker");
const ghcr = named("ghcr");

const SCHEMES: [options: Partial<PublicSchemeOptions>, scheme: string][] = [
  [{}, "https"],
  [{ listener: "https" }, "https"],
  [{ host: "localhost:8080" }, "http"],
  [{ host: "docker.localhost:8080" }, "http"],
  [{ host: "notlocalhost" }, "https"],
  [{ host: "localhost.example" }, "https"],
  [{ host: "127.0.0.1" }, "http"],
  [{ host: "[::1]:8080" }, "http"],
  [{ host: "10.1.2.3:8080" }, "http"],
  [{ host: "10.1.2.3", listener: "https" }, "https"],
  [{ setting: "http" }, "http"],
  [{ setting: "https", host: "localhost" }, "https"],
  [{ setting: "http", trustProxy: true, forwardedProto: "https" }, "http"],
  [{ trustProxy: true, forwardedProto: "http" }, "http"],
  [{ trustProxy: true, forwardedProto: " HTTPS , http", host: "localhost" }, "https"],
  [{ trustProxy: true, forwardedProto: "gopher", host: "localhost" }, "http"],
  [{ trustProxy: true, forwardedProto: null, host: "localhost" }, "http"],
  [{ trustProxy: false, forwardedProto: "http" }, "https"],
];

for (const [options, scheme] of SCHEMES) {
  Deno.test(`the public scheme is ${scheme} for ${JSON.stringify(options)}`, () => {
    assertEquals(
      publicScheme({
        listener: "http",
        host: "docker.proxy.example",
        trustProxy: false,
        forwardedProto: null,
        ...options,
      }),
      scheme,
    );
  });
}

Deno.test("a challenge is one Bearer with our realm, port included, and the scope if there is one", () => {
  assertEquals(
    challengeFor({ scheme: "http", host: "localhost:8080" }),
    'Bearer realm="http://localhost:8080/v2/auth",service="deno-docker-proxy"',
  );
  assertEquals(
    challengeFor({ scheme: "https", host: "a.b", scope: "repository:x/y:pull" }),
    'Bearer realm="https://a.b/v2/auth",service="deno-docker-proxy",scope="repository:x/y:pull"',
  );
  assertEquals(
    challengeFor({ scheme: "https", host: "a.b", ns: "corp:5000" }),
    'Bearer realm="https://a.b/v2/auth?ns=corp%3A5000",service="deno-docker-proxy"',
  );
});

Deno.test("no host and no scope makes a challenge two", () => {
  fc.assert(fc.property(fc.string(), fc.string(), (host, scope) => {
    const challenges = parseChallenges(challengeFor({ scheme: "https", host, scope }));
    assertEquals(challenges.map(({ scheme }) => scheme), ["bearer"]);
  }));
});

const CHOICES: [scopes: string[], registry: string][] = [
  [[], "docker"],
  [["repository:library/nginx:pull"], "docker"],
  [["repository:ghcr.io/a/b:pull"], "ghcr"],
  [["repository:a/b:pull", "repository:ghcr.io/a/b:pull"], "ghcr"],
  [["repository:quay/a/b:pull repository:ghcr.io/a/b:pull"], "quay"],
  [["repository:docker/dockerfile:pull", "repository:mcr.microsoft.com/a:pull"], "mcr"],
  [["registry:ghcr.io/a:pull"], "docker"],
  [["repository:ghcr.io:pull", "rubbish"], "docker"],
];

for (const [scopes, registry] of CHOICES) {
  Deno.test(`a token for ${JSON.stringify(scopes)} is ${registry}'s`, () => {
    assertEquals(chooseTokenRegistry(scopes, table, hub).name, registry);
  });
}

const UPSTREAM: [pathMode: boolean, registry: Registry, scopes: string[], expected: string[]][] = [
  [false, hub, ["repository:nginx:pull"], ["repository:library/nginx:pull"]],
  [false, ghcr, ["repository:nginx:pull"], ["repository:nginx:pull"]],
  [false, hub, ["repository:ghcr.io/a/b:pull"], ["repository:ghcr.io/a/b:pull"]],
  [false, hub, ["repository:a/b:pull repository:nginx:pull", "repository:a/b:pull"], [
    "repository:a/b:pull",
    "repository:library/nginx:pull",
  ]],
  [false, hub, ["repository:nginx:pull", "repository:library/nginx:pull"], [
    "repository:library/nginx:pull",
  ]],
  [true, hub, ["repository:nginx:pull"], ["repository:library/nginx:pull"]],
  [true, hub, ["repository:docker.io/nginx:pull,push"], ["repository:library/nginx:pull,push"]],
  [true, hub, ["repository:docker/dockerfile:pull"], ["repository:docker/dockerfile:pull"]],
  [true, ghcr, ["repository:ghcr.io/a/b:pull"], ["repository:a/b:pull"]],
  [true, ghcr, ["repository(plugin):ghcr.io/a/b:pull"], ["repository(plugin):a/b:pull"]],
  [true, ghcr, ["repository:x/y:pull", "repository:ghcr/a/b:pull"], ["repository:a/b:pull"]],
  [true, hub, ["repository:ghcr.io/secret/b:pull", "repository:a/b:pull"], ["repository:a/b:pull"]],
  [true, ghcr, ["registry:catalog:*", "aws"], ["registry:catalog:*", "aws"]],
];

for (const [pathMode, registry, scopes, expected] of UPSTREAM) {
  const mode = pathMode ? "path" : "host";
  Deno.test(`${registry.name} is asked for ${expected} where ${scopes} is asked by ${mode}`, () => {
    assertEquals(upstreamScopes(scopes, registry, { pathMode, table }), expected);
  });
}

Deno.test("a challenge's scope has the client's prefix before each repository", () => {
  assertEquals(clientScope("repository:a/b:pull", ""), "repository:a/b:pull");
  assertEquals(clientScope("repository:a/b:pull", "ghcr.io/"), "repository:ghcr.io/a/b:pull");
  assertEquals(
    clientScope("repository:a/b:pull repository(plugin):c:pull aws", "ghcr.io/"),
    "repository:ghcr.io/a/b:pull repository(plugin):ghcr.io/c:pull aws",
  );
});

Deno.test("what a client is told to ask for is what is asked upstream, by way of the same registry", () => {
  const name = fc.stringMatching(/^[a-z]{1,6}\/[a-z]{1,6}$/);
  const prefix = fc.constantFrom("ghcr.io", "ghcr", "quay.io", "docker.io", "GCR.io");
  fc.assert(fc.property(name, prefix, (name, prefix) => {
    const asked = clientScope(`repository:${name}:pull`, `${prefix}/`);
    const registry = chooseTokenRegistry([asked], table, hub);
    assertEquals(registry.name, prefix.replace(".io", "").toLowerCase());
    const options = { pathMode: true, table };
    assertEquals(upstreamScopes([asked], registry, options), [`repository:${name}:pull`]);
  }));
});

const anonymous: Credential = { kind: "anonymous" };

const CREDENTIALS: [authorization: string | null, credential: Credential][] = [
  [null, anonymous],
  ["", anonymous],
  ["Bearer", anonymous],
  [`Bearer ${ANONYMOUS_TOKEN}`, anonymous],
  ["Bearer anonymous", anonymous],
  ["Bearer eyJ.x.y", { kind: "bearer", token: "eyJ.x.y" }],
  ["bearer  eyJ.x.y ", { kind: "bearer", token: "eyJ.x.y" }],
  ["Basic dTpw", { kind: "basic", username: "u", password: "p" }],
  ["BASIC dTpwOnE=", { kind: "basic", username: "u", password: "p:q" }],
  ["Basic dTpwOnE", { kind: "basic", username: "u", password: "p:q" }],
  ["Basic w7w6w58=", { kind: "basic", username: "ü", password: "ß" }],
  ["Basic 77u/dTpw", { kind: "basic", username: "\ufeffu", password: "p" }],
  ["Basic dTo=", { kind: "basic", username: "u", password: "" }],
  ["Basic Og==", anonymous],
  ["Bearer basic.dTpw", { kind: "basic", username: "u", password: "p" }],
];

for (const [authorization, credential] of CREDENTIALS) {
  Deno.test(`Authorization ${JSON.stringify(authorization)} is ${credential.kind}`, () => {
    assertEquals(credentialOf(authorization), credential);
  });
}

for (
  const authorization of [
    "Basic",
    "Basic dQ==",
    "Basic !!",
    "Basic dTpw dTpw",
    "Basic dTr/",
    "Bearer basic.dQ",
    "Bearer basic.",
    "Negotiate abc",
    "dTpw",
  ]
) {
  Deno.test(`Authorization ${JSON.stringify(authorization)} is a 401 that does not repeat it`, () => {
    const error = assertThrows(() => credentialOf(authorization), OciError);
    assertEquals([error.code, error.status], ["UNAUTHORIZED", 401]);
    assertEquals([error.detail, error.cause], [undefined, undefined]);
    assert(!error.message.includes("dTpw"));
  });
}

Deno.test("a sealed credential is a token that is read back the same", () => {
  const username = fc.string({ unit: "grapheme" }).filter((text) => !text.includes(":"));
  const password = fc.string({ unit: "grapheme", minLength: 1 });
  fc.assert(fc.property(username, password, (username, password) => {
    const token = encodeBasicToken({ username, password });
    assert(/^basic\.[A-Za-z0-9_-]+$/.test(token));
    assertEquals(credentialOf(`Bearer ${token}`), { kind: "basic", username, password });
  }));
});

Deno.test("no Authorization makes the parser throw anything but UNAUTHORIZED", () => {
  const values = fc.tuple(fc.constantFrom("Basic ", "Bearer basic.", "Bearer ", ""), fc.string());
  fc.assert(fc.property(values, (value) => {
    try {
      credentialOf(value.join(""));
    } catch (error) {
      assert(error instanceof OciError && error.code === "UNAUTHORIZED");
    }
  }));
});

function named(name: string): Registry {
  const found = table.registries.find((registry) => registry.name === name);
  assert(found !== undefined);
  return found;
}
