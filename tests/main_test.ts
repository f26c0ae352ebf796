import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { VERSION } from "../lib/util/version.ts";
import { makeCertificate } from "./support/certificate.ts";
import { type FakeRegistry, startFakeRegistry } from "./support/fake_registry.ts";
import { contentOf } from "./support/image.ts";
import { startHttpServer } from "./support/http_server.ts";
import { type ProxyProcess, runProxy, startProxy } from "./support/proxy_process.ts";
import { toolTest } from "./support/requirements.ts";
import { freePort, tempDir } from "./support/temp.ts";

const SECRET = "hunter2";

function lines(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

for (const args of [["version"], ["--version"], ["-v"]]) {
  Deno.test(`${args.join(" ")} prints the version`, async () => {
    assertEquals(await runProxy(args), { code: 0, stdout: `${VERSION}\n`, stderr: "" });
  });
}

for (const args of [["help"], ["--help"], ["-h"], ["serve", "--help"]]) {
  Deno.test(`${args.join(" ")} names every command and flag`, async () => {
    const { code, stdout, stderr } = await runProxy(args);
    assertEquals([code, stderr], [0, ""]);
    const words = [
      "serve",
      "health",
      "config",
      "version",
      "help",
      "--host",
      "--port",
      "--env-file",
    ];
    for (const word of words) assertMatch(stdout, new RegExp(`^\\s+${word}\\b`, "m"), word);
  });
}

Deno.test("all problems of flags and settings are reported at once, and the exit code is 2", async () => {
  const { code, stdout, stderr } = await runProxy(
    ["config", "extra", "--nope", "--version=1", "--host"],
    { PORT: "x", CACHE_MAX_SIZE: "lots", TLS_CERT: "cert.pem", UPSTREAM_CORP_USERNAME: "me" },
  );
  assertEquals([code, stdout], [2, ""]);
  assertEquals(lines(stderr).map((line) => line.split(":")[0]).toSorted(), [
    "--host",
    "--nope",
    "--version",
    "CACHE_MAX_SIZE",
    "PORT",
    "TLS_CERT",
    "UPSTREAM_CORP",
    "UPSTREAM_CORP_PASSWORD",
    "extra",
  ]);
});

Deno.test("an unknown command is named, and the exit code is 2", async () => {
  const { code, stderr } = await runProxy(["sevre"]);
  assertEquals([code, stderr], [2, "sevre: Unknown command, did you mean serve?\n"]);
});

Deno.test("serve does not start with a bad setting", async () => {
  const { code, stdout, stderr } = await runProxy([], { LOG_LEVEL: "loud" });
  assertEquals([code, stdout], [2, ""]);
  assertMatch(stderr, /^LOG_LEVEL: Expected debug, info, warning or error: loud\n$/);
});

Deno.test("config prints the settings in force without secrets, and flags take precedence over the environment", async () => {
  const { code, stdout, stderr } = await runProxy(["config", "--port", "9000", "--host=::1"], {
    PORT: "8000",
    CUSTOM_DOMAIN: "example.com",
    UPSTREAM_DOCKER_USERNAME: "me",
    UPSTREAM_DOCKER_PASSWORD: SECRET,
  });
  assertEquals([code, stderr], [0, ""]);
  const printed = lines(stdout);
  for (const line of ["PORT=9000", "HOST=::1", "CUSTOM_DOMAIN=example.com"]) {
    assert(printed.includes(line), `${line} is not in:\n${stdout}`);
  }
  assert(printed.includes("UPSTREAM_DOCKER_PASSWORD=********"));
  assert(!stdout.includes(SECRET));
});

Deno.test("--env-file is read, and the environment wins over it", async () => {
  await using dir = await tempDir();
  const file = join(dir.path, "settings");
  await Deno.writeTextFile(file, `PORT=7000\nCUSTOM_DOMAIN="example.com" # ours\nDEBUG=true\n`);
  const { code, stdout } = await runProxy(["config", "--env-file", file], { PORT: "7001" });
  assertEquals(code, 0);
  const printed = lines(stdout);
  for (const line of ["PORT=7001", "CUSTOM_DOMAIN=example.com", "DEBUG=true"]) {
    assert(printed.includes(line), `${line} is not in:\n${stdout}`);
  }
});

Deno.test("config and the log warn about unknown settings, and the proxy starts", async () => {
  await using dir = await tempDir();
  const file = join(dir.path, "settings");
  await Deno.writeTextFile(file, "CUSTOM_DOMIAN=example.com\nCOLOUR=red\n");
  const { code, stderr } = await runProxy(["config", "--env-file", file], {
    CACHE_ENABLE: "false",
  });
  assertEquals([code, lines(stderr).toSorted()], [0, [
    "CACHE_ENABLE: Unknown setting, did you mean CACHE_ENABLED?",
    "COLOUR: Unknown setting",
    "CUSTOM_DOMIAN: Unknown setting, did you mean CUSTOM_DOMAIN?",
  ]]);
  await using proxy = await startProxy({ args: ["--env-file", file] });
  await proxy.log(/ warning program CUSTOM_DOMIAN: Unknown setting, did you mean CUSTOM_DOMAIN\?/);
});

Deno.test("an outbound proxy in an --env-file is used", async () => {
  await using dir = await tempDir();
  const asked: string[] = [];
  await using outbound = await startHttpServer(({ target }) => {
    asked.push(target);
    return { status: 404, headers: [] };
  });
  const file = join(dir.path, "settings");
  await Deno.writeTextFile(
    file,
    `HTTP_PROXY=${outbound.url}\nNO_PROXY=127.0.0.1\nUPSTREAM_CORP=http://registry.example\n`,
  );
  await using proxy = await startProxy({ args: ["--env-file", file] });
  const answer = await fetch(`${proxy.url}/v2/corp/team/app/manifests/1`);
  assertEquals([answer.status, (await answer.json()).errors[0].code], [404, "MANIFEST_UNKNOWN"]);
  assertEquals(new Set(asked), new Set(["http://registry.example/v2/team/app/manifests/1"]));
});

Deno.test("an unreadable --env-file is reported together with other problems", async () => {
  const { code, stderr } = await runProxy(["config", "--env-file=/missing"], { PORT: "x" });
  assertEquals(code, 2);
  const [first, second, ...rest] = lines(stderr);
  assertMatch(first!, /^--env-file: Cannot read: .*\/missing/);
  assertMatch(second!, /^PORT: /);
  assertEquals(rest, []);
});

Deno.test("the exit code of health says whether an instance answers", async () => {
  await using proxy = await startProxy({ env: { HOST: "0.0.0.0" } });
  for (const args of [["health"], ["-health-check"], ["--health-check"]]) {
    for (const host of ["0.0.0.0", "127.0.0.1", "localhost"]) {
      const env = { HOST: host, PORT: String(proxy.port) };
      assertEquals((await runProxy(args, env)).code, 0, `${args} ${host}`);
    }
  }
  const env = { HOST: "127.0.0.1", PORT: String(freePort()) };
  assertEquals((await runProxy(["health"], env)).code, 1);
});

Deno.test("health fails if another program answers", async () => {
  await using server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {} },
    () => new Response("not found", { status: 404 }),
  );
  const env = { HOST: "127.0.0.1", PORT: String(server.addr.port) };
  assertEquals((await runProxy(["health"], env)).code, 1);
});

