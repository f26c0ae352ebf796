/**
 * Registries, realms and storage that mean ill or are broken: the proxy connects to nowhere else, waits and
 * buffers within bounds, keeps nothing that is wrong, and goes on.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { makeCertificate } from "../support/certificate.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { basicHeader } from "../support/fake_token.ts";
import type { Fault } from "../support/faults.ts";
import { type Whole, whole } from "../support/http.ts";
import { type HttpServer, startHttpServer } from "../support/http_server.ts";
import { makeArtifact, makeImage, type Manifest } from "../support/image.ts";
import { startProxy } from "../support/proxy_process.ts";
import { captureLogs } from "../support/logs.ts";
import { startTestProxy } from "../support/proxy.ts";
import { toolTest } from "../support/requirements.ts";
import { tempDir } from "../support/temp.ts";

const USERS = { ann: "ann's password" };
const image = makeImage({ seed: 1, layers: [3000, 300_000] });
const [SMALL, LARGE] = image.layers.map(({ digest }) => digest) as [string, string];

async function startAll(
  { auth = "none", env = {} }: { auth?: "none" | "token"; env?: Record<string, string> } = {},
) {
  const docker = await startFakeRegistry({ auth, users: USERS });
  docker.add("team/app", "1", image);
  docker.add("team/app", undefined, makeArtifact(image));
  const proxy = await startTestProxy({ upstreams: { docker }, env });
  return {
    docker,
    proxy,
    get: (path: string, init: RequestInit = {}) => whole(`${proxy.url}/v2/team/app/${path}`, init),
    /** Files in the cache folder's `blobs`, and all their bytes. */
    async stored() {
      const files: { name: string; size: number }[] = [];
      const walk = async (dir: string): Promise<void> => {
        for await (const { name, isDirectory } of Deno.readDir(dir)) {
          const path = `${dir}/${name}`;
          if (isDirectory) await walk(path);
          else files.push({ name, size: (await Deno.stat(path)).size });
        }
      };
      await walk(`${proxy.cacheDir}/blobs`);
      return files;
    },
    async [Symbol.asyncDispose]() {
      await proxy.close();
      await docker.close();
    },
  };
}

const TAG = "manifests/1";
const PATHS: Readonly<Record<string, string>> = {
  "a tag": TAG,
  "a manifest by digest": `manifests/${image.digest}`,
  "a blob": `blobs/${SMALL}`,
  "a list of tags": "tags/list",
  "a list of referrers": `referrers/${image.digest}`,
};

/** The error in an answer, which has its code and no secret in it. */
function errorOf(
  answer: Whole,
  status: number,
): { code: string; message: string; detail: unknown } {
  assertEquals(answer.status, status, answer.text);
  assert(!answer.text.includes("secret"), answer.text);
  return answer.json.errors[0];
}

/** A server that nobody may connect to, and ways to write where it is. */
async function startVictim() {
  const servers: HttpServer[] = [await startHttpServer(() => ({ status: 200, headers: [] }))];
  const { port } = servers[0]!;
  try {
    const handle = () => ({ status: 200, headers: [] });
    servers.push(await startHttpServer(handle, { hostname: "::1", port }));
  } catch {
    // No IPv6 here.
  }
  return {
    port,
    get accepted() {
      return servers.reduce((sum, { accepted }) => sum + accepted, 0);
    },
    async [Symbol.asyncDispose]() {
      for (const server of servers) await server.close();
    },
  };
}

const PRIVATE_HOSTS = [
  "127.0.0.1",
  "127.1",
  "127.0.0.1.",
  "127.7.7.7",
  "2130706433",
  "0x7f000001",
  "0x7f.0x0.0x0.0x1",
  "017700000001",
  "0177.0.0.1",
  "0.0.0.0",
  "0",
  "[::1]",
  "[::]",
  "[0:0:0:0:0:0:0:1]",
  "[::ffff:127.0.0.1]",
  "[::ffff:7f00:1]",
  "[::127.0.0.1]",
  "[64:ff9b::7f00:1]",
  "[2002:7f00:1::1]",
  "%31%32%37.0.0.1",
  "１２７.0.0.1",
  "localhost",
  "LOCALHOST",
  "169.254.169.254",
  "10.1.2.3",
  "172.16.0.1",
  "192.168.1.1",
  "100.100.100.200",
  "[fe80::1]",
  "[fd00:ec2::254]",
];

