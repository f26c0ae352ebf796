/**
 * The contracts of store and index on the engines that several instances share.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { FileStore } from "../../lib/cache/store/file_store.ts";
import { RedisGrants } from "../../lib/cache/cluster/grants.ts";
import { RedisLeases } from "../../lib/cache/cluster/lease.ts";
import { Redis, RedisDownError } from "../../lib/cache/store/redis.ts";
import { RedisIndex } from "../../lib/cache/index/redis_index.ts";
import { RedisStore } from "../../lib/cache/store/redis_store.ts";
import { S3Objects } from "../../lib/cache/store/s3/objects.ts";
import { S3Store } from "../../lib/cache/store/s3/store.ts";
import { BufferedIndex } from "../../lib/cache/index/buffered_index.ts";
import { checkEngines, parseRedisUrl, parseStoreSetting } from "../../lib/config/engine_url.ts";
import { testBlobStore } from "../support/blob_store_contract.ts";
import { digestOf, randomBytes } from "../support/content.ts";
import {
  type Engine,
  redisCommand,
  startRedis,
  startS3,
  startSentinel,
} from "../support/engines.ts";
import { makeCertificate } from "../support/certificate.ts";
import { run } from "../support/process.ts";
import { ROOT } from "../support/proxy_process.ts";
import { testRedis } from "../support/redis_contract.ts";
import { SMALL_INDEX, testIndex } from "../support/index_contract.ts";
import { toolTest } from "../support/requirements.ts";
import { freePort, tempDir } from "../support/temp.ts";

const REDIS = ["redis-server"] as const;
const S3 = ["versitygw"] as const;

/** One server for all tests of this file, each under a prefix of its own. */
const servers: { redis?: Promise<Engine>; s3?: Promise<Engine> } = {};

addEventListener("unload", () => {
  // Left running otherwise: there is no "after all" in Deno.test that may wait.
  for (const pid of pids) {
    try {
      Deno.kill(pid, "SIGKILL");
    } catch {
      // gone already
    }
  }
});
const pids: number[] = [];
let lastPrefix = 0;

async function redisServer(): Promise<Engine> {
  const server = await (servers.redis ??= startRedis({ persistent: false }));
  if (!pids.includes(server.pid)) pids.push(server.pid);
  return server;
}

async function s3Server(): Promise<Engine> {
  const server = await (servers.s3 ??= startS3());
  if (!pids.includes(server.pid)) pids.push(server.pid);
  return server;
}

async function connect(engine: Engine, prefix = `test-${++lastPrefix}`): Promise<Redis> {
  const location = parseRedisUrl(`${engine.url}?prefix=${prefix}`);
  return await Redis.connect({ location, onDown() {}, onUp() {} });
}

function openS3(engine: Engine, prefix: string, dir: string): S3Store {
  const [where, query] = engine.url.split("?");
  const { store } = checkEngines({
    CACHE_STORE: parseStoreSetting(`${where}/${prefix}?${query}`),
    STORE_REDIRECT: false,
    AWS_ACCESS_KEY_ID: engine.env["AWS_ACCESS_KEY_ID"],
    AWS_SECRET_ACCESS_KEY: engine.env["AWS_SECRET_ACCESS_KEY"],
  }, []);
  assert(store.engine === "s3");
  return new S3Store({ objects: new S3Objects(store), drafts: new FileStore(dir), idle: 5_000 });
}

testRedis("Redis", {
  needs: REDIS,
  async make() {
    const redis = await connect(await redisServer());
    return {
      redis,
      [Symbol.asyncDispose]: () => Promise.resolve(redis.close()),
    };
  },
});

for (const kind of ["RedisIndex", "BufferedIndex"] as const) {
  const make = async (size?: number) => {
    const redis = await connect(await redisServer());
    const remote = new RedisIndex(redis, { instance: "a", inUse: 0, atWork: 0, size });
    const index = kind === "RedisIndex" ? remote : new BufferedIndex(remote);
    return {
      index,
      async [Symbol.asyncDispose]() {
        await index.close();
        redis.close();
      },
    };
  };
  testIndex(kind, { needs: REDIS, make: () => make(), makeSmall: () => make(SMALL_INDEX) });
}

testBlobStore("RedisStore", {
  needs: REDIS,
  async make() {
    const dir = await tempDir();
    const redis = await connect(await redisServer());
    const open = () => new RedisStore(redis, { drafts: new FileStore(dir.path) });
    return {
      store: open(),
      reopen: () => Promise.resolve(open()),
      async [Symbol.asyncDispose]() {
        redis.close();
        await dir[Symbol.asyncDispose]();
      },
    };
  },
});

