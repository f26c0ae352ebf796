import { assertEquals, assertRejects } from "@std/assert";
import { Access, type Caller, memoryMarks } from "../../lib/auth/access.ts";
import { OciError } from "../../lib/oci/error.ts";
import { type Registry, registryOf, type RegistryOptions } from "../../lib/oci/registry.ts";
import type { Credential } from "../../lib/transforms/auth.ts";
import type { Target } from "../../lib/transforms/route.ts";
import {
  type AskOptions,
  RegistryClient,
  repositoryKey,
  upstreamPath,
} from "../../lib/upstream/registry_client.ts";
import { Upstream, type UpstreamRequest } from "../../lib/upstream/client.ts";
import { Tokens } from "../../lib/upstream/token.ts";

const ann: Credential = { kind: "basic", username: "ann", password: "secret" };
const own: Credential = { kind: "bearer", token: "own" };
const ANONYMOUS: Credential = { kind: "anonymous" };
const service = { username: "service", password: "s" };
const second = { username: "second", password: "s" };

/** What upstream answers: a status of the registry's own, or one of where it redirects to. */
type Reply = number | { readonly status: number; readonly by: string } | OciError;

/** An asker whose upstream answers `reply`, and what it was asked. */
function askerWith(
  reply: (request: UpstreamRequest, n: number) => Reply,
  options: RegistryOptions & { without?: string } = {},
) {
  const registry = registryOf("corp", new URL("https://registry.example"), options);
  const target: Target = {
    registry,
    repository: "team/app",
    kind: "manifest",
    reference: "v1",
    base: "/v2/",
    prefix: "",
  };
  const asked: UpstreamRequest[] = [];
  const used: string[] = [];
  let provedAt: number | undefined;
  let now = 1_000_000;
  const tokens = new Tokens({
    send: () => Promise.reject(new Error("Unused")),
    allowPrivate: true,
  });
  class Fake extends Upstream {
    // deno-lint-ignore require-await -- as the real one it rejects, and never throws
    override async request(request: UpstreamRequest) {
      asked.push(request);
      const { credential } = request;
      used.push(credential.kind === "basic" ? credential.username : credential.kind);
      const answer = reply(request, asked.length);
      if (answer instanceof OciError) throw answer;
      const { status, by } = typeof answer === "number"
        ? { status: answer, by: "https://registry.example" }
        : answer;
      const headers = { location: "https://cdn.example/", ...MANIFEST };
      const response = new Response(null, { status, headers });
      if (options.without) response.headers.delete(options.without);
      return { response, url: new URL(`${by}/v2/`), provedAt, abort() {} };
    }
  }
  const send = () => Promise.reject(new Error("Unused"));
  const redirects = { followAll: true, blockedHosts: [], storageHosts: [] };
  let turn = 0;
  const access = new Access({
    marks: memoryMarks(),
    isAnonymousToken: () => false,
    chooseAccount: ({ credentials }: Registry) => credentials[turn++ % credentials.length],
    now: () => now,
  });
  const asker = new RegistryClient({ upstream: new Fake({ send, tokens, redirects }), access });
  const key = repositoryKey(target);
  return {
    access,
    asker,
    target,
    key,
    asked,
    used,
    caller: (credential: Credential) => access.caller(registry, credential),
    /** Asks, and takes the answer for proved. */
    async ask(credential: Credential, more: Partial<AskOptions> = {}) {
      const caller = access.caller(registry, credential);
      const answer = await asker.ask(target, { method: "GET", caller, ...more });
      await asker.proved({ target, caller }, answer);
      return answer;
    },
    mayRead: (credential: Credential) => access.mayRead(access.caller(registry, credential), key),
    pass: (ms: number) => void (now += ms),
    proveAt: (at: number) => void (provedAt = at),
  };
}

/** What a registry says of a manifest. */
const MANIFEST = {
  "content-type": "application/vnd.oci.image.manifest.v1+json",
  "content-length": "500",
  "docker-content-digest": `sha256:${"a".repeat(64)}`,
};

const HOUR = 60 * 60_000;
const MINUTE = 60_000;

Deno.test("what nobody in particular may read is public for an hour", async () => {
  const { ask, access, key, mayRead, pass } = askerWith(() => 200);
  assertEquals(await mayRead(ANONYMOUS), false);
  await ask(ANONYMOUS);
  assertEquals([await access.isPublic(key), await mayRead(own), await mayRead(ann)], [
    true,
    true,
    true,
  ]);
  pass(HOUR - 1);
  assertEquals(await mayRead(ANONYMOUS), true);
  pass(1);
  assertEquals(await mayRead(ANONYMOUS), false);
});

