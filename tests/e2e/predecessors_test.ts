/**
 * What the predecessors' own test scripts check of an installation: who moves here runs them again.
 */
import { assert, assertEquals } from "@std/assert";
import { startDockerd } from "../support/docker.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { startFakeStorage } from "../support/fake_storage.ts";
import { rawRequest } from "../support/http.ts";
import { makeImage, MEDIA } from "../support/image.ts";
import { run } from "../support/process.ts";
import { type ProxyProcess, runProxy, startProxy } from "../support/proxy_process.ts";
import { toolTest } from "../support/requirements.ts";
import { freePort } from "../support/temp.ts";

const DOMAIN = "proxy.test";
/** The predecessors' nine host names, and where they lead. */
const ROUTES: Readonly<Record<string, string>> = {
  "docker": "https://registry-1.docker.io",
  "docker-staging": "https://registry-1.docker.io",
  "quay": "https://quay.io",
  "gcr": "https://gcr.io",
  "k8s-gcr": "https://k8s.gcr.io",
  "k8s": "https://registry.k8s.io",
  "ghcr": "https://ghcr.io",
  "cloudsmith": "https://docker.cloudsmith.io",
  "ecr": "https://public.ecr.aws",
};

async function ask(proxy: ProxyProcess, host: string, path: string) {
  const headers = [["host", host], ["connection", "close"]] as const;
  const { status, headers: got, body } = await rawRequest(proxy.host, { path, headers });
  const text = new TextDecoder().decode(body);
  return { status, location: got.get("location"), headers: got, text };
}

Deno.test("Health is 200 on every host, by /health and by the old -health-check", async () => {
  await using proxy = await startProxy({ env: { CUSTOM_DOMAIN: DOMAIN } });
  for (const host of [proxy.host, `docker.${DOMAIN}`, `unknown.${DOMAIN}`]) {
    for (const path of ["/health", "/healthz"]) {
      const { status, text } = await ask(proxy, host, path);
      assertEquals([status, JSON.parse(text).status], [200, "ok"]);
    }
  }
  const env = { HOST: "127.0.0.1", PORT: String(proxy.port) };
  assertEquals((await runProxy(["-health-check"], env)).code, 0);
  await proxy.stop();
  assertEquals((await runProxy(["-health-check"], env)).code, 1);
});

Deno.test("The root leads to /v2/ on every host", async () => {
  await using proxy = await startProxy({ env: { CUSTOM_DOMAIN: DOMAIN } });
  for (const name of Object.keys(ROUTES)) {
    const { status, location } = await ask(proxy, `${name}.${DOMAIN}`, "/");
    assertEquals([status, location], [301, "/v2/"], name);
  }
});

Deno.test("An unknown host is told the routes, all nine of them", async () => {
  await using proxy = await startProxy({ env: { CUSTOM_DOMAIN: DOMAIN } });
  for (const path of ["/", "/v2/", "/v2/library/app/manifests/v1"]) {
    const { status, text, headers } = await ask(proxy, `unknown.${DOMAIN}`, path);
    assertEquals([status, headers.get("content-type")], [404, "application/json"]);
    const { routes, message } = JSON.parse(text);
    for (const [name, url] of Object.entries(ROUTES)) {
      assertEquals(routes[`${name}.${DOMAIN}`], url);
    }
    assert(message.length > 0);
  }
});

Deno.test("/v2/ on each of the nine hosts asks that registry, and challenges to its own token endpoint", async () => {
  for (const auth of ["token", "none"] as const) {
    const names = Object.keys(ROUTES);
    const upstreams = await Promise.all(names.map(() => startFakeRegistry({ auth })));
    try {
      const env = Object.fromEntries(names.map((name, i) => [
        `UPSTREAM_${name.toUpperCase().replaceAll("-", "_")}`,
        upstreams[i]!.url,
      ]));
      await using proxy = await startProxy({ env: { CUSTOM_DOMAIN: DOMAIN, ...env } });
      for (const [i, name] of names.entries()) {
        const host = `${name}.${DOMAIN}`;
        const { status, headers } = await ask(proxy, host, "/v2/");
        assertEquals(status, auth === "token" ? 401 : 200, name);
        assertEquals(headers.get("docker-distribution-api-version"), "registry/2.0");
        assertEquals(
          headers.get("www-authenticate"),
          auth === "token"
            ? `Bearer realm="https://${host}/v2/auth",service="deno-docker-proxy"`
            : null,
        );
        assertEquals(upstreams[i]!.count({ kind: "ping" }), 1, name);
        const token = await ask(proxy, host, "/v2/auth?scope=repository:team/app:pull");
        assertEquals(token.status, 200);
        assert(JSON.parse(token.text).token.length > 0);
        assertEquals(upstreams[i]!.tokenRequests, auth === "token" ? 1 : 0);
      }
    } finally {
      await Promise.all(upstreams.map((upstream) => upstream.close()));
    }
  }
});

toolTest("Their scripts' pull: a manifest, a blob's redirect to S3 or R2, then the whole image", {
  needs: ["root", "unshare", "docker", "dockerd", "containerd", "curl"],
  async fn() {
    const image = makeImage({ layers: [1000, 100_000], mediaTypes: "docker" });
    const stores = ["bucket.s3.amazonaws.com", "images.account.r2.cloudflarestorage.com"];
    for (const store of stores) {
      const port = freePort();
      await using storage = await startFakeStorage({ port, publicHost: `${store}:${port}` });
      await using upstream = await startFakeRegistry({ auth: "token", storage });
      upstream.add("library/nginx", "latest", image);
      await using proxy = await startProxy({
        env: {
          CUSTOM_DOMAIN: DOMAIN,
          PUBLIC_SCHEME: "http",
          UPSTREAM_DOCKER: upstream.url,
          FOLLOW_ALL_REDIRECTS: "false",
        },
      });
      const host = `docker.${DOMAIN}`;
      const curl = async (...args: string[]) => {
        const resolve = ["--resolve", `${host}:${proxy.port}:127.0.0.1`];
        const { code, stdout, stderr } = await run("curl", ["-sS", ...resolve, ...args]);
        assertEquals(code, 0, stderr);
        return stdout;
      };
      const base = `http://${host}:${proxy.port}/v2`;

      const accept = ["-H", `Accept: ${MEDIA.docker.manifest}`];
      for (const name of ["nginx", "library/nginx"]) {
        const show = ["-L", "-o", "/dev/null", "-w", "%{http_code} %{content_type}"];
        const shown = await curl(...accept, ...show, `${base}/${name}/manifests/latest`);
        assertEquals(shown, `200 ${MEDIA.docker.manifest}`);
      }

      const { digest } = image.layers[0]!;
      const head = await curl("-I", `${base}/library/nginx/blobs/${digest}`);
      assert(/^HTTP\/1\.1 30[1-8] /.test(head), head);
      const location = /^location: (.*)\r$/im.exec(head)?.[1] ?? "";
      assert(location.startsWith(`http://${store}:${port}/`), location);

      await using engine = await startDockerd({
        hosts: { [host]: "127.0.0.1", [store]: "127.0.0.1" },
        insecure: [`${host}:${proxy.port}`],
      });
      const name = `${host}:${proxy.port}/nginx:latest`;
      await engine.must("pull", name);
      const id = await engine.must("image", "inspect", "--format", "{{.Id}}", name);
      assertEquals(id.trim(), image.config.digest);
    }
  },
});