Deno.test("no redirect to a private address is followed, however it is written", async () => {
  await using all = await startAll();
  await using victim = await startVictim();
  const { docker, get } = all;
  for (const host of PRIVATE_HOSTS) {
    for (const scheme of ["http", "https"]) {
      const location = `${scheme}://${host}:${victim.port}/latest/meta-data?key=secret`;
      const fault = docker.faults.add({}, { status: 307, headers: { location } });
      for (const path of Object.values(PATHS)) {
        for (const method of ["GET", "HEAD"]) {
          const answer = await get(path, { method });
          assertEquals([location, path, answer.status], [location, path, 502]);
          if (method === "GET") {
            assertMatch(errorOf(answer, 502).message, /^(Refusing to connect|Unusable redirect)/);
          }
        }
      }
      fault.remove();
    }
  }
  assertEquals(victim.accepted, 0);
  // Nor has anybody been turned away for good.
  for (const path of Object.values(PATHS)) assertEquals((await get(path)).status, 200);
});

Deno.test("no realm at a private address or on a foreign domain gets a request, let alone credentials", async () => {
  await using victim = await startVictim();
  const realms = [
    ...PRIVATE_HOSTS.map((host) => `http://${host}:${victim.port}/token`),
    "https://auth.docker.io/token",
    "https://evil.example/token",
    "ftp://evil.example/token",
    "file:///etc/passwd",
    "//evil.example/token",
    "",
  ];
  await using all = await startAll({ auth: "token" });
  const { docker, proxy, get } = all;
  for (const realm of realms) {
    docker.control.realm = realm;
    for (const authorization of [undefined, basicHeader("ann", USERS.ann), "Bearer anns"]) {
      const headers = authorization ? { authorization } : undefined;
      const answer = await get(TAG, { headers });
      assertEquals([realm, answer.status], [realm, 502]);
    }
    const token = await whole(`${proxy.url}/v2/auth`, {
      headers: { authorization: basicHeader("ann", USERS.ann) },
    });
    assertEquals([realm, token.status], [realm, 502]);
  }
  assertEquals(victim.accepted, 0);
  const passwords = docker.log.filter(({ headers }) =>
    /^basic/i.test(headers.get("authorization") ?? "")
  );
  assertEquals(passwords, []);
});

Deno.test("a realm with credentials of its own in it, on the registry's own origin, is refused too", async () => {
  await using all = await startAll({ auth: "token" });
  const { docker, get } = all;
  docker.control.realm = docker.url.replace("//", "//user:secret@") + "/token";
  assertMatch(errorOf(await get(TAG), 502).message, /credentials in the URL/);
  assertEquals(docker.tokenRequests, 0);
});

const LOCATIONS: Readonly<Record<string, (origin: string) => string | null>> = {
  "ftp": () => "ftp://evil.example/secret",
  "a file": () => "file:///etc/secret",
  "data": () => "data:application/json,{}",
  "a script": () => "javascript:secret",
  "credentials of a foreign host": () => "https://user:secret@evil.example/",
  "credentials of the registry's own": (origin) => origin.replace("//", "//user:secret@") + "/x",
  "no URL": () => "http://[secret",
  "nothing": () => "",
  "no Location": () => null,
};

for (const [name, locationOf] of Object.entries(LOCATIONS)) {
  Deno.test(`a redirect to ${name} is 502`, async () => {
    await using all = await startAll();
    const { docker, get } = all;
    for (const status of [301, 302, 303, 307, 308]) {
      const headers = { location: locationOf(docker.url) };
      const fault = docker.faults.add({}, { status, headers });
      for (const path of Object.values(PATHS)) {
        const before = docker.log.length;
        const error = errorOf(await get(path), 502);
        assertEquals([error.code, docker.log.length - before], ["UNAVAILABLE", 1]);
      }
      fault.remove();
    }
  });
}

