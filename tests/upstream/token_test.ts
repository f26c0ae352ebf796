import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { OciError } from "../../lib/oci/error.ts";
import { type Registry, registryOf } from "../../lib/oci/registry.ts";
import type { Credential } from "../../lib/transforms/auth.ts";
import type { SendRequest } from "../../lib/upstream/transport/send.ts";
import { basicAuthorization } from "../../lib/auth/credential.ts";
import { type Exchange, Tokens } from "../../lib/upstream/token.ts";

const HUB = registryOf("docker", new URL("https://registry-1.docker.io"));
const REALM = "https://auth.docker.io/token";
const BEARER = `Bearer realm="${REALM}",service="registry.docker.io"`;
const ANONYMOUS: Credential = { kind: "anonymous" };
const ann: Credential = { kind: "basic", username: "ann", password: "secret" };
const bob: Credential = { kind: "basic", username: "bob", password: "secret" };

/** One request that upstream saw. */
interface Asked extends SendRequest {
  readonly url: URL;
}

type Answer = Response | OciError | Record<string, unknown>;

/** Tokens whose realm gives `answer`, a JSON object with 200, to its `n`th request from 1. */
function tokensWith(options: {
  answer?: (n: number, asked: Asked) => Answer | Promise<Answer>;
  challenge?: string | null;
  ping?: () => Response | OciError;
} = {}) {
  const { answer = (n) => ({ token: `token-${n}` }), challenge = BEARER } = options;
  const asked: Asked[] = [];
  const pings: Asked[] = [];
  let now = 1_000_000;
  const ping = options.ping ?? (() =>
    new Response(null, {
      status: challenge === null ? 200 : 401,
      headers: challenge === null ? {} : { "www-authenticate": challenge },
    }));
  const tokens = new Tokens({
    allowPrivate: false,
    now: () => now,
    async send(url, request) {
      const isPing = url.pathname.endsWith("/v2/");
      const entry = { ...request, url };
      (isPing ? pings : asked).push(entry);
      const reply = isPing ? ping() : await answer(asked.length, entry);
      if (reply instanceof OciError) throw reply;
      const response = reply instanceof Response ? reply : Response.json(reply);
      return { response, abort() {} };
    },
  });
  return {
    tokens,
    asked,
    pings,
    pass: (ms: number) => void (now += ms),
    exchange: (
      { atLeast = 10_000, registry = HUB, ...exchange }: Partial<Exchange> & {
        atLeast?: number;
        registry?: Registry;
      } = {},
    ) => tokens.exchange(registry, { credential: ANONYMOUS, scopes: [], ...exchange }, { atLeast }),
  };
}

const PULL = ["repository:library/nginx:pull"] as const;

Deno.test("what a registry asks for is asked once, and again after an hour", async () => {
  const { tokens, pings, pass } = tokensWith();
  assertEquals(tokens.known(HUB), undefined);
  const requirements = await Promise.all([tokens.requirement(HUB), tokens.requirement(HUB)]);
  for (const requirement of requirements) {
    assertEquals(requirement, {
      scheme: "bearer",
      realm: new URL(REALM),
      service: "registry.docker.io",
    });
  }
  assertEquals(pings.map(({ url }) => url.href), ["https://registry-1.docker.io/v2/"]);
  pass(60 * 60_000);
  assertEquals(tokens.known(HUB), undefined);
  await tokens.requirement(HUB);
  assertEquals(pings.length, 2);
});

Deno.test("a registry that lets everybody in, or answers otherwise, needs no token", async () => {
  for (const status of [200, 404, 403]) {
    const { tokens } = tokensWith({ ping: () => new Response(null, { status }) });
    assertEquals(await tokens.requirement(HUB), { scheme: "none" });
  }
});

Deno.test("a registry in trouble is asked again next time, and not taken for an open one", async () => {
  for (const status of [429, 500, 503]) {
    const { tokens, pings } = tokensWith({ ping: () => new Response(null, { status }) });
    for (let i = 0; i < 2; i++) {
      const error = await assertRejects(() => tokens.requirement(HUB), OciError);
      assertEquals([error.status, error.code], [502, "UNAVAILABLE"]);
    }
    assertEquals(pings.length, 2);
  }
});