Deno.test("an answer lets nobody in by itself, whatever its status", async () => {
  for (const status of [200, 206, 307]) {
    const { asker, target, caller, access, key, mayRead } = askerWith(() => status);
    for (const credential of [ANONYMOUS, ann, own]) {
      for (const method of ["GET", "HEAD"] as const) {
        await asker.ask(target, { method, caller: caller(credential) });
      }
      assertEquals([await mayRead(credential), await access.isPublic(key)], [false, false]);
    }
  }
});

Deno.test("a proof of the future is none, and neither is a grant that outlives the clock", async () => {
  const { ask, access, key, caller, mayRead, proveAt, pass } = askerWith(() => 200);
  proveAt(1_000_000 + MINUTE);
  for (const credential of [ANONYMOUS, ann]) {
    await ask(credential);
    assertEquals(await mayRead(credential), false);
    assertEquals(await access.mayReadStale(caller(credential), key), false);
  }
  proveAt(1_000_000);
  for (const credential of [ANONYMOUS, ann]) await ask(credential);
  assertEquals([await mayRead(ANONYMOUS), await mayRead(ann)], [true, true]);
  pass(-MINUTE); // somebody sets the clock back
  assertEquals([await mayRead(ANONYMOUS), await mayRead(ann)], [false, false]);
  assertEquals(await access.mayReadStale(caller(ANONYMOUS), key), false);
});

/** What a client's own credential can bring upstream to. */
const TROUBLE: Readonly<Record<string, Reply>> = {
  "breaks the connection": new OciError("UNAVAILABLE", "Cannot reach", { cause: "reset" }),
  "makes it fail": 500,
  "uses up its pulls": 429,
};
for (const [what, trouble] of Object.entries(TROUBLE)) {
  Deno.test(`where a credential ${what} it gets nothing that was public once, unless it still is`, async () => {
    for (const credential of [ann, own]) {
      let anonymous: Reply = 200;
      const it = askerWith(({ credential }) =>
        credential.kind === "anonymous" ? anonymous : trouble
      );
      const { ask, asker, target, caller, asked, access, key } = it;
      await ask(ANONYMOUS);
      const question = { target, caller: caller(credential) };
      const error = await assertRejects(() => ask(credential), OciError);
      assertEquals(await asker.mayServeStale(question, { error }), true);
      assertEquals(asked.at(-1)!.credential, ANONYMOUS);
      anonymous = 503; // for everybody
      assertEquals(await asker.mayServeStale(question, { error }), true);
      anonymous = 401; // private by now
      assertEquals(await asker.mayServeStale(question, { error }), false);
      assertEquals(await access.mayReadStale(caller(ANONYMOUS), key), false);
    }
  });
}

Deno.test("what a client's headers and query bring upstream to is asked for without them before anything follows", async () => {
  let reply: Reply = 200;
  const { ask, asker, target, caller, asked } = askerWith(() => reply);
  await ask(ANONYMOUS);
  const error = new OciError("UNAVAILABLE", "Cannot reach");
  const question = { target, caller: caller(ANONYMOUS) };
  reply = 401;
  assertEquals(await asker.mayServeStale(question, { error }), true);
  assertEquals(asked.length, 1);
  assertEquals(await asker.mayServeStale(question, { error, fromClient: true }), false);
  assertEquals(asked.length, 2);
});

Deno.test("who was let in lately need not wait for what others would be told", async () => {
  const { ask, asker, target, caller, asked } = askerWith(() => 200);
  await ask(ann);
  const error = new OciError("UNAVAILABLE", "Cannot reach");
  assertEquals(await asker.mayServeStale({ target, caller: caller(ann) }, { error }), true);
  assertEquals(asked.length, 1);
});

for (const [name, credential] of Object.entries({ ann, "a token": own })) {
  Deno.test(`what ${name} may read is granted to it alone, for five minutes`, async () => {
    const { ask, mayRead, access, key, pass } = askerWith(() => 200);
    await ask(credential);
    assertEquals(await mayRead(credential), true);
    assertEquals(await access.isPublic(key), false);
    const others: Credential[] = [
      ANONYMOUS,
      { kind: "bearer", token: "other" },
      { kind: "basic", username: "ann", password: "other" },
      { kind: "basic", username: "bob", password: "secret" },
    ];
    for (const other of others) assertEquals(await mayRead(other), false);
    pass(5 * MINUTE - 1);
    assertEquals(await mayRead(credential), true);
    pass(1);
    assertEquals(await mayRead(credential), false);
  });
}

Deno.test("a grant is for one repository of one registry", async () => {
  const { ask, caller, access, key } = askerWith(() => 200);
  await ask(ann);
  for (
    const other of [
      { ...key, repository: "team/other" },
      { ...key, repository: "team/app/sub" },
      { ...key, registry: "registry.example:5000" },
    ]
  ) assertEquals(await access.mayRead(caller(ann), other), false);
});

