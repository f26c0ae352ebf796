import { assert, assertEquals, assertRejects } from "@std/assert";
import { OciError } from "../../lib/oci/error.ts";
import { registryOf } from "../../lib/oci/registry.ts";
import type { Credential } from "../../lib/transforms/auth.ts";
import { Upstream, type UpstreamOptions, type UpstreamRequest } from "../../lib/upstream/client.ts";
import type { Send, SendRequest } from "../../lib/upstream/transport/send.ts";
import { Tokens } from "../../lib/upstream/token.ts";

const HUB = registryOf("docker", new URL("https://registry-1.docker.io"));
const BEARER = `Bearer realm="https://auth.docker.io/token",service="registry.docker.io"`;
const POLICY = { followAll: true, blockedHosts: [], storageHosts: ["storage.example"] };
const ANONYMOUS: Credential = { kind: "anonymous" };
const own: Credential = { kind: "bearer", token: "own" };
const ann: Credential = { kind: "basic", username: "ann", password: "secret" };

/** One request that anybody upstream saw. */
interface Asked extends SendRequest {
  readonly url: URL;
  readonly authorization: string | null;
}

type Answer = Response | OciError;

/** An upstream where `answer` is asked for everything but tokens: those are `t1`, `t2` … */
function upstreamWith(
  answer: (asked: Asked, n: number) => Answer,
  options: Partial<UpstreamOptions> = {},
) {
  const asked: Asked[] = [];
  let tokens = 0;
  let now = 1_000_000;
  const send: Send = (url, request) => {
    const entry = { ...request, url, authorization: request.headers.get("authorization") };
    if (url.hostname === "auth.docker.io") {
      return Promise.resolve({ response: Response.json({ token: `t${++tokens}` }), abort() {} });
    }
    asked.push(entry);
    const reply = answer(entry, asked.length);
    if (reply instanceof OciError) return Promise.reject(reply);
    return Promise.resolve({ response: reply, abort() {} });
  };
  const clock = () => now;
  const upstream = new Upstream({
    send,
    tokens: new Tokens({ send, allowPrivate: false, now: clock }),
    redirects: POLICY,
    now: clock,
    ...options,
  });
  return {
    upstream,
    asked,
    pass: (ms: number) => void (now += ms),
    get tokens() {
      return tokens;
    },
    request: (request: Partial<UpstreamRequest> = {}) =>
      upstream.request({
        registry: HUB,
        method: "GET",
        path: "/v2/library/nginx/manifests/latest",
        headers: new Headers({ accept: "*/*" }),
        credential: ANONYMOUS,
        scope: "repository:library/nginx:pull",
        ...request,
      }),
  };
}

const unauthorized = (challenge: string | null = BEARER) =>
  new Response(null, {
    status: 401,
    headers: challenge === null ? {} : { "www-authenticate": challenge },
  });
const to = (location: string, status = 307) =>
  new Response(null, { status, headers: { location } });

/** A registry that wants a token. */
const guarded = ({ authorization }: Asked) =>
  authorization === null ? unauthorized() : new Response("content");

Deno.test("a registry that wants a token is asked a second time, with one, and then at once", async () => {
  const { request, asked } = upstreamWith(guarded);
  assertEquals(await (await request()).response.text(), "content");
  assertEquals(asked.map(({ authorization }) => authorization), [null, "Bearer t1"]);
  await request();
  assertEquals(asked[2]!.authorization, "Bearer t1");
});

Deno.test("a registry that wants none gets none, whoever asks", async () => {
  const { request, asked } = upstreamWith(() => new Response("content"));
  await request({ credential: ann });
  await request();
  assertEquals(asked.map(({ authorization }) => authorization), [null, null]);
});

Deno.test("a registry that speaks Basic gets the credential itself", async () => {
  const { request, asked } = upstreamWith(({ authorization }) =>
    authorization === null ? unauthorized("Basic realm=x") : new Response("content")
  );
  assertEquals((await request({ credential: ann })).response.status, 200);
  assertEquals(asked.map(({ authorization }) => authorization), [null, "Basic YW5uOnNlY3JldA=="]);
  assertEquals((await request()).response.status, 401);
});

Deno.test("a client's own token goes up as it is, and only once", async () => {
  for (const challenge of [BEARER, null]) {
    const { request, asked } = upstreamWith(() => unauthorized(challenge));
    assertEquals((await request({ credential: own })).response.status, 401);
    assertEquals(asked.map(({ authorization }) => authorization), ["Bearer own"]);
  }
});

