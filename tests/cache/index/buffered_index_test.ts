import { assert, assertEquals, assertRejects } from "@std/assert";
import { RedisIndex } from "../../../lib/cache/index/redis_index.ts";
import {
  BufferedIndex,
  type SurvivingIndexOptions,
} from "../../../lib/cache/index/buffered_index.ts";
import { RedisDownError } from "../../../lib/cache/store/redis.ts";
import { captureLogs } from "../../support/logs.ts";
import { fakeRedis } from "../../support/redis.ts";

const KEY = { registry: "registry-1.docker.io", repository: "team/app" };
const HOUR = 60 * 60_000;

/** One of several instances on a Redis. */
function instance(
  redis: Awaited<ReturnType<typeof fakeRedis>>["redis"],
  options?: SurvivingIndexOptions,
) {
  return new BufferedIndex(new RedisIndex(redis, { instance: crypto.randomUUID() }), options);
}

Deno.test("while Redis is away a remembered mark ends by its own time, and where upstream is never asked it does not", async () => {
  await using made = await fakeRedis();
  const clock = { now: Date.now() };
  const now = () => clock.now;
  const online = instance(made.redis, { now });
  const offline = instance(made.redis, { now, marksHold: Infinity });
  const since = clock.now;
  await online.setPublic(KEY, since);
  await online.publicSince(KEY);
  await offline.publicSince(KEY);
  made.redis.close();
  clock.now += HOUR - 1;
  assertEquals(typeof await online.publicSince(KEY), "number");
  clock.now += 2;
  assertEquals(await online.publicSince(KEY), undefined);
  const question = { ...KEY, kind: "blob", by: { digest: "sha256:x" } } as const;
  assertEquals((await online.look(question)).publicSince, undefined);
  assertEquals(typeof await offline.publicSince(KEY), "number");
  for (const index of [online, offline]) await index.close();
});

Deno.test("a mark that one instance removes is forgotten by the others, before Redis goes away", async () => {
  await using made = await fakeRedis();
  const [here, there] = [instance(made.redis), instance(made.redis)];
  await here.setPublic(KEY, Date.now());
  assertEquals(typeof await there.publicSince(KEY), "number");
  await there.forgetRevoked();
  await here.setPublic(KEY, undefined);
  await there.forgetRevoked();
  made.redis.close();
  assertEquals(await there.publicSince(KEY), undefined);
  for (const index of [here, there]) await index.close();
});

Deno.test("of more removed marks than can be looked up at once none is believed any more", async () => {
  await using made = await fakeRedis();
  const [here, there] = [instance(made.redis), instance(made.redis)];
  await here.setPublic(KEY, Date.now());
  await there.publicSince(KEY);
  for (let i = 0; i < 1_001; i++) {
    await here.setPublic({ ...KEY, repository: `team/${i}` }, undefined);
  }
  await there.forgetRevoked();
  made.redis.close();
  assertEquals(await there.publicSince(KEY), undefined);
  for (const index of [here, there]) await index.close();
});

Deno.test("a repository that is public again after it was not is remembered as such", async () => {
  await using made = await fakeRedis();
  const [here, there] = [instance(made.redis), instance(made.redis)];
  await here.setPublic(KEY, undefined);
  await there.forgetRevoked();
  await here.setPublic(KEY, Date.now());
  assertEquals(typeof await there.publicSince(KEY), "number");
  for (const index of [here, there]) await index.close();
});

Deno.test("a change that Redis refuses for good is dropped and told, and those after it are made", async () => {
  await using made = await fakeRedis();
  using logs = await captureLogs();
  const remote = new RedisIndex(made.redis, { instance: "a" });
  const index = new BufferedIndex(remote);
  const setTag = remote.setTag.bind(remote);
  let isAway = true;
  remote.setTag = (key, tag, row) => {
    if (isAway) return Promise.reject(new RedisDownError("Redis is down"));
    if (tag === "2") return Promise.reject(new Error("ERR wrong kind of value"));
    return setTag(key, tag, row);
  };
  const row = { digest: `sha256:${"0a".repeat(32)}`, checkedAt: Date.now() };
  for (const tag of ["1", "2", "3"]) await index.setTag(KEY, tag, row);
  isAway = false;
  await index.replay();
  const there = await Promise.all(["1", "2", "3"].map((tag) => remote.tag(KEY, tag)));
  assertEquals(there.map((found) => found?.digest), [row.digest, undefined, row.digest]);
  assertEquals(logs.find(/^Redis refused/).length, 1);
  // Nothing of it is left.
  await index.replay();
  assertEquals(logs.find(/^Redis refused/).length, 1);
  await index.close();
});

Deno.test("while Redis goes away again what is left of the changes is kept", async () => {
  await using made = await fakeRedis();
  const remote = new RedisIndex(made.redis, { instance: "a" });
  const index = new BufferedIndex(remote);
  const setTag = remote.setTag.bind(remote);
  let allowed = 0;
  remote.setTag = (key, tag, row) =>
    allowed-- > 0 ? setTag(key, tag, row) : Promise.reject(new RedisDownError("Redis is down"));
  const row = { digest: `sha256:${"0a".repeat(32)}`, checkedAt: Date.now() };
  for (const tag of ["1", "2"]) await index.setTag(KEY, tag, row);
  allowed = 1;
  await assertRejects(() => index.replay(), RedisDownError);
  assertEquals(await remote.tag(KEY, "2"), undefined);
  allowed = 9;
  await index.replay();
  assertEquals((await remote.tag(KEY, "2"))?.digest, row.digest);
  await index.close();
});

Deno.test("while Redis is away changes are kept up to eight MiB, however large each is, and the oldest go first", async () => {
  await using made = await fakeRedis();
  const remote = new RedisIndex(made.redis, { instance: "a" });
  const index = new BufferedIndex(remote);
  const digest = (n: number) => `sha256:${n.toString(16).padStart(64, "0")}`;
  const told: string[] = [];
  let isAway = true;
  const attempt = (what: string) => {
    if (isAway) throw new RedisDownError("Redis is down");
    told.push(what);
    return Promise.resolve();
  };
  remote.addLink = async (key) => await attempt(key.digest);
  remote.restoreBlobs = async (rows) => await attempt(`${rows.length} rows`);
  remote.setTag = async (_key, tag) => await attempt(tag);
  const mediaType = "m".repeat(2 ** 20);
  for (let n = 0; n < 20; n++) {
    await index.addLink({ ...KEY, digest: digest(n), kind: "blob" }, { mediaType });
  }
  isAway = false;
  await index.replay();
  assertEquals(told, Array.from({ length: 7 }, (_, n) => digest(13 + n)));
  isAway = true;
  const row = { size: 1, createdAt: 1, usedAt: 1, verifiedAt: 1 };
  const rows = Array.from({ length: 500 }, (_, n) => ({ ...row, digest: digest(n) }));
  for (let n = 0; n < 100; n++) await index.restoreBlobs(rows);
  isAway = false;
  told.length = 0;
  await index.replay();
  assert(told.length > 40 && told.length < 60, `${told.length} changes`);
  isAway = true;
  const tag = { digest: digest(1), checkedAt: 1 };
  for (let n = 0; n < 20_000; n++) await index.setTag(KEY, `v${n}`, tag);
  isAway = false;
  told.length = 0;
  await index.replay();
  assert(told.length > 5_000 && told.length < 15_000, `${told.length} changes`);
  assertEquals(told.at(-1), "v19999");
  await index.close();
});