Deno.test("redirects in a circle end after ten", async () => {
  await using all = await startAll();
  const { docker, get } = all;
  docker.faults.add({}, { status: 302, headers: { location: "/v2/round/and/round" } });
  for (const path of Object.values(PATHS)) {
    const before = docker.log.length;
    assertMatch(errorOf(await get(path), 502).message, /more than 10 times/);
    assertEquals(docker.log.length - before, 11);
  }
});

toolTest("nothing leads from https to plain http, also where private networks are allowed", {
  needs: ["openssl"],
  async fn() {
    await using dir = await tempDir();
    const certificate = await makeCertificate(dir.path);
    await using victim = await startVictim();
    await using docker = await startFakeRegistry({ auth: "token", tls: certificate });
    docker.add("team/app", "1", image);
    await using proxy = await startProxy({
      env: {
        UPSTREAM_DOCKER: docker.url,
        ALLOW_PRIVATE_NETWORKS: "true",
        DENO_CERT: certificate.caPath,
      },
    });
    const url = `${proxy.url}/v2/team/app/${TAG}`;
    docker.control.realm = `http://127.0.0.1:${victim.port}/token`;
    assertMatch(errorOf(await whole(url), 502).message, /http:\/\/ is not allowed/);
    docker.control.realm = `${docker.url}/token`;
    const location = `http://127.0.0.1:${victim.port}/`;
    const fault = docker.faults.add({ kind: "manifest" }, { status: 307, headers: { location } });
    assertEquals(errorOf(await whole(url), 502).message, "Unusable redirect from upstream");
    fault.remove();
    const token = await whole(`${proxy.url}/v2/auth?scope=repository:team/app:pull`);
    const headers = { authorization: `Bearer ${token.json.token}` };
    assertEquals((await whole(url, { headers })).digest, image.digest);
    assertEquals(victim.accepted, 0);
  },
});

Deno.test("an evil upstream costs nobody what is in the cache", async () => {
  await using all = await startAll({ env: { CACHE_MANIFEST_TTL: "0s" } });
  const { docker, get } = all;
  await get(TAG);
  const faults: Fault[] = [
    { status: 307, headers: { location: "http://169.254.169.254/" } },
    { status: 307, headers: { location: "/v2/round" } },
    { status: 200, body: "<html>Please log in</html>", headers: { "content-type": "text/html" } },
    { status: 200, headers: { "docker-content-digest": null }, endless: true },
    { status: 999 },
    { hangUp: true },
    { hugeHeaders: 2 ** 20 },
  ];
  for (const fault of faults) {
    const rule = docker.faults.add({}, fault);
    const answer = await get(TAG);
    const got = [answer.status, answer.digest, answer.headers.get("x-cache")];
    assertEquals(got, [200, image.digest, "STALE"], JSON.stringify(fault));
    rule.remove();
  }
});

Deno.test("a token answer of a gigabyte is not read, announced or not", async () => {
  await using all = await startAll({ auth: "token" });
  const { docker, proxy, get } = all;
  for (
    const fault of [{ endless: true }, { contentLength: 2 ** 30 }, { body: " ".repeat(70_000) }]
  ) {
    const rule = docker.faults.add({ kind: "token" }, fault);
    assertMatch(errorOf(await get(TAG), 502).message, /larger than 65536 bytes/);
    const token = await whole(`${proxy.url}/v2/auth`);
    assertMatch(errorOf(token, 502).message, /larger than 65536 bytes/);
    rule.remove();
  }
  const tokens = docker.log.filter(({ kind }) => kind === "token");
  // What was on its way when the connection was closed; the kernel's buffers hold some megabytes.
  for (const { bytes } of tokens) assert(bytes < 32 * 2 ** 20, `${bytes} bytes were sent`);
  assertEquals((await get(TAG)).digest, image.digest);
});

/** An image whose manifest has this many bytes. */
function imageOfSize(size: number): Manifest {
  const short = makeImage({ annotations: { pad: "" } });
  return makeImage({ annotations: { pad: "x".repeat(size - short.size) } });
}

