/**
 * Every client over https, by host name and by path, with right credentials, wrong ones and none, cold, cached and with
 * upstream away.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { makeCertificate } from "../support/certificate.ts";
import { startContainerd } from "../support/containerd.ts";
import { startDockerd } from "../support/docker.ts";
import { blobsOf, type Image, makeImage } from "../support/image.ts";
import { type Hosts, inNamespace } from "../support/namespace.ts";
import { type Finished, run } from "../support/process.ts";
import { type ProxyProcess, startProxy } from "../support/proxy_process.ts";
import { type Tool, toolTest, which } from "../support/requirements.ts";
import { makeContainers } from "../support/skopeo.ts";
import { tempDir } from "../support/temp.ts";
import { type Registry, startRegistry } from "../support/upstream.ts";

const DOMAIN = "proxy.test";
const USERS = { ann: "ann's password" };
const SECRET = makeImage({ seed: 1, layers: [1000, 50_000] });
const OPEN = makeImage({ seed: 2, layers: [1000, 50_000] });

/** Where a client runs: what it resolves, whom it trusts, and a folder of its own. */
interface Place {
  readonly dir: string;
  readonly hosts: Hosts;
  readonly env: Readonly<Record<string, string>>;
  readonly proxy: ProxyProcess;
}

/** One client, without any login yet. */
interface Client {
  /** Its exit code says whether the login is right, or only that it has been noted. */
  login(host: string, name: string, password: string): Promise<Finished>;
  /** Pulls all of an image. */
  pull(name: string, image: Image): Promise<Finished>;
  close?(): Promise<void>;
}

interface Kind {
  readonly needs: readonly Tool[];
  /** Whether a wrong login is refused when it is made, and not at the pull. */
  readonly asks: boolean;
  start(place: Place): Promise<Client>;
}

/** What a layout of one image must name in its index. */
async function heldIn(layout: string, pulled: Finished, image: Image): Promise<Finished> {
  if (pulled.code !== 0) return pulled;
  const index = await Deno.readTextFile(`${layout}/index.json`);
  assert(index.includes(image.digest), index);
  for (const { digest } of blobsOf(image)) {
    assert((await Deno.stat(`${layout}/blobs/${digest.replace(":", "/")}`)).isFile);
  }
  return pulled;
}

/** The words of a program that copies into layouts. */
interface Words {
  copy(name: string, layout: string): string[];
  login(host: string, account: readonly [name: string, password: string]): string[];
}

/** A program that copies into layouts, each in a folder of its own. */
async function copier(
  { dir, hosts, env: trust, tool }: Place & { tool: "crane" | "oras" | "regctl" },
  { copy, login }: Words,
): Promise<Client> {
  const before = await inNamespace(dir, hosts);
  const env = { ...trust, HOME: dir, DOCKER_CONFIG: dir, REGCTL_CONFIG: `${dir}/regctl.json` };
  const start = (args: readonly string[]) => {
    const words = [...before, which(tool)!, ...args];
    return run(words[0]!, words.slice(1), { env });
  };
  let copies = 0;
  return {
    login: (host, ...account) => start(login(host, account)),
    async pull(name, image) {
      const layout = `${dir}/layout-${copies++}`;
      return await heldIn(layout, await start(copy(name, layout)), image);
    },
  };
}

const CLIENTS: Readonly<Record<string, Kind>> = {
  crane: {
    needs: ["crane"],
    asks: false,
    start: (place) =>
      copier({ ...place, tool: "crane" }, {
        copy: (name, to) => ["pull", "--format", "oci", name, to],
        login: (host, [name, password]) => ["auth", "login", host, "-u", name, "-p", password],
      }),
  },
  oras: {
    needs: ["oras"],
    asks: true,
    start: (place) =>
      copier({ ...place, tool: "oras" }, {
        copy: (name, to) => ["cp", name, "--to-oci-layout", `${to}:v1`],
        login: (host, [name, password]) => ["login", host, "-u", name, "-p", password],
      }),
  },
  regctl: {
    needs: ["regctl"],
    asks: true,
    start: (place) =>
      copier({ ...place, tool: "regctl" }, {
        copy: (name, to) => ["image", "copy", name, `ocidir://${to}:v1`],
        login: (host, [name, password]) => ["registry", "login", host, "-u", name, "-p", password],
      }),
  },
  skopeo: {
    needs: ["skopeo"],
    asks: true,
    async start({ hosts, env }) {
      const containers = await makeContainers({ hosts, env });
      let copies = 0;
      return {
        login: (host, name, password) =>
          containers.skopeo("login", "--username", name, "--password", password, host),
        async pull(name, image) {
          const layout = `${containers.dir}/layout-${copies++}`;
          const copied = await containers.skopeo("copy", `docker://${name}`, `oci:${layout}:v1`);
          return await heldIn(layout, copied, image);
        },
        close: () => containers.remove(),
      };
    },
  },
  podman: {
    needs: ["podman"],
    asks: true,
    async start({ hosts, env }) {
      const containers = await makeContainers({ hosts, env });
      return {
        login: (host, name, password) =>
          containers.podman("login", "--username", name, "--password", password, host),
        async pull(name, image) {
          const pulled = await containers.podman("pull", name);
          if (pulled.code !== 0) return pulled;
          const id = ["image", "inspect", "--format", "{{.Id}}", name];
          const { stdout } = await containers.podman(...id);
          assertEquals(`sha256:${stdout.trim()}`, image.config.digest);
          await containers.podman("rmi", "--all", "--force");
          return pulled;
        },
        close: () => containers.remove(),
      };
    },
  },
  docker: {
    needs: ["docker", "dockerd", "containerd"],
    asks: true,
    async start({ hosts, env }) {
      const engine = await startDockerd({ hosts, env });
      return {
        login: (host, name, password) =>
          engine.dockerWith(password, "login", "--username", name, "--password-stdin", host),
        async pull(name, image) {
          const pulled = await engine.docker("pull", name);
          if (pulled.code !== 0) return pulled;
          const id = await engine.must("image", "inspect", "--format", "{{.Id}}", name);
          assertEquals(id.trim(), image.config.digest);
          await engine.forget();
          return pulled;
        },
        close: () => engine.stop(),
      };
    },
  },
  containerd: {
    needs: ["containerd", "ctr"],
    asks: false,
    async start({ hosts, env, proxy }) {
      const containerd = await startContainerd({ hosts, env });
      // By `?ns=` as well: the only client that says which registry it means.
      await containerd.setHosts("ghcr.io", [{ url: `https://${DOMAIN}:${proxy.port}` }]);
      let user: string[] = [];
      return {
        login(_, name, password) {
          user = ["--user", `${name}:${password}`];
          return Promise.resolve({ code: 0, stdout: "", stderr: "" });
        },
        async pull(name, image) {
          const pulled = await containerd.pull(name, ...user);
          if (pulled.code !== 0) return pulled;
          assertEquals(await containerd.digest(name), image.digest);
          await containerd.forget();
          return pulled;
        },
        close: () => containerd.stop(),
      };
    },
  },
};

