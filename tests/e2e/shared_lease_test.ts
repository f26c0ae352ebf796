/**
 * Whose download it is: an owner that stands still, cannot be reached, or dies while upstream fails.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { S3Objects } from "../../lib/cache/store/s3/objects.ts";
import { startRedis, startS3 } from "../support/engines.ts";
import { startFakeRegistry } from "../support/fake_registry.ts";
import { ANY, startFleet, token } from "../support/fleet.ts";
import { whole } from "../support/http.ts";
import { blobsOf, makeImage, makeLargeLayer } from "../support/image.ts";
import { startTestProxy, type TestProxy } from "../support/proxy.ts";
import { startProxy } from "../support/proxy_process.ts";
import { toolTest } from "../support/requirements.ts";
import { freePort } from "../support/temp.ts";
import { until } from "../support/until.ts";

const BOTH = ["redis-server", "versitygw"] as const;

/** An owner in a process of its own, another instance in this one, and a blob that takes the owner some seconds. */
async function startPair(
  options: { ownerEnv?: Readonly<Record<string, string>>; size?: number; rate?: number } = {},
) {
  const { size = 24 * 2 ** 20, rate = 8 * 2 ** 20 } = options;
  const stack = new AsyncDisposableStack();
  const redis = stack.use(await startRedis());
  const s3 = stack.use(await startS3());
  const registry = stack.use(await startFakeRegistry({ auth: "token" }));
  const env = { CACHE_STORE: s3.url, CACHE_INDEX: redis.url, ...s3.env };
  const owner = stack.use(
    await startProxy({ env: { ...env, UPSTREAM_DOCKER: registry.url, ...options.ownerEnv } }),
  );
  const other = stack.use(
    await startTestProxy({
      upstreams: { docker: registry },
      env: { ...env, HOST: "127.0.0.1", PORT: String(freePort()), UPSTREAM_IDLE_TIMEOUT: "10m" },
    }),
  );
  const image = makeImage({ layers: [makeLargeLayer(size)] });
  registry.add("team/app", "1", image);
  const { digest } = blobsOf(image)[1]!;
  registry.faults.add({ kind: "blob", reference: digest }, { rate });
  // As clients begin: by that both know that everybody may read the repository.
  for (const { url } of [owner, other]) {
    assertEquals((await whole(`${url}/v2/team/app/manifests/1`, { headers: ANY })).status, 200);
  }
  const path = `/v2/team/app/blobs/${digest}`;
  return {
    ...{ redis, s3, registry, owner, other, digest, path, size },
    received: () => {
      const fills = [...other.proxy.cache!.content.fills];
      return fills.find((fill) => fill.digest === digest)?.received ?? 0;
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

toolTest(
  "who follows an owner that stands still takes over, and the owner publishes nothing when it wakes",
  {
    needs: BOTH,
    async fn() {
      await using pair = await startPair({ ownerEnv: { LOG_LEVEL: "debug" } });
      const { registry, owner, other, digest, path } = pair;
      const first = whole(owner.url + path);
      await until(() => registry.blobGets(digest) === 1);
      // It would wait for as long for a slow upstream.
      const second = whole(other.url + path, { signal: AbortSignal.timeout(60_000) });
      await until(() => pair.received() > 2 ** 20);
      Deno.kill(owner.pid, "SIGSTOP");
      try {
        // The lease ends 10 s after its last heartbeat.
        assertEquals((await second).digest, digest);
        // Taken up where the owner left it.
        const resumed = { method: "GET", kind: "blob", reference: digest, status: 206 } as const;
        assert(registry.count(resumed) >= 1); // a proof of access asks for a part too
        await until(async () => await other.proxy.cache!.index.blob(digest) !== undefined);
      } finally {
        Deno.kill(owner.pid, "SIGCONT");
      }
      // Its own client gets everything too.
      assertEquals((await first).digest, digest);
      // It ends when its fill has.
      await owner.stop();
      const stored = new RegExp(`Stored ${digest}`);
      assertEquals(owner.logs().filter((line) => stored.test(line)), []);
      // Counted once, and nothing is left of the owner's upload.
      const { index } = other.proxy.cache!;
      await until(async () => (await index.totals()).reserved === 0);
      const { bytes, entries, reserved } = await index.totals();
      assertEquals([entries, reserved], [2, 0]);
      assert(bytes > pair.size && bytes < pair.size + 1_000, `${bytes}`); // and the manifest
      const location = other.config.cache!.store;
      assert(location.engine === "s3");
      const objects = new S3Objects(location);
      await until(async () => (await Array.fromAsync(objects.uploads.list("blobs/"))).length === 0);
    },
  },
);

toolTest(
  "who cannot reach the owner gets its object when it is there, and upstream is asked once",
  {
    needs: BOTH,
    async fn() {
      // Nobody listens there.
      const ADVERTISE_URL = `http://127.0.0.1:${freePort()}`;
      await using pair = await startPair({ ownerEnv: { ADVERTISE_URL }, size: 10 * 2 ** 20 });
      const { registry, owner, other, digest, path } = pair;
      const first = whole(owner.url + path);
      await until(() => registry.blobGets(digest) === 1);
      assertEquals((await whole(other.url + path)).digest, digest);
      assertEquals((await first).digest, digest);
      assertEquals(
        registry.count({ method: "GET", kind: "blob", reference: digest, status: 200 }),
        1,
      );
    },
  },
);

toolTest(
  "who cannot reach the owner of a long download reads from upstream, and clients get every byte",
  {
    needs: BOTH,
    async fn() {
      const ADVERTISE_URL = `http://127.0.0.1:${freePort()}`;
      // It takes the owner more than ten seconds.
      await using pair = await startPair({ ownerEnv: { ADVERTISE_URL }, rate: 2 * 2 ** 20 });
      const { registry, owner, other, digest, path } = pair;
      let isOwnerDone = false;
      const first = whole(owner.url + path).then((answer) => {
        isOwnerDone = true;
        return answer;
      });
      await until(() => registry.blobGets(digest) === 1);
      registry.faults.clear();
      const second = await whole(other.url + path);
      assertEquals([second.digest, isOwnerDone], [digest, false]);
      assertEquals((await first).digest, digest);
      assertEquals(
        registry.count({ method: "GET", kind: "blob", reference: digest, status: 200 }),
        2,
      );
    },
  },
);

toolTest("who takes over while upstream fails leaves the download to the next who asks", {
  needs: BOTH,
  async fn() {
    await using fleet = await startFleet(2);
    const [a, b] = fleet.instances as [TestProxy, TestProxy];
    const image = makeImage({ layers: [100_000] });
    fleet.registry.add("team/app", "1", image);
    const { digest } = blobsOf(image)[1]!;
    const path = `/v2/team/app/blobs/${digest}`;
    // Upstream lets b in: it takes part in leases.
    assertEquals((await whole(`${b.url}/v2/team/app/manifests/1`, { headers: ANY })).status, 200);
    // Somebody who died a moment ago, before it was asked for a byte.
    const dead = await a.proxy.cache!.together!.turn(digest);
    assert(dead.kind === "ours");
    const filter = { method: "GET", kind: "blob", reference: digest, range: false };
    const fault = fleet.registry.faults.add(filter, { status: 503 });
    const asked = whole(b.url + path);
    // Its access is proved; now it looks for who downloads.
    await until(() => fleet.registry.count({ method: "GET", reference: digest, status: 206 }) > 0);
    await dead.claim.release();
    assert((await asked).status >= 500);
    fault.remove();
    for (const proxy of [a, b]) {
      const answer = await whole(proxy.url + path, { signal: AbortSignal.timeout(30_000) });
      assertEquals(answer.digest, digest);
    }
  },
});

toolTest("wrong bytes become no object anywhere, and what was sent ahead of them is dropped", {
  needs: BOTH,
  async fn() {
    await using fleet = await startFleet(2);
    const [a, b] = fleet.instances as [TestProxy, TestProxy];
    const size = 20 * 2 ** 20;
    const image = makeImage({ layers: [makeLargeLayer(size)] });
    fleet.registry.add("team/app", "1", image);
    const { digest } = blobsOf(image)[1]!;
    // Early: what comes of upstream after the download broke must not make it right.
    const fault = { rate: 20 * 2 ** 20, corruptAt: 1_000 };
    const wrong = fleet.registry.faults.add({ kind: "blob", reference: digest }, fault);
    const path = `/v2/team/app/blobs/${digest}`;
    const location = a.config.cache!.store;
    assert(location.engine === "s3");
    const objects = new S3Objects(location);
    const uploads = async () => (await Array.fromAsync(objects.uploads.list("blobs/"))).length;
    const first = assertRejects(() => whole(a.url + path));
    await until(() => fleet.registry.blobGets(digest) === 1);
    const second = assertRejects(() => whole(b.url + path));
    await until(async () => await uploads() > 0);
    await Promise.all([first, second]);
    for (const { proxy } of fleet.instances) await proxy.cache!.content.settled(digest);
    await until(async () => await uploads() === 0);
    assertEquals(await a.proxy.cache!.store.stat(digest), undefined);
    assertEquals(await b.proxy.cache!.index.blob(digest), undefined);
    wrong.remove();
    for (const proxy of [a, b]) assertEquals((await whole(proxy.url + path)).digest, digest);
  },
});

toolTest("a stranger with an invalid token holds up nobody's first pull at another instance", {
  needs: BOTH,
  async fn() {
    await using fleet = await startFleet(2);
    const [a, b] = fleet.instances as [TestProxy, TestProxy];
    const image = makeImage({ layers: [100_000] });
    fleet.registry.add("team/app", "1", image);
    const { digest } = blobsOf(image)[1]!;
    const leave = new AbortController();
    const strangers: Promise<unknown>[] = [];
    const headers = { ...ANY, authorization: "Bearer invalid" };
    for (
      const [kind, path] of [["manifest", "manifests/1"], ["blob", `blobs/${digest}`]] as const
    ) {
      const before = fleet.registry.count({ kind });
      // What upstream says to the stranger takes longer than anybody else should wait.
      const fault = fleet.registry.faults.add({ kind }, { delay: 8_000 }, { times: 1 });
      const url = `/v2/team/app/${path}`;
      const { signal } = leave;
      strangers.push(fetch(a.url + url, { headers, signal }).catch(() => {}));
      await until(() => fault.hits === 1);
      // Others gave up waiting for the lease after five seconds, or never.
      const answer = await whole(b.url + url, {
        headers: { ...ANY, authorization: `Bearer ${await token(b, "team/app")}` },
        signal: AbortSignal.timeout(4_000),
      });
      assertEquals([kind, answer.status], [kind, 200]);
      assert(fleet.registry.count({ kind }) > before);
    }
    leave.abort();
    await Promise.all(strangers);
  },
});

toolTest(
  "a caller that upstream has just let in is not asked about again before another instance's download is followed",
  {
    needs: BOTH,
    async fn() {
      await using fleet = await startFleet(2, { auth: "none" });
      const [a, b] = fleet.instances as [TestProxy, TestProxy];
      const image = makeImage({ layers: [makeLargeLayer(4 * 2 ** 20)] });
      fleet.registry.add("team/app", "1", image);
      const { digest } = blobsOf(image)[1]!;
      fleet.registry.faults.add({ kind: "blob", reference: digest }, { rate: 2 * 2 ** 20 });
      const path = `/v2/team/app/blobs/${digest}`;
      const first = whole(a.url + path);
      await until(() => fleet.registry.blobGets(digest) === 1);
      assertEquals((await whole(b.url + path)).digest, digest);
      assertEquals((await first).digest, digest);
      // The download; the other instance's question, which it gives up; and the part that proves its client's access.
      assertEquals(fleet.registry.blobGets(digest), 3);
    },
  },
);