Deno.test("a manifest may have 4 MiB and not a byte more, announced or not, by tag and by digest", async () => {
  await using all = await startAll();
  const { docker, get, stored } = all;
  const most = imageOfSize(4 * 2 ** 20);
  docker.add("team/app", "most", most);
  assertEquals((await get("manifests/most")).digest, most.digest);
  const before = await stored();
  for (const size of [4 * 2 ** 20 + 1, 5 * 2 ** 20]) {
    const large = imageOfSize(size);
    docker.add("team/app", "large", large);
    for (const contentLength of [undefined, null]) {
      const rule = docker.faults.add({ kind: "manifest", method: "GET" }, { contentLength });
      for (const reference of ["large", large.digest]) {
        const error = errorOf(await get(`manifests/${reference}`), 502);
        assertMatch(error.message, /larger than 4194304 bytes/);
      }
      rule.remove();
    }
  }
  assertEquals(await stored(), before);
});

Deno.test("what is compressed although nobody asked for it reaches clients as it was", async () => {
  await using all = await startAll({ auth: "token" });
  const { docker, proxy, get } = all;
  const plain: Record<string, string> = {};
  const { json } = await whole(`${proxy.url}/v2/auth?scope=repository:team/app:pull`);
  const headers = { authorization: `Bearer ${json.token}` };
  for (const [what, path] of Object.entries(PATHS)) {
    plain[what] = (await get(path, { headers })).digest;
  }
  await using fresh = await startTestProxy({ upstreams: { docker } });
  await using passing = await startTestProxy({
    upstreams: { docker },
    env: { CACHE_ENABLED: "false" },
  });
  for (const { url } of [fresh, passing]) {
    for (const kind of ["token", "manifest", "tags", "referrers"]) {
      docker.faults.add({ kind, method: "GET" }, { gzip: true });
    }
    const token = await whole(`${url}/v2/auth?scope=repository:team/app:pull`);
    const headers = { authorization: `Bearer ${token.json.token}` };
    for (const [what, path] of Object.entries(PATHS)) {
      const answer = await whole(`${url}/v2/team/app/${path}`, { headers });
      assertEquals([what, answer.digest], [what, plain[what]!]);
      assertEquals([what, answer.headers.get("content-encoding")], [what, null]);
    }
  }
});

Deno.test("a wrong Content-Type of a manifest does not become what it is", async () => {
  for (const type of ["text/html", "application/octet-stream", null]) {
    await using all = await startAll({ env: { CACHE_MANIFEST_TTL: "0s" } });
    const { docker, get } = all;
    const rule = docker.faults.add({ kind: "manifest" }, { headers: { "content-type": type } });
    const headers = { accept: image.mediaType };
    for (let i = 0; i < 2; i++) {
      for (const method of ["HEAD", "GET"]) {
        for (const path of [TAG, PATHS["a manifest by digest"]!]) {
          const answer = await get(path, { method, headers });
          const got = [answer.status, answer.headers.get("content-type")];
          assertEquals(got, [200, image.mediaType], `${method} ${path} as ${type}`);
        }
      }
      rule.remove();
    }
  }
});

Deno.test("an object that nothing says is a manifest is 502 for a tag, and is not kept", async () => {
  await using all = await startAll();
  const { docker, get, stored } = all;
  const headers = { "docker-content-digest": null, "content-type": "application/json" };
  const body = `{"status":"down for maintenance"}`;
  const rule = docker.faults.add({ kind: "manifest" }, { body, headers });
  for (const method of ["GET", "HEAD"]) assertEquals((await get(TAG, { method })).status, 502);
  rule.remove();
  assertEquals(await stored(), []);
  docker.faults.add({ kind: "manifest" }, { headers });
  assertEquals((await get(TAG)).digest, image.digest);
});

const NO_MANIFESTS: Readonly<Record<string, string>> = {
  "a login page": "<html>Please log in</html>",
  "nothing": "",
  "half a manifest": `{"schemaVersion":2,"layers":[`,
  "a list": "[]",
  "a text": `"manifest"`,
  "bytes that are no text": "{\xff\xfe}",
};

