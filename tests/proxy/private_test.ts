/**
 * Invariant 4: who gets what is cached. Each caller gets what upstream itself would say to him, which is what
 * he is compared with.
 */
import { assert, assertEquals } from "@std/assert";
import { parseChallenges } from "../../lib/oci/challenge.ts";
import { moveClock } from "../support/clock.ts";
import { type FakeRegistry, startFakeRegistry } from "../support/fake_registry.ts";
import type { Fault } from "../support/faults.ts";
import { basicHeader } from "../support/fake_token.ts";
import { type Whole, whole, wholeAt } from "../support/http.ts";
import { makeArtifact, makeImage } from "../support/image.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";
import { until } from "../support/until.ts";

const USERS = { ann: "ann's password", bob: "bob's password" };
const secret = makeImage({ seed: 1, layers: [3000, 200_000] });
const signature = makeArtifact(secret);
const open = makeImage({ seed: 2 });
const elsewhere = makeImage({ seed: 3 });
const MINUTE = 60_000;

/** Two registries. What ann alone may read at Docker Hub is somebody else's, and public, at `corp`. */
async function startAll(env: Record<string, string> = {}) {
  const [docker, corp] = await Promise.all([
    startFakeRegistry({ auth: "token", users: USERS }),
    startFakeRegistry({ auth: "token", users: USERS }),
  ]);
  docker.add("team/secret", "1", secret, { readers: ["ann"] });
  docker.add("team/secret", undefined, signature);
  docker.add("team/open", "1", open);
  docker.add("bob/own", "1", open, { readers: ["bob"] });
  corp.add("team/secret", "1", elsewhere);
  const proxy = await startTestProxy({
    upstreams: { docker, "docker-staging": docker, corp },
    env,
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

/** Who asks: with nothing, a login, or a token whatever it is worth. */
type Who = { readonly login?: string; readonly token?: string };

interface Asked extends Who {
  readonly method?: string;
  readonly headers?: Record<string, string>;
}

/** The answer that a client ends up with who does as challenges say. */
async function ask(origin: string, path: string, who: Asked = {}): Promise<Whole> {
  const { login, token, method = "GET", headers = {} } = who;
  const url = `${origin}/v2/${path}`;
  const once = (authorization?: string) =>
    whole(url, { method, headers: { ...headers, ...authorization && { authorization } } });
  if (token !== undefined) return await once(`Bearer ${token}`);
  const first = await once();
  if (first.status !== 401) return first;
  const given = await tokenFor(first, login);
  return given.status === 200 ? await once(`Bearer ${given.json.token}`) : given;
}

async function tokenFor({ headers }: Whole, login?: string, scope?: string): Promise<Whole> {
  const { params } = parseChallenges(headers.get("www-authenticate"))[0]!;
  const url = new URL(params.realm!);
  const wanted = scope ?? params.scope;
  if (params.service) url.searchParams.set("service", params.service);
  if (wanted) url.searchParams.set("scope", wanted);
  return await whole(url, { headers: login ? { authorization: login } : {} });
}

const ann: Who = { login: basicHeader("ann", USERS.ann) };
const bob: Who = { login: basicHeader("bob", USERS.bob) };

/** What there is in a repository of an image, as paths. */
const pathsOf = (repository: string, image = secret) => ({
  "the tag": `${repository}/manifests/1`,
  "the manifest by digest": `${repository}/manifests/${image.digest}`,
  "the configuration": `${repository}/blobs/${image.config.digest}`,
  "a small layer": `${repository}/blobs/${image.layers[0]!.digest}`,
});

const LAYER = secret.layers[1]!.digest;
const SECRET: Readonly<Record<string, string>> = {
  ...pathsOf("team/secret"),
  "a large layer": `team/secret/blobs/${LAYER}`,
  "the list of tags": "team/secret/tags/list",
  "what is attached": `team/secret/referrers/${secret.digest}`,
  "the signature": `team/secret/manifests/${signature.digest}`,
};

/** Ann pulls all of it: it is in the cache, and in memory where that is possible. */
async function annPulls({ proxy }: { proxy: TestProxy }) {
  for (let i = 0; i < 3; i++) {
    for (const path of Object.values(SECRET)) {
      for (const method of ["GET", "HEAD"]) {
        const { status } = await ask(proxy.url, path, { ...ann, method });
        assertEquals([path, status], [path, 200]);
      }
    }
  }
}

/** Callers who are not ann, made of what the registry gives. */
const OTHERS: Readonly<Record<string, (docker: FakeRegistry) => Who | Promise<Who>>> = {
  "who brings nothing": () => ({}),
  "who has a login of his own": () => bob,
  "who guesses ann's password": () => ({ login: basicHeader("ann", "guess") }),
  "who makes up a user": () => ({ login: basicHeader("eve", "guess") }),
  "who makes up a token": () => ({ token: "token-made-up" }),
  "who says that he is anonymous": () => ({ token: "anonymous" }),
  "whose token is for what is public": (docker) => tokenOf(docker, "team/open"),
  "whose token is for his own": (docker) => tokenOf(docker, "bob/own"),
  "whose token asked for ann's": (docker) => tokenOf(docker, "team/secret"),
};

/** A token that upstream itself gives bob for a repository. */
async function tokenOf({ url }: FakeRegistry, repository: string): Promise<Who> {
  const ping = await whole(`${url}/v2/`);
  const { json } = await tokenFor(ping, bob.login, `repository:${repository}:pull`);
  return { token: json.token };
}

/** Ways to ask, some of which could be answered without the content. */
const WAYS: readonly Pick<Asked, "method" | "headers">[] = [
  {},
  { method: "HEAD" },
  { headers: { range: "bytes=0-9" } },
  { headers: { "if-none-match": `"${secret.digest}", "${LAYER}"` } },
  { headers: { accept: "application/json" } },
];

for (const [env, where] of [[{}, "the cache"], [{ CACHE_ENABLED: "false" }, "no cache"]] as const) {
  for (const [name, who] of Object.entries(OTHERS)) {
    Deno.test(`${name} gets of what ann has pulled through ${where} what upstream says to him`, async () => {
      await using all = await startAll(env);
      const { docker, proxy } = all;
      await annPulls(all);
      const caller = await who(docker);
      for (const [what, path] of Object.entries(SECRET)) {
        for (const way of WAYS) {
          const direct = await ask(docker.url, path, { ...caller, ...way });
          const proxied = await ask(proxy.url, path, { ...caller, ...way });
          const asked = `${what} ${JSON.stringify(way)}`;
          assertEquals([asked, proxied.status], [asked, direct.status]);
          assertEquals([asked, proxied.status], [asked, 401]);
          for (const told of [LAYER, secret.config.digest]) assert(!proxied.text.includes(told));
          assertEquals([...proxied.headers.keys()].filter((n) => /digest|etag|cache$/.test(n)), []);
        }
      }
      // Nor has that taken anything from her.
      assertEquals((await ask(proxy.url, SECRET["the tag"]!, ann)).digest, secret.digest);
    });
  }
}

Deno.test("a registry's other names, in whatever way they are given, open nothing either", async () => {
  await using all = await startAll();
  const { proxy } = all;
  await annPulls(all);
  for (const path of Object.values(SECRET)) {
    for (
      const named of [
        `docker/${path}`,
        `docker.io/${path}`,
        `index.docker.io/${path}`,
        `docker-staging/${path}`,
        `${path}?ns=docker.io`,
        `${path}?ns=docker-staging`,
      ]
    ) {
      assertEquals([named, (await ask(proxy.url, named)).status], [named, 401]);
      assertEquals([named, (await ask(proxy.url, named, bob)).status], [named, 401]);
    }
  }
});

Deno.test("who knows a digest gets it from no repository that upstream does not have it in", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  await annPulls(all);
  // The public repository and his own are in the cache, and proved.
  for (const path of [...Object.values(pathsOf("team/open", open))]) await ask(proxy.url, path);
  for (const path of [...Object.values(pathsOf("bob/own", open))]) await ask(proxy.url, path, bob);
  for (
    const [repository, status] of [["team/open", 404], ["bob/own", 404], ["no/such", 401]] as const
  ) {
    const { "the tag": _, ...byDigest } = pathsOf(repository);
    for (const path of [...Object.values(byDigest), `${repository}/blobs/${LAYER}`]) {
      for (const way of WAYS) {
        const direct = await ask(docker.url, path, { ...bob, ...way });
        const proxied = await ask(proxy.url, path, { ...bob, ...way });
        assertEquals([path, proxied.status], [path, direct.status]);
        assertEquals([path, proxied.status], [path, status]);
      }
    }
  }
});

Deno.test("what somebody has in his own repository he gets, though it is in the cache by way of hers", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  await annPulls(all);
  docker.addBlob("bob/own", secret.layers[1]!);
  const path = `bob/own/blobs/${LAYER}`;
  assertEquals((await ask(proxy.url, path)).status, 401);
  const answer = await ask(proxy.url, path, bob);
  assertEquals([answer.status, answer.digest], [200, LAYER]);
  // Fetched once: that he may have it is proved without fetching it again.
  const sent = docker.log.filter(({ kind, reference, method, status, bytes }) =>
    kind === "blob" && reference === LAYER && method === "GET" && status === 200 && bytes > 0
  );
  assertEquals(sent.length, 1);
});

Deno.test("the same name at another registry is another repository", async () => {
  await using all = await startAll();
  const { corp, proxy } = all;
  await annPulls(all);
  const tag = await ask(proxy.url, "corp/team/secret/manifests/1");
  assertEquals([tag.status, tag.digest], [200, elsewhere.digest]);
  for (const [what, path] of Object.entries(SECRET)) {
    if (what === "the tag") continue;
    const direct = await ask(corp.url, path, ann);
    const proxied = await ask(proxy.url, `corp/${path}`, ann);
    assertEquals([what, proxied.status], [what, direct.status]);
    assert(!proxied.text.includes(secret.digest));
  }
  // That it is public there says nothing about here.
  assertEquals((await ask(proxy.url, SECRET["the tag"]!)).status, 401);
});

Deno.test("a grant at one registry is none at another, for the same login and name", async () => {
  await using all = await startAll();
  const { corp, proxy } = all;
  corp.setAccess("team/secret", ["bob"]);
  const atCorp = ({ login }: Who) =>
    wholeAt(proxy.host, "http://corp.localhost/v2/team/secret/manifests/1", {
      authorization: login,
    });
  assertEquals((await atCorp(bob)).digest, elsewhere.digest);
  assertEquals((await ask(proxy.url, "team/secret/manifests/1", bob)).status, 401);
  await annPulls(all);
  assertEquals((await atCorp(ann)).status, 401);
});

Deno.test("while somebody's pull is under way nobody joins it who could not start it", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  docker.faults.add({ reference: LAYER, method: "GET" }, { stallAt: 100_000, stallFor: 60_000 });
  const { json } = await tokenFor(
    await whole(`${proxy.url}/v2/`),
    ann.login,
    "repository:team/secret:pull",
  );
  const url = `${proxy.url}/v2/team/secret/blobs/${LAYER}`;
  const stop = new AbortController();
  const pulling = await fetch(url, {
    headers: { authorization: `Bearer ${json.token}` },
    signal: stop.signal,
  });
  assertEquals(pulling.status, 200);
  for (const way of WAYS) {
    for (const who of [{}, bob]) {
      assertEquals(
        (await ask(proxy.url, `team/secret/blobs/${LAYER}`, { ...who, ...way })).status,
        401,
      );
      assertEquals(
        (await ask(proxy.url, `team/open/blobs/${LAYER}`, { ...who, ...way })).status,
        404,
      );
    }
  }
  stop.abort();
  await pulling.body!.cancel().catch(() => {});
});