Deno.test("a token that is no longer accepted is renewed once, and then believed to be no good", async () => {
  const spoiled = upstreamWith(({ authorization }) =>
    authorization === "Bearer t2" ? new Response("content") : unauthorized()
  );
  assertEquals((await spoiled.request()).response.status, 401);
  assertEquals((await spoiled.request()).response.status, 200);
  assertEquals(spoiled.asked.map(({ authorization }) => authorization), [
    null,
    "Bearer t1",
    "Bearer t1",
    "Bearer t2",
  ]);
});

Deno.test("a 401 that says nothing of what it wants is an answer, and no outage", async () => {
  const { upstream, request } = upstreamWith(() => unauthorized(null));
  assertEquals((await request()).response.status, 401);
  assertEquals(upstream.isDown(HUB), false);
});

Deno.test("a challenge whose realm is not the registry's is 502, and nobody's credentials go there", async () => {
  const { request, asked, ...all } = upstreamWith(() =>
    unauthorized(`Bearer realm="https://evil.example/token"`)
  );
  for (const credential of [ANONYMOUS, ann, own]) {
    const error = await assertRejects(() => request({ credential }), OciError, "own domain");
    assertEquals(error.status, 502);
  }
  assertEquals([all.tokens, asked.every(({ url }) => url.host === HUB.url.host)], [0, true]);
});

Deno.test("the body of a 401 is given up where no token can be had", async () => {
  const trouble: Send = () => Promise.reject(new OciError("UNAVAILABLE", "Cannot reach"));
  const tokens = new Tokens({ send: trouble, allowPrivate: false });
  const foreign = `Bearer realm="https://evil.example/token"`;
  for (
    const [challenge, credential] of [[foreign, ANONYMOUS], [foreign, own], [BEARER, ann]] as const
  ) {
    let cancelled = 0;
    const body = new ReadableStream({ cancel: () => void cancelled++ });
    const { request } = upstreamWith(
      () => new Response(body, { status: 401, headers: { "www-authenticate": challenge } }),
      { tokens },
    );
    await assertRejects(() => request({ credential }), OciError);
    assertEquals(cancelled, 1);
  }
});

for (const status of [301, 302, 303, 307, 308]) {
  Deno.test(`a ${status} is followed with method, Range and accepted types, and without Authorization`, async () => {
    const { request, asked } = upstreamWith((entry) => {
      if (entry.url.hostname === "cdn.example") return new Response("content");
      return entry.authorization === null
        ? unauthorized()
        : to("https://cdn.example/x?sig=1", status);
    });
    for (const method of ["GET", "HEAD"] as const) {
      const headers = new Headers({ accept: "a/b", range: "bytes=5-9" });
      const answer = await request({ method, headers, redirects: "follow" });
      assertEquals([answer.response.status, answer.url.href], [200, "https://cdn.example/x?sig=1"]);
      const last = asked.at(-1)!;
      assertEquals([last.method, last.authorization], [method, null]);
      assertEquals([last.headers.get("accept"), last.headers.get("range")], ["a/b", "bytes=5-9"]);
      assertEquals(asked.at(-2)!.authorization, "Bearer t1");
    }
  });
}

Deno.test("on the registry's own origin a relative redirect keeps its Authorization, elsewhere none does", async () => {
  const hops: Record<string, Answer> = {
    "/v2/library/nginx/manifests/latest": to("../../../../moved?a=b#c"),
    "/moved": to("http://registry-1.docker.io.evil.example/"),
  };
  const { request, asked } = upstreamWith(({ url }) => hops[url.pathname] ?? new Response());
  const error = await assertRejects(() => request({ credential: own }), OciError, "Unusable");
  assertEquals((error.detail as { reason: string }).reason, "Scheme not allowed: http:");
  assertEquals(asked.map(({ url, authorization }) => [url.href, authorization]), [
    ["https://registry-1.docker.io/v2/library/nginx/manifests/latest", "Bearer own"],
    ["https://registry-1.docker.io/moved?a=b", "Bearer own"],
  ]);

  const other = upstreamWith(({ url }) =>
    url.port === "8443" ? new Response() : to("https://registry-1.docker.io:8443/")
  );
  await other.request({ credential: own });
  assertEquals(other.asked[1]!.authorization, null);
});

Deno.test("ten redirects are followed, an eleventh is not, and a loop ends too", async () => {
  for (const [count, status] of [[10, 200], [11, 502], [Infinity, 502]] as const) {
    const { request, asked } = upstreamWith(({ url }) => {
      const n = Number(url.searchParams.get("n"));
      return n < count ? to(`https://cdn.example/?n=${n + 1}`) : new Response();
    });
    const outcome = await request().then(({ response }) => response.status, (e) => e.status);
    assertEquals([outcome, asked.length], [status, 11]);
  }
});