Deno.test("a port in use is reported in one line, and the exit code is 1", async () => {
  await using dir = await tempDir();
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const { code, stdout, stderr } = await runProxy(["serve"], {
    HOST: "127.0.0.1",
    PORT: String(port),
    CACHE_DIR: dir.path,
    ADMIN_ADDR: "off",
  });
  assertEquals(code, 1, stdout + stderr);
  const told = lines(stdout + stderr).filter((line) => line.includes("Cannot"));
  assertEquals(told.length, 1, stdout + stderr);
  assert(
    told[0]!.endsWith(`Cannot listen at http://127.0.0.1:${port}: the port is in use`),
    told[0],
  );
});

Deno.test("a cache directory in use by another process is reported, and the exit code is 1", async () => {
  await using proxy = await startProxy();
  const { code, stdout } = await runProxy(["serve"], {
    HOST: "127.0.0.1",
    PORT: String(freePort()),
    CACHE_DIR: proxy.cacheDir,
    ADMIN_ADDR: "off",
  });
  assertEquals(code, 1, stdout);
  assertMatch(stdout, /Cannot open cache: another process is using \S+/);
});

Deno.test("unreadable TLS files are both named, and the exit code is 2", async () => {
  const { code, stderr } = await runProxy(["serve"], { TLS_CERT: "/no/cert", TLS_KEY: "/no/key" });
  assertEquals(code, 2);
  const [first, second] = lines(stderr);
  assertMatch(first!, /^TLS_CERT: Cannot read: .*\/no\/cert/);
  assertMatch(second!, /^TLS_KEY: Cannot read: .*\/no\/key/);
});