testBlobStore("S3Store", {
  needs: S3,
  async make() {
    const dir = await tempDir();
    const server = await s3Server();
    const prefix = `test-${++lastPrefix}`;
    return {
      store: openS3(server, prefix, dir.path),
      reopen: () => Promise.resolve(openS3(server, prefix, dir.path)),
      [Symbol.asyncDispose]: () => dir[Symbol.asyncDispose](),
    };
  },
});

toolTest("S3Store: a large draft goes up in parts, and an upload that was left is swept", {
  needs: S3,
  async fn() {
    await using dir = await tempDir();
    const server = await s3Server();
    const store = openS3(server, "parts", dir.path);
    const bytes = randomBytes(20 * 2 ** 20, 7);
    const digest = digestOf(bytes);
    const draft = await store.begin(digest);
    for (let i = 0; i < bytes.byteLength; i += 2 ** 20) {
      await draft.write(bytes.subarray(i, i + 2 ** 20));
    }
    assertEquals(await store.stat(digest), undefined);
    await draft.commit();
    assertEquals((await store.stat(digest))?.size, bytes.byteLength);

    const { store: location } = checkEngines({
      CACHE_STORE: parseStoreSetting(server.url.replace("?", "/left?")),
      STORE_REDIRECT: false,
      AWS_ACCESS_KEY_ID: server.env["AWS_ACCESS_KEY_ID"],
      AWS_SECRET_ACCESS_KEY: server.env["AWS_SECRET_ACCESS_KEY"],
    }, []);
    assert(location.engine === "s3");
    const objects = new S3Objects(location);
    const id = await objects.uploads.begin(`blobs/sha256/${digest.slice(7, 9)}/${digest.slice(7)}`);
    assertEquals((await Array.fromAsync(objects.uploads.list("blobs/"))).map(({ id }) => id), [id]);
    const later = () => Date.now() + 60 * 60_000;
    const left = new S3Store({
      objects,
      drafts: new FileStore(dir.path),
      idle: 5_000,
      now: later,
    });
    await left.sweep((running) => running === digest);
    assertEquals((await Array.fromAsync(objects.uploads.list("blobs/"))).length, 1);
    await left.sweep();
    assertEquals(await Array.fromAsync(objects.uploads.list("blobs/")), []);
  },
});

toolTest("leases: one holder at a time, and one who slept past the end may not publish", {
  needs: REDIS,
  async fn() {
    const server = await redisServer();
    const prefix = `test-${++lastPrefix}`;
    const [one, two] = await Promise.all([connect(server, prefix), connect(server, prefix)]);
    try {
      const a = new RedisLeases(one, { url: "http://a", key: "ka" });
      const b = new RedisLeases(two, { url: "http://b", key: "kb" });
      const taken = await a.acquire("d");
      assert("lease" in taken);
      assertEquals(await b.acquire("d"), { holder: { url: "http://a", key: "ka" } });
      assertEquals(await taken.lease.isHeld(), true);
      // As if its heartbeat had stopped for longer than a lease lives.
      await one.command("DEL", one.key("f:d"));
      // And as if Redis had lost its last writes in a failover: the next owner gets the same number.
      await one.command("DEL", one.key("fence"));
      const next = await b.acquire("d");
      assert("lease" in next);
      assertEquals(await taken.lease.isHeld(), false);
      await taken.lease.release();
      assertEquals(await next.lease.isHeld(), true);
      await next.lease.release();
      assertEquals(await a.isTaken("d"), false);
    } finally {
      one.close();
      two.close();
    }
  },
});

toolTest("promises of an instance that died end, those of a living one do not", {
  needs: REDIS,
  async fn() {
    const server = await redisServer();
    const prefix = `test-${++lastPrefix}`;
    const redis = await connect(server, prefix);
    const [dead, alive] = ["dead", "alive"].map((instance) => new RedisIndex(redis, { instance }));
    try {
      assert(await dead!.reserve(60, 100));
      assert(await alive!.reserve(30, 100));
      assertEquals(await alive!.reserve(30, 100), undefined);
      await redis.command("ZADD", redis.key("rx"), "1", "dead");
      assertEquals((await alive!.totals()).reserved, 30);
      assert(await alive!.reserve(30, 100));
    } finally {
      dead!.close();
      alive!.close();
      redis.close();
    }
  },
});