Deno.test("a proof counts from when its token was given", async () => {
  const { ask, mayRead, proveAt, pass } = askerWith(() => 200);
  pass(10 * MINUTE);
  proveAt(1_000_000 + 10 * MINUTE - 4 * MINUTE);
  await ask(ann);
  pass(MINUTE - 1);
  assertEquals(await mayRead(ann), true);
  pass(1);
  assertEquals(await mayRead(ann), false);
  proveAt(1_000_000);
  await ask(ann);
  assertEquals(await mayRead(ann), false);
});

const REFUSALS: readonly [reply: Reply, isRefused: boolean, why: string][] = [
  [401, true, "the registry's 401"],
  [403, true, "the registry's 403"],
  [new OciError("UNAUTHORIZED", "The realm"), true, "the realm's 401"],
  [{ status: 401, by: "https://cdn.example" }, true, "a 401 of where it redirects to"],
  [{ status: 403, by: "https://cdn.example" }, false, "an expired URL of storage's"],
  [404, false, "what does not exist"],
  [429, false, "a limit"],
  [500, false, "a fault"],
  [new OciError("UNAVAILABLE", "Cannot reach"), false, "an outage"],
];

for (const [reply, isRefused, why] of REFUSALS) {
  const what = isRefused ? "takes the access away" : "leaves the access as it is";
  Deno.test(`${why} ${what}, for nobody in particular and for a credential`, async () => {
    for (const credential of [ANONYMOUS, ann]) {
      let answer: Reply = 200;
      const { ask, mayRead } = askerWith(() => answer);
      await ask(credential);
      answer = reply;
      await assertRejects(() => ask(credential), OciError);
      assertEquals(await mayRead(credential), !isRefused);
    }
  });
}

Deno.test("that a credential is refused says nothing of what is public", async () => {
  const { ask, mayRead } = askerWith(({ credential }) =>
    credential.kind === "anonymous" ? 200 : 401
  );
  await ask(ANONYMOUS);
  await assertRejects(() => ask(ann), OciError);
  assertEquals(await mayRead(ANONYMOUS), true);
});

Deno.test("while upstream is away what was public stays readable, and a grant ends all the same", async () => {
  const { ask, caller, access, key, pass } = askerWith(() => 200);
  await ask(ann);
  assertEquals(await access.mayReadStale(caller(ann), key), true);
  pass(5 * MINUTE);
  assertEquals(await access.mayReadStale(caller(ann), key), false);
  await ask(ANONYMOUS);
  pass(365 * 24 * HOUR);
  for (const credential of [ANONYMOUS, ann, own]) {
    assertEquals(await access.mayReadStale(caller(credential), key), true);
  }
});

Deno.test("the operator's account is used for what everybody may read, and opens nothing", async () => {
  let isPublic = false;
  const reply = ({ credential }: UpstreamRequest) =>
    credential.kind === "basic" && credential.username === "service" || isPublic ? 200 : 401;
  const { ask, used, mayRead } = askerWith(reply, { credentials: [service] });
  await assertRejects(() => ask(ANONYMOUS), OciError);
  assertEquals([used.splice(0), await mayRead(ANONYMOUS)], [["anonymous"], false]);
  isPublic = true;
  await ask(ANONYMOUS);
  await ask(ANONYMOUS);
  assertEquals(used, ["anonymous", "service"]);
});

Deno.test("what the operator's account reads does not prove again that everybody may", async () => {
  const { ask, pass, access, key } = askerWith(() => 200, { credentials: [service] });
  await ask(ANONYMOUS);
  pass(HOUR - 1);
  await ask(ANONYMOUS); // with the account
  pass(1);
  assertEquals(await access.isPublic(key), false);
});

Deno.test("an account that is refused costs nobody what is public", async () => {
  const reply = ({ credential }: UpstreamRequest) => credential.kind === "basic" ? 401 : 200;
  const { ask, used, mayRead } = askerWith(reply, { credentials: [service] });
  await ask(ANONYMOUS);
  assertEquals((await ask(ANONYMOUS)).response.status, 200);
  assertEquals(used, ["anonymous", "service", "anonymous"]);
  assertEquals(await mayRead(ANONYMOUS), true);
});

Deno.test("a caller's own credential is never exchanged for the operator's", async () => {
  const { ask, used } = askerWith(() => 401, { credentials: [service], sharePrivate: true });
  for (const credential of [ann, own]) await assertRejects(() => ask(credential), OciError);
  assertEquals(used, ["ann", "bearer"]);
});

