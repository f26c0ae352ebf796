/**
 * Proof before access: what answers in place of a registry, or lies, lets nobody in, and nobody learns what is here.
 */
import { assert, assertEquals } from "@std/assert";
import { moveClock } from "../support/clock.ts";
import { bytesOf, type Content, contentOf, randomBytes } from "../support/content.ts";
import { type Route, startFakeRegistry } from "../support/fake_registry.ts";
import { basicHeader } from "../support/fake_token.ts";
import { type Whole, whole } from "../support/http.ts";
import type { ServerReply, ServerRequest } from "../support/http_server.ts";
import { contentOf as manifestContent, makeImage } from "../support/image.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";

const MINUTE = 60_000;
const USERS = { ann: "ann's password", bob: "bob's password" };
const login = (name: keyof typeof USERS) => basicHeader(name, USERS[name]);
const secret = makeImage({ seed: 1, layers: [3000, 300_000] });
const open = makeImage({ seed: 2 });
const LAYER = secret.layers[1]!;

/** Where a secret is, by the registry it is asked of. */
const pathsOf = (repository: string): Readonly<Record<string, string>> => ({
  "the tag": `${repository}/manifests/1`,
  "the manifest": `${repository}/manifests/${secret.digest}`,
  "the configuration": `${repository}/blobs/${secret.config.digest}`,
  "a small layer": `${repository}/blobs/${secret.layers[0]!.digest}`,
  "a large layer": `${repository}/blobs/${LAYER.digest}`,
  "the list of tags": `${repository}/tags/list`,
  "what is attached": `${repository}/referrers/${secret.digest}`,
});
const SECRET = pathsOf("team/secret");
const DIGESTS = [secret, secret.config, ...secret.layers].map(({ digest }) => digest);

