import { assertEquals } from "@std/assert";
import { RedisIndex } from "../../lib/cache/redis_index.ts";
import { SurvivingIndex, type SurvivingIndexOptions } from "../../lib/cache/surviving_index.ts";
import { fakeRedis } from "../support/redis.ts";

const KEY = { registry: "registry-1.docker.io", repository: "team/app" };
const HOUR = 60 * 60_000;

/** One of several instances on a Redis. */
function instance(
  redis: Awaited<ReturnType<typeof fakeRedis>>["redis"],
  options?: SurvivingIndexOptions,
) {
  return new SurvivingIndex(new RedisIndex(redis, { instance: crypto.randomUUID() }), options);
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