const CHALLENGES: readonly [challenge: string, scheme: string][] = [
  [`Basic realm="registry"`, "basic"],
  [`Basic realm="registry", ${BEARER}`, "bearer"],
  [`${BEARER}, Basic realm="registry"`, "bearer"],
  [`Negotiate abc==, ${BEARER}`, "bearer"],
  [`BEARER REALM="/token"`, "bearer"],
];

for (const [challenge, scheme] of CHALLENGES) {
  Deno.test(`the challenge ${challenge} asks for ${scheme}`, async () => {
    const { tokens } = tokensWith({ challenge });
    assertEquals((await tokens.requirement(HUB)).scheme, scheme);
  });
}

const BAD_CHALLENGES: readonly [challenge: string, why: string][] = [
  ["", "no usable challenge"],
  ["Digest realm=x", "no usable challenge"],
  ["Bearer service=x", "no usable challenge"],
  [`Bearer realm="https://[bad/"`, "no usable challenge"],
  [`Bearer realm="https://evil.example/token"`, "not on the registry's own domain"],
  [`Bearer realm="http://auth.docker.io/token"`, "http:// is not allowed"],
  [`Bearer realm="https://169.254.169.254/token"`, "private address"],
  [`Bearer realm="https://user:secret@auth.docker.io/token"`, "credentials in the URL"],
  [`Bearer realm="file:///etc/passwd"`, "file:// is not allowed"],
];

for (const [challenge, why] of BAD_CHALLENGES) {
  Deno.test(`the challenge ${challenge || "(none)"} gets nobody's credentials`, async () => {
    const { tokens, asked } = tokensWith({ challenge });
    const error = await assertRejects(() => tokens.requirement(HUB), OciError, why);
    assertEquals([error.status, tokens.known(HUB), asked.length], [502, undefined, 0]);
  });
}

Deno.test("no challenge makes it throw anything but its own error", async () => {
  const word = fc.constantFrom("Bearer", "Basic", "realm", "service", "=", ",", '"', "\\", " ");
  const text = fc.oneof(
    fc.stringMatching(/^[\x20-\x7e]*$/),
    fc.array(fc.oneof(word, fc.stringMatching(/^[\w:/.]*$/))).map((parts) => parts.join("")),
  );
  await fc.assert(fc.asyncProperty(text, async (challenge) => {
    const { tokens } = tokensWith({ challenge });
    try {
      await tokens.requirement(HUB);
    } catch (error) {
      assert(error instanceof OciError, String(error));
    }
  }));
});

Deno.test("a GET of the realm has service, every scope, and the account that asks", async () => {
  const { exchange, asked } = tokensWith({
    challenge: `Bearer realm="${REALM}?tenant=a",service="registry.docker.io"`,
  });
  const scopes = [...PULL, "repository:library/redis:pull"];
  await exchange({ credential: ann, scopes, extra: { client_id: "docker" } });
  const [{ url, method, headers, body }] = asked as [Asked];
  assertEquals(url.origin + url.pathname, REALM);
  assertEquals([...url.searchParams], [
    ["tenant", "a"],
    ["client_id", "docker"],
    ["service", "registry.docker.io"],
    ["scope", scopes[0]!],
    ["scope", scopes[1]!],
    ["account", "ann"],
  ]);
  assertEquals([method, body], ["GET", undefined]);
  assertEquals(headers.get("authorization"), basicAuthorization("ann", "secret"));
});

Deno.test("nobody's token is asked for with nobody's credentials", async () => {
  const { exchange, asked } = tokensWith();
  await exchange({ scopes: PULL });
  assertEquals(asked[0]!.headers.has("authorization"), false);
  assertEquals(asked[0]!.url.searchParams.has("account"), false);
});