/** Docker Hub with something of ann's, and another registry that has nothing of it. */
async function startAll(env: Record<string, string> = {}) {
  const [docker, corp] = await Promise.all([
    startFakeRegistry({ auth: "token", users: USERS }),
    startFakeRegistry(),
  ]);
  docker.add("team/secret", "1", secret, { readers: ["ann"] });
  docker.add("team/open", "1", open);
  docker.add("bob/own", "1", open, { readers: ["bob"] });
  corp.add("team/app", "1", open);
  const proxy = await startTestProxy({ upstreams: { docker, corp }, env });
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

interface Asked {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly authorization?: string;
}

async function ask(proxy: TestProxy, path: string, asked: Asked = {}): Promise<Whole> {
  const { method, headers, authorization } = asked;
  return await whole(`${proxy.url}/v2/${path}`, {
    method,
    headers: { ...headers, ...authorization && { authorization } },
  }).catch((error) => ({ ...BROKEN, text: String(error) }));
}

/** An answer that broke off. */
const BROKEN: Whole = {
  status: 599,
  headers: new Headers(),
  bytes: new Uint8Array(),
  digest: "",
  text: "",
  json: undefined,
};

/** Ann pulls all of hers. */
async function annPulls({ proxy }: { proxy: TestProxy }) {
  for (const path of Object.values(SECRET)) {
    const { status } = await ask(proxy, path, { authorization: login("ann") });
    assertEquals([path, status], [path, 200]);
  }
  await settled(proxy);
}

async function settled({ proxy }: TestProxy) {
  for (const digest of DIGESTS) await proxy.cache?.content.settled(digest);
}

const WAYS: readonly Pick<Asked, "method" | "headers">[] = [
  {},
  { method: "HEAD" },
  { headers: { range: "bytes=0-9" } },
  { headers: { range: "bytes=-9" } },
  { headers: { accept: "application/json" } },
];

/** An answer to everything. */
const always = (type: string, body: string | Uint8Array<ArrayBuffer>) => (): ServerReply => ({
  status: 200,
  headers: [["content-type", type]],
  body,
});

/** The same behind a redirect, as a registry in maintenance has it. */
const behind = (page: () => ServerReply) => ({ url }: ServerRequest): ServerReply =>
  url.pathname === "/maintenance"
    ? page()
    : { status: 302, headers: [["location", "/maintenance"]] };

const OK = `{"status":"ok"}`;
const LIES: Readonly<Record<string, (request: ServerRequest) => ServerReply>> = {
  "JSON": always("application/json", OK),
  "plain text": always("text/plain", "OK"),
  "nothing": always("application/json", ""),
  "bytes": always("application/octet-stream", randomBytes(500, 5)),
  "a manifest's type around JSON": always(open.mediaType, OK),
  "a redirect to JSON": behind(always("application/json", OK)),
  "a redirect to plain text": behind(always("text/plain", "OK")),
  "a redirect to bytes": behind(always("application/octet-stream", randomBytes(500, 5))),
  "201": () => ({ status: 201, headers: [["content-type", "application/json"]], body: OK }),
  "a part": () => ({
    status: 206,
    headers: [["content-type", "application/octet-stream"], ["content-range", "bytes 0-9/300000"]],
    body: "0123456789",
  }),
};
/** Whose accounts there are. */
const SERVICES: Readonly<Record<string, Record<string, string>>> = {
  "no account": {},
  "an account": { UPSTREAM_DOCKER_USERNAME: "ann", UPSTREAM_DOCKER_PASSWORD: USERS.ann },
  "a shared account": {
    UPSTREAM_DOCKER_USERNAME: "ann",
    UPSTREAM_DOCKER_PASSWORD: USERS.ann,
    UPSTREAM_DOCKER_SHARE_PRIVATE: "true",
  },
};

for (const [what, lie] of Object.entries(LIES)) {
  for (const [account, service] of Object.entries(SERVICES)) {
    for (const cache of ["true", "false"]) {
      Deno.test(`${what} in answer to everything lets nobody in, with ${account} and CACHE_ENABLED=${cache}`, async () => {
        using clock = moveClock();
        await using all = await startAll({ CACHE_ENABLED: cache, ...service });
        const { docker, proxy } = all;
        await annPulls(all);
        clock.pass(10 * MINUTE); // her grant is over
        // Whoever brings nothing is the operator where that is shared.
        const strangers = [login("bob"), "Bearer made-up"];
        const others = account === "a shared account" ? strangers : [undefined, ...strangers];
        docker.control.lie = (request) => lie(request);
        const own = Object.values(SECRET).map((path) => path.replace("team/secret", "bob/own"));
        for (const path of [...Object.values(SECRET), ...own]) {
          for (const way of WAYS) {
            for (const authorization of others) {
              const answer = await ask(proxy, path, { ...way, authorization });
              const told = [path, JSON.stringify(way)];
              // The headers of a blob that is not known here cannot be checked, nor a part of it.
              const isPassed = /blobs/.test(path) &&
                (way.method === "HEAD" || way.headers?.["range"]);
              if (!isPassed) assertEquals([...told, answer.status >= 400], [...told, true]);
              assert(!DIGESTS.includes(answer.digest), `${told} is ${answer.status}`);
            }
          }
        }
        docker.control.lie = undefined;
        for (const path of Object.values(SECRET)) {
          for (const way of WAYS) {
            for (const authorization of others) {
              const { status } = await ask(proxy, path, { ...way, authorization });
              assertEquals([path, authorization, status], [path, authorization, 401]);
            }
          }
        }
        const { access } = proxy.proxy.cache ?? {};
        for (const repository of ["team/secret", "bob/own"]) {
          const key = { registry: docker.host, repository };
          if (access) assertEquals(await access.isPublic(key), false);
        }
      });
    }
  }
}

/** What a registry can say of content that it does not have: its digest, size and type are known to many. */
const CLAIMS: Readonly<Record<string, (content: Content, request: ServerRequest) => ServerReply>> =
  {
    "HEAD alone": (content, { method }) =>
      method === "HEAD" ? claim(content) : { status: 404, headers: [] },
    "HEAD with another size": (content, { method }) =>
      method === "HEAD"
        ? { ...claim(content), fault: { contentLength: 1 } }
        : { status: 404, headers: [] },
    "other bytes of its size": (content) => ({
      ...claim(content),
      body: randomBytes(content.size, 9),
    }),
    "the part that is asked for, of other bytes": (content, { headers }) => {
      const [, start, end] = /^bytes=(\d+)-(\d+)$/.exec(headers.get("range") ?? "") ?? [];
      const bytes = randomBytes(content.size, 9);
      if (start === undefined) return { ...claim(content), body: bytes };
      return {
        ...claim(content),
        status: 206,
        headers: [...claim(content).headers, [
          "content-range",
          `bytes ${start}-${end}/${content.size}`,
        ]],
        body: bytes.slice(Number(start), Number(end) + 1),
      };
    },
    "its first bytes, whatever part is asked for": (content, { headers }) => {
      const bytes = bytesOf(content).slice(0, Math.min(8192, content.size - 1));
      const isPart = headers.has("range");
      return {
        ...claim(content),
        status: isPart ? 206 : 200,
        headers: isPart
          ? [["content-range", `bytes 0-${bytes.length - 1}/${content.size}`]]
          : claim(content).headers,
        body: bytes,
      };
    },
    "a redirect to a page": () => ({
      status: 307,
      headers: [["location", "/maintenance"]],
    }),
  };

function claim(content: Content): ServerReply {
  const type = content.digest === secret.digest ? secret.mediaType : "application/octet-stream";
  return {
    status: 200,
    headers: [["content-type", type], ["docker-content-digest", content.digest]],
    body: content,
  };
}

const CONTENTS = [
  manifestContent(secret.manifest, secret.mediaType),
  ...[secret.config, ...secret.layers],
];

for (const [what, lie] of Object.entries(CLAIMS)) {
  Deno.test(`a registry that claims to have what another brought gets no link to it by ${what}`, async () => {
    await using all = await startAll();
    const { corp, proxy } = all;
    await annPulls(all);
    const about = ({ kind, reference = "" }: Route) =>
      kind === "manifest" && reference === "1"
        ? CONTENTS[0]
        : CONTENTS.find(({ digest }) => digest === reference);
    corp.control.lie = (request, asked) => {
      const content = about(asked);
      return content && lie(content, request);
    };
    const { index } = proxy.proxy.cache!;
    // Twice: what one question noted must not answer the next.
    for (let i = 0; i < 3; i++) {
      for (const path of Object.values(pathsOf("corp/team/app")).slice(0, 5)) {
        for (const way of WAYS) {
          const answer = await ask(proxy, path, way);
          assert(!DIGESTS.includes(answer.digest), `${path} ${JSON.stringify(way)}`);
          const whole = contentLengths.has(Number(answer.headers.get("content-length")));
          assert(!(answer.headers.get("x-cache") === "HIT" && whole), path);
        }
      }
    }
    for (const { digest } of CONTENTS) {
      for (const kind of ["manifest", "blob"] as const) {
        const key = { registry: corp.host, repository: "team/app", digest, kind };
        assertEquals([kind, digest, await index.link(key)], [kind, digest, undefined]);
      }
    }
  });
}
const contentLengths = new Set(CONTENTS.map(({ size }) => size));

Deno.test("a registry that really has what another brought is given no second download of it", async () => {
  await using all = await startAll();
  const { corp, proxy } = all;
  await annPulls(all);
  corp.add("team/copy", "1", secret);
  for (const [what, path] of Object.entries(pathsOf("corp/team/copy")).slice(0, 5)) {
    for (let i = 0; i < 2; i++) {
      const answer = await ask(proxy, path);
      assertEquals([what, answer.status], [what, 200]);
      assert(DIGESTS.includes(answer.digest));
    }
  }
  const sent = corp.log.filter(({ reference }) => reference === LAYER.digest);
  assertEquals(sent.map(({ method, bytes }) => [method, bytes]), [["GET", 8192]]);
});

Deno.test("nobody joins a download of one registry by way of another that has not got it", async () => {
  await using all = await startAll();
  const { docker, corp, proxy } = all;
  // Whatever part of it chance chooses to compare is here.
  docker.faults.add({ reference: LAYER.digest }, { stallAt: LAYER.size - 1, stallFor: 60_000 });
  const stop = new AbortController();
  const pulling = await fetch(`${proxy.url}/v2/${SECRET["a large layer"]}`, {
    headers: { authorization: login("ann") },
    signal: stop.signal,
  });
  assertEquals(pulling.status, 200);
  const other = randomBytes(LAYER.size, 9);
  corp.control.lie = (_, { reference }) =>
    reference === LAYER.digest ? { ...claim(LAYER), body: other } : undefined;
  const { body } = await fetch(`${proxy.url}/v2/corp/team/app/blobs/${LAYER.digest}`);
  // At most what the other one says itself, without its end.
  const got: Uint8Array[] = [];
  try {
    for await (const chunk of body!) got.push(chunk);
    throw new Error("It was whole");
  } catch (error) {
    assert(!/whole/.test(String(error)));
  }
  const bytes = got.flatMap((chunk) => [...chunk]);
  assertEquals(bytes, [...other.slice(0, bytes.length)]);
  stop.abort();
  await pulling.body!.cancel().catch(() => {});
});

/** How a registry may answer HEADs of blobs: `public.ecr.aws` refuses them. */
const HEADS = { "allows HEAD": undefined, "refuses HEAD of blobs": 401 } as const;
const never = contentOf(randomBytes(300_000, 77));

for (const [how, status] of Object.entries(HEADS)) {
  Deno.test(`answers and requests upstream are the same whether a private digest is here or not, where upstream ${how}`, async () => {
    await using all = await startAll();
    const { docker, corp, proxy } = all;
    await using empty = await startTestProxy({ upstreams: { docker, corp } });
    await annPulls(all);
    docker.addBlob("team/secret", never);
    if (status) docker.faults.add({ kind: "blob", method: "HEAD" }, { status });
    const scope = "repository:bob/own:pull";
    const given = await whole(`${docker.url}/token?scope=${scope}`, {
      headers: { authorization: login("bob") },
    });
    const callers = [undefined, login("bob"), "Bearer made-up", `Bearer ${given.json.token}`];
    // So that what either knows of the registry is the same.
    for (const instance of [proxy, empty]) {
      for (const authorization of callers) {
        await ask(instance, "team/open/manifests/1", { authorization });
        for (const repository of ["team/secret", "team/open", "bob/own"]) {
          await ask(instance, `${repository}/manifests/none`, { authorization });
        }
      }
    }
    const seen = async (instance: TestProxy, path: string, asked: Asked) => {
      docker.log.length = 0;
      const { status, headers, text } = await ask(instance, path, asked);
      const told = [...headers].filter(([name]) => !["date", "content-length"].includes(name));
      const requests = docker.log.map(({ kind, method, status }) => `${method} ${kind} ${status}`);
      return { status, told, text: text.replaceAll(String(instance.port), "PORT"), requests };
    };
    for (const repository of ["team/secret", "team/open", "bob/own"]) {
      const byDigest = Object.values(pathsOf(repository)).slice(1, 5);
      for (const path of [...byDigest, `${repository}/blobs/${never.digest}`]) {
        for (const way of WAYS) {
          for (const authorization of callers) {
            const asked = { ...way, authorization };
            const here = await seen(proxy, path, asked);
            const notHere = await seen(empty, path, asked);
            const told = here.told.map(([name, value]) => [
              name,
              value.replaceAll(String(proxy.port), String(empty.port)),
            ]);
            assertEquals({ ...here, told }, notHere, `${path} ${JSON.stringify(asked)}`);
            assert(here.status >= 400);
          }
        }
      }
    }
  });
}

Deno.test("a HEAD tells an accomplice of who asks nothing of what is here", async () => {
  await using all = await startAll();
  const { docker, corp, proxy } = all;
  await using empty = await startTestProxy({ upstreams: { docker, corp } });
  await annPulls(all);
  for (const size of [undefined, 1]) {
    corp.control.lie = (request, { reference }) => {
      const content = CONTENTS.find(({ digest }) => digest === reference);
      if (!content) return undefined;
      if (request.method !== "HEAD") return { status: 404, headers: [] };
      return { ...claim(content), fault: { contentLength: size ?? content.size } };
    };
    for (const path of Object.values(pathsOf("corp/team/app")).slice(1, 5)) {
      const both = [];
      for (const instance of [proxy, empty]) {
        corp.log.length = 0;
        const { status, headers } = await ask(instance, path, { method: "HEAD" });
        const requests = corp.log.map(({ method, target }) => `${method} ${target}`);
        const names = ["content-length", "x-cache", "age", "docker-content-digest"];
        both.push({ status, requests, told: names.map((name) => headers.get(name)) });
      }
      assertEquals(both[0], both[1]);
    }
  }
});

/** What a client can do to a registry, or to its token server, by its own credential. */
const ODD: Readonly<
  Record<
    string,
    {
      authorization: string;
      does: (request: ServerRequest, asked: Route) => ServerReply | undefined;
    }
  >
> = {
  "a token that breaks the connection": {
    authorization: `Bearer ${"x".repeat(6_000)}`,
    does: ({ headers }) =>
      (headers.get("authorization")?.length ?? 0) > 4_000
        ? { status: 200, headers: [], fault: { hangUp: true } }
        : undefined,
  },
  "a password that breaks the token server's connection": {
    authorization: basicHeader("bob", "x".repeat(4_500)),
    does: ({ headers }) =>
      (headers.get("authorization")?.length ?? 0) > 4_000
        ? { status: 200, headers: [], fault: { hangUp: true } }
        : undefined,
  },
  ...Object.fromEntries([500, 503, 429, 400].map((status) => [
    `a name that the token server answers ${status} to`,
    {
      authorization: basicHeader("odd", "password"),
      does: ({ headers }: ServerRequest, { kind }: Route) =>
        kind === "token" && headers.has("authorization") ? { status, headers: [] } : undefined,
    },
  ])),
  "a token whose pulls are used up": {
    authorization: "Bearer used-up",
    does: ({ headers }) =>
      headers.get("authorization") === "Bearer used-up" ? { status: 429, headers: [] } : undefined,
  },
  "a token that makes the registry fail": {
    authorization: "Bearer odd",
    does: ({ headers }) =>
      headers.get("authorization") === "Bearer odd" ? { status: 500, headers: [] } : undefined,
  },
};

for (const [what, { authorization, does }] of Object.entries(ODD)) {
  Deno.test(`${what} says nothing of the registry, and opens nothing that was public once`, async () => {
    using clock = moveClock();
    await using all = await startAll();
    const { docker, proxy } = all;
    const paths = [
      "team/open/manifests/1",
      `team/open/manifests/${open.digest}`,
      `team/open/blobs/${open.layers[0]!.digest}`,
      `team/open/referrers/${open.digest}`,
    ];
    for (const path of paths) assertEquals((await ask(proxy, path)).status, 200);
    await proxy.proxy.cache!.content.settled(open.layers[0]!.digest);
    docker.setAccess("team/open", ["ann"]);
    docker.revokeTokens();
    clock.pass(90 * MINUTE);
    docker.control.lie = does;
    const { upstream } = proxy.proxy;
    for (const path of paths) {
      for (const method of ["GET", "HEAD"]) {
        const { status, headers } = await ask(proxy, path, { method, authorization });
        assertEquals([path, method, status >= 400], [path, method, true]);
        assertEquals(headers.get("x-cache"), null);
        await ask(proxy, "", { authorization });
        await ask(proxy, "_catalog", { authorization });
        const registry = proxy.config.registries.find(({ name }) => name === "docker")!;
        assertEquals([path, upstream.isDown(registry)], [path, false]);
        // Nor does it harm, or help, anybody else.
        assertEquals((await ask(proxy, path, { method })).status, 401);
      }
    }
    docker.setAccess("team/open", "public");
    assertEquals((await ask(proxy, paths[0]!)).status, 200);
    // What is public still is theirs as everybody's, old as it may be.
    assertEquals((await ask(proxy, paths[0]!, { authorization })).status, 200);
  });
}

Deno.test("what a client's headers or query are refused for ends nothing that is public, and takes no pulls", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  assertEquals((await ask(proxy, "team/open/manifests/1")).status, 200);
  const { access } = proxy.proxy.cache!;
  const key = { registry: docker.host, repository: "team/open" };
  const list = "team/open/tags/list?n=77";
  for (const status of [401, 403, 429]) {
    docker.control.lie = ({ url, headers }) =>
      url.searchParams.has("n") || headers.get("user-agent") === "odd"
        ? { status, headers: [["retry-after", "3600"]] }
        : undefined;
    const odd = { headers: { "user-agent": "odd", accept: "text/plain" } };
    for (const path of ["team/open/tags/list", `team/open/referrers/${open.digest}`]) {
      assertEquals((await ask(proxy, path, odd)).status, status);
      assertEquals(await access.isPublic(key), true);
    }
    assertEquals((await ask(proxy, list)).status, status);
    assertEquals(await access.isPublic(key), true);
    assertEquals(proxy.proxy.quotas.entries(), []);
  }
  // Where it is the repository that is refused it is noted.
  docker.control.lie = undefined;
  docker.setAccess("team/open", ["ann"]);
  docker.revokeTokens();
  assertEquals((await ask(proxy, list)).status, 401);
  assertEquals(await access.isPublic(key), false);
});