Deno.test("the body of a redirect is given up, wherever it leads", async () => {
  for (const location of ["https://cdn.example/", "ftp://cdn.example/", "https://u:p@x.example/"]) {
    let cancelled = 0;
    const body = new ReadableStream({ cancel: () => void cancelled++ });
    const { request } = upstreamWith(({ url }) =>
      url.hostname === "cdn.example"
        ? new Response()
        : new Response(body, { status: 307, headers: { location } })
    );
    await request().catch(() => {});
    assertEquals(cancelled, 1, location);
  }
});

Deno.test("storage is handed to the client where the policy says so, unless the content is wanted here", async () => {
  const redirects = { ...POLICY, followAll: false };
  const location = "https://storage.example/blob?X-Amz-Signature=secret";
  const { request, asked } = upstreamWith(
    ({ url }) => url.hostname === "storage.example" ? new Response("content") : to(location),
    { redirects },
  );
  const handed = await request();
  assertEquals([handed.handOver?.href, handed.response.status], [location, 307]);
  assertEquals(asked.length, 1);
  const followed = await request({ redirects: "follow" });
  assertEquals([followed.handOver, await followed.response.text()], [undefined, "content"]);
});

Deno.test("a 401 of where a redirect led to is not the registry's: no token goes there", async () => {
  const { request, asked, ...all } = upstreamWith(({ url }) =>
    url.hostname === "cdn.example" ? unauthorized() : to("https://cdn.example/")
  );
  const answer = await request({ credential: ann });
  assertEquals([answer.response.status, asked.length, all.tokens], [401, 2, 0]);
});

Deno.test("a registry's base path is put before what it is asked for", async () => {
  const registry = registryOf("corp", new URL("https://corp.example/registry/"));
  const { request, asked } = upstreamWith(() => new Response());
  await request({ registry, path: "/v2/a/tags/list?n=5" });
  assertEquals(asked[0]!.url.href, "https://corp.example/registry/v2/a/tags/list?n=5");
});

Deno.test("a registry that cannot be reached counts as down for ten seconds, or until it answers", async () => {
  let error: OciError | undefined = new OciError("UNAVAILABLE", "Cannot reach", {
    status: 504,
    cause: new Error("No answer"),
  });
  const { upstream, request, pass } = upstreamWith(() => error ?? new Response());
  assertEquals(upstream.isDown(HUB), false);
  await assertRejects(() => request(), OciError);
  assertEquals(upstream.isDown(HUB), true);
  pass(9_999);
  assertEquals(upstream.isDown(HUB), true);
  pass(1);
  assertEquals(upstream.isDown(HUB), false);

  await assertRejects(() => request(), OciError);
  error = undefined;
  await request();
  assertEquals(upstream.isDown(HUB), false);
});

Deno.test("what a client chose does not make a registry count as down", async () => {
  const error = new OciError("UNAVAILABLE", "Cannot reach", { cause: new Error("reset") });
  const operator = { username: "operator", password: "s" };
  const registry = registryOf("hub", HUB.url, { credentials: [operator] });
  const theirs: Partial<UpstreamRequest>[] = [
    { credential: own },
    { credential: ann },
    { credential: { kind: "basic", ...operator, password: "a guess" } },
    { fromClient: true },
  ];
  for (const request of theirs) {
    const it = upstreamWith(() => error);
    await assertRejects(() => it.request({ registry, ...request }), OciError);
    assertEquals(it.upstream.isDown(registry), false);
  }
  for (const credential of [ANONYMOUS, { kind: "basic", ...operator } as const]) {
    const it = upstreamWith(() => error);
    await assertRejects(() => it.request({ registry, credential }), OciError);
    assertEquals(it.upstream.isDown(registry), true);
  }
});

Deno.test("a registry that was down when the clock was set back is asked again", async () => {
  const error = new OciError("UNAVAILABLE", "Cannot reach", { cause: new Error("reset") });
  const { upstream, request, pass } = upstreamWith(() => error);
  await assertRejects(() => request(), OciError);
  pass(-1);
  assertEquals(upstream.isDown(HUB), false);
});

Deno.test("a registry is not down because it redirects to where nobody goes", async () => {
  for (const location of ["ftp://cdn.example/", "https://u:p@cdn.example/", "/round"]) {
    const { upstream, request } = upstreamWith(() => to(location));
    await assertRejects(() => request(), OciError);
    assertEquals(upstream.isDown(HUB), false, location);
  }
});