Deno.test("a grant goes as a form, with the registry's service, and not in the URL", async () => {
  const { exchange, asked } = tokensWith();
  const grant = { grant_type: "password", username: "ann", password: "secret" };
  await exchange({ credential: ann, scopes: PULL, extra: { client_id: "x" }, grant });
  const [{ url, method, headers, body }] = asked as [Asked];
  assertEquals([method, url.href], ["POST", REALM]);
  assertEquals(headers.get("content-type"), "application/x-www-form-urlencoded");
  assertEquals(Object.fromEntries(new URLSearchParams(body)), {
    client_id: "x",
    ...grant,
    service: "registry.docker.io",
    scope: PULL[0],
  });
});

Deno.test("a token is used again while it lives, for the same scopes in any order", async () => {
  const { exchange, asked, pass } = tokensWith({
    answer: (n) => ({ token: `token-${n}`, expires_in: 200 }),
  });
  const scopes = [...PULL, "repository:library/redis:pull"];
  const first = await exchange({ scopes });
  const again = await exchange({ scopes: scopes.toReversed() });
  assertEquals([first.token, again.token, asked.length], ["token-1", "token-1", 1]);
  pass(190_000); // ten seconds are left
  assertEquals((await exchange({ scopes })).token, "token-1");
  pass(1);
  assertEquals((await exchange({ scopes })).token, "token-2");
});

/** Whatever makes a token another one. */
const OTHERS: Readonly<Record<string, Partial<Exchange> & { registry?: Registry }>> = {
  "another scope": { scopes: ["repository:library/redis:pull"] },
  "more scopes": { scopes: [...PULL, "repository:library/redis:pull"] },
  "another action": { scopes: ["repository:library/nginx:pull,push"] },
  "another credential": { credential: bob },
  "another password": { credential: { ...ann, password: "other" } },
  "no credential": { credential: ANONYMOUS },
  "a refresh token as well": { extra: { offline_token: "true" } },
  "a grant": { grant: { grant_type: "refresh_token", refresh_token: "r" } },
  "another registry": { registry: registryOf("other", new URL("https://other.docker.io")) },
};

for (const [name, other] of Object.entries(OTHERS)) {
  Deno.test(`${name} means another token`, async () => {
    const { exchange, asked } = tokensWith();
    const one = { credential: ann, scopes: PULL };
    const tokens = [await exchange(one), await exchange({ ...one, ...other }), await exchange(one)];
    assertEquals(tokens.map(({ token }) => token), ["token-1", "token-2", "token-1"]);
    assertEquals(asked.length, 2);
  });
}

Deno.test("another realm or service of the registry means another token", async () => {
  const { tokens, exchange, asked } = tokensWith();
  await exchange({ scopes: PULL });
  for (const service of [`,service="registry.docker.io"`, `,service="a"`, ""]) {
    const challenge = `Bearer realm="${REALM}2"${service}`;
    await tokens.learn(HUB, new Headers({ "www-authenticate": challenge }));
    await exchange({ scopes: PULL });
  }
  assertEquals(asked.map(({ url }) => [url.pathname, url.searchParams.get("service")]), [
    ["/token", "registry.docker.io"],
    ["/token2", "registry.docker.io"],
    ["/token2", "a"],
    ["/token2", null],
  ]);
});

Deno.test("who asks at the same time for the same gets the same, also when it fails", async () => {
  const gate = Promise.withResolvers<Answer>();
  const { exchange, asked } = tokensWith({ answer: () => gate.promise });
  const all = [exchange({ scopes: PULL }), exchange({ scopes: PULL })];
  const other = exchange({ scopes: PULL, credential: ann });
  gate.resolve(new OciError("UNAVAILABLE", "Cannot reach auth.docker.io"));
  for (const one of [...all, other]) await assertRejects(() => one, OciError, "Cannot reach");
  assertEquals(asked.length, 2);
});

Deno.test("who needs a token that lives for longer gets a new one", async () => {
  const { exchange, pass } = tokensWith();
  assertEquals((await exchange({ atLeast: 60_000 })).token, "token-1");
  assertEquals((await exchange({ atLeast: 60_000 })).token, "token-1");
  pass(1000);
  assertEquals((await exchange({ atLeast: 10_000 })).token, "token-1");
  assertEquals((await exchange({ atLeast: 60_000 })).token, "token-2");
});