for (const [name, body] of Object.entries(NO_MANIFESTS)) {
  Deno.test(`${name} in place of a manifest is 502, and is not kept`, async () => {
    await using all = await startAll();
    const { docker, get, stored } = all;
    const bytes = Uint8Array.from(body, (char) => char.charCodeAt(0));
    const rule = docker.faults.add({ kind: "manifest" }, {
      body: bytes,
      headers: { "docker-content-digest": null },
    });
    for (const reference of ["1", image.digest]) {
      for (const method of ["GET", "HEAD"]) {
        const { status } = await get(`manifests/${reference}`, { method });
        assertEquals([method, reference, status], [method, reference, 502]);
      }
    }
    assertEquals(await stored(), []);
    rule.remove();
    assertEquals((await get(TAG)).digest, image.digest);
  });
}

Deno.test("a manifest that is not what its digest or upstream's own header says is 502, counted, and not kept", async () => {
  using logs = await captureLogs();
  await using all = await startAll();
  const { docker, proxy, get, stored } = all;
  const other = `sha256:${"0".repeat(64)}`;
  const faults: Fault[] = [{ headers: { "docker-content-digest": other } }, { corruptAt: 100 }];
  for (const [i, fault] of faults.entries()) {
    const rule = docker.faults.add({ kind: "manifest", method: "GET" }, fault);
    const error = errorOf(await get(TAG), 502);
    assertMatch(error.message, /other content than the digest says/);
    assertEquals(proxy.stats.cacheEvents.get("mismatch"), i + 1);
    const told = logs.find(/sent wrong bytes/).map(({ level }) => level);
    assertEquals(told, Array(i + 1).fill("error"));
    rule.remove();
  }
  const rule = docker.faults.add({ kind: "manifest" }, { corruptAt: 100 });
  errorOf(await get(`manifests/${image.digest}`), 502);
  rule.remove();
  assertEquals(await stored(), []);
  // A header that is no digest says nothing.
  docker.faults.add({ kind: "manifest" }, { headers: { "docker-content-digest": "evil\tdigest" } });
  const answer = await get(TAG);
  assertEquals([answer.digest, answer.headers.get("docker-content-digest")], [
    image.digest,
    image.digest,
  ]);
});

for (const status of [101, 204, 205, 206, 300, 304, 305, 600, 999]) {
  Deno.test(`status ${status} for an answer is 502 or what it was, and harms nobody`, async () => {
    await using all = await startAll();
    const { docker, get, stored } = all;
    const rule = docker.faults.add({}, { status, body: "odd" });
    for (const [what, path] of Object.entries(PATHS)) {
      for (const method of ["GET", "HEAD"]) {
        const { status: got } = await get(path, { method });
        // Lists and answers to a HEAD have no bytes that could be wrong.
        const isPassed = what.includes("list") || method === "HEAD";
        assert(got === 502 || isPassed && got >= 200 && got < 300, `${method} ${what} is ${got}`);
      }
    }
    assertEquals(await stored(), []);
    rule.remove();
    for (const path of Object.values(PATHS)) assertEquals((await get(path)).status, 200);
  });
}

Deno.test("100 KB of headers are no trouble and not passed on, a megabyte is 502", async () => {
  await using all = await startAll({ env: { CACHE_ENABLED: "false" } });
  const { docker, get } = all;
  for (const [hugeHeaders, status] of [[100_000, 200], [2 ** 20, 502]] as const) {
    const rule = docker.faults.add({}, { hugeHeaders });
    for (const [what, path] of Object.entries(PATHS)) {
      const answer = await get(path);
      assertEquals([what, answer.status, answer.headers.has("x-padding")], [what, status, false]);
    }
    rule.remove();
  }
});