/** What becomes of ann's access upstream. */
const REVOCATIONS: Readonly<Record<string, (docker: FakeRegistry) => void>> = {
  "her password is changed": (docker) => docker.setUser("ann", "another password"),
  "she is gone": (docker) => docker.setUser("ann", undefined),
  "she is no longer a reader": (docker) => docker.setAccess("team/secret", ["bob"]),
};

for (const [what, revoke] of Object.entries(REVOCATIONS)) {
  for (const how of ["login", "token"] as const) {
    Deno.test(`when ${what} her ${how} stops working within five minutes`, async () => {
      using clock = moveClock();
      await using all = await startAll();
      const { docker, proxy } = all;
      await annPulls(all);
      const ping = await whole(`${proxy.url}/v2/`);
      const { json } = await tokenFor(ping, ann.login, "repository:team/secret:pull");
      const authorization = how === "token" ? `Bearer ${json.token}` : ann.login!;
      const statuses = async () => {
        const all = Object.values(SECRET).map((path) =>
          whole(`${proxy.url}/v2/${path}`, { headers: { authorization } })
        );
        return new Set((await Promise.all(all)).map(({ status }) => status));
      };
      assertEquals(await statuses(), new Set([200]));
      revoke(docker);
      // A token is as good as upstream takes it for; of a login its realm is asked. Tokens of before the
      // revocation, which are still good, prove nothing new of it however often they are used.
      if (how === "token") docker.revokeTokens();
      for (let i = 0; i < 5; i++) {
        await statuses();
        clock.pass(MINUTE);
      }
      assertEquals(await statuses(), new Set([401]));
      await docker.down();
      assertEquals((await statuses()).has(200), false);
    });
  }
}

