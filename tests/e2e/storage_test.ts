/**
 * Storage behind redirects: what refuses Authorization, what clients cannot reach, and what they are sent to.
 */
import { assert, assertEquals } from "@std/assert";
import { type Docker, startDockerd } from "../support/docker.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { type FakeStorage, startFakeStorage } from "../support/fake_storage.ts";
import { whole } from "../support/http.ts";
import { blobsOf, type Image, makeImage } from "../support/image.ts";
import { type Hosts, inNamespace } from "../support/namespace.ts";
import { type ProxyProcess, startProxy } from "../support/proxy_process.ts";
import { type Tool, toolTest } from "../support/requirements.ts";
import { freePort, tempDir } from "../support/temp.ts";

const NEEDS: readonly Tool[] = ["root", "unshare", "docker", "dockerd", "containerd"];
const IMAGE = makeImage({ layers: [1000, 100_000] });
const BLOBS = blobsOf(IMAGE).map(({ digest }) => digest);

/** A Docker Hub that redirects blobs to storage at a host of that name, the proxy for it, and an engine. */
interface Setup {
  readonly storage: FakeStorage;
  readonly proxy: ProxyProcess;
  readonly engine: Docker;
  pull(): ReturnType<Docker["docker"]>;
}

interface SetupOptions {
  /** What signed URLs name. */
  readonly storageHost: string;
  /** Who resolves that; for the other there is no such host. */
  readonly reachableBy: "proxy" | "engine";
  readonly env: Readonly<Record<string, string>>;
}

async function withSetup(options: SetupOptions, use: (setup: Setup) => Promise<void>) {
  const { storageHost, reachableBy, env } = options;
  const port = freePort();
  const publicHost = `${storageHost}:${port}`;
  await using storage = await startFakeStorage({ port, publicHost });
  await using upstream = await startFakeRegistry({ auth: "token", storage });
  upstream.add("library/app", "v1", IMAGE);
  // Nothing listens at 127.0.0.9: who tries is refused at once.
  const hostsFor = (who: "proxy" | "engine"): Hosts => ({
    [storageHost]: who === reachableBy ? "127.0.0.1" : "127.0.0.9",
  });
  await using dir = await tempDir();
  await using proxy = await startProxy({
    wrap: await inNamespace(dir.path, hostsFor("proxy")),
    env: { UPSTREAM_DOCKER: upstream.url, ALLOW_PRIVATE_NETWORKS: "true", ...env },
  });
  await using engine = await startDockerd({ mirrors: [proxy.url], hosts: hostsFor("engine") });
  await use({ storage, proxy, engine, pull: () => engine.docker("pull", "app:v1") });
}

async function assertPulled({ engine }: Setup, image: Image): Promise<void> {
  const id = await engine.must("image", "inspect", "--format", "{{.Id}}", "app:v1");
  assertEquals(id.trim(), image.config.digest);
}

toolTest(
  "Storage that answers 400 to an Authorization never gets one, and is followed for the client",
  {
    needs: NEEDS,
    fn: () =>
      withSetup(
        { storageHost: "storage.hub.test", reachableBy: "proxy", env: {} },
        async (setup) => {
          const { storage, pull } = setup;
          const url = storage.sign("GET", IMAGE.config).replace("storage.hub.test", "127.0.0.1");
          const refused = await whole(url, { headers: { authorization: "Bearer x" } });
          assertEquals(refused.status, 400, "this storage does refuse it");
          storage.log.length = 0;

          const { code, stderr } = await pull();
          assertEquals(code, 0, stderr);
          await assertPulled(setup, IMAGE);
          assertEquals(storage.authorizations, []);
          for (const digest of BLOBS) assertEquals(storage.count({ method: "GET", digest }), 1);
        },
      ),
  },
);

const HAND_OVER = { FOLLOW_ALL_REDIRECTS: "false", STORAGE_HOSTS: "hub.test" };

toolTest("A CDN in BLOCKED_HOSTS is followed for clients that cannot reach it", {
  needs: NEEDS,
  async fn() {
    const cdn = { storageHost: "cdn.hub.test", reachableBy: "proxy" } as const;
    const blocked = { ...HAND_OVER, BLOCKED_HOSTS: "cdn.hub.test" };
    await withSetup({ ...cdn, env: blocked }, async (setup) => {
      const { code, stderr } = await setup.pull();
      assertEquals(code, 0, stderr);
      await assertPulled(setup, IMAGE);
      for (const digest of BLOBS) assertEquals(setup.storage.count({ digest }), 1);
    });
    // The same without it: the client is sent there, in vain.
    await withSetup({ ...cdn, env: HAND_OVER }, async ({ pull, storage }) => {
      assertEquals((await pull()).code, 1);
      assertEquals(storage.log, []);
    });
  },
});

for (const CACHE_ENABLED of ["true", "false"]) {
  toolTest(
    `With FOLLOW_ALL_REDIRECTS=false and CACHE_ENABLED=${CACHE_ENABLED} storage is handed to the client`,
    {
      needs: NEEDS,
      fn: () =>
        withSetup({
          storageHost: "bucket.s3.eu-west-1.amazonaws.com",
          reachableBy: "engine",
          env: { FOLLOW_ALL_REDIRECTS: "false", CACHE_ENABLED },
        }, async (setup) => {
          const { proxy, storage, pull } = setup;
          const { code, stderr } = await pull();
          assertEquals(code, 0, stderr);
          await assertPulled(setup, IMAGE);
          for (const digest of BLOBS) assertEquals(storage.count({ method: "GET", digest }), 1);
          assert(
            storage.log.every(({ headers }) => headers.get("user-agent")?.startsWith("docker/")),
          );
          assertEquals(storage.authorizations, []);

          for (const method of ["GET", "HEAD"]) {
            const url = `${proxy.url}/v2/library/app/blobs/${BLOBS[0]}`;
            const { status, headers, bytes } = await whole(url, { method });
            assertEquals([status, bytes.length], [307, 0]);
            assert(
              /^http:\/\/bucket\.s3\.eu-west-1\.amazonaws\.com:\d+\/storage\/.*X-Amz-Signature=s\d+$/
                .test(headers.get("location")!),
              headers.get("location")!,
            );
          }
        }),
    },
  );
}
