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
