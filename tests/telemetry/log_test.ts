import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { canOwnTls } from "../../lib/server/listener.ts";
import { formatJson, formatText } from "../../lib/telemetry/log.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { startFakeStorage } from "../support/fake_storage.ts";
import { basicHeader } from "../support/fake_token.ts";
import { rawRequest, whole, wholeAt } from "../support/http.ts";
import { makeImage } from "../support/image.ts";
import { type ProxyProcess, startProxy } from "../support/proxy_process.ts";
import { testCertificate } from "../support/secure.ts";
import { freePort, tempDir } from "../support/temp.ts";

type Fields = Record<string, unknown>;

/** The log so far, as objects, once `count` request lines are there. */
async function jsonLines(proxy: ProxyProcess, count = 0): Promise<Fields[]> {
  const parsed = () =>
    proxy.logs().filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as Fields);
  for (let tries = 0; tries < 300 && requests(parsed()).length < count; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return parsed();
}

/** The one line that each request has at level info. */
function requests(lines: Fields[]): Fields[] {
  return lines.filter(({ level, logger }) =>
    level === "INFO" && String(logger).endsWith("request")
  );
}

function pick(fields: Fields, names: readonly string[]): Fields {
  return Object.fromEntries(names.map((name) => [name, fields[name]]));
}

const NAMES = ["method", "status", "registry", "repository", "reference", "kind", "bytes", "cache"];

/** What is answered to `text` until the connection ends. */
async function rawExchange({ port }: ProxyProcess, text: string): Promise<string> {
  using conn = await Deno.connect({ hostname: "127.0.0.1", port });
  await conn.write(new TextEncoder().encode(text));
  return await new Response(conn.readable).text();
}

Deno.test("each request is one line at info, with what was asked, answered, and where it came from", async () => {
  await using upstream = await startFakeRegistry();
  const image = makeImage({ layers: [3000] });
  upstream.add("team/app", "1", image);
  const [layer] = image.layers;
  await using proxy = await startProxy({
    env: { UPSTREAM_CORP: upstream.url, LOG_FORMAT: "json" },
    ready: "/healthz",
  });
  const base = `${proxy.url}/v2/corp/team/app`;
  await whole(`${base}/manifests/1`);
  await whole(`${base}/manifests/1`);
  await whole(`${base}/manifests/1`, { method: "HEAD" });
  await whole(`${base}/blobs/${layer!.digest}`);
  await whole(`${base}/blobs/${layer!.digest}`, { headers: { range: "bytes=0-9" } });
  await whole(`${base}/tags/list`);
  const missing = await whole(`${base}/manifests/none`);
  const token = await whole(`${proxy.url}/v2/auth?scope=repository:corp/team/app:pull`);
  const refused = await whole(`${base}/manifests/1`, { method: "DELETE" });

  const asked = requests(await jsonLines(proxy, 10)).filter(({ kind }) => kind !== "health");
  const about = { registry: "corp", repository: "team/app" };
  const manifest = { ...about, kind: "manifest", reference: "1" };
  const blob = { ...about, kind: "blob", reference: layer!.digest };
  const got = { method: "GET", status: 200 };
  assertEquals(asked.map((line) => pick(line, NAMES)), [
    { ...got, ...manifest, bytes: image.size, cache: "MISS" },
    { ...got, ...manifest, bytes: image.size, cache: "HIT" },
    { ...got, ...manifest, method: "HEAD", bytes: 0, cache: "HIT" },
    { ...got, ...blob, bytes: layer!.size, cache: "MISS" },
    { ...got, ...blob, status: 206, bytes: 10, cache: "HIT" },
    {
      ...pick({ ...got, ...about, kind: "tags", reference: "" }, NAMES),
      bytes: asked[5]!["bytes"],
    },
    {
      ...pick({ ...got, ...manifest, status: 404, reference: "none" }, NAMES),
      bytes: missing.bytes.byteLength,
    },
    {
      ...pick({ ...got, registry: "corp", kind: "token" }, NAMES),
      bytes: token.bytes.byteLength,
    },
    {
      ...pick({ method: "DELETE", status: 405, kind: "target" }, NAMES),
      bytes: refused.bytes.byteLength,
    },
  ]);
  for (const line of asked) {
    assertEquals(line["host"], proxy.host);
    assertEquals(line["client"], "127.0.0.1");
    assert(Number.isInteger(line["ms"]), `ms: ${line["ms"]}`);
    assertMatch(String(line["path"]), /^\/v2\/(corp\/team\/app\/|auth$)/);
  }
});