Deno.test("a manifest or a list that never ends is cut off, one that never comes is 504", async () => {
  await using all = await startAll({ env: { UPSTREAM_IDLE_TIMEOUT: "0.2s" } });
  const { docker, get } = all;
  const endless = docker.faults.add({}, { endless: true });
  for (const what of ["a tag", "a manifest by digest", "a list of referrers"]) {
    assertMatch(errorOf(await get(PATHS[what]!), 502).message, /larger than 4194304 bytes/);
  }
  endless.remove();
  for (const stallAt of [0, 10]) {
    const rule = docker.faults.add({}, { stallAt });
    for (const what of ["a tag", "a manifest by digest"]) {
      const error = errorOf(await get(PATHS[what]!), 504);
      assertEquals([error.code, error.detail], ["UNAVAILABLE", { cause: "No data for 0.2 s" }]);
    }
    rule.remove();
  }
});

Deno.test("a list that stands still is 504 at its beginning and breaks off later, and upstream's connection is given up", async () => {
  await using all = await startAll({ env: { UPSTREAM_IDLE_TIMEOUT: "0.2s" } });
  const { docker, get, proxy } = all;
  docker.faults.add({}, { stallAt: 5 });
  for (const url of [`${proxy.url}/v2/team/app/tags/list`, `${proxy.url}/v2/_catalog`]) {
    assertEquals((await whole(url)).status, 504);
  }
  docker.faults.clear();
  const tags = Array.from({ length: 5_000 }, (_, i) => `a-tag-with-a-rather-long-name-${i}`);
  const body = JSON.stringify({ name: "team/app", tags });
  docker.faults.add({}, { body, stallAt: 150_000 });
  const response = await fetch(`${proxy.url}/v2/team/app/tags/list`);
  assertEquals(response.status, 200);
  assertEquals(await response.text().then(() => "whole", () => "broken"), "broken");
  docker.faults.clear();
  assertEquals((await get("tags/list")).status, 200);
  const ends = docker.log.filter(({ kind }) => kind === "tags" || kind === "catalog").map((
    { end },
  ) => end);
  assertEquals(ends, ["left", "left", "left", "complete"]);
});

Deno.test("a blob that never comes is given up after some attempts", async () => {
  await using all = await startAll({ env: { UPSTREAM_IDLE_TIMEOUT: "0.05s" } });
  const { docker, get, stored } = all;
  docker.faults.add({ reference: LARGE }, { stallAt: 0 });
  const got = await get(`blobs/${LARGE}`).then(({ status }) => status, () => "broken");
  assert(got === "broken" || got === 502 || got === 504, `${got}`);
  assert(docker.blobGets(LARGE) < 12);
  assertEquals(await stored(), []);
});

/** The bytes of all files in a folder. */
function sizeOf(dir: string): number {
  return [...Deno.readDirSync(dir)].reduce((sum, { name }) => {
    return sum + Deno.statSync(join(dir, name)).size;
  }, 0);
}

Deno.test("a blob that never ends is bounded by the cache, and nothing of it is kept", async () => {
  await using all = await startAll({ env: { CACHE_MAX_SIZE: "8MiB" } });
  const { docker, proxy, get, stored } = all;
  docker.faults.add({ reference: LARGE }, { endless: true });
  const response = await fetch(`${proxy.url}/v2/team/app/blobs/${LARGE}`);
  let read = 0;
  let onDisk = 0;
  try {
    for await (const chunk of response.body!) {
      read += chunk.byteLength;
      onDisk = Math.max(onDisk, sizeOf(join(proxy.cacheDir, "fills")));
      if (read > 64 * 2 ** 20) break;
    }
  } catch {
    // Broken off: the client knows that it is not whole.
  }
  assert(onDisk > 2 ** 20 && onDisk <= 8 * 2 ** 20, `${onDisk} bytes`);
  assertEquals(await stored(), []);
  assertEquals((await get(TAG)).status, 200);
});

Deno.test("an error whose body never ends, or never comes, is told by its status", async () => {
  await using all = await startAll();
  const { docker, get } = all;
  for (const status of [403, 404, 429, 500]) {
    const rule = docker.faults.add({}, { status, endless: true });
    for (const path of Object.values(PATHS)) {
      errorOf(await get(path), status === 500 ? 502 : status);
    }
    rule.remove();
  }
});

