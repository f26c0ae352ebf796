import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { neededPaths } from "../../lib/commands/permissions.ts";
import { parseConfig } from "../../lib/config/config.ts";
import { makeCertificate } from "../support/certificate.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { blobsOf, makeImage } from "../support/image.ts";
import { run } from "../support/process.ts";
import { baseEnv, ROOT, startCommand, startProxy } from "../support/proxy_process.ts";
import { freePort, tempDir } from "../support/temp.ts";

const IMAGE = makeImage({ layers: [1000, 300_000] });

/** The flags of `deno task start`, without the program. */
async function startFlags(): Promise<string[]> {
  return (await startCommand()).slice(0, -1);
}

/** Runs `code` with the permissions of `deno task start`, in a folder of its own; its lines. */
async function probe(code: string): Promise<string[]> {
  await using dir = await tempDir();
  const file = join(dir.path, "probe.ts");
  await Deno.writeTextFile(file, code);
  const args = [...await startFlags(), "--config", join(ROOT, "deno.json"), file];
  const { code: exit, stdout, stderr } = await run(Deno.execPath(), args, {
    cwd: ROOT,
    clearEnv: true,
    env: baseEnv(),
  });
  assertEquals(exit, 0, stderr);
  return stdout.trim().split("\n");
}

Deno.test("a configuration needs its cache, its certificate and the page, and writes to its cache only", () => {
  const { read, write } = neededPaths(parseConfig({
    CACHE_DIR: "/srv/cache",
    TLS_CERT: "/etc/tls/cert.pem",
    TLS_KEY: "/etc/tls/key.pem",
    DENO_CERT: "/etc/ca.pem",
  }));
  assertEquals(write, ["/srv/cache"]);
  assertEquals(read.slice(0, -1), [
    "/srv/cache",
    "/etc/tls/cert.pem",
    "/etc/tls/key.pem",
    "/etc/ca.pem",
  ]);
  assertMatch(read.at(-1)!, /lib.admin.page.$/);
  const none = neededPaths(parseConfig({ CACHE_ENABLED: "false" }));
  assertEquals([none.read.length, none.write], [1, []]);
});

Deno.test("with the permissions of the start task everything outside is denied once the configuration is known", async () => {
  await using outside = await tempDir();
  await using cache = await tempDir();
  const secret = join(outside.path, "secret");
  await Deno.writeTextFile(secret, "x");
  const url = (path: string) => JSON.stringify(new URL(path, `file://${ROOT}`).href);
  const lines = await probe(`
    import { parseConfig } from ${url("lib/config/config.ts")};
    import { narrowPermissions } from ${url("lib/commands/permissions.ts")};
    const attempt = (what: string, work: () => unknown) => {
      try {
        work();
        console.log(what, "ok");
      } catch (error) {
        console.log(what, (error as Error).name);
      }
    };
    const all = (cache: string, outside: string) => {
      attempt("read secret", () => Deno.readTextFileSync(outside + "/secret"));
      attempt("write outside", () => Deno.writeTextFileSync(outside + "/new", ""));
      attempt("read /etc", () => Deno.readTextFileSync("/etc/passwd"));
      attempt("climb", () => Deno.readTextFileSync(cache + "/../" + outside.split("/").pop() + "/secret"));
      attempt("link", () => Deno.symlinkSync(outside, cache + "/link"));
      attempt("write cache", () => Deno.writeTextFileSync(cache + "/file", ""));
      attempt("read cache", () => Deno.readTextFileSync(cache + "/file"));
      attempt("run", () => new Deno.Command("true").outputSync());
      attempt("interfaces", () => Deno.networkInterfaces());
      attempt("hostname", () => Deno.hostname());
    };
    narrowPermissions(parseConfig({ CACHE_DIR: ${JSON.stringify(cache.path)} }));
    all(${JSON.stringify(cache.path)}, ${JSON.stringify(outside.path)});
  `);
  assertEquals(lines, [
    "read secret NotCapable",
    "write outside NotCapable",
    "read /etc NotCapable",
    "climb NotCapable",
    "link NotCapable",
    "write cache ok",
    "read cache ok",
    "run NotCapable",
    "interfaces NotCapable",
    "hostname NotCapable",
  ]);
});