Deno.test("what becomes private is private within the hour, and stays it while upstream is away", async () => {
  using clock = moveClock();
  await using all = await startAll();
  const { docker, proxy } = all;
  const paths = Object.values(pathsOf("team/open", open));
  const statuses = async (who: Who = {}) => {
    const answers = [];
    for (const path of paths) answers.push((await ask(proxy.url, path, who)).status);
    return new Set(answers);
  };
  for (let i = 0; i < 3; i++) assertEquals(await statuses(), new Set([200]));
  docker.setAccess("team/open", ["ann"]);
  clock.pass(60 * MINUTE);
  assertEquals(await statuses(), new Set([401]));
  assertEquals(await statuses(bob), new Set([401]));
  assertEquals(await statuses(ann), new Set([200]));
  await docker.down();
  clock.pass(20_000);
  const away = await statuses();
  assertEquals(away.has(200), false);
});

/** Everything there is of version 2 of `team/open`, which nobody has pulled yet. */
const newer = makeImage({ seed: 4 });
const NEWER = [
  "team/open/manifests/2",
  ...Object.values(pathsOf("team/open", newer)).slice(1),
];

for (const learning of ["fails", "works"]) {
  for (const minutes of [10, 90]) {
    Deno.test(`what came ${minutes} minutes after everybody read its repository, which is private by then, is nobody's while upstream is away, if learning that ${learning}`, async () => {
      using clock = moveClock();
      await using all = await startAll();
      const { docker, proxy } = all;
      assertEquals((await ask(proxy.url, "team/open/manifests/1")).status, 200);
      docker.setAccess("team/open", ["ann"]);
      docker.add("team/open", "2", newer);
      clock.pass(minutes * MINUTE);
      const challenge = await whole(`${proxy.url}/v2/`);
      const given = await tokenFor(challenge, ann.login, "repository:team/open:pull");
      if (learning === "fails") docker.control.failTokensWith = 503;
      for (const path of NEWER) {
        const { status } = await ask(proxy.url, path, { token: given.json.token });
        assertEquals([path, status], [path, 200]);
      }
      await docker.down();
      clock.pass(20_000);
      for (const path of NEWER) {
        const { status } = await ask(proxy.url, path);
        assertEquals([path, status < 400], [path, false]);
      }
    });
  }
}

