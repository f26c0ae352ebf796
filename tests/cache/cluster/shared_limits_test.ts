import { assert, assertEquals } from "@std/assert";
import { RedisRateCounter } from "../../../lib/cache/cluster/shared_limits.ts";
import { fakeRedis } from "../../support/redis.ts";

const HOUR = 3_600_000;
const RATE = { count: 3, period: HOUR };

Deno.test("what one instance gives back of a client's budget another can take, and never more than the whole", async () => {
  await using made = await fakeRedis();
  const [a, b] = [new RedisRateCounter(made.redis), new RedisRateCounter(made.redis)];
  for (const counter of [a, b, a]) assertEquals(await counter.take("misses x", RATE), 0);
  assert(await b.take("misses x", RATE) > HOUR / 4);
  await a.giveBack("misses x", RATE);
  assertEquals(await b.take("misses x", RATE), 0);
  assert(await a.take("misses x", RATE) > 0);
  // More than was taken, and of a client that has taken nothing.
  for (let i = 0; i < 10; i++) await a.giveBack("misses x", RATE);
  for (let i = 0; i < 10; i++) await a.giveBack("misses y", RATE);
  for (const key of ["misses x", "misses y"]) {
    for (let i = 0; i < 3; i++) assertEquals(await b.take(key, RATE), 0);
    assert(await b.take(key, RATE) > 0, key);
  }
});

Deno.test("a client's budget in Redis ends by itself, after something was given back too", async () => {
  await using made = await fakeRedis();
  const { redis } = made;
  const counter = new RedisRateCounter(redis);
  for (let i = 0; i < 2; i++) await counter.take("misses x", RATE);
  await counter.giveBack("misses x", RATE);
  const [, [key = ""]] = await redis.command("SCAN", "0") as [string, string[]];
  const left = Number(await redis.command("PTTL", key));
  assert(left > 0 && left <= HOUR / 3, `${left} ms`);
  await counter.giveBack("misses x", RATE);
  assertEquals(await redis.command("EXISTS", key), 0);
});

Deno.test("while Redis refuses writes each instance takes and gives back by itself, and nothing is lost when it is back", async () => {
  await using made = await fakeRedis();
  const counter = new RedisRateCounter(made.redis);
  made.fake.faults.refuseWrites = "OOM command not allowed when used memory > 'maxmemory'";
  for (let i = 0; i < 3; i++) assertEquals(await counter.take("misses x", RATE), 0);
  assert(await counter.take("misses x", RATE) > 0);
  await counter.giveBack("misses x", RATE);
  assertEquals(await counter.take("misses x", RATE), 0);
  made.fake.faults.refuseWrites = undefined;
  for (let i = 0; i < 3; i++) assertEquals(await counter.take("misses x", RATE), 0);
  // Of the six that were taken three are given back, and then there are three.
  for (let i = 0; i < 6; i++) await counter.giveBack("misses x", RATE);
  for (let i = 0; i < 3; i++) assertEquals(await counter.take("misses x", RATE), 0);
  assert(await counter.take("misses x", RATE) > 0);
});
