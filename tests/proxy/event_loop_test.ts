/**
 * No request keeps the event loop busy: each is refused, or answered, while others are served.
 */
import { assert, assertEquals, assertLess } from "@std/assert";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { connectionOf, openRaw, type RawConnection } from "../support/http.ts";
import { makeImage } from "../support/image.ts";
import { LISTENERS, startListener } from "../support/listeners.ts";
import { longestStall, stallBudget } from "../support/stall.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";
import { connectTls, testCertificate } from "../support/secure.ts";

const image = makeImage();

const get = (target: string, ...fields: string[]) =>
  ["GET " + target + " HTTP/1.1", "Host: localhost", ...fields, "", ""].join("\r\n");
const post = (body: string) =>
  [
    "POST /v2/auth HTTP/1.1",
    "Host: localhost",
    "Content-Type: application/x-www-form-urlencoded",
    `Content-Length: ${body.length}`,
    "",
    body,
  ].join("\r\n");
const many = (count: number, text: string) => Array<string>(count).fill(text);
const APP = "/v2/docker/team/app/manifests/1";

/** What each is refused with; by `Deno.serve` maybe with another status, since it reads the head by itself. */
const ATTACKS: Readonly<Record<string, { readonly bytes: string; readonly status: number }>> = {
  "thousands of scopes": {
    bytes: get(`/v2/auth?${many(15_000, "scope=a").join("&")}`),
    status: 431,
  },
  "a thousand scopes": {
    bytes: get(`/v2/auth?${many(1_000, "scope=a").join("&")}`),
    status: 400,
  },
  "thousands of scopes in one": {
    bytes: get(`/v2/auth?scope=${many(2_000, "ab").map((word, i) => word + i).join("+")}`),
    status: 400,
  },
  "a form of thousands of scopes": {
    bytes: post(
      `grant_type=password&username=a&password=b&${
        many(8_000, "scope=a").map((s, i) => s + i).join("&").slice(0, 60_000)
      }`,
    ),
    status: 400,
  },
  "a form of nothing but separators": { bytes: post("&=".repeat(30_000)), status: 400 },
  "a form of percent signs": {
    bytes: post(`grant_type=password&username=${"%25".repeat(20_000)}`),
    status: 400,
  },
  "a long ns": { bytes: get(`/v2/team/app/manifests/1?ns=${"+".repeat(60_000)}`), status: 431 },
  "an ns of blanks": {
    bytes: get(`/v2/team/app/manifests/1?ns=bearer${"+".repeat(8_000)}`),
    status: 404,
  },
  "an ns of half a token": {
    bytes: get(`/v2/team/app/manifests/1?ns=${"-eyJ".repeat(2_000)}`),
    status: 404,
  },
  "a credential of blanks": {
    bytes: get(APP, `Authorization: Bearer x${" ".repeat(60_000)}y`),
    status: 431,
  },
  "a shorter credential of blanks": {
    bytes: get(APP, `Authorization: Bearer x${" ".repeat(12_000)}y`),
    status: 401,
  },
  "a Basic credential of blanks": {
    bytes: get(APP, `Authorization: Basic ${"x ".repeat(6_000)}`),
    status: 401,
  },
  "thousands of header fields": { bytes: get(APP, ...many(9_800, "a: b")), status: 431 },
  "thousands of empty header fields": { bytes: get(APP, ...many(12_000, "a:")), status: 431 },
  "thousands of accepted types": { bytes: get(APP, `Accept: ${",".repeat(8_000)}`), status: 200 },
  "thousands of weights": { bytes: get(APP, `Accept: a/b${";q=0".repeat(2_000)}`), status: 404 },
  "thousands of entity tags": {
    bytes: get(APP, `If-None-Match: ${'"a",'.repeat(2_000)}`),
    status: 200,
  },
  "a path of thousands of parts": {
    bytes: get(`/v2/${"a/".repeat(15_000)}manifests/1`),
    status: 400,
  },
  "a path of hundreds of parts": { bytes: get(`/v2/${"a/".repeat(900)}manifests/1`), status: 400 },
  "a path of percent signs": { bytes: get(`/v2/${"%61".repeat(600)}/manifests/1`), status: 400 },
  "a digest without an end": {
    bytes: get(`/v2/docker/team/app/blobs/a:${"a".repeat(1_900)}`),
    status: 400,
  },
  "an algorithm without an end": {
    bytes: get(`/v2/docker/team/app/blobs/${"a+".repeat(900)}`),
    status: 400,
  },
  "a host of dots": {
    bytes: `GET ${APP} HTTP/1.1\r\nHost: ${"a.".repeat(4_000)}\r\n\r\n`,
    status: 400,
  },
};

/** How the bytes of a request reach the proxy. */
const DOORS: Readonly<Record<string, (proxy: TestProxy) => Promise<RawConnection>>> = {
  "in clear": ({ host }) => openRaw(host),
  "with TLS": async ({ port }) => connectionOf(await connectTls(port)),
};

