import { assert, assertEquals } from "@std/assert";
import { RedisIndex } from "../../../lib/cache/index/redis_index.ts";
import { BufferedIndex } from "../../../lib/cache/index/buffered_index.ts";
import { SMALL_INDEX, testIndex } from "../../support/index_contract.ts";
import { fakeRedis } from "../../support/redis.ts";

for (const kind of ["RedisIndex", "BufferedIndex"] as const) {
  const make = async (size?: number) => {
    const made = await fakeRedis();
    const remote = new RedisIndex(made.redis, { instance: "a", inUse: 0, atWork: 0, size });
    const index = kind === "RedisIndex" ? remote : new BufferedIndex(remote);
    return {
      index,
      async [Symbol.asyncDispose]() {
        await index.close();
        await made[Symbol.asyncDispose]();
      },
    };
  };
  testIndex(`${kind} on a fake Redis`, { make: () => make(), makeSmall: () => make(SMALL_INDEX) });
}

Deno.test("RedisIndex: facts of the version before are counted once, told in pages, and kept within the budgets", async () => {
  await using made = await fakeRedis();
  const { redis } = made;
  const index = new RedisIndex(redis, { instance: "a", inUse: 0, size: SMALL_INDEX });
  const key = { registry: "r.example", repository: "a/b" };
  const digest = (n: number) => `sha256:${n.toString(16).padStart(64, "0")}`;
  await index.addBlob({ digest: digest(0), size: 1, createdAt: 1, usedAt: 1, verifiedAt: 1 });
  // As that version wrote them: no order of names, no uses, no bytes.
  const before = async (n: number) => {
    await redis.command("HSET", redis.key("t:r.example a/b"), `v${n}`, `${n + 1} ${digest(0)}`);
    await redis.command("SADD", redis.key(`d:${digest(0)}`), `r.example a/b v${n}`);
    await redis.command("HSET", redis.key(`l:${digest(n)}`), "r.example a/b manifest", "a/b");
    await redis.command("HINCRBY", redis.key("c"), "r.example a/b", "1");
    if (n > 0) await redis.command("ZADD", redis.key("o"), "1", digest(n));
  };
  for (let n = 0; n < 300; n++) await before(n);
  await redis.command("SADD", redis.key("T"), "r.example a/b");
  // One that this version has noted meanwhile.
  await index.setTag(key, "v7", { digest: digest(0), checkedAt: 8 });
  assertEquals(await index.tagCount(), 1);
  await index.adopt();
  assertEquals(await index.tagCount(), 300);
  assertEquals((await Array.fromAsync(index.tags())).length, 300);
  const usage = () =>
    redis.command("HMGET", redis.key("n"), "tags", "links", "links:rows", "tags:rows");
  const counted = await usage();
  await redis.command("SADD", redis.key("T"), "r.example a/b"); // broken off before it ended
  await index.adopt();
  assertEquals(await usage(), counted);
  await index.setTag(key, "more", { digest: digest(0), checkedAt: 1_000 }); // finds that there is little room
  await index.addLink({ ...key, digest: digest(1_000), kind: "blob" }, { mediaType: "" });
  await index.trim();
  const left = await index.tagCount();
  assert(left > 20 && left < 200, `${left} tags`);
  assertEquals(await index.tag(key, "v0"), undefined);
  assert(await index.tag(key, "v299"));
  for (const { tag } of await Array.fromAsync(index.tags())) await index.removeTag(key, tag);
  for (let n = 0; n <= 1_000; n++) await index.removeBlob(digest(n));
  assertEquals(await usage(), ["0", "0", "0", "0"]);
  index.close();
});
