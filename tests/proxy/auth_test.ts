import { assert, assertEquals, assertMatch } from "@std/assert";
import { parseChallenges } from "../../lib/oci/challenge.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake_registry.ts";
import { startFakeStorage } from "../support/fake_storage.ts";
import { basicHeader } from "../support/fake_token.ts";
import { type RawAnswer, rawRequest, type Whole, whole, wholeAt } from "../support/http.ts";
import { makeImage } from "../support/image.ts";
import { captureLogs } from "../support/logs.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";

const ann = basicHeader("ann", "ann's password");
const bob = basicHeader("bob", "bob's password");
const USERS = { ann: "ann's password", bob: "bob's password" };
const image = makeImage({ layers: [3000] });

/** Docker Hub, and a registry of the path `corp`, each with something public and something of ann's. */
async function startAll(
  { auth = "token", env = {} }: {
    auth?: "none" | "token" | "basic";
    env?: Record<string, string>;
  } = {},
) {
  const [docker, corp] = await Promise.all([
    startFakeRegistry({ auth, users: USERS, service: "registry.docker.io" }),
    startFakeRegistry({ auth, users: USERS, service: "corp-service" }),
  ]);
  docker.add("library/nginx", "1", image);
  for (const registry of [docker, corp]) {
    registry.add("team/open", "1", image);
    registry.add("team/secret", "1", image, { readers: ["ann"] });
  }
  const proxy = await startTestProxy({
    upstreams: { docker, corp },
    env: { CUSTOM_DOMAIN: "proxy.example", ...env },
  });
  return {
    docker,
    corp,
    proxy,
    async [Symbol.asyncDispose]() {
      await proxy.close();
      await Promise.all([docker.close(), corp.close()]);
    },
  };
}

/** The one challenge of a 401, whose realm is this proxy's. */
function challengeOf({ status, headers }: Pick<Whole | RawAnswer, "status" | "headers">) {
  assertEquals(status, 401);
  const challenges = parseChallenges(headers.get("www-authenticate"));
  assertEquals(challenges.map(({ scheme }) => scheme), ["bearer"]);
  const { realm, service, scope } = challenges[0]!.params;
  assertEquals(service, "deno-docker-proxy");
  return { realm: realm!, scope };
}

/** Does as clients do: asks where the challenge says, for what it says. */
async function tokenFor(
  answer: Pick<Whole | RawAnswer, "status" | "headers">,
  { authorization, ...more }: { authorization?: string } & Record<string, string> = {},
): Promise<Whole> {
  const { realm, scope } = challengeOf(answer);
  const url = new URL(realm);
  url.searchParams.set("service", "deno-docker-proxy");
  if (scope) url.searchParams.append("scope", scope);
  for (const [name, value] of Object.entries(more)) url.searchParams.set(name, value);
  return await whole(url, { headers: authorization ? { authorization } : {} });
}

/** Pulls as clients do: without credentials, and once more with the token that it takes. */
async function pull(proxy: TestProxy, path: string, authorization?: string): Promise<Whole> {
  const url = `${proxy.url}/v2/${path}`;
  const first = await whole(url);
  if (first.status !== 401) return first;
  const token = await tokenFor(first, authorization ? { authorization } : {});
  if (token.status !== 200) return token;
  return await whole(url, { headers: { authorization: `Bearer ${token.json.token}` } });
}

/** Pulls by the name of the host that clients log in to. */
async function pullAt(
  { host: server }: TestProxy,
  url: string,
  authorization?: string,
): Promise<Whole> {
  const first = await wholeAt(server, url);
  if (first.status !== 401) return first;
  const { realm, scope } = challengeOf(first);
  const at = new URL(realm);
  at.searchParams.set("service", "deno-docker-proxy");
  if (scope) at.searchParams.set("scope", scope);
  const token = await wholeAt(server, at, { authorization });
  if (token.status !== 200) return token;
  return await wholeAt(server, url, { authorization: `Bearer ${token.json.token}` });
}

/** The scopes of the token requests that a registry has seen, one list for each. */
const scopesSeen = ({ log }: FakeRegistry) =>
  log.filter(({ kind }) => kind === "token").map(({ method, target, body }) => {
    const form = method === "POST"
      ? new URLSearchParams(body)
      : new URL(target, "http://a").searchParams;
    return form.getAll("scope");
  });