toolTest("what instances note means the same to all, however much their clocks differ", {
  needs: REDIS,
  async fn() {
    const server = await redisServer();
    const HOUR = 3_600_000;
    for (const skew of [-25 * HOUR, -10 * 60_000, 500, 10 * 60_000, 25 * HOUR]) {
      const redis = await connect(server);
      const right = new RedisIndex(redis, { instance: "right" });
      const now = () => Date.now() + skew;
      const wrong = new RedisIndex(redis, { instance: "wrong", now });
      try {
        await right.compareClocks();
        await wrong.compareClocks();
        const key = { registry: "r", repository: "a/b" };
        const digest = digestOf(new Uint8Array([1]));
        const at = Date.now() - HOUR;
        // As each of them has it on its own clock, an hour ago.
        const ages = async (index: RedisIndex, clock: () => number) => {
          const row = (await index.blob(digest))!;
          const facts = await index.look({ ...key, kind: "blob", by: { digest } });
          const tag = await index.look({ ...key, kind: "blob", by: { tag: "1" } });
          const times = [row.createdAt, row.usedAt, row.verifiedAt, facts.row!.createdAt];
          times.push(facts.publicSince!, (await index.publicSince(key))!, tag.tag!.checkedAt);
          times.push((await index.tag(key, "1"))!.checkedAt);
          times.push((await Array.fromAsync(index.tags()))[0]!.checkedAt);
          times.push((await index.leastRecent(1))[0]!.usedAt);
          return times.map((time) => clock() - time);
        };
        for (const [writer, there] of [[wrong, at + skew], [right, at]] as const) {
          const row = { digest, size: 1, createdAt: there, usedAt: there, verifiedAt: there };
          await writer.addBlob(row);
          await writer.addLink({ ...key, digest, kind: "blob" }, { mediaType: "" });
          await writer.setTag(key, "1", { digest, checkedAt: there });
          await writer.setPublic(key, there);
          for (const [reader, clock] of [[right, Date.now], [wrong, now]] as const) {
            for (const age of await ages(reader, clock)) {
              assert(Math.abs(age - HOUR) < 10_000, `${age} ms instead of an hour, ${skew}`);
            }
          }
          // What one works on now is nobody's to settle yet.
          await writer.markPending(digest);
          assertEquals([await right.pending(), await wrong.pending()], [[], []]);
          await writer.clearPending(digest);
          await writer.removeBlob(digest);
        }
      } finally {
        right.close();
        wrong.close();
        redis.close();
      }
    }
  },
});

toolTest("while Redis is gone what was seen is known, and what happened is told when it is back", {
  needs: REDIS,
  async fn() {
    await using server = await startRedis();
    const events: string[] = [];
    const redis = await Redis.connect({
      location: parseRedisUrl(server.url),
      onDown: () => events.push("down"),
      onUp: () => events.push("up"),
    });
    const remote = new RedisIndex(redis, { instance: "a" });
    const index = new BufferedIndex(remote);
    try {
      const key = { registry: "r", repository: "team/app" };
      const row = (n: number) => ({
        digest: digestOf(new Uint8Array([n])),
        size: 10,
        createdAt: 5,
        usedAt: 5,
        verifiedAt: 5,
      });
      await index.addBlob(row(1));
      await index.setTag(key, "1", { digest: row(1).digest, checkedAt: 5 });
      const markedAt = Date.now();
      await index.setPublic(key, markedAt);
      assertEquals((await index.totals()).bytes, 10);
      await server.kill();
      await assertRejects(() => remote.blob(row(1).digest), RedisDownError);
      assertEquals((await index.blob(row(1).digest))?.size, 10);
      assertEquals((await index.tag(key, "1"))?.digest, row(1).digest);
      assertEquals(await index.publicSince(key), markedAt);
      await index.addBlob(row(2));
      assertEquals((await index.blob(row(2).digest))?.size, 10);
      assertEquals(await index.reserve(200, 100), undefined);
      const admission = await index.reserve(20, 100);
      assert(admission);
      await admission.release();
      await server.start();
      while (!redis.isUp) await new Promise((resolve) => setTimeout(resolve, 50));
      await index.replay();
      assertEquals((await remote.blob(row(2).digest))?.size, 10);
      assertEquals((await remote.totals()).bytes, 20);
      assertEquals(events, ["down", "up"]);
    } finally {
      await index.close();
      redis.close();
    }
  },
});

async function redisInfo(port: number): Promise<string> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  await connection.write(new TextEncoder().encode("CLUSTER INFO\r\n"));
  const buffer = new Uint8Array(4096);
  return new TextDecoder().decode(buffer.subarray(0, await connection.read(buffer) ?? 0));
}