Deno.test("with SHARE_PRIVATE who brings nothing has what the operator's account has", async () => {
  const reply = ({ credential }: UpstreamRequest) => credential.kind === "basic" ? 200 : 401;
  const { ask, used, mayRead, caller, access, key, pass } = askerWith(reply, {
    credentials: [service],
    sharePrivate: true,
  });
  await ask(ANONYMOUS);
  assertEquals([used, await mayRead(ANONYMOUS)], [["service"], true]);
  assertEquals(await access.isPublic(key), false);
  assertEquals(await mayRead(ann), false);
  pass(HOUR);
  assertEquals(await access.mayReadStale(caller(ANONYMOUS), key), true);
  assertEquals(await access.mayReadStale(caller(ann), key), false);
});

Deno.test("an account whose pulls are used up gives way to its siblings, each once", async () => {
  const options = { credentials: [service, second] };
  const one = askerWith(
    ({ credential }) =>
      credential.kind === "basic" && credential.username === "service" ? 429 : 200,
    options,
  );
  await one.ask(ANONYMOUS);
  await one.ask(ANONYMOUS);
  assertEquals(one.used, ["anonymous", "service", "second"]);
  let isUp = true;
  const all = askerWith(() => isUp ? 200 : 429, options);
  await all.ask(ANONYMOUS);
  isUp = false;
  const error = await assertRejects(() => all.ask(ANONYMOUS), OciError);
  assertEquals([error.status, all.used.slice(1)], [429, ["service", "second"]]);
});

Deno.test("what only a credential has read is looked at for being public, by HEAD and as nobody", async () => {
  const { ask, asker, target, asked, mayRead } = askerWith(() => 200, {
    credentials: [service],
    sharePrivate: true,
  });
  await ask(ann);
  assertEquals(await mayRead(own), false);
  await asker.probePublic(target);
  assertEquals(await mayRead(own), true);
  const { method, credential, redirects } = asked[1]!;
  assertEquals([method, credential.kind, redirects], ["HEAD", "anonymous", "follow"]);
  await asker.probePublic(target);
  assertEquals(asked.length, 2);
});

Deno.test("a success that tells of no manifest proves nothing when it is looked at for being public", async () => {
  for (const name of Object.keys(MANIFEST)) {
    const { asker, target, mayRead } = askerWith(() => 200, { without: name });
    await asker.probePublic(target);
    assertEquals([name, await mayRead(ANONYMOUS)], [name, false]);
  }
});

Deno.test("whether it is public cannot always be learned, and that harms nobody", async () => {
  for (const reply of [401, 500, new OciError("UNAVAILABLE", "Cannot reach")]) {
    const { asker, target, mayRead } = askerWith(() => reply);
    await asker.probePublic(target);
    assertEquals(await mayRead(ANONYMOUS), false);
  }
});

Deno.test("closing gives up what is being learned", async () => {
  const { asker, target, asked } = askerWith(() => 200);
  let isOver = false;
  const learning = asker.probePublic(target).then(() => isOver = true);
  await asker.close();
  assertEquals([isOver, asked.map(({ signal }) => signal?.aborted)], [true, [true]]);
  await learning;
});

Deno.test("what does not exist for nobody in particular is not public, and trouble says nothing of it", async () => {
  let reply: number | OciError = 200;
  const { ask, asker, access, caller, key, target, pass } = askerWith(() => reply);
  await ask(ANONYMOUS);
  pass(60 * 60_000);
  for (reply of [405, 416, 429, 503, new OciError("UNAVAILABLE", "Cannot reach")]) {
    await asker.probePublic(target);
    assertEquals(await access.mayReadStale(caller(ANONYMOUS), key), true);
  }
  reply = 404;
  await asker.probePublic(target);
  assertEquals(await access.mayReadStale(caller(ANONYMOUS), key), false);
});

Deno.test("each kind of target has its path, and asks for a token for its repository", async () => {
  const { ask, asker, target, asked, caller } = askerWith(() => 200);
  const digest = `sha256:${"a".repeat(64)}`;
  const paths: Record<string, Partial<Target>> = {
    "/v2/team/app/manifests/v1": {},
    [`/v2/team/app/blobs/${digest}`]: { kind: "blob", reference: digest },
    [`/v2/team/app/referrers/${digest}`]: { kind: "referrers", reference: digest },
    "/v2/team/app/tags/list": { kind: "tags", reference: "" },
  };
  for (const [path, part] of Object.entries(paths)) {
    assertEquals(upstreamPath({ ...target, ...part }), path);
  }
  await ask(ann, { search: "?n=5" });
  const [{ path, scope, headers }] = asked as [UpstreamRequest];
  assertEquals([path, scope], ["/v2/team/app/manifests/v1?n=5", "repository:team/app:pull"]);
  assertEquals([...headers], [["accept-encoding", "identity"]]);
  const nobody: Caller = caller(ANONYMOUS);
  assertEquals([nobody.id, asker.isDown(target)], ["anonymous", false]);
});