Deno.test("the challenge is one Bearer to this proxy, whatever upstream offers and in which order", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  challengeOf(await whole(`${proxy.url}/v2/`));
  const fault = {
    status: 401,
    headers: { "www-authenticate": `Basic realm="a", Bearer realm="${docker.url}/token"` },
    extraHeaders: [["www-authenticate", "Negotiate"]] as const,
  };
  docker.faults.add({ kind: "manifest" }, fault);
  const { realm, scope } = challengeOf(await whole(`${proxy.url}/v2/team/open/manifests/1`));
  assertEquals([realm, scope], [`${proxy.url}/v2/auth`, "repository:team/open:pull"]);
});

Deno.test("the challenge leads back to the host, port and registry that the client has named", async () => {
  await using all = await startAll();
  const { proxy } = all;
  const ask = async (path: string, host: string, method = "GET") =>
    challengeOf(await rawRequest(proxy.host, { path, method, headers: [["Host", host]] }));
  const { port } = proxy;
  const secret = "/v2/team/secret/manifests/1";
  for (
    const [host, path, realm, scope] of [
      [`127.0.0.1:${port}`, secret, `http://127.0.0.1:${port}/v2/auth`, "team/secret"],
      [`localhost:${port}`, secret, `http://localhost:${port}/v2/auth`, "team/secret"],
      ["docker.proxy.example", secret, "https://docker.proxy.example/v2/auth", "team/secret"],
      ["corp.proxy.example:8443", secret, "https://corp.proxy.example:8443/v2/auth", "team/secret"],
      [
        "proxy.example",
        "/v2/corp/team/secret/manifests/1",
        "https://proxy.example/v2/auth",
        "corp/team/secret",
      ],
      [
        "proxy.example",
        `${secret}?ns=corp`,
        "https://proxy.example/v2/auth",
        "corp/team/secret",
      ],
      [
        "docker.proxy.example",
        `${secret}?ns=corp`,
        "https://docker.proxy.example/v2/auth?ns=corp",
        "team/secret",
      ],
    ] as const
  ) {
    for (const method of ["GET", "HEAD"]) {
      const challenge = await ask(path, host, method);
      assertEquals(challenge, { realm, scope: `repository:${scope}:pull` }, `${host}${path}`);
    }
  }
});

Deno.test("a client that follows the challenge pulls what is public without, and what is private with credentials", async () => {
  await using all = await startAll();
  const { proxy } = all;
  for (const host of ["proxy.example", "docker.proxy.example", "corp.proxy.example"]) {
    const base = `https://${host}/v2`;
    const secret = `${base}/team/secret/manifests/1`;
    assertEquals((await pullAt(proxy, `${base}/team/open/manifests/1`)).digest, image.digest);
    assertEquals((await pullAt(proxy, secret)).status, 401);
    assertEquals((await pullAt(proxy, secret, bob)).status, 401);
    assertEquals((await pullAt(proxy, secret, basicHeader("ann", "wrong"))).status, 401);
    assertEquals((await pullAt(proxy, secret, ann)).digest, image.digest);
  }
});

/** Ways to say that another registry than the host's own is meant. */
const ELSEWHERE: Readonly<Record<string, (path: string) => string>> = {
  "by path": (path) => `https://proxy.example/v2/corp/${path}`,
  "by a prefix": (path) => `https://proxy.example/corp/v2/${path}`,
  "by ns": (path) => `https://proxy.example/v2/${path}?ns=corp`,
  "by ns at another's host": (path) => `https://docker.proxy.example/v2/${path}?ns=corp`,
};
for (const [how, urlOf] of Object.entries(ELSEWHERE)) {
  for (const auth of ["token", "basic"] as const) {
    Deno.test(`a login at a host goes to no other registry, chosen ${how}, that speaks ${auth}`, async () => {
      await using all = await startAll({ auth });
      const { corp, docker, proxy } = all;
      const ask = (url: string, authorization?: string) =>
        wholeAt(proxy.host, url, { authorization });
      // What the client sends wherever it goes at this host: its login, and tokens that Docker Hub gave for it.
      const given = await ask("https://proxy.example/v2/auth?scope=repository:team/open:pull", ann);
      const sent = [ann, basicHeader("ann", "another password"), `Bearer ${given.json.token}`];
      const isPublic = auth === "token";
      docker.log.length = 0;
      for (const authorization of sent) {
        for (const path of ["team/open", "team/secret"]) {
          for (const what of ["manifests/1", `blobs/${image.layers[0]!.digest}`, "tags/list"]) {
            const { status } = await ask(urlOf(`${path}/${what}`), authorization);
            const isOpen = isPublic && path === "team/open";
            assertEquals([path, what, status], [path, what, isOpen ? 200 : 401]);
          }
        }
        await ask(urlOf("_catalog"), authorization);
        await ask(urlOf(""), authorization);
      }
      // Nor does what was pulled with it at its own registry open anything there.
      const pulled = await pullAt(proxy, urlOf("team/open/manifests/1"), ann);
      assertEquals(pulled.status, isPublic ? 200 : 401);
      assertEquals(corp.log.filter(({ user }) => user), []);
      for (const { headers, target, body } of corp.log) {
        const seen = `${headers.get("authorization")} ${target} ${body}`;
        for (const secret of [...sent, "ann"]) assert(!seen.includes(secret), seen);
      }
      assertEquals(docker.log, []);
    });
  }
}