/** What every way to reach Redis has to be able to do. */
async function exercise(url: string): Promise<void> {
  const redis = await Redis.connect({ location: parseRedisUrl(url), onDown() {}, onUp() {} });
  const index = new RedisIndex(redis, { instance: "a" });
  try {
    assert(redis.isUp, `No connection by ${url}`);
    const digest = digestOf(new Uint8Array([1]));
    await index.addBlob({ digest, size: 3, createdAt: 1, usedAt: 1, verifiedAt: 1 });
    const about = { registry: "r", repository: "a/b", kind: "blob" } as const;
    await index.addLink({ ...about, digest }, { mediaType: "" });
    await new RedisGrants(redis).add("g", 60_000);
    const facts = await index.look({ ...about, by: { digest }, grant: "g" });
    assertEquals([facts.row?.size, facts.isGranted], [3, true]);
    assertEquals(await index.totals(), { bytes: 3, entries: 1, reserved: 0 });
    assert(await index.reserve(1, 100));
    const taken = await new RedisLeases(redis, { url: "http://a", key: "k" }).acquire("d");
    assert("lease" in taken);
    await taken.lease.release();
    await using dir = await tempDir();
    const store = new RedisStore(redis, { drafts: new FileStore(dir.path) });
    const bytes = randomBytes(700_000, 3);
    const draft = await store.begin(digestOf(bytes));
    await draft.write(bytes);
    await draft.commit();
    const blob = await store.open(digestOf(bytes));
    const buffer = new Uint8Array(100);
    assertEquals(await blob!.read(600_000, buffer), 100);
    assertEquals(buffer, bytes.subarray(600_000, 600_100));
  } finally {
    index.close();
    redis.close();
  }
}

toolTest("Redis with an ACL user and a database of its own", {
  needs: REDIS,
  async fn() {
    await using server = await startRedis();
    const user = "ACL SETUSER proxy on >s3cret ~* +@all";
    assertEquals(await redisCommand(server.port, user), "+OK");
    assertEquals(await redisCommand(server.port, "ACL SETUSER default off"), "+OK");
    await exercise(`redis://proxy:s3cret@127.0.0.1:${server.port}/3`);
  },
});

toolTest("Redis over TLS", {
  needs: ["redis-server", "openssl"],
  async fn() {
    await using dir = await tempDir();
    const { certPath, keyPath, caPath } = await makeCertificate(dir.path);
    const tlsPort = freePort();
    await using _server = await startRedis({
      args: [
        ...["--tls-port", String(tlsPort), "--tls-cert-file", certPath, "--tls-key-file", keyPath],
        ...["--tls-ca-cert-file", caPath, "--tls-auth-clients", "no"],
      ],
    });
    // The certificate is nobody's that this process trusts.
    const refused = await Redis.connect({
      location: parseRedisUrl(`rediss://localhost:${tlsPort}`),
      onDown() {},
      onUp() {},
    });
    assertEquals(refused.isUp, false);
    refused.close();
    const { code, stdout, stderr } = await run(Deno.execPath(), [
      ...["eval", "--no-lock", `--cert=${caPath}`],
      `import { Redis } from "${new URL("../../lib/cache/store/redis.ts", import.meta.url)}";
       import { parseRedisUrl } from "${new URL(
        "../../lib/config/engine_url.ts",
        import.meta.url,
      )}";
       const location = parseRedisUrl("rediss://localhost:${tlsPort}");
       const redis = await Redis.connect({ location, onDown: console.error, onUp() {} });
       console.log(await redis.command("SET", redis.key("a"), "1"));
       redis.close();`,
    ], { cwd: ROOT });
    assertEquals([code, stdout.trim()], [0, "OK"], stderr);
  },
});

toolTest("a Redis cluster", {
  needs: REDIS,
  async fn() {
    await using server = await startRedis({ args: ["--cluster-enabled", "yes"] });
    assertEquals(await redisCommand(server.port, "CLUSTER ADDSLOTSRANGE 0 16383"), "+OK");
    while (!/cluster_state:ok/.test(await redisInfo(server.port))) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await exercise(`redis://127.0.0.1:${server.port}?cluster=true`);
  },
});

toolTest("Redis behind a sentinel", {
  needs: REDIS,
  async fn() {
    await using server = await startRedis();
    await using sentinel = await startSentinel(server);
    await exercise(sentinel.url);
  },
});