toolTest("with TLS_CERT and TLS_KEY it serves https, and health knows", {
  needs: ["openssl"],
  async fn() {
    await using dir = await tempDir();
    const { certPath, keyPath, ca } = await makeCertificate(dir.path);
    const env = { TLS_CERT: certPath, TLS_KEY: keyPath };
    await using proxy = await startProxy({ env });
    using client = Deno.createHttpClient({ caCerts: [ca] });
    const response = await fetch(`${proxy.url}/health`, { client });
    assertEquals(response.status, 200);
    assertEquals((await response.json()).status, "ok");
    const asked = await runProxy(["health"], { ...env, HOST: "127.0.0.1", PORT: `${proxy.port}` });
    assertEquals(asked.code, 0, asked.stdout + asked.stderr);
  },
});

/** A proxy with a download under way of which the first bytes are here. */
interface Transfer {
  readonly proxy: ProxyProcess;
  readonly upstream: FakeRegistry;
  readonly size: number;
  /** How many bytes came in all; rejects when the connection broke. */
  rest(): Promise<number>;
}

async function startTransfer(
  fault: Parameters<FakeRegistry["faults"]["add"]>[1],
  env: Record<string, string> = {},
): Promise<Transfer & AsyncDisposable> {
  const upstream = await startFakeRegistry();
  const blob = contentOf(crypto.getRandomValues(new Uint8Array(60_000)));
  upstream.addBlob("team/app", blob);
  upstream.faults.add({ kind: "blob" }, fault);
  const proxy = await startProxy({ env: { UPSTREAM_CORP: upstream.url, ...env } });
  const response = await fetch(`${proxy.url}/v2/corp/team/app/blobs/${blob.digest}`);
  assertEquals(response.status, 200);
  const reader = response.body!.getReader();
  let received = (await reader.read()).value!.byteLength;
  return {
    proxy,
    upstream,
    size: blob.size,
    async rest() {
      for (let read = await reader.read(); !read.done; read = await reader.read()) {
        received += read.value.byteLength;
      }
      return received;
    },
    async [Symbol.asyncDispose]() {
      await reader.cancel().catch(() => {});
      await proxy.stop("SIGKILL");
      await upstream[Symbol.asyncDispose]();
    },
  };
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  Deno.test(`after ${signal} a transfer is finished, nothing new is accepted, and the exit code is 0`, async () => {
    await using transfer = await startTransfer({ rate: 30_000 });
    const { proxy, size } = transfer;
    const exit = proxy.stop(signal);
    await proxy.log(/Shutting down/);
    await assertRejects(() => fetch(`${proxy.url}/health`));
    assertEquals(await transfer.rest(), size);
    assertEquals(await exit, 0);
    assert(proxy.logs().some((line) => / Stopped$/.test(line)), proxy.logs().join("\n"));
  });
}

Deno.test("an endless transfer is cut after SHUTDOWN_TIMEOUT, and the exit code is 0", async () => {
  await using transfer = await startTransfer({ stallAt: 1000 }, { SHUTDOWN_TIMEOUT: "0.5s" });
  const exit = transfer.proxy.stop("SIGTERM");
  await assertRejects(() => transfer.rest());
  assertEquals(await exit, 0);
});

Deno.test("a second signal cuts transfers at once, and the exit code is 130", async () => {
  await using transfer = await startTransfer({ stallAt: 1000 }, { SHUTDOWN_TIMEOUT: "1h" });
  const { proxy } = transfer;
  const exit = proxy.stop("SIGTERM");
  await proxy.log(/Shutting down/);
  Deno.kill(proxy.pid, "SIGINT");
  await assertRejects(() => transfer.rest());
  assertEquals(await exit, 130);
});

Deno.test("an idle connection does not delay the shutdown", async () => {
  await using proxy = await startProxy({ env: { SHUTDOWN_TIMEOUT: "1h" } });
  // Kept alive by this client's pool.
  assertEquals(
    await (await fetch(`${proxy.url}/health`)).json().then(({ status }) => status),
    "ok",
  );
  assertEquals(await proxy.stop("SIGTERM"), 0);
});

Deno.test("the proxy survives a closed log pipe", async () => {
  await using proxy = await startProxy({
    wrap: ["bash", "-c", 'exec "$@" > >(head -n 1 >/dev/null)', "-"],
  });
  // More lines than are gathered before a write.
  for (let i = 0; i < 600; i++) {
    const response = await fetch(`${proxy.url}/health`);
    assertEquals((await response.json()).status, "ok");
  }
  assertEquals(await proxy.stop("SIGTERM"), 0);
});