for (const [door, open] of Object.entries(DOORS)) {
  Deno.test(`no request keeps the event loop busy, ${door}`, async (t) => {
    await using docker = await startFakeRegistry();
    docker.add("team/app", "1", image);
    const tls = door === "with TLS" ? await testCertificate() : undefined;
    const env = { TRUST_PROXY: "true" };
    await using proxy = await startTestProxy({ upstreams: { docker }, env, tls });
    const budget = stallBudget();
    for (const [name, { bytes, status }] of Object.entries(ATTACKS)) {
      await t.step(name, async () => {
        const attempt = async () => {
          const connection = await open(proxy);
          await connection.write(bytes).catch(() => {}); // it may be told off before it has said all
          const answer = await connection.answer();
          connection.close();
          return answer;
        };
        const answer = await attempt();
        assertEquals(answer.status, status);
        if (status >= 400) {
          const { errors } = JSON.parse(new TextDecoder().decode(answer.body));
          assert(errors[0].code);
          assertLess(answer.body.byteLength, 1_000);
        }
        assertLess(await longestStall(attempt), budget);
      });
    }
  });
}

const THROUGH_FETCH: Readonly<Record<string, readonly [string, RequestInit, number]>> = {
  "a hundred and one header fields": [
    "/v2/",
    { headers: Array.from({ length: 101 }, (_, i): [string, string] => [`x-${i}`, "a"]) },
    431,
  ],
  "a long Authorization": [
    "/v2/",
    { headers: { authorization: `Bearer ${"x".repeat(13_000)}` } },
    431,
  ],
  "a long Accept": [APP, { headers: { accept: ",".repeat(9_000) } }, 431],
  "a long query": [`/v2/auth?${many(1_500, "scope=a").join("&")}`, {}, 400],
  "a long path": [`/v2/${"a/".repeat(1_500)}manifests/1`, {}, 400],
  "seventeen scopes": [`/v2/auth?${many(17, "scope=a").join("&")}`, {}, 400],
  "seventeen scopes in a form": [
    "/v2/auth",
    {
      method: "POST",
      body: `grant_type=password&username=a&password=b&${many(17, "scope=a").join("&")}`,
    },
    400,
  ],
  "a long password in a form": [
    "/v2/auth",
    { method: "POST", body: `grant_type=password&username=a&password=${"x".repeat(8_000)}` },
    400,
  ],
};

for (const name of LISTENERS) {
  Deno.test(`what says too much is refused by ${name}, and others are served`, async (t) => {
    await using docker = await startFakeRegistry();
    docker.add("team/app", "1", image);
    await using listener = await startListener(name, { upstreams: { docker } });
    for (const [what, [path, init, status]] of Object.entries(THROUGH_FETCH)) {
      await t.step(what, async () => {
        const asked = docker.log.length;
        const answer = await listener.get(path, init);
        // HTTP/1 is read by Deno itself there, and by its own rules.
        if (name === "Deno's HTTP/1" && answer.status === 431 && !answer.body) return;
        assertEquals(answer.status, status);
        assert((await answer.json()).errors[0].code);
        assertEquals(docker.log.length, asked);
        const other = await listener.get(APP);
        assertEquals(other.status, 200);
        await other.body?.cancel();
      });
    }
  });
}

const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const filled = (part: string) => part.repeat(Math.floor((4 * 2 ** 20 - 200) / part.length));

/** What a registry may answer with: 4 MiB, the most that are read. */
const BODIES: Readonly<Record<string, string>> = {
  "arrays": `{"schemaVersion":2,"layers":[${filled("[[[]]],")}1]}`,
  "members": `{"schemaVersion":2,${
    Array.from({ length: 300_000 }, (_, i) => `"k${i}":1`).join(",")
  }}`,
  "layers": `{"schemaVersion":2,"layers":[${filled('{"digest":"a:b"},')}{}]}`,
  "manifests": `{"schemaVersion":2,"manifests":[${filled('{"digest":"x"},')}{}]}`,
  "brackets": filled("["),
  "text": `{"schemaVersion":2,"a":"${filled("\\n")}"}`,
};

Deno.test("no answer of a registry keeps the event loop busy", async (t) => {
  await using docker = await startFakeRegistry();
  docker.add("team/app", "1", image);
  await using proxy = await startTestProxy({ upstreams: { docker } });
  const budget = stallBudget();
  for (const kind of ["manifests/1", "tags/list", `referrers/${image.digest}`]) {
    for (const [name, body] of Object.entries(BODIES)) {
      await t.step(`${kind} of ${name}`, async () => {
        const headers = { "content-type": MANIFEST, "docker-content-digest": null };
        const rule = docker.faults.add({}, { status: 200, body, headers });
        // Another each time: what is known by now is not asked for again.
        let n = 0;
        const attempt = async () => {
          const path = `/v2/docker/team/app${n++}${name}/${kind}`;
          const connection = await openRaw(proxy.host);
          await connection.write(get(path));
          const { status } = await connection.answer({ stopAfter: 1 });
          connection.close();
          assert(status >= 200);
        };
        assertLess(await longestStall(attempt, 4), budget);
        rule.remove();
      });
    }
  }
});