/** What a realm may say of a token's life, and the seconds that are then told and used. */
const LIVES: readonly [answer: Record<string, unknown>, told: number, used: number][] = [
  [{}, 60, 60],
  [{ expires_in: 300 }, 300, 300],
  [{ expires_in: 100 }, 100, 100],
  // Not reused for so long: a credential may be revoked, a repository become private.
  [{ expires_in: 3600 }, 3600, 300],
  [{ expires_in: 1e300 }, 86_400, 300],
  [{ expires_in: 0 }, 60, 60],
  [{ expires_in: -5 }, 60, 60],
  [{ expires_in: "300" }, 60, 60],
  [{ expires_in: null }, 60, 60],
];

for (const [answer, told, used] of LIVES) {
  Deno.test(`with ${JSON.stringify(answer)} a token is told to live for ${told} s and used for ${used} s`, async () => {
    const { exchange, asked, pass } = tokensWith({ answer: () => ({ token: "t", ...answer }) });
    const token = await exchange();
    assertEquals(token.expiresAt - token.issuedAt, told * 1000);
    pass(used * 1000 - 10_000);
    await exchange();
    assertEquals(asked.length, 1);
    pass(1);
    await exchange();
    assertEquals(asked.length, 2);
  });
}

const ANSWERS: readonly [answer: Record<string, unknown>, token: string][] = [
  [{ token: "a" }, "a"],
  [{ access_token: "b" }, "b"],
  [{ token: "a", access_token: "b" }, "a"],
  [{ token: null, access_token: "b" }, "b"],
];

for (const [answer, expected] of ANSWERS) {
  Deno.test(`the token in ${JSON.stringify(answer)} is ${expected}`, async () => {
    assertEquals((await tokensWith({ answer: () => answer }).exchange()).token, expected);
  });
}

const UNREADABLE: Readonly<Record<string, string>> = {
  "nothing": "",
  "no JSON": "<html>",
  "null": "null",
  "a list": "[]",
  "no token": "{}",
  "a token that is a number": `{"token":1}`,
  "an empty token": `{"token":""}`,
  "a token with a line end": `{"token":"a\\r\\nx-evil: 1"}`,
  "a token with a space": `{"token":"a b"}`,
  "a token beyond ASCII": `{"token":"é"}`,
};

for (const [name, body] of Object.entries(UNREADABLE)) {
  Deno.test(`${name} for a token answer is 502`, async () => {
    const { exchange } = tokensWith({ answer: () => new Response(body) });
    const error = await assertRejects(() => exchange(), OciError, "cannot be read");
    assertEquals([error.status, error.code], [502, "UNAVAILABLE"]);
  });
}

Deno.test("no token answer makes it throw anything but its own error, and what it returns fits a header", async () => {
  const answer = fc.oneof(
    fc.json(),
    fc.string(),
    fc.record({ token: fc.anything(), access_token: fc.anything(), expires_in: fc.anything() })
      .map((value) => {
        try {
          return JSON.stringify(value);
        } catch {
          return "{}";
        }
      }),
  );
  await fc.assert(fc.asyncProperty(answer, async (body) => {
    const { exchange } = tokensWith({ answer: () => new Response(body) });
    try {
      const { token, expiresAt, issuedAt } = await exchange();
      new Headers({ authorization: `Bearer ${token}` });
      assert(expiresAt > issuedAt && Number.isFinite(expiresAt));
    } catch (error) {
      assert(error instanceof OciError, String(error));
    }
  }));
});

Deno.test("a token answer is read up to 64 KiB, and not on", async () => {
  let chunks = 0;
  const endless = () =>
    new ReadableStream<Uint8Array<ArrayBuffer>>({
      pull(controller) {
        chunks++;
        controller.enqueue(new Uint8Array(16 * 1024).fill(0x20));
      },
    }, { highWaterMark: 0 });
  const { exchange } = tokensWith({ answer: () => new Response(endless()) });
  const error = await assertRejects(() => exchange(), OciError, "larger than 65536 bytes");
  assertEquals([error.status, chunks], [502, 5]);
});

