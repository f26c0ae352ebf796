/**
 * Logins through the proxy: right and wrong ones, and private repositories that stay private though they are cached.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { startBuildKit } from "../support/buildkit.ts";
import { startContainerd } from "../support/containerd.ts";
import { type Docker, type DockerOptions, startDockerd } from "../support/docker.ts";
import { basicHeader } from "../support/fake_token.ts";
import { makeImage } from "../support/image.ts";
import { type ProxyProcess, startProxy } from "../support/proxy_process.ts";
import { type Tool, toolTest } from "../support/requirements.ts";
import { makeContainers } from "../support/skopeo.ts";
import { tempDir } from "../support/temp.ts";
import { type Registry, startRegistry } from "../support/upstream.ts";

const IMAGE = makeImage({ layers: [1000, 50_000] });
const USERS = { ann: "ann's password", bob: "bob's password" };
const DOCKER_NEEDS: readonly Tool[] = [
  "root",
  "unshare",
  "docker",
  "dockerd",
  "containerd",
  "docker-registry",
  "openssl",
];

/** A docker-registry with one repository that only ann reads, and one that everybody does. */
async function startPrivate(): Promise<Registry> {
  const registry = await startRegistry({
    auth: "token",
    redirect: true,
    users: USERS,
    private: { "team/secret": ["ann"] },
  });
  for (const repository of ["team/secret", "team/open"]) {
    await registry.push(repository, "v1", IMAGE);
  }
  return registry;
}

function startFor(registry: Registry, env: Record<string, string> = {}): Promise<ProxyProcess> {
  return startProxy({
    env: {
      UPSTREAM_DOCKER: registry.upstreamUrl,
      UPSTREAM_GHCR: registry.upstreamUrl,
      ALLOW_PRIVATE_NETWORKS: "true",
      CUSTOM_DOMAIN: "proxy.test",
      PUBLIC_SCHEME: "http",
      LOG_LEVEL: "debug",
      ...env,
    },
  });
}

async function assertPulls(engine: Docker, name: string): Promise<void> {
  await engine.must("pull", name);
  const id = await engine.must("image", "inspect", "--format", "{{.Id}}", name);
  assertEquals(id.trim(), IMAGE.config.digest);
  await engine.forget();
}

async function assertDenied(engine: Docker, name: string): Promise<void> {
  const { code, stderr } = await engine.docker("pull", name);
  assertEquals(code, 1, stderr);
  assert(/denied|unauthorized|not found/i.test(stderr), stderr);
}

function login(engine: Docker, host: string, [name, password]: readonly [string, string]) {
  return engine.dockerWith(password, "login", "--username", name, "--password-stdin", host);
}

/** The log, debug lines and all, must not hold a password, neither plain nor encoded. */
async function assertSilent(proxy: ProxyProcess): Promise<void> {
  await proxy.stop();
  const log = proxy.logs().join("\n");
  assertStringIncludes(log, "/v2/auth");
  for (const [name, password] of Object.entries(USERS)) {
    const encoded = basicHeader(name, password).slice("Basic ".length);
    for (const secret of [password, encoded, encodeURIComponent(password)]) {
      assert(!log.includes(secret), `The log holds the password of ${name}`);
    }
  }
}

const HOST = "docker.proxy.test";
const HOSTS: Readonly<Record<string, (port: number) => { host: string; engine: DockerOptions }>> = {
  "localhost:PORT": (port) => ({ host: `localhost:${port}`, engine: {} }),
  "docker.<domain>": (port) => ({
    host: `${HOST}:${port}`,
    engine: { hosts: { [HOST]: "127.0.0.1" }, insecure: [`${HOST}:${port}`] },
  }),
};

for (const [name, hostOf] of Object.entries(HOSTS)) {
  toolTest(
    `docker login at ${name} takes right credentials, refuses wrong ones, and opens what is private`,
    {
      needs: DOCKER_NEEDS,
      async fn() {
        await using registry = await startPrivate();
        await using proxy = await startFor(registry);
        const { host, engine: options } = hostOf(proxy.port);
        await using engine = await startDockerd(options);
        const secret = `${host}/team/secret:v1`;

        await assertDenied(engine, secret);
        const wrong = await login(engine, host, ["ann", "wrong"]);
        assertEquals(wrong.code, 1);
        assert(/unauthorized|incorrect/i.test(wrong.stderr), wrong.stderr);
        await assertDenied(engine, secret);

        const right = await login(engine, host, ["ann", USERS.ann]);
        assertEquals(right.code, 0, right.stderr);
        assertStringIncludes(right.stdout, "Login Succeeded");
        await assertPulls(engine, secret);
        assert(registry.tokens!.log.some(({ user }) => user === "ann"));
        await assertPulls(engine, secret);
        assertEquals(registry.storage!.log.length, 3, "the second pull took no blob from upstream");

        await engine.must("logout", host);
        await assertDenied(engine, secret);
        await assertPulls(engine, `${host}/team/open:v1`);
        assertEquals((await login(engine, host, ["bob", USERS.bob])).code, 0);
        await assertDenied(engine, secret);
        await assertPulls(engine, `${host}/team/open:v1`);
        await assertSilent(proxy);
      },
    },
  );
}

