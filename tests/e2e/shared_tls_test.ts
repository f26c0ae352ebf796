/**
 * Redis and S3 by TLS with certificates of an authority of one's own, as programs see them; and what the log
 * tells of the credentials for them, which is nothing.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { makeCertificate } from "../support/certificate.ts";
import { redisCommand, startRedis, startS3 } from "../support/engines.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { whole } from "../support/http.ts";
import { blobsOf, makeImage } from "../support/image.ts";
import { type ProxyProcess, startProxy } from "../support/proxy_process.ts";
import { toolTest } from "../support/requirements.ts";
import { freePort, tempDir } from "../support/temp.ts";
import { until } from "../support/until.ts";

const PASSWORD = "redis-hunter2";
const SECRET = "s3-hunter2-s3-hunter2";

async function startServers() {
  const stack = new AsyncDisposableStack();
  const dir = stack.use(await tempDir());
  const certificate = await makeCertificate(dir.path);
  const { certPath, keyPath, caPath } = certificate;
  const tlsPort = freePort();
  const redis = stack.use(
    await startRedis({
      args: [
        ...["--tls-port", String(tlsPort), "--tls-cert-file", certPath, "--tls-key-file", keyPath],
        ...["--tls-ca-cert-file", caPath, "--tls-auth-clients", "no"],
      ],
    }),
  );
  const user = `ACL SETUSER proxy on >${PASSWORD} ~* +@all`;
  assertEquals(await redisCommand(redis.port, user), "+OK");
  const s3 = stack.use(await startS3({ tls: certificate, secret: SECRET }));
  const registry = stack.use(await startFakeRegistry());
  const image = makeImage({ layers: [100_000] });
  registry.add("team/app", "1", image);
  const env = {
    CACHE_STORE: s3.url,
    CACHE_INDEX: `rediss://proxy:${PASSWORD}@localhost:${tlsPort}`,
    ...s3.env,
    UPSTREAM_DOCKER: registry.url,
    STORE_REDIRECT: "true",
    LOG_LEVEL: "debug",
  };
  const { digest } = blobsOf(image)[1]!;
  return {
    ...{ redis, s3, registry, caPath, env, digest, path: `/v2/team/app/blobs/${digest}` },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

function assertNoSecret(instance: ProxyProcess): void {
  const secrets = [PASSWORD, SECRET, "X-Amz-Signature", "X-Amz-Credential"];
  for (const line of instance.logs()) {
    for (const secret of secrets) assert(!line.includes(secret), line);
  }
}

toolTest(
  "Redis and S3 by TLS: with DENO_CERT instances share a cache, and the log tells no secret",
  {
    needs: ["redis-server", "versitygw", "openssl"],
    async fn() {
      await using servers = await startServers();
      const { registry, digest, path, redis, s3 } = servers;
      const env = { ...servers.env, DENO_CERT: servers.caPath };
      await using a = await startProxy({ env });
      await using b = await startProxy({ env });
      assertEquals((await whole(a.url + path)).digest, digest);
      await a.log(/Stored sha256:/);
      await until(async () => {
        const answer = await fetch(b.url + path, { redirect: "manual" });
        await answer.body?.cancel();
        // Clients get it from the store, by a URL that is as good as a credential.
        return answer.status === 307 && /X-Amz-Signature/.test(answer.headers.get("location")!);
      });
      // The other instance proves its client's access with a part of it.
      assertEquals(registry.count({ kind: "blob", method: "GET", status: 200 }), 1);
      await redis.kill();
      await s3.kill();
      for (const instance of [a, b]) {
        for (let n = 0; n < 2; n++) {
          const answer = await fetch(instance.url + path, { redirect: "manual" });
          await answer.body?.cancel();
        }
        await instance.log(/Redis is gone/);
        assertNoSecret(instance);
      }
    },
  },
);

toolTest(
  "Redis and S3 whose certificates nobody trusts are not used, said so, and clients are served",
  {
    needs: ["redis-server", "versitygw", "openssl"],
    async fn() {
      await using servers = await startServers();
      await using instance = await startProxy({ env: servers.env });
      assertEquals((await whole(instance.url + servers.path)).digest, servers.digest);
      assertEquals((await whole(instance.url + servers.path)).digest, servers.digest);
      await instance.log(/Redis is gone.*certificate/i);
      await instance.log(/store is gone.*certificate/i);
      assertNoSecret(instance);
    },
  },
);