const REFUSALS: readonly [realm: number, status: number, code: string][] = [
  [400, 400, "UNSUPPORTED"],
  [401, 401, "UNAUTHORIZED"],
  [403, 401, "UNAUTHORIZED"],
  [404, 404, "UNSUPPORTED"],
  [405, 405, "UNSUPPORTED"],
  [429, 429, "TOOMANYREQUESTS"],
  [500, 502, "UNAVAILABLE"],
  [503, 502, "UNAVAILABLE"],
  [302, 502, "UNAVAILABLE"],
];

for (const [realm, status, code] of REFUSALS) {
  Deno.test(`the realm's ${realm} is ${status} ${code}, and is not remembered`, async () => {
    const headers = { location: "https://evil.example/", "retry-after": "7" };
    const { exchange, asked } = tokensWith({
      answer: (n) => n === 1 ? new Response("{}", { status: realm, headers }) : { token: "t" },
    });
    const error = await assertRejects(() => exchange({ credential: ann }), OciError);
    assertEquals([error.status, error.code], [status, code]);
    assertEquals(error.headers, status === 429 ? { "retry-after": "7" } : undefined);
    assertEquals((await exchange({ credential: ann })).token, "t");
    assert(asked.every(({ url }) => url.hostname === "auth.docker.io"));
  });
}

Deno.test("a token is known to be nobody's where it was given for no credential, and only there", async () => {
  const { tokens, exchange } = tokensWith();
  const nobodys = await exchange({ scopes: PULL });
  const anns = await exchange({ scopes: PULL, credential: ann });
  const granted = await exchange({ grant: { grant_type: "refresh_token", refresh_token: "r" } });
  assertEquals(
    [nobodys, anns, granted].map(({ token }) => tokens.isAnonymous(token)),
    [true, false, false],
  );
  assertEquals(tokens.isAnonymous("never seen"), false);
});

Deno.test("what goes into a request depends on what is required and who asks", async () => {
  const { tokens } = tokensWith();
  const bearer = await tokens.requirement(HUB);
  const own: Credential = { kind: "bearer", token: "own" };
  const of = async (scheme: "none" | "basic" | "bearer", credential: Credential) => {
    const requirement = scheme === "bearer" ? bearer : { scheme };
    return (await tokens.authorization(HUB, { credential, requirement, scope: PULL[0] }))?.value;
  };
  const basic = basicAuthorization("ann", "secret");
  assertEquals([await of("none", ann), await of("none", own)], [undefined, undefined]);
  assertEquals([await of("basic", ANONYMOUS), await of("basic", ann)], [undefined, basic]);
  assertEquals(await of("bearer", own), "Bearer own");
  assertEquals([await of("bearer", ANONYMOUS), await of("bearer", ann)], [
    "Bearer token-1",
    "Bearer token-2",
  ]);
});

Deno.test("an authorization says since when it has been known to be good", async () => {
  const { tokens, pass } = tokensWith({ answer: () => ({ token: "t", expires_in: 300 }) });
  const requirement = await tokens.requirement(HUB);
  const ask = (renew?: boolean) =>
    tokens.authorization(HUB, { credential: ann, requirement, scope: PULL[0], renew });
  assertEquals((await ask())?.issuedAt, 1_000_000);
  pass(100_000);
  assertEquals((await ask())?.issuedAt, 1_000_000);
  assertEquals((await ask(true))?.issuedAt, 1_100_000);
  const own: Credential = { kind: "bearer", token: "own" };
  assertEquals(
    await tokens.authorization(HUB, { credential: own, requirement }),
    { value: "Bearer own" },
  );
});

Deno.test("a Basic login is right where the registry says so", async () => {
  const statuses = [200, 401, 403, 429, 503];
  const outcomes = await Promise.all(statuses.map(async (status) => {
    const { tokens, pings } = tokensWith({ ping: () => new Response(null, { status }) });
    const outcome = await tokens.verifyBasic(HUB, "Basic x").then(() => 200, (e) => e.status);
    assertEquals(pings[0]!.headers.get("authorization"), "Basic x");
    return outcome;
  }));
  assertEquals(outcomes, [200, 401, 401, 429, 502]);
});
