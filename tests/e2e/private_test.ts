/**
 * What is private and cached, with a real registry that trusts a token server, and a real client.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { basicHeader } from "../support/fake_token.ts";
import { whole } from "../support/http.ts";
import { makeImage } from "../support/image.ts";
import { startProxy } from "../support/proxy_process.ts";
import { toolTest } from "../support/requirements.ts";
import { makeContainers } from "../support/skopeo.ts";
import { freePort, tempDir } from "../support/temp.ts";
import { type Registry, startRegistry } from "../support/upstream.ts";

const SECRET = makeImage({ seed: 1, layers: [1000, 50_000] });
const OPEN = makeImage({ seed: 2 });
const USERS = { ann: "ann's password", bob: "bob's password" };

async function startAll(env: Record<string, string> = {}) {
  const registry = await startRegistry({
    auth: "token",
    users: USERS,
    private: { "team/secret": ["ann"], "bob/own": ["bob"] },
  });
  await registry.push("team/secret", "v1", SECRET);
  await registry.push("team/open", "v1", OPEN);
  await registry.push("bob/own", "v1", OPEN);
  const other = await startRegistry();
  const cache = await tempDir();
  const settings = {
    CACHE_DIR: cache.path,
    PORT: String(freePort()),
    UPSTREAM_DOCKER: registry.upstreamUrl,
    UPSTREAM_GHCR: other.url,
    ALLOW_PRIVATE_NETWORKS: "true",
    ...env,
  };
  let proxy = await startProxy({ env: settings });
  const direct = new URL(registry.upstreamUrl).host;
  const containers = await makeContainers({ insecure: [proxy.host, direct] });
  let copies = 0;
  return {
    registry,
    /** The registry's own host. */
    direct,
    url: proxy.url,
    async restart() {
      await proxy.stop();
      proxy = await startProxy({ env: settings });
    },
    /** Copies an image through a host; the exit code, and what it says. */
    async copy(image: string, creds?: string, host = proxy.host) {
      const to = `dir:${containers.dir}/${copies++}`;
      const login = creds ? ["--src-creds", creds] : [];
      return await containers.skopeo("copy", "--all", ...login, `docker://${host}/${image}`, to);
    },
    async [Symbol.asyncDispose]() {
      await containers.remove();
      await proxy.stop();
      await Promise.all([registry.stop(), other.stop(), cache[Symbol.asyncDispose]()]);
    },
  };
}

const ann = `ann:${USERS.ann}`;
const bob = `bob:${USERS.bob}`;
const BY_DIGEST = `team/secret@${SECRET.digest}`;

/** How often upstream has given content of ann's. */
const given = (registry: Registry) =>
  registry.count("GET", /^\/v2\/team\/secret\/(blobs|manifests)\//);

/** The status of a blob for who has a token for `repository`, in whatever repository it is asked for. */
async function blobStatus(url: string, login: string | undefined, path: string) {
  const scope = `repository:${path.split("/blobs/")[0]}:pull`;
  const [username = "", password = ""] = (login ?? ":").split(":");
  const token = await whole(`${url}/v2/auth?scope=${scope}`, {
    headers: login ? { authorization: basicHeader(username, password) } : {},
  });
  const { status } = await whole(`${url}/v2/${path}`, {
    headers: { authorization: `Bearer ${token.json.token}` },
  });
  return status;
}

toolTest("what one user has pulled through the proxy is for others what the registry says it is", {
  needs: ["skopeo", "docker-registry", "openssl"],
  async fn() {
    await using all = await startAll();
    const { registry, url, copy } = all;
    assertEquals((await copy("team/secret:v1", ann)).code, 0);
    const before = given(registry);
    for (const image of ["team/secret:v1", BY_DIGEST]) {
      for (const creds of [undefined, bob, "ann:wrong", "eve:wrong"]) {
        const proxied = await copy(image, creds);
        const direct = await copy(image, creds, all.direct);
        assertEquals([image, creds, proxied.code], [image, creds, direct.code]);
        assert(proxied.code !== 0);
        assertMatch(proxied.stderr, /unauthorized|authentication required|denied|access/i);
      }
      assertEquals((await copy(image, ann)).code, 0);
    }
    assertEquals(given(registry), before, "ann's second pulls cost upstream nothing");

    // The digest in his own repository, in a public one, and as nobody in hers.
    for (const { digest } of SECRET.blobs) {
      assertEquals(await blobStatus(url, ann, `team/secret/blobs/${digest}`), 200);
      assertEquals(await blobStatus(url, bob, `team/secret/blobs/${digest}`), 401);
      assertEquals(await blobStatus(url, undefined, `team/secret/blobs/${digest}`), 401);
      assertEquals(await blobStatus(url, bob, `bob/own/blobs/${digest}`), 404);
      assertEquals(await blobStatus(url, undefined, `team/open/blobs/${digest}`), 404);
    }
    // The same name on another registry.
    for (const image of ["team/secret:v1", BY_DIGEST]) {
      const { code, stderr } = await copy(`ghcr.io/${image}`);
      assert(code !== 0);
      assertMatch(stderr, /unknown/i);
    }
    assertEquals((await copy("team/open:v1")).code, 0);
    assertEquals((await copy("bob/own:v1", bob)).code, 0);
  },
});

toolTest("while the token server is away what is public is pulled, and what is private is not", {
  needs: ["skopeo", "docker-registry", "openssl"],
  async fn() {
    await using all = await startAll();
    const { registry, copy } = all;
    assertEquals((await copy("team/secret:v1", ann)).code, 0);
    assertEquals((await copy("team/open:v1")).code, 0);
    await registry.tokens!.down();
    for (const creds of [undefined, ann, bob]) {
      assertEquals((await copy("team/open:v1", creds)).code, 0);
    }
    for (const creds of [undefined, bob, "ann:wrong"]) {
      assert((await copy("team/secret:v1", creds)).code !== 0);
    }
    await all.restart();
    assertEquals((await copy("team/open:v1")).code, 0);
    // Even for her: what was proved of her is not written down anywhere.
    assert((await copy("team/secret:v1", ann)).code !== 0);
    await registry.tokens!.up();
    assertEquals((await copy("team/secret:v1", ann)).code, 0);
  },
});

for (const share of ["false", "true"]) {
  toolTest(
    `the operator's account opens what is private where SHARE_PRIVATE is true, and it is ${share}`,
    {
      needs: ["skopeo", "docker-registry", "openssl"],
      async fn() {
        await using all = await startAll({
          UPSTREAM_DOCKER_USERNAME: "ann",
          UPSTREAM_DOCKER_PASSWORD: USERS.ann,
          UPSTREAM_DOCKER_SHARE_PRIVATE: share,
        });
        const { copy } = all;
        for (let i = 0; i < 2; i++) {
          assertEquals((await copy("team/open:v1")).code, 0);
          assertEquals((await copy("team/secret:v1")).code === 0, share === "true");
          assertEquals((await copy(BY_DIGEST)).code === 0, share === "true");
          assert((await copy("team/secret:v1", bob)).code !== 0);
          assert((await copy("team/secret:v1", "ann:wrong")).code !== 0);
          assert((await copy("bob/own:v1")).code !== 0);
        }
      },
    },
  );
}