/** What is between upstream and this proxy, or this proxy's own to say. */
const NOT_FOR_CLIENTS: readonly (readonly [name: string, value: string])[] = [
  ["set-cookie", "session=secret"],
  ["set-cookie", "other=secret"],
  ["connection", "x-hop"],
  ["x-hop", "secret"],
  ["keep-alive", "timeout=5"],
  ["proxy-authenticate", "Basic"],
  ["proxy-authentication-info", "secret"],
  ["trailer", "x-trailer"],
  ["upgrade", "h2c"],
  ["te", "trailers"],
  ["ratelimit-limit", "100;w=21600"],
  ["ratelimit-remaining", "7;w=21600"],
  ["docker-ratelimit-source", "192.0.2.1"],
  ["x-ratelimit-remaining", "7"],
  ["www-authenticate", "Basic realm=evil"],
  ["authentication-info", "secret"],
  ["access-control-allow-origin", "*"],
  ["strict-transport-security", "max-age=31536000"],
  ["alt-svc", `h3=":443"`],
  ["clear-site-data", `"*"`],
  ["refresh", "0; url=https://evil.example/"],
  ["link", `<https://evil.example/v2/team/app/tags/list?last=x>; rel="next"`],
  ["location", "https://evil.example/"],
  ["content-disposition", "attachment"],
  ["x-cache", "HIT from evil"],
  ["age", "77777"],
  ["warning", "199 evil"],
  ["via", "1.1 evil"],
  ["server", "evil"],
];
/** Of these the proxy says its own. */
const OWN: ReadonlySet<string> = new Set(["x-cache", "age", "connection"]);

Deno.test("cookies, hop-by-hop and rate-limit headers are not replayed: missed, hit, stale, passed through or failed", async () => {
  const settings: Record<string, string>[] = [
    {},
    { CACHE_MANIFEST_TTL: "0s" },
    { CACHE_ENABLED: "false" },
  ];
  for (const env of settings) {
    await using all = await startAll({ env });
    const { docker, proxy, get } = all;
    const extraHeaders = NOT_FOR_CLIENTS;
    docker.faults.add({ reference: "missing" }, { extraHeaders, status: 404 });
    docker.faults.add({ reference: "limited" }, { extraHeaders, status: 429 });
    docker.faults.add({ reference: "failing" }, { extraHeaders, status: 500 });
    docker.faults.add({}, { extraHeaders });
    const paths = [
      ...Object.values(PATHS),
      "manifests/missing",
      "manifests/limited",
      "manifests/failing",
      `blobs/sha256:${"0".repeat(64)}`,
    ];
    const check = async () => {
      for (const path of paths) {
        for (const method of ["GET", "HEAD", "GET"]) {
          const { headers } = await get(path, { method });
          for (const [name, value] of NOT_FOR_CLIENTS) {
            const told = headers.get(name);
            if (OWN.has(name)) assert(told !== value, `${method} ${path}: ${name}: ${told}`);
            else assertEquals(told, null, `${method} ${path}: ${name}`);
          }
        }
      }
      const { headers } = await whole(`${proxy.url}/v2/_catalog`);
      for (const [name] of NOT_FOR_CLIENTS) assert(OWN.has(name) || !headers.has(name), name);
    };
    await check();
    await check();
    docker.control.failWith = 503;
    await check();
  }
});

Deno.test("what an upstream says in an error is passed on as text, and nothing of it becomes a header", async () => {
  await using all = await startAll();
  const { docker, get } = all;
  const message = "line\r\nx-evil: 1\r\n\r\n<script>";
  const errors = [{ code: "</script>", message, detail: { "x-evil": message } }];
  docker.faults.add({}, { status: 403, body: JSON.stringify({ errors }) });
  const answer = await get(TAG);
  const error = errorOf(answer, 403);
  assertEquals([error.code, error.message, answer.headers.has("x-evil")], [
    "DENIED",
    message,
    false,
  ]);
  assertEquals(answer.headers.get("content-type"), "application/json");
});