Deno.test("a token request for another registry than the host's has nothing of the client's, in whatever form", async () => {
  await using all = await startAll();
  const { corp, docker, proxy } = all;
  const refresh = "a refresh token of Docker Hub's";
  const scope = "repository:corp/team/open:pull";
  const forms: Record<string, string>[] = [
    { grant_type: "password", username: "ann", password: USERS.ann, client_id: "docker" },
    { grant_type: "refresh_token", refresh_token: refresh, account: "ann" },
  ];
  for (const form of forms) {
    for (const query of ["", "?ns=corp"]) {
      const body = new URLSearchParams({ ...form, scope });
      const answer = await whole(`${proxy.url}/v2/auth${query}`, { method: "POST", body });
      assertEquals(answer.status, 200);
      // Whoever logs in is not told that it worked.
      const login = new URLSearchParams(form);
      const refused = await whole(`${proxy.url}/v2/auth?ns=corp`, { method: "POST", body: login });
      assertEquals(refused.status, 401);
    }
  }
  for (const { headers, target, body, method } of corp.log) {
    assertEquals([method, headers.get("authorization"), body], ["GET", null, ""]);
    for (const told of ["ann", "docker", refresh]) assert(!target.includes(told), target);
  }
  assertEquals(docker.log, []);
});

Deno.test("scopes get library/ where Docker Hub wants it, in a GET and in a form", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  const asked = "repository:nginx:pull";
  assertEquals((await whole(`${proxy.url}/v2/auth?scope=${asked}`)).status, 200);
  const form = new URLSearchParams({
    grant_type: "password",
    username: "ann",
    password: USERS.ann,
    scope: asked,
  });
  const token = await whole(`${proxy.url}/v2/auth`, { method: "POST", body: form });
  assertEquals(token.status, 200);
  assertEquals(scopesSeen(docker), [
    ["repository:library/nginx:pull"],
    ["repository:library/nginx:pull"],
  ]);
  const headers = { authorization: `Bearer ${token.json.access_token}` };
  const url = `${proxy.url}/v2/library/nginx/manifests/1`;
  assertEquals((await whole(url, { headers })).digest, image.digest);
});

Deno.test("one token can be for many scopes, however they are written", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  const scopes = [
    "repository:nginx:pull",
    "repository:team/open:pull,push",
    "repository(plugin):a/b:pull",
  ];
  const upstream = [
    "repository:library/nginx:pull",
    "repository:team/open:pull,push",
    "repository(plugin):a/b:pull",
  ];
  const query = scopes.map((scope) => `scope=${encodeURIComponent(scope)}`).join("&");
  assertEquals((await whole(`${proxy.url}/v2/auth?${query}`)).status, 200);
  assertEquals(scopesSeen(docker), [upstream]);
  const joined = new URLSearchParams({ scope: scopes.join(" "), account: "ann" });
  assertEquals((await whole(`${proxy.url}/v2/auth?${joined}`)).status, 200);
  assertEquals(scopesSeen(docker)[1], upstream);
});

Deno.test("in path mode the scope says whose realm it is, and nobody learns of another's repositories", async () => {
  await using all = await startAll();
  const { docker, corp, proxy } = all;
  const scopes = [
    "repository:corp/team/secret:pull",
    "repository:nginx:pull",
    "repository:corp/team/open:pull",
  ];
  const query = new URLSearchParams(scopes.map((scope) => ["scope", scope]));
  const token = await whole(`${proxy.url}/v2/auth?${query}`, { headers: { authorization: ann } });
  assertEquals(scopesSeen(corp), [["repository:team/secret:pull", "repository:team/open:pull"]]);
  assertEquals(scopesSeen(docker), []);
  assertEquals(
    new URL(corp.log.at(-1)!.target, "http://a").searchParams.get("service"),
    "corp-service",
  );
  const headers = { authorization: `Bearer ${token.json.token}` };
  const url = `${proxy.url}/v2/corp/team/open/manifests/1`;
  assertEquals((await whole(url, { headers })).digest, image.digest);
});