Deno.test("what strangers are told of a list of referrers is not kept for those who may read it", async () => {
  await using all = await startAll();
  const { docker, proxy } = all;
  const path = SECRET["what is attached"]!;
  await annPulls(all);
  // As some registries say of what one may not see, and to queries that they do not know.
  docker.control.lie = (_, { kind }) =>
    kind === "referrers" ? { status: 404, headers: [] } : undefined;
  for (const authorization of [undefined, login("bob"), "Bearer made-up"]) {
    const { status } = await ask(proxy, path, { authorization });
    assert(status === 404 || status === 401);
  }
  const query = `${path}?artifactType=x`;
  assertEquals((await ask(proxy, query, { authorization: login("ann") })).status, 404);
  await docker.down();
  const answer = await ask(proxy, path, { authorization: login("ann") });
  assertEquals([answer.status, answer.headers.get("x-cache")], [200, "STALE"]);
});

Deno.test("new content that the operator's account fetched for nobody in particular is nobody's while upstream is away", async () => {
  using clock = moveClock();
  await using all = await startAll({
    UPSTREAM_DOCKER_USERNAME: "ann",
    UPSTREAM_DOCKER_PASSWORD: USERS.ann,
  });
  const { docker, proxy } = all;
  assertEquals((await ask(proxy, "team/open/manifests/1")).status, 200);
  docker.setAccess("team/open", ["ann"]);
  docker.revokeTokens();
  docker.add("team/open", "2", makeImage({ seed: 4 }));
  // Whether it is public cannot be found out any more.
  docker.control.lie = ({ headers, url }, { kind }) =>
    kind === "token" && !headers.has("authorization") && url.searchParams.has("scope")
      ? { status: 503, headers: [] }
      : undefined;
  assertEquals((await ask(proxy, "team/open/manifests/2")).status, 200);
  await docker.down();
  clock.pass(20_000);
  for (const path of ["team/open/manifests/2", "team/open/manifests/1"]) {
    assert((await ask(proxy, path)).status >= 400);
  }
});

Deno.test("a catalogue that is none is 502", async () => {
  await using all = await startAll();
  const { corp, proxy } = all;
  for (const lie of Object.values(LIES)) {
    corp.control.lie = (request) => lie(request);
    assertEquals((await ask(proxy, "corp/_catalog")).status, 502);
  }
  corp.control.lie = undefined;
  const { json, status } = await ask(proxy, "corp/_catalog");
  assertEquals([status, json], [200, { repositories: ["team/app"] }]);
});