toolTest(
  "Through registry-mirrors a private repository opens with the user's own Docker Hub login",
  {
    needs: DOCKER_NEEDS,
    async fn() {
      await using registry = await startPrivate();
      await using proxy = await startFor(registry);
      await using engine = await startDockerd({
        mirrors: [proxy.url],
        hosts: { "registry-1.docker.io": "127.0.0.1" },
      });
      const logIn = async (name: keyof typeof USERS) => {
        const auth = basicHeader(name, USERS[name]).slice("Basic ".length);
        const config = { auths: { "https://index.docker.io/v1/": { auth } } };
        await Deno.mkdir(engine.configDir, { recursive: true });
        await Deno.writeTextFile(`${engine.configDir}/config.json`, JSON.stringify(config));
      };
      // Refused by the mirror, the engine asks the real Docker Hub, which is not there.
      const refused = async () =>
        assertEquals((await engine.docker("pull", "team/secret:v1")).code, 1);
      await refused();
      await logIn("ann");
      await assertPulls(engine, "team/secret:v1");
      await logIn("bob");
      await refused();
      await assertPulls(engine, "team/open:v1");
      await assertSilent(proxy);
    },
  },
);

toolTest("docker login works with a registry that speaks Basic only", {
  needs: DOCKER_NEEDS,
  async fn() {
    await using registry = await startRegistry({ auth: "basic", redirect: true });
    await registry.push("team/app", "v1", IMAGE);
    await using proxy = await startFor(registry);
    await using engine = await startDockerd();
    const host = `localhost:${proxy.port}`;
    const { username, password } = registry.account!;
    await assertDenied(engine, `${host}/team/app:v1`);
    assertEquals((await login(engine, host, [username, "wrong"])).code, 1);
    assertEquals((await login(engine, host, [username, password])).code, 0);
    await assertPulls(engine, `${host}/team/app:v1`);
    await engine.must("logout", host);
    await assertDenied(engine, `${host}/team/app:v1`);
  },
});

toolTest("skopeo, podman and containerd bring their own credentials, in path mode and with ns", {
  needs: ["root", "unshare", "skopeo", "podman", "containerd", "ctr", "docker-registry", "openssl"],
  async fn() {
    await using registry = await startPrivate();
    await using proxy = await startFor(registry);
    await using containers = await makeContainers({ insecure: [proxy.host] });
    const secret = `${proxy.host}/ghcr.io/team/secret:v1`;

    let copies = 0;
    const copy = async (...args: string[]) => {
      const to = `dir:${containers.dir}/${copies++}`;
      return (await containers.skopeo("copy", ...args, `docker://${secret}`, to)).code;
    };
    assertEquals(await copy(), 1);
    assertEquals(await copy("--src-creds", `ann:${USERS.ann}`), 0);
    assertEquals(await copy("--src-creds", `bob:${USERS.bob}`), 1);
    assertEquals(await copy("--src-creds", "ann:wrong"), 1);

    const podmanLogin = (name: string, password: string) =>
      containers.podman("login", "--username", name, "--password", password, proxy.host);
    assert((await podmanLogin("ann", "wrong")).code !== 0);
    assert((await containers.podman("pull", secret)).code !== 0);
    const right = await podmanLogin("ann", USERS.ann);
    assertEquals(right.code, 0, right.stderr);
    const pulled = await containers.podman("pull", secret);
    assertEquals(pulled.code, 0, pulled.stderr);

    await using containerd = await startContainerd();
    await containerd.setHosts("ghcr.io", [{ url: proxy.url }]);
    const pull = async (...args: string[]) =>
      (await containerd.pull("ghcr.io/team/secret:v1", ...args)).code;
    assertEquals(await pull(), 1);
    assertEquals(await pull("--user", `bob:${USERS.bob}`), 1);
    assertEquals(await pull("--user", `ann:${USERS.ann}`), 0);
    assertEquals(registry.storage!.log.length, 3);
    await assertSilent(proxy);
  },
});

toolTest(
  "BuildKit builds from what is private with its user's own login for the proxy, and with no other",
  {
    needs: ["root", "unshare", "runc", "buildkitd", "buildctl", "docker-registry", "openssl"],
    async fn() {
      await using registry = await startPrivate();
      await using proxy = await startFor(registry);
      const config = [
        `[registry."ghcr.io"]\nmirrors = ["${proxy.host}/ghcr.io"]`,
        `[registry."${proxy.host}"]\nhttp = true\n`,
      ].join("\n");
      await using dir = await tempDir();
      let builds = 0;
      const build = async (name: string, logins: Record<string, string>) => {
        // Each with a daemon of its own: one keeps tokens, and uses them for whoever has a login. Refused by the
        // mirror, it asks the real registry, which is not there.
        await using buildkit = await startBuildKit({ config, hosts: { "ghcr.io": "127.0.0.1" } });
        await Deno.writeTextFile(`${dir.path}/Dockerfile`, `FROM ${name}\n`);
        const { code } = await buildkit.build(dir.path, { to: `${dir.path}/${builds++}`, logins });
        return code === 0;
      };
      for (const name of ["ghcr.io/team/secret:v1", `${proxy.host}/ghcr.io/team/secret:v1`]) {
        assertEquals(await build(name, {}), false);
        assertEquals(await build(name, { [proxy.host]: "ann:wrong" }), false);
        assertEquals(await build(name, { [proxy.host]: `ann:${USERS.ann}` }), true);
        assertEquals(await build(name, { [proxy.host]: `bob:${USERS.bob}` }), false);
        assertEquals(await build(name, {}), false);
      }
      assertEquals(registry.storage!.log.length, 3, "each blob came once");
      await assertSilent(proxy);
    },
  },
);