/** What somebody may ask for without having asked for a manifest before. */
const ALONE: Readonly<Record<string, string>> = {
  "a layer": `team/open/blobs/${newer.layers[0]!.digest}`,
  "a list of referrers": `team/open/referrers/${open.digest}`,
};
for (const [what, path] of Object.entries(ALONE)) {
  Deno.test(`${what} that only ann has seen, since the repository was public, is nobody's while upstream is away`, async () => {
    using clock = moveClock();
    await using all = await startAll();
    const { docker, proxy } = all;
    docker.add("team/open", undefined, makeArtifact(open));
    const before = [...Object.values(pathsOf("team/open", open)), ALONE["a list of referrers"]!];
    for (const path of before) assertEquals((await ask(proxy.url, path)).status, 200);
    docker.setAccess("team/open", ["ann"]);
    docker.add("team/open", "2", newer);
    docker.add("team/open", undefined, makeArtifact(open, { seed: 9 }));
    clock.pass(90 * MINUTE);
    // With her token at once: that nobody else may have it would be found out by asking without.
    const challenge = await whole(`${proxy.url}/v2/`);
    const given = await tokenFor(challenge, ann.login, "repository:team/open:pull");
    assertEquals((await ask(proxy.url, path, { token: given.json.token })).status, 200);
    await docker.down();
    clock.pass(20_000);
    assertEquals((await ask(proxy.url, path)).status < 400, false);
    assertEquals((await ask(proxy.url, path, bob)).status < 400, false);
  });
}