Deno.test("a shared instance keeps the permission to read its network interfaces", async () => {
  const url = (path: string) => JSON.stringify(new URL(path, `file://${ROOT}`).href);
  const lines = await probe(`
    import { parseConfig } from ${url("lib/config/config.ts")};
    import { narrowPermissions } from ${url("lib/commands/permissions.ts")};
    const shared = { CACHE_STORE: "redis://127.0.0.1", CACHE_INDEX: "redis://127.0.0.1" };
    narrowPermissions(parseConfig(shared));
    console.log(Deno.networkInterfaces().length > 0);
  `);
  assertEquals(lines, ["true"]);
});

Deno.test("as deno task start starts it everything works: pulls, hits, TLS, the page, metrics, and files of settings elsewhere", async () => {
  await using docker = await startFakeRegistry({ auth: "token" });
  docker.add("library/app", "1", IMAGE);
  await using files = await tempDir();
  const { caPath, certPath, keyPath } = await makeCertificate(files.path);
  const password = join(files.path, "password");
  await Deno.writeTextFile(password, "hunter2");
  // As Kubernetes mounts secrets: by links, to where nobody named.
  await Deno.mkdir(join(files.path, "mounted"));
  await Deno.symlink(certPath, join(files.path, "mounted", "tls.crt"));
  await Deno.symlink(keyPath, join(files.path, "mounted", "tls.key"));
  const adminPort = freePort();
  const env = {
    LOG_LEVEL: "debug",
    UPSTREAM_DOCKER: docker.url,
    UPSTREAM_DOCKER_USERNAME: "ann",
    UPSTREAM_DOCKER_PASSWORD_FILE: password,
    ADMIN_ADDR: `127.0.0.1:${adminPort}`,
    TLS_CERT: join(files.path, "mounted", "tls.crt"),
    TLS_KEY: join(files.path, "mounted", "tls.key"),
  };
  await using proxy = await startProxy({ env });
  const told = await proxy.log(/Files to read: /);
  assertMatch(told, new RegExp(`to write: ${proxy.cacheDir}$`));
  assert(!told.includes("all"), told);
  using client = Deno.createHttpClient({ caCerts: [await Deno.readTextFile(caPath)] });
  const get = async (path: string) => {
    const url = `https://localhost:${proxy.port}/v2/library/app/${path}`;
    const token = await fetch(
      `https://localhost:${proxy.port}/v2/auth?scope=repository:library/app:pull`,
      { client },
    );
    const headers = { authorization: `Bearer ${(await token.json()).token}` };
    const response = await fetch(url, { client, headers });
    await response.bytes();
    return [response.status, response.headers.get("x-cache")];
  };
  assertEquals(await get("manifests/1"), [200, "MISS"]);
  for (const { digest } of blobsOf(IMAGE)) {
    assertEquals(await get(`blobs/${digest}`), [200, "MISS"]);
  }
  for (const { digest } of blobsOf(IMAGE)) assertEquals(await get(`blobs/${digest}`), [200, "HIT"]);
  const admin = `http://127.0.0.1:${adminPort}`;
  for (const path of ["/", "/app.js", "/metrics", "/api/overview", "/api/images", "/stats"]) {
    assertEquals([path, (await whole(admin + path)).status], [path, 200]);
  }
  const verify = await whole(`${admin}/api/verify`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: "{}",
  });
  assertMatch(verify.text, /event: ?result|"wrong":\[\]/);
  assertEquals(proxy.logs().filter((line) => /NotCapable|Requires .* access/.test(line)), []);
  assertEquals(await proxy.stop(), 0);
});

Deno.test("start, compile and the image give the same permissions, none of them for everything", async () => {
  const { tasks } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
  const image = await Deno.readTextFile(join(ROOT, "Dockerfile"));
  const entry = JSON.parse(/^ENTRYPOINT (\[.*\])$/m.exec(image)![1]!) as string[];
  const rights = (words: readonly string[]) =>
    words.filter((word) => /^--(allow|no-prompt)/.test(word));
  const start = rights(await startFlags());
  assertEquals(rights(entry), start);
  assert(start.includes("--no-prompt"));
  for (const flags of [start, rights(tasks.dev.split(" "))]) {
    for (const flag of flags) {
      assert(!/^--allow-(all|run|ffi|import|read|write|sys)$/.test(flag), flag);
    }
  }
  for (const command of [tasks.start.split(" "), entry]) assert(command.includes("--frozen"));
});