Deno.test("the text form says the same as key=value", async () => {
  await using upstream = await startFakeRegistry();
  const image = makeImage();
  upstream.add("team/app", "1", image);
  await using proxy = await startProxy({ env: { UPSTREAM_CORP: upstream.url } });
  await whole(`${proxy.url}/v2/corp/team/app/manifests/1`);
  const line = await proxy.log(/manifests/);
  assertMatch(
    line,
    /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info request GET \/v2\/corp\/team\/app\/manifests\/1 200 /,
  );
  for (
    const pair of [
      `host=${proxy.host}`,
      "kind=manifest",
      "registry=corp",
      "repository=team/app",
      "reference=1",
      `bytes=${image.size}`,
      "cache=MISS",
      "client=127.0.0.1",
    ]
  ) assert(line.split(" ").includes(pair), `${pair} is not in: ${line}`);
  assertMatch(line, / ms=\d+/);
});

Deno.test("a client that leaves is marked, with what it got and should have got", async () => {
  await using upstream = await startFakeRegistry();
  const image = makeImage({ layers: [200_000] });
  upstream.add("team/app", "1", image);
  const [layer] = image.layers;
  upstream.faults.add({ kind: "blob" }, { stallAt: 10_000 });
  await using proxy = await startProxy({
    env: { UPSTREAM_CORP: upstream.url, SHUTDOWN_TIMEOUT: "0s" },
  });
  const path = `/v2/corp/team/app/blobs/${layer!.digest}`;
  await rawRequest(proxy.host, { path, stopAfter: 100 });
  const line = await proxy.log(/ info request GET .*blobs/);
  assertMatch(line, / complete=false/);
  assertMatch(line, new RegExp(` length=${layer!.size}`));
  assert(Number(/ bytes=(\d+)/.exec(line)![1]) < layer!.size, line);
});

Deno.test("at debug a whole pull can be followed: route, upstream, redirect, cache", async () => {
  await using storage = await startFakeStorage();
  await using upstream = await startFakeRegistry({ auth: "token", storage });
  const image = makeImage();
  upstream.add("team/app", "1", image);
  const [layer] = image.layers;
  await using proxy = await startProxy({
    env: {
      UPSTREAM_CORP: upstream.url,
      ALLOW_PRIVATE_NETWORKS: "true",
      LOG_LEVEL: "debug",
      LOG_FORMAT: "json",
      CACHE_MANIFEST_TTL: "0s",
    },
  });
  const base = `${proxy.url}/v2/corp/team/app`;
  const { token } = (await whole(`${proxy.url}/v2/auth?scope=repository:corp/team/app:pull`)).json;
  const headers = { authorization: `Bearer ${token}` };
  await whole(`${base}/manifests/1`, { headers });
  await whole(`${base}/blobs/${layer!.digest}`, { headers });
  await whole(`${base}/blobs/${layer!.digest}`, { headers });
  await whole(`${base}/manifests/1`, { headers });
  const lines = await jsonLines(proxy, 6);
  const messages = lines.map((line) => String(line["message"]));
  const says = (pattern: RegExp) =>
    assert(
      messages.some((one) => pattern.test(one)),
      `${pattern} is not in:\n${messages.join("\n")}`,
    );

  says(/^corp asks for bearer$/);
  const realm = `${upstream.url}/token`;
  says(new RegExp(`^${realm} answers 200 to a request for a token$`));
  const exchange = lines.find((line) =>
    line["message"] === `${realm} answers 200 to a request for a token`
  )!;
  assertEquals(pick(exchange, ["scopes", "credential"]), {
    scopes: "repository:team/app:pull",
    credential: "anonymous",
  });
  const numbers = lines.filter(({ level, message }) =>
    level === "INFO" && String(message).startsWith("GET /v2/")
  ).map(({ id }) => id);
  assertEquals(new Set(numbers).size, 5, "each request has its number");
  assertEquals(exchange["id"], numbers[0]);
  const pulled = lines.find(({ message }) => /manifests\/1 answers 200$/.test(String(message)))!;
  assertEquals(pulled["id"], numbers[1]);
  says(/^Route of .*\/manifests\/1: target/);
  const route = lines.find((line) => /^Route of .*\/manifests\/1/.test(String(line["message"])))!;
  assertEquals(pick(route, ["registry", "target"]), { registry: "corp", target: "team/app" });
  says(new RegExp(`^GET ${upstream.url}/v2/team/app/manifests/1 answers 200$`));
  says(new RegExp(`^Redirect from ${upstream.host} to ${storage.host}: followed$`));
  const hop = lines.find((line) => String(line["message"]).startsWith("Redirect"))!;
  assertEquals(pick(hop, ["class", "status"]), { class: "other", status: 307 });
  says(/^Manifest 1 of team\/app: not here/);
  says(/^Manifest 1 of team\/app: here, older than its TTL/);
  says(new RegExp(`^Blob ${layer!.digest} of team/app: not here`));
  says(new RegExp(`^Blob ${layer!.digest} of team/app: here, and the caller may read it`));
});

