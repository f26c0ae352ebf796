import { assertEquals } from "@std/assert";
import { Leader } from "../../../lib/cache/cluster/leader.ts";
import { RedisLeases } from "../../../lib/cache/cluster/lease.ts";
import { fakeRedis } from "../../support/redis.ts";

Deno.test("of several instances one has a duty until it ends or loses its lease", async () => {
  await using t = await fakeRedis();
  const [one, two] = ["one", "two"].map((key) =>
    new Leader(new RedisLeases(t.redis, { url: `http://${key}`, key }), "patrol")
  ) as [Leader, Leader];
  const who = async () => [await one.isOurs(), await two.isOurs()];
  assertEquals(await who(), [true, false]);
  assertEquals(await who(), [true, false]);
  await one.close();
  assertEquals(await two.isOurs(), true);
  // It was not heard of for too long: another may have it by now.
  await t.redis.command("DEL", t.redis.key("f:patrol"));
  const three = new Leader(
    new RedisLeases(t.redis, { url: "http://three", key: "three" }),
    "patrol",
  );
  assertEquals([await three.isOurs(), await two.isOurs()], [true, false]);
  await Promise.all([two, three].map((leader) => leader.close()));
});

Deno.test("a lost duty is taken up again by one of those who ask at once, and given back at the end", async () => {
  await using t = await fakeRedis();
  const leases = new RedisLeases(t.redis, { url: "http://one", key: "one" });
  const leader = new Leader(leases, "patrol");
  for (let n = 0; n < 3; n++) {
    const asked = await Promise.all([1, 2, 3].map(() => leader.isOurs()));
    assertEquals(asked, [true, true, true]);
    await t.redis.command("DEL", t.redis.key("f:patrol"));
  }
  await leader.isOurs();
  await leader.close();
  assertEquals(await leases.isTaken("patrol"), false);
});

Deno.test("nobody has a duty while Redis cannot be asked, and nobody takes one who has ended", async () => {
  await using t = await fakeRedis();
  const leases = new RedisLeases(t.redis, { url: "http://one", key: "one" });
  const leader = new Leader(leases, "patrol");
  t.redis.close();
  assertEquals(await leader.isOurs(), false);
  await using other = await fakeRedis();
  const ended = new Leader(new RedisLeases(other.redis, { url: "http://x", key: "x" }), "patrol");
  await ended.close();
  assertEquals(await ended.isOurs(), false);
  assertEquals(await other.redis.command("EXISTS", other.redis.key("f:patrol")), 0);
});
