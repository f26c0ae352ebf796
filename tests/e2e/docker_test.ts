/**
 * The Docker engine pulls through the proxy in each of the ways it can be pointed at it, from a docker-registry with
 * token authentication that redirects blobs to storage.
 */
import { assert, assertEquals } from "@std/assert";
import { type Certificate, makeCertificate } from "../support/certificate.ts";
import { type Docker, type DockerOptions, startDockerd } from "../support/docker.ts";
import { whole } from "../support/http.ts";
import { type Image, makeImage } from "../support/image.ts";
import { startProxy } from "../support/proxy_process.ts";
import { requestLines } from "../support/request_lines.ts";
import { toolTest } from "../support/requirements.ts";
import { freePort, tempDir } from "../support/temp.ts";
import { startRegistry } from "../support/upstream.ts";

const HOST = "docker.proxy.test";
const HOSTS = { [HOST]: "127.0.0.1" };

/** How an engine is pointed at the proxy. */
interface Way {
  /** What its users write before the name of an image. */
  prefix(port: number): string;
  engine(port: number, certificate: Certificate): DockerOptions;
  env(certificate: Certificate): Record<string, string>;
}

const WAYS: Readonly<Record<string, Way>> = {
  "registry-mirrors": {
    prefix: () => "",
    engine: (port) => ({ mirrors: [`http://127.0.0.1:${port}`] }),
    env: () => ({}),
  },
  "docker.<domain> over https": {
    prefix: (port) => `${HOST}:${port}/`,
    engine: (_, { caPath }) => ({ hosts: HOSTS, env: { SSL_CERT_FILE: caPath } }),
    env: ({ certPath, keyPath }) => ({ TLS_CERT: certPath, TLS_KEY: keyPath }),
  },
  "docker.<domain> over http": {
    prefix: (port) => `${HOST}:${port}/`,
    engine: (port) => ({ hosts: HOSTS, insecure: [`${HOST}:${port}`] }),
    env: () => ({ PUBLIC_SCHEME: "http" }),
  },
  "localhost:PORT/name": {
    prefix: (port) => `localhost:${port}/`,
    engine: () => ({}),
    env: () => ({}),
  },
};

/** Pulls and forgets: an engine that had it already would show nothing. */
async function pull(engine: Docker, name: string, image: Image): Promise<void> {
  await engine.must("pull", name);
  const id = await engine.must("image", "inspect", "--format", "{{.Id}}", name);
  assertEquals(id.trim(), image.config.digest, name);
  await engine.forget();
}

for (const [name, way] of Object.entries(WAYS)) {
  toolTest(`By ${name} an engine pulls name:tag and library/name, and again without upstream`, {
    needs: ["root", "unshare", "docker", "dockerd", "containerd", "docker-registry", "openssl"],
    async fn() {
      await using dir = await tempDir();
      const certificate = await makeCertificate(dir.path, [HOST, "127.0.0.1"]);
      await using registry = await startRegistry({ auth: "token", redirect: true });
      const image = makeImage({ layers: [1000, 200_000, 3000] });
      await registry.push("library/app", "v1", image);

      const port = freePort();
      const start = (ttl: string) =>
        startProxy({
          env: {
            PORT: String(port),
            CACHE_DIR: `${dir.path}/cache`,
            CACHE_MANIFEST_TTL: ttl,
            CUSTOM_DOMAIN: "proxy.test",
            UPSTREAM_DOCKER: registry.upstreamUrl,
            ALLOW_PRIVATE_NETWORKS: "true",
            LOG_FORMAT: "json",
            ...way.env(certificate),
          },
        });
      await using engine = await startDockerd(way.engine(port, certificate));
      const names = ["app:v1", "library/app:v1"].map((app) => way.prefix(port) + app);

      const fresh = await start("1h");
      for (const app of names) await pull(engine, app, image);
      const blobs = registry.storage!.log.map((entry) => entry.target);
      assertEquals(blobs.length, 4, "upstream gave each blob once");
      assertEquals(registry.count("GET", /\/manifests\//), 1);

      await registry.down();
      for (const app of names) await pull(engine, app, image);
      assertEquals(await fresh.stop(), 0);
      const seen = (lines: ReturnType<typeof requestLines>) =>
        new Set(lines.flatMap(({ cache }) => cache ?? []));
      assertEquals(seen(requestLines(fresh)), new Set(["MISS", "HIT"]));

      const stale = await start("0s");
      for (const app of names) await pull(engine, app, image);
      using client = Deno.createHttpClient({ caCerts: [certificate.ca] });
      const url = `${stale.url}/v2/library/app/manifests/v1`;
      const { headers, digest } = await whole(url, { client });
      assertEquals([digest, headers.get("x-cache")], [image.digest, "STALE"]);
      await stale.stop();
      const lines = requestLines(stale);
      assertEquals(seen(lines), new Set(["HIT", "STALE"]));
      assert(
        lines.filter(({ kind, reference }) => kind === "manifest" && reference === "v1")
          .every(({ cache, status }) => cache === "STALE" || status === 301 || status === 401),
      );
    },
  });
}