Deno.test("a redirect that is handed to the client is logged as that, with its class", async () => {
  await using storage = await startFakeStorage();
  await using upstream = await startFakeRegistry({ storage });
  const image = makeImage();
  upstream.add("team/app", "1", image);
  // An address has no subdomains, so what is storage is said by name.
  upstream.control.location = (location) => location.replace(storage.host, "store.example");
  await using proxy = await startProxy({
    env: {
      UPSTREAM_CORP: upstream.url,
      STORAGE_HOSTS: "store.example",
      CACHE_ENABLED: "false",
      LOG_LEVEL: "debug",
    },
  });
  const { status } = await whole(
    `${proxy.url}/v2/corp/team/app/blobs/${image.layers[0]!.digest}`,
  );
  assertEquals(status, 307);
  const line = await proxy.log(/Redirect from/);
  assertMatch(line, /to store\.example: handed to the client id=\d+ status=307 class=storage/);
});

Deno.test("a request that fails says why in its own line, also where the client of a HEAD sees no body", async () => {
  await using upstream = await startFakeRegistry({ auth: "token", users: { ann: "right" } });
  const image = makeImage();
  upstream.add("team/open", "1", image);
  upstream.add("team/secret", "1", image, { readers: ["ann"] });
  const gone = `127.0.0.1:${freePort()}`;
  await using proxy = await startProxy({
    env: {
      UPSTREAM_CORP: upstream.url,
      UPSTREAM_GONE: `http://${gone}`,
      UPSTREAM_TLS: upstream.url.replace("http:", "https:").replace("127.0.0.1", "localhost"),
      LOG_FORMAT: "json",
    },
  });
  const head = { method: "HEAD" };
  const ask = (path: string, init: RequestInit = {}) => whole(`${proxy.url}/v2/${path}`, init);
  const auth = "http://corp.localhost/v2/auth?scope=repository:team/secret:pull";
  await wholeAt(new URL(proxy.url).host, auth, { authorization: basicHeader("ann", "wrong") });
  await ask("corp/team/secret/manifests/1", head);
  await ask("corp/team/open/manifests/none", head);
  await ask("gone/team/open/manifests/1", head);
  await ask("tls/team/open/manifests/1", head);
  upstream.control.redirectBlobs = "relative";
  upstream.control.location = () => "http://10.0.0.1/?signature=abc";
  await ask(`corp/team/open/blobs/${image.config.digest}`);
  upstream.control.failWith = 503;
  await ask("corp/team/open/manifests/2", head);

  const asked = requests(await jsonLines(proxy, 8)).filter(({ kind }) => kind !== "health");
  const tls = asked.splice(4, 1)[0]!;
  const { host } = upstream;
  assertEquals(asked.map((line) => pick(line, ["status", "code", "error", "detail"])), [
    {
      status: 401,
      code: "UNAUTHORIZED",
      error: "The registry refused the credentials",
      detail: { registry: host, status: 401 },
    },
    { status: 401, code: "UNAUTHORIZED", error: "Authentication required", detail: undefined },
    { status: 404, code: "MANIFEST_UNKNOWN", error: "Not found", detail: undefined },
    {
      status: 502,
      code: "UNAVAILABLE",
      error: `Cannot reach ${gone}`,
      detail: { host: gone, cause: (asked[3]!["detail"] as Fields)["cause"] },
    },
    {
      status: 502,
      code: "UNAVAILABLE",
      error: "Refusing to connect: a private address",
      detail: { host: "10.0.0.1" },
    },
    {
      status: 502,
      code: "UNAVAILABLE",
      error: `${host} answers 503`,
      detail: { host, status: 503 },
    },
  ]);
  assertMatch(String((asked[3]!["detail"] as Fields)["cause"]), /refused/i);
  assertEquals(tls["status"], 502);
  assertMatch(
    JSON.stringify(tls["detail"]),
    /certificate|handshake|InvalidContentType|corrupt|tls/i,
  );
});