Deno.test("by host the host says whose realm it is", async () => {
  await using all = await startAll();
  const { docker, corp, proxy } = all;
  const ask = (host: string, path: string) =>
    rawRequest(proxy.host, { path, headers: [["Host", host]] });
  await ask("corp.proxy.example", "/v2/auth?scope=repository:team/open:pull");
  await ask("docker.proxy.example", "/v2/auth?scope=repository:corp/open:pull");
  await ask("docker.proxy.example", "/v2/auth?ns=corp&scope=repository:team/x:pull");
  assertEquals(scopesSeen(corp), [["repository:team/open:pull"], ["repository:team/x:pull"]]);
  assertEquals(scopesSeen(docker), [["repository:corp/open:pull"]]);
});

Deno.test("a registry that needs no authentication never sees any, and its clients get a token if they ask", async () => {
  await using all = await startAll({ auth: "none" });
  const { docker, proxy } = all;
  assertEquals((await whole(`${proxy.url}/v2/`)).status, 200);
  const token = await whole(`${proxy.url}/v2/auth?scope=repository:team/open:pull`);
  assertEquals([token.status, token.json.token, token.json.expires_in], [200, "anonymous", 60]);
  for (const authorization of [`Bearer ${token.json.token}`, ann]) {
    const url = `${proxy.url}/v2/team/open/manifests/1`;
    assertEquals((await whole(url, { headers: { authorization } })).digest, image.digest);
    assertEquals((await whole(`${proxy.url}/v2/`, { headers: { authorization } })).status, 200);
  }
  const seen = docker.log.filter(({ headers }) => headers.has("authorization"));
  // A registry that has never asked for a password gets none.
  assertEquals(seen, []);
});

Deno.test("a registry that speaks Basic has clients that speak Bearer", async () => {
  await using all = await startAll({ auth: "basic" });
  const { corp, proxy } = all;
  const secret = "https://corp.proxy.example/v2/team/secret/manifests/1";
  challengeOf(await whole(`${proxy.url}/v2/corp/`));
  assertEquals((await pullAt(proxy, secret)).status, 401);
  assertEquals((await pullAt(proxy, secret, basicHeader("ann", "wrong"))).status, 401);
  const pulled = await pullAt(proxy, secret, ann);
  assertEquals([pulled.status, pulled.digest], [200, image.digest]);
  assertEquals((await pullAt(proxy, secret, bob)).status, 403);
  const tokens = corp.log.filter(({ headers }) =>
    /bearer/i.test(headers.get("authorization") ?? "")
  );
  assertEquals(tokens, []);
});

Deno.test("a login is right or wrong as the registry says", async () => {
  for (const auth of ["token", "basic"] as const) {
    await using all = await startAll({ auth });
    const { proxy } = all;
    const ping = await whole(`${proxy.url}/v2/`);
    const docker = { account: "ann", client_id: "docker", offline_token: "true" };
    const right = await tokenFor(ping, { authorization: ann, ...docker });
    assertEquals(right.status, 200);
    const headers = { authorization: `Bearer ${right.json.token}` };
    assertEquals((await whole(`${proxy.url}/v2/`, { headers })).status, 200);

    const wrong = await tokenFor(ping, { authorization: basicHeader("ann", "wrong"), ...docker });
    assertEquals([wrong.status, wrong.json.errors[0].code], [401, "UNAUTHORIZED"]);
    challengeOf(await whole(`${proxy.url}/v2/`, { headers: { authorization: "Bearer forged" } }));
  }
});

Deno.test("a refresh token from a login is good for further tokens, by GET and by form", async () => {
  await using all = await startAll();
  const { proxy } = all;
  const login = await tokenFor(await whole(`${proxy.url}/v2/`), {
    authorization: ann,
    offline_token: "true",
  });
  assertMatch(login.json.refresh_token, /^refresh-/);
  const form = new URLSearchParams({
    grant_type: "refresh_token",
    refresh_token: login.json.refresh_token,
    client_id: "docker",
    service: "deno-docker-proxy",
    scope: "repository:team/secret:pull",
  });
  const token = await whole(`${proxy.url}/v2/auth`, { method: "POST", body: form });
  const headers = { authorization: `Bearer ${token.json.access_token}` };
  const url = `${proxy.url}/v2/team/secret/manifests/1`;
  assertEquals((await whole(url, { headers })).digest, image.digest);

  form.set("refresh_token", "forged");
  const refused = await whole(`${proxy.url}/v2/auth`, { method: "POST", body: form });
  assertEquals(refused.status, 401);
});