/** A registry whose one repository only ann reads, and a proxy in front of it that speaks https. */
async function startBoth(dir: string) {
  const registry = await startRegistry({
    auth: "token",
    redirect: true,
    users: USERS,
    private: { "team/secret": ["ann"] },
  });
  await registry.push("team/secret", "v1", SECRET);
  await registry.push("team/open", "v1", OPEN);
  const certificate = await makeCertificate(dir, [DOMAIN, `ghcr.${DOMAIN}`]);
  const proxy = await startProxy({
    env: {
      CUSTOM_DOMAIN: DOMAIN,
      UPSTREAM_DOCKER: registry.upstreamUrl,
      UPSTREAM_GHCR: registry.upstreamUrl,
      ALLOW_PRIVATE_NETWORKS: "true",
      TLS_CERT: certificate.certPath,
      TLS_KEY: certificate.keyPath,
    },
  });
  return {
    registry,
    proxy,
    env: { SSL_CERT_FILE: certificate.caPath, SSL_CERT_DIR: dir },
    async [Symbol.asyncDispose]() {
      await proxy.stop();
      await registry.stop();
    },
  };
}

/** The bodies of an image's blobs that upstream's storage gave. */
function given(registry: Registry, image: Image): number {
  const hexes = blobsOf(image).map(({ digest }) => digest.split(":")[1]!);
  return registry.storage!.log.filter(({ target }) => hexes.some((hex) => target.includes(hex)))
    .length;
}

for (const [client, { needs, asks, start }] of Object.entries(CLIENTS)) {
  toolTest(
    `${client} over https pulls by each name, what is private with its own login alone, and what is public without upstream`,
    {
      needs: ["root", "unshare", "docker-registry", "openssl", ...needs],
      async fn() {
        await using dir = await tempDir();
        await using both = await startBoth(dir.path);
        const { registry, proxy, env } = both;
        const hosts = { [DOMAIN]: "127.0.0.1", [`ghcr.${DOMAIN}`]: "127.0.0.1" };
        const bare = `${DOMAIN}:${proxy.port}`;
        const named = `ghcr.${bare}`;
        const prefixes = [named, `${bare}/ghcr.io`, ...client === "containerd" ? ["ghcr.io"] : []];
        const one = await start({ dir: dir.path, hosts, env, proxy });
        try {
          const assertRefused = async () => {
            for (const prefix of prefixes) {
              const { code } = await one.pull(`${prefix}/team/secret:v1`, SECRET);
              assertNotEquals(code, 0, prefix);
            }
          };
          const assertPulled = async (repository: string, image: Image) => {
            for (const prefix of prefixes) {
              const { code, stderr } = await one.pull(`${prefix}/team/${repository}:v1`, image);
              assertEquals(code, 0, `${prefix}: ${stderr}`);
            }
          };
          await assertPulled("open", OPEN);
          await assertRefused();
          for (const host of [named, bare]) {
            const { code } = await one.login(host, "ann", "wrong");
            assertEquals(code !== 0, asks, `a wrong login at ${host}`);
          }
          await assertRefused();
          for (const host of [named, bare]) {
            const { code, stderr } = await one.login(host, "ann", USERS.ann);
            assertEquals(code, 0, `a right login at ${host}: ${stderr}`);
          }
          await assertPulled("secret", SECRET);
          for (const image of [OPEN, SECRET]) {
            assertEquals(given(registry, image), blobsOf(image).length, "each blob came once");
          }
          await registry.down();
          await assertPulled("open", OPEN);
        } finally {
          await one.close?.();
        }
      },
    },
  );
}