for (const minutes of [10, 90]) {
  Deno.test(`what came ${minutes} minutes after everybody read its repository, which is public still, is everybody's while upstream is away`, async () => {
    using clock = moveClock();
    await using all = await startAll();
    const { docker, proxy } = all;
    assertEquals((await ask(proxy.url, "team/open/manifests/1")).status, 200);
    docker.add("team/open", "2", newer);
    clock.pass(minutes * MINUTE);
    for (const path of NEWER) assertEquals((await ask(proxy.url, path, ann)).status, 200);
    const key = { registry: docker.host, repository: "team/open" };
    await until(async () => await proxy.proxy.cache!.access.isPublic(key));
    await docker.down();
    clock.pass(90 * MINUTE);
    for (const path of NEWER) {
      assertEquals([path, (await ask(proxy.url, path)).status], [path, 200]);
    }
  });
}

const PAGES: Readonly<Record<string, Fault>> = {
  "a page": {
    status: 200,
    body: "<html>Back soon</html>",
    headers: { "content-type": "text/html" },
  },
  "a redirect to a page": { status: 302, headers: { location: "/maintenance" } },
};
for (const [what, fault] of Object.entries(PAGES)) {
  for (const cache of ["true", "false"]) {
    Deno.test(`${what} in place of every answer makes nothing public and lets nobody in, CACHE_ENABLED=${cache}`, async () => {
      using clock = moveClock();
      await using all = await startAll({
        CACHE_ENABLED: cache,
        UPSTREAM_DOCKER_USERNAME: "ann",
        UPSTREAM_DOCKER_PASSWORD: USERS.ann,
      });
      const { docker, proxy } = all;
      if (cache === "true") await annPulls(all);
      clock.pass(10 * MINUTE);
      // What is in the cache by way of another repository, too.
      const elsewhere = Object.values(SECRET).map((path) => path.replace("team/secret", "bob/own"));
      const paths = [...Object.values(SECRET), ...elsewhere];
      const rules = [
        docker.faults.add({ kind: "other" }, PAGES["a page"]!),
        ...["manifest", "blob", "tags", "referrers"].map((kind) =>
          docker.faults.add({ kind }, fault)
        ),
      ];
      for (const path of paths) {
        for (const who of [{}, bob, { token: "anything" }]) {
          const { status } = await ask(proxy.url, path, who);
          assertEquals([path, status < 400], [path, false]);
        }
      }
      for (const rule of rules) rule.remove();
      for (const path of Object.values(SECRET)) {
        assertEquals([path, (await ask(proxy.url, path)).status], [path, 401]);
      }
    });
  }
}

Deno.test("what becomes public is everybody's at once", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  await annPulls(all);
  assertEquals((await ask(proxy.url, SECRET["the tag"]!)).status, 401);
  docker.setAccess("team/secret", "public");
  for (const path of Object.values(SECRET)) {
    assertEquals([path, (await ask(proxy.url, path)).status], [path, 200]);
  }
});

Deno.test("that something is public is found out when somebody pulls it with credentials", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  const path = "team/open/manifests/1";
  const headers = { authorization: ann.login! };
  assertEquals((await whole(`${proxy.url}/v2/${path}`, { headers })).status, 200);
  const anonymous = () => docker.log.some(({ kind, user }) => kind === "manifest" && user === "");
  await until(anonymous);
  await until(async () => (await proxy.proxy.cache!.access.isPublic({
    registry: docker.host,
    repository: "team/open",
  })));
  await docker.down();
  assertEquals((await ask(proxy.url, path)).digest, open.digest);
});

/** What of upstream may be away. */
const OUTAGES: Readonly<Record<string, (docker: FakeRegistry) => void | Promise<void>>> = {
  "the realm fails": (docker) => void (docker.control.failTokensWith = 503),
  "the realm has had enough": (docker) => void (docker.control.failTokensWith = 429),
  "the registry fails": (docker) => void (docker.control.failWith = 500),
  "everything fails": (docker) => {
    docker.control.failWith = 503;
    docker.control.failTokensWith = 503;
  },
  "nothing can be reached": (docker) => docker.down(),
};