Deno.test("a form that is none is 400 or 413, and upstream hears nothing of it", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  for (
    const [body, status] of [
      ["", 400],
      ["grant_type=", 400],
      ["grant_type=client_credentials&client_secret=x", 400],
      [`{"grant_type":"password"}`, 400],
      ["%", 400],
      [`grant_type=password&username=${"x".repeat(70_000)}`, 413],
    ] as const
  ) {
    const answer = await whole(`${proxy.url}/v2/auth`, { method: "POST", body });
    assertEquals([body.slice(0, 40), answer.status], [body.slice(0, 40), status]);
    assert(answer.json.errors[0].code);
  }
  assertEquals(docker.log, []);
});

Deno.test("other methods are refused with those that there are", async () => {
  await using all = await startAll();
  for (const method of ["PUT", "DELETE", "PATCH", "OPTIONS"]) {
    const answer = await whole(`${all.proxy.url}/v2/auth`, { method });
    assertEquals([answer.status, answer.headers.get("allow")], [405, "GET, POST"]);
    assertEquals(answer.json.errors[0].code, "UNSUPPORTED");
  }
});

Deno.test("what containerd tries again as a GET is answered as the realm does", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  const body = new URLSearchParams({ grant_type: "password", username: "ann", password: "x" });
  for (const status of [400, 401, 404, 405]) {
    const fault = docker.faults.add({ kind: "token", method: "POST" }, { status });
    const answer = await whole(`${proxy.url}/v2/auth`, { method: "POST", body });
    assertEquals(answer.status, status);
    fault.remove();
  }
});

Deno.test("a token lives as long as the realm says, a minute where it does not, and has both its names", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  const scopes = ["repository:a/b:pull", "repository:a/c:pull", "repository:a/d:pull"];
  const answers: ((answer: Readonly<Record<string, unknown>>) => Record<string, unknown>)[] = [
    (answer) => ({ ...answer }),
    ({ token }) => ({ token }),
    ({ access_token }) => ({ access_token, expires_in: 120 }),
  ];
  const lives = [];
  for (const [i, tokenAnswer] of answers.entries()) {
    docker.control.tokenAnswer = tokenAnswer;
    const { json, headers } = await whole(`${proxy.url}/v2/auth?scope=${scopes[i]}`);
    assertEquals(json.token, json.access_token);
    assertMatch(json.token, /^token-/);
    assert(Math.abs(Date.parse(json.issued_at) - Date.now()) < 60_000);
    assertEquals(headers.get("cache-control"), "no-store");
    assertEquals(headers.get("docker-distribution-api-version"), "registry/2.0");
    lives.push(json.expires_in);
  }
  // From when it is answered: a moment may have passed since the realm did.
  for (const [i, life] of [300, 60, 120].entries()) {
    assert(life - 30 < lives[i] && lives[i] <= life && lives[i] >= 60, `${lives[i]} is ${life}`);
  }
});

Deno.test("one token serves many requests, and each credential and scope has its own", async () => {
  await using all = await startAll({ env: { CACHE_ENABLED: "false" } });
  const { docker, proxy } = all;
  const ask = (repository: string, authorization?: string) =>
    whole(`${proxy.url}/v2/${repository}/tags/list`, {
      headers: authorization ? { authorization } : {},
    });
  for (let i = 0; i < 3; i++) await ask("team/open");
  assertEquals(docker.tokenRequests, 1);
  for (let i = 0; i < 3; i++) await ask("team/open", ann);
  assertEquals(docker.tokenRequests, 2);
  await ask("team/open", bob);
  await ask("team/secret", ann);
  assertEquals(docker.tokenRequests, 4);
  assertEquals(
    new Set(docker.log.filter(({ kind }) => kind === "token").map(({ user }) => user)),
    new Set(["", "ann", "bob"]),
  );
});

Deno.test("a token that upstream no longer takes is replaced without the client noticing", async () => {
  await using all = await startAll({ env: { CACHE_ENABLED: "false" } });
  const { docker, proxy } = all;
  const url = `${proxy.url}/v2/team/secret/tags/list`;
  for (let i = 0; i < 3; i++) {
    assertEquals((await whole(url, { headers: { authorization: ann } })).status, 200);
    docker.revokeTokens();
  }
  assertEquals(docker.tokenRequests, 3);
});