Deno.test("what is no request has its line too, with nothing of what it was", async () => {
  await using proxy = await startProxy({ env: { LOG_FORMAT: "json" } });
  const answer = await rawExchange(proxy, "GET /v2/S3cr3t HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n");
  assertMatch(answer, /^HTTP\/1\.1 400 /);
  await proxy.log(/Refused/);
  const line = JSON.parse(proxy.logs().find((one) => one.includes("Refused"))!);
  assertEquals(pick(line, ["status", "client", "error"]), {
    status: 400,
    client: "127.0.0.1",
    error: "Exactly one Host is needed",
  });
  assert(!proxy.logs().join("\n").includes("S3cr3t"));
});

Deno.test("a client that tries https first is told of at debug alone", async () => {
  const lines: Fields[] = [];
  for (const LOG_LEVEL of ["info", "debug"]) {
    await using proxy = await startProxy({ env: { LOG_FORMAT: "json", LOG_LEVEL } });
    const answer = await rawExchange(proxy, "\x16\x03\x01\x02");
    assertMatch(answer, /^HTTP\/1\.1 400 /);
    await proxy.stop();
    lines.push(
      ...(await jsonLines(proxy)).filter(({ message }) => /Refused/.test(String(message))),
    );
  }
  assertEquals(lines.map((line) => pick(line, ["level", "error"])), [
    { level: "DEBUG", error: "TLS, and only plain http is spoken here" },
  ]);
});

Deno.test("over TLS a line says which host was asked, and at debug why a handshake failed", async () => {
  await using dir = await tempDir();
  const { ca, cert, key } = await testCertificate();
  const [TLS_CERT, TLS_KEY] = [join(dir.path, "cert.pem"), join(dir.path, "key.pem")];
  await Deno.writeTextFile(TLS_CERT, cert);
  await Deno.writeTextFile(TLS_KEY, key);
  await using proxy = await startProxy({
    env: { TLS_CERT, TLS_KEY, LOG_FORMAT: "json", LOG_LEVEL: "debug" },
  });
  const host = `localhost:${proxy.port}`;
  using client = Deno.createHttpClient({ caCerts: [ca] });
  assertEquals((await whole(`https://${host}/health`, { client })).status, 200);
  // Its client does not know the authority.
  await assertRejects(() => fetch(`https://${host}/health`));
  await rawExchange(proxy, "GET / HTTP/1.1\r\n\r\n").catch(() => {});
  await proxy.stop();
  const lines = await jsonLines(proxy);
  assertEquals(requests(lines).map((line) => line["host"]), [host]);
  if (!canOwnTls()) return; // Deno serves it, and tells nothing of it
  const failed = lines.filter(({ message }) =>
    /^TLS with 127\.0\.0\.1 failed/.test(String(message))
  );
  assertEquals(failed.length, 2);
  assertMatch(String(failed[0]!["cause"]), /UnknownCA/);
});

Deno.test("what a registry repeats of a credential is not in the line", async () => {
  await using upstream = await startFakeRegistry();
  const said = "Bearer S3cr3t-token of eyJhbGciOi.S3cr3t.sig at /x?sig=S3cr3t is no good";
  upstream.faults.add({ kind: "manifest" }, {
    status: 403,
    body: JSON.stringify({ errors: [{ code: "DENIED", message: said, detail: { said } }] }),
  });
  await using proxy = await startProxy({
    env: { UPSTREAM_CORP: upstream.url, LOG_FORMAT: "json" },
  });
  await whole(`${proxy.url}/v2/corp/team/app/manifests/1`);
  const line = requests(await jsonLines(proxy, 2)).at(-1)!;
  const without = "Bearer … of … at /x?… is no good";
  assertEquals([line["error"], line["detail"]], [without, { said: without }]);
});