for (const [what, fail] of Object.entries(OUTAGES)) {
  for (const after of ["five minutes", "a day", "a restart"]) {
    Deno.test(`when ${what} what is public is served after ${after}, and what is private is not`, async () => {
      using clock = moveClock();
      await using all = await startAll();
      const { docker, proxy } = all;
      await annPulls(all);
      const paths = Object.values(pathsOf("team/open", open));
      for (const path of paths) assertEquals((await ask(proxy.url, path)).status, 200);
      await fail(docker);
      if (after === "a restart") await proxy.restart({ grace: 10_000 });
      else clock.pass(after === "a day" ? 24 * 60 * MINUTE : 5 * MINUTE);

      for (const path of paths) {
        for (const who of [{}, ann, bob]) {
          const { status, text } = await ask(proxy.url, path, who);
          assertEquals([path, status], [path, 200], text);
        }
      }
      for (const path of Object.values(SECRET)) {
        for (const who of [{}, bob, ann, { login: basicHeader("ann", "guess") }]) {
          const { status, text } = await ask(proxy.url, path, who);
          // Upstream's trouble, or that there is no credential. The list of tags is never kept.
          assert([401, 429, 502, 504].includes(status), `${path} is ${status}: ${text}`);
        }
      }
    });
  }
}

Deno.test("a grant that is still good is good while upstream is away", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  const headers = { authorization: ann.login! };
  const paths = Object.values(pathsOf("team/secret"));
  const statuses = async () => {
    const answers = [];
    for (const path of paths) {
      answers.push((await whole(`${proxy.url}/v2/${path}`, { headers })).status);
    }
    return new Set(answers);
  };
  assertEquals(await statuses(), new Set([200]));
  await docker.down();
  assertEquals(await statuses(), new Set([200]));
  assertEquals((await ask(proxy.url, paths[0]!)).status === 200, false);
});

const SERVICE = {
  UPSTREAM_DOCKER_USERNAME: "ann",
  UPSTREAM_DOCKER_PASSWORD: USERS.ann,
};

for (const cache of ["true", "false"]) {
  Deno.test(`the operator's account pays for what is public and opens nothing, with CACHE_ENABLED=${cache}`, async () => {
    await using all = await startAll({ ...SERVICE, CACHE_ENABLED: cache });
    const { docker, proxy } = all;
    await ask(proxy.url, "team/open/manifests/1");
    const layer = await ask(proxy.url, `team/open/blobs/${open.layers[0]!.digest}`);
    assertEquals(layer.digest, open.layers[0]!.digest);
    const users = docker.log.filter(({ kind }) => kind === "blob").map(({ user }) => user);
    assertEquals(users, ["ann"]);
    for (const path of Object.values(SECRET)) {
      for (const who of [{}, bob]) {
        assertEquals([path, (await ask(proxy.url, path, who)).status], [path, 401]);
      }
    }
    await annPulls(all);
    for (const path of Object.values(SECRET)) {
      assertEquals([path, (await ask(proxy.url, path)).status], [path, 401]);
    }
  });

  Deno.test(`with SHARE_PRIVATE who brings nothing reads what the operator's account reads, with CACHE_ENABLED=${cache}`, async () => {
    const env = { ...SERVICE, UPSTREAM_DOCKER_SHARE_PRIVATE: "true", CACHE_ENABLED: cache };
    await using all = await startAll(env);
    const { proxy } = all;
    for (let i = 0; i < 2; i++) {
      for (const path of Object.values(SECRET)) {
        assertEquals([path, (await ask(proxy.url, path)).status], [path, 200]);
        // With credentials one is who one is.
        const headers = { authorization: bob.login! };
        const own = await whole(`${proxy.url}/v2/${path}`, { headers });
        assertEquals([path, own.status], [path, 401]);
        const wrong = await whole(`${proxy.url}/v2/${path}`, {
          headers: { authorization: basicHeader("ann", "guess") },
        });
        assertEquals([path, wrong.status], [path, 401]);
      }
      assertEquals((await ask(proxy.url, "bob/own/manifests/1")).status, 401);
      assertEquals((await ask(proxy.url, "corp/bob/own/manifests/1")).status, 401);
    }
  });
}

Deno.test("what is shared stays shared while upstream is away, also after a restart", async () => {
  await using all = await startAll({ ...SERVICE, UPSTREAM_DOCKER_SHARE_PRIVATE: "true" });
  const { docker, proxy } = all;
  const paths = Object.values(pathsOf("team/secret"));
  for (const path of paths) assertEquals((await ask(proxy.url, path)).status, 200);
  await docker.down();
  await proxy.restart({ grace: 10_000 });
  for (const path of paths) assertEquals([path, (await ask(proxy.url, path)).status], [path, 200]);
  await proxy.restart({ env: { UPSTREAM_DOCKER_SHARE_PRIVATE: "false" } });
  for (const path of paths) assert((await ask(proxy.url, path)).status !== 200);
});