Deno.test("while the realm is away who pulls gets what is public here, and who logs in is not told that it worked", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  const open = "team/open/manifests/1";
  await pull(proxy, open);
  for (const status of [500, 503, 429]) {
    docker.control.failTokensWith = status;
    docker.control.failWith = status;
    const token = await whole(`${proxy.url}/v2/auth?scope=repository:team/new:pull`);
    assertEquals([token.status, token.json.token], [200, "anonymous"]);
    assertEquals((await pull(proxy, open, ann)).digest, image.digest);
    const login = await whole(`${proxy.url}/v2/auth?account=ann`, {
      headers: { authorization: ann },
    });
    assertEquals(login.status, status === 429 ? 429 : 502);
  }
});

Deno.test("without a cache the realm's trouble is told", async () => {
  await using all = await startAll({ env: { CACHE_ENABLED: "false" } });
  const { docker, proxy } = all;
  docker.control.failTokensWith = 503;
  const token = await whole(`${proxy.url}/v2/auth?scope=repository:team/open:pull`);
  assertEquals([token.status, token.json.errors[0].code], [502, "UNAVAILABLE"]);
});

Deno.test("while a registry cannot be asked, /v2/ still leads clients to where tokens are", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  await docker.down();
  challengeOf(await whole(`${proxy.url}/v2/`));
  const answer = await whole(`${proxy.url}/v2/`, { headers: { authorization: ann } });
  assertEquals([answer.status, answer.json.errors[0].code], [502, "UNAVAILABLE"]);
});

Deno.test("malformed credentials are 401 with a challenge everywhere, and not repeated", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  for (
    const authorization of ["Basic !secret!", "Basic c2VjcmV0", "Digest secret", "Bearer basic.!"]
  ) {
    for (const path of ["/v2/", "/v2/team/open/manifests/1", "/v2/_catalog", "/v2/auth"]) {
      const answer = await whole(proxy.url + path, { headers: { authorization } });
      assertEquals([path, answer.status], [path, 401]);
      if (path !== "/v2/auth") challengeOf(answer);
      assert(!answer.text.includes("secret"));
    }
  }
  assertEquals(docker.log, []);
});

Deno.test("a catalogue is asked for with the client's own credentials, never with the operator's", async () => {
  const env = {
    UPSTREAM_DOCKER_USERNAME: "ann",
    UPSTREAM_DOCKER_PASSWORD: USERS.ann,
    UPSTREAM_DOCKER_SHARE_PRIVATE: "true",
  };
  await using all = await startAll({ env });
  const { proxy } = all;
  const refused = await whole(`${proxy.url}/v2/_catalog`);
  assertEquals(challengeOf(refused).scope, "registry:catalog:*");
  const { status, json } = await whole(`${proxy.url}/v2/_catalog?n=2`, {
    headers: { authorization: bob },
  });
  assertEquals([status, json.repositories], [200, ["library/nginx", "team/open"]]);
});

Deno.test("credentials and tokens reach the registry and its realm, and neither storage nor the log", async () => {
  using logs = await captureLogs();
  await using storage = await startFakeStorage();
  await using docker = await startFakeRegistry({ auth: "token", users: USERS, storage });
  docker.add("team/secret", "1", image, { readers: ["ann"] });
  await using proxy = await startTestProxy({
    upstreams: { docker },
    env: { ALLOW_PRIVATE_NETWORKS: "true" },
  });
  const blob = `team/secret/blobs/${image.layers[0]!.digest}`;
  assertEquals((await pull(proxy, blob, ann)).digest, image.layers[0]!.digest);
  await pull(proxy, blob, bob);
  const form = new URLSearchParams({
    grant_type: "password",
    username: "ann",
    password: USERS.ann,
  });
  await whole(`${proxy.url}/v2/auth`, { method: "POST", body: form });
  assertEquals(storage.log.length, 1);
  assertEquals(storage.authorizations, []);

  const tokens = docker.log.flatMap(({ headers }) =>
    /^bearer (.*)$/i.exec(headers.get("authorization") ?? "")?.[1] ?? []
  );
  assert(tokens.length > 0 && logs.records.length > 10);
  const written = JSON.stringify(logs.records);
  const secrets = [
    ...tokens,
    ...Object.values(USERS),
    ann.slice(6),
    bob.slice(6),
    "X-Amz-Signature",
  ];
  for (const secret of secrets) assert(!written.includes(secret), `${secret} is in the log`);
});