Deno.test("no secret is in the log, whatever its level, and none in an error", async () => {
  const secret = (what: string) => `S3cr3t-${what}`;
  await using storage = await startFakeStorage();
  await using upstream = await startFakeRegistry({
    auth: "token",
    storage,
    users: { alice: secret("alice"), service: secret("service") },
  });
  await using basic = await startFakeRegistry({ auth: "basic", users: { bob: secret("bob") } });
  const image = makeImage();
  upstream.add("team/app", "1", image, { readers: ["alice"] });
  upstream.add("team/open", "1", image);
  basic.add("team/app", "1", image);
  await using proxy = await startProxy({
    env: {
      UPSTREAM_CORP: upstream.url,
      UPSTREAM_CORP_USERNAME: "service",
      UPSTREAM_CORP_PASSWORD: secret("service"),
      UPSTREAM_OLD: basic.url,
      ALLOW_PRIVATE_NETWORKS: "true",
      LOG_LEVEL: "debug",
    },
  });
  const answers: string[] = [];
  const ask = async (path: string, init: RequestInit = {}) => {
    const answer = await whole(proxy.url + path, init);
    if (answer.status >= 400) answers.push(answer.text, JSON.stringify([...answer.headers]));
    return answer;
  };
  const alice = { authorization: basicHeader("alice", secret("alice")) };
  const bob = { authorization: basicHeader("bob", secret("bob")) };
  const tokens: string[] = [];
  for (const [login, name] of [[alice, "corp"], [bob, "old"]] as const) {
    // A login is for the registry that the host means.
    const at = (path: string, authorization: string) =>
      wholeAt(new URL(proxy.url).host, `http://${name}.localhost/v2/${path}`, { authorization });
    const scope = "scope=repository:team/app:pull&offline_token=true";
    const { token, refresh_token: refresh } = (await at(`auth?${scope}`, login.authorization)).json;
    tokens.push(token, ...refresh ? [refresh] : []);
    const pulled = await at("team/app/manifests/1", `Bearer ${token}`);
    assertEquals(pulled.digest, image.digest);
    await at(`team/app/blobs/${image.layers[0]!.digest}`, `Bearer ${token}`);
    // And at one that means another it goes nowhere.
    await ask(`/v2/${name}/team/app/manifests/1`, { headers: login });
  }
  await ask("/v2/", { headers: alice });
  await ask("/v2/corp/team/open/manifests/1");
  await ask(`/v2/corp/team/open/blobs/${image.config.digest}`);
  // Wrong ones, in every place where a client may put them.
  await ask("/v2/", { headers: { authorization: `Basic ${secret("malformed")}` } });
  await ask("/v2/", { headers: { authorization: `Digest ${secret("scheme")}` } });
  await ask(`/v2/corp/team/app/manifests/1?password=${secret("query")}`);
  await ask("/v2/auth", {
    method: "POST",
    body: new URLSearchParams({ grant_type: "password", password: secret("form") }),
  });
  await ask("/v2/corp/team/app/manifests/1", {
    headers: { authorization: `Bearer ${secret("bearer")}`, cookie: secret("cookie") },
  });
  // Signed storage that cannot be reached: its URL must not be in what is said about it.
  const [signature] = /sig[^=]*=[^&]+/i.exec(storage.sign("GET", image.layers[0]!)) ?? ["?"];
  await storage.down();
  upstream.control.location = (location) => `${location}&extra=${secret("signed")}`;
  const cold = makeImage({ seed: 2 });
  upstream.add("team/open", "2", cold);
  const failed = await ask(`/v2/corp/team/open/blobs/${cold.layers[0]!.digest}`);
  assertEquals(failed.status, 502);
  await proxy.stop();

  const log = proxy.logs().join("\n");
  assert(log.includes("debug"), log);
  const everything = log + answers.join("\n");
  const forbidden = [
    "S3cr3t",
    signature.split("=")[1]!,
    ...tokens,
    ...[alice, bob].map(({ authorization }) => authorization.split(" ")[1]!),
  ];
  for (const one of forbidden) assert(!everything.includes(one), `${one} is in:\n${everything}`);
});

Deno.test("text from outside neither forges a line nor reaches a terminal", () => {
  const cause = "bad\n2026-01-01 info forged\r\x1b[2J\u202e\u2028 \x00\x7f\x9b";
  const text = formatText({
    category: ["proxy", "cache"],
    level: "warning",
    message: ["Broke: ", cause, ""],
    rawMessage: "Broke: {cause}",
    timestamp: 0,
    properties: { cause, host: "a b\x1b", empty: "", quote: 'say "x"', none: undefined },
  });
  assertEquals(
    text,
    "1970-01-01T00:00:00.000Z warning cache Broke: " +
      "bad\\n2026-01-01 info forged\\r\\u001b[2J\\u202e\\u2028 \\u0000\\u007f\\u009b " +
      'host="a b\\u001b" quote="say \\"x\\""\n',
  );
});

Deno.test("of a long value a line has the beginning", () => {
  const long = "x".repeat(100_000);
  const record = {
    category: ["proxy", "request"],
    level: "info",
    message: ["", long, ""],
    rawMessage: "{path}",
    timestamp: 0,
    properties: { path: long, error: long, detail: { long } },
  } as const;
  for (const format of [formatText, formatJson]) assert(format(record).length < 15_000);
});