Deno.test("a registry that refuses or limits is not down", async () => {
  for (const status of [401, 403, 404, 429, 500]) {
    const { upstream, request } = upstreamWith(() => new Response(null, { status }));
    assertEquals((await request()).response.status, status);
    assertEquals(upstream.isDown(HUB), false);
  }
});

Deno.test("an answer says since when its credential has been known to be good", async () => {
  const { request, pass } = upstreamWith(guarded);
  assertEquals((await request({ credential: ann })).provedAt, 1_000_000);
  pass(30_000);
  assertEquals((await request({ credential: ann })).provedAt, 1_000_000);
  pass(30_000);
  assertEquals((await request({ credential: ann })).provedAt, 1_060_000);
  assertEquals((await request({ credential: own })).provedAt, undefined);
});

Deno.test("every answer of the registry's own is reported, with who asked, and nobody else's", async () => {
  const seen: [string, number][] = [];
  const { request } = upstreamWith(
    (entry) => entry.url.hostname === "cdn.example" ? new Response() : to("https://cdn.example/"),
    { onAnswer: ({ credential }, { status }) => seen.push([credential.kind, status]) },
  );
  await request({ credential: own });
  assertEquals(seen, [["bearer", 307]]);
});

Deno.test("a client's headers are not changed by what is added for one hop", async () => {
  const headers = new Headers({ accept: "a/b" });
  const { request } = upstreamWith(guarded);
  await request({ headers });
  assert(!headers.has("authorization"));
});

/** A registry whose links to storage are numbered, and storage that answers each of them in turn. */
function withStorage(
  answers: readonly (number | Response)[],
  options: Partial<UpstreamOptions> = {},
) {
  const pauses: number[] = [];
  const left = [...answers];
  let links = 0;
  const all = upstreamWith(
    ({ url }) => {
      if (url.hostname !== "cdn.example") return to(`https://cdn.example/${++links}`);
      const next = left.shift() ?? 200;
      return typeof next === "number" ? new Response(null, { status: next }) : next;
    },
    { sleep: (ms) => Promise.resolve(void pauses.push(ms)), ...options },
  );
  return {
    ...all,
    pauses,
    /** What was asked: `R` the registry, or which of its links. */
    way: () => all.asked.map(({ url }) => url.hostname === "cdn.example" ? url.pathname : "R"),
  };
}

Deno.test("storage in passing trouble is asked again, by its link and then by a new one", async () => {
  for (const status of [429, 500, 502, 503, 504]) {
    const once = withStorage([status]);
    assertEquals((await once.request()).response.status, 200, `${status}`);
    assertEquals(once.way(), ["R", "/1", "/1"]);
    const twice = withStorage([status, status]);
    assertEquals((await twice.request()).response.status, 200, `${status}`);
    assertEquals(twice.way(), ["R", "/1", "/1", "R", "/2"]);
    const always = withStorage([status, status, status, status]);
    assertEquals((await always.request()).response.status, status);
    assertEquals(always.way(), ["R", "/1", "/1", "R", "/2"]);
    const [first, second] = always.pauses;
    assert(first! >= 200 && first! <= 400 && second! >= 400 && second! <= 800, `${always.pauses}`);
  }
});

Deno.test("storage that asks for patience gets it, up to five seconds", async () => {
  const wait = (after: string) =>
    new Response(null, { status: 503, headers: { "retry-after": after } });
  const { request, pauses } = withStorage([wait("3"), wait("3600")]);
  assertEquals((await request()).response.status, 200);
  assertEquals(pauses, [3_000, 5_000]);
});

Deno.test("a link that ended while storage was in trouble is asked for anew", async () => {
  const { request, way } = withStorage([503, 403]);
  assertEquals((await request()).response.status, 200);
  assertEquals(way(), ["R", "/1", "/1", "R", "/2"]);
});

Deno.test("what storage refuses is not asked again, and neither is trouble of the registry's own", async () => {
  for (const status of [400, 401, 403, 404, 416, 501]) {
    const { request, way } = withStorage([status]);
    assertEquals((await request()).response.status, status);
    assertEquals(way(), ["R", "/1"]);
  }
  for (const status of [429, 500, 502, 503, 504]) {
    const { request, asked } = upstreamWith(() => new Response(null, { status }));
    assertEquals((await request()).response.status, status);
    assertEquals(asked.length, 1);
  }
});

Deno.test("who leaves while storage is waited for waits no longer, and nothing more is asked", async () => {
  const leave = new AbortController();
  const { request, way } = withStorage([503], {
    sleep: () => {
      leave.abort(new Error("Left"));
      return new Promise(() => {});
    },
  });
  await assertRejects(() => request({ signal: leave.signal }), Error, "Left");
  assertEquals(way(), ["R", "/1"]);
});
