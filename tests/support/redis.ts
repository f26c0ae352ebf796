/**
 * Connections to a fake Redis, for tests.
 *
 * @module
 */
import { parseRedisUrl } from "../../lib/config/engine_url.ts";
import { Redis } from "../../lib/cache/store/redis.ts";
import { FakeRedis } from "./fake_redis.ts";

/** A connection to a fake Redis of its own. */
export async function fakeRedis(): Promise<
  { readonly redis: Redis; readonly fake: FakeRedis } & AsyncDisposable
> {
  const fake = await FakeRedis.start();
  const location = parseRedisUrl(`${fake.url}?prefix=test`);
  const redis = await Redis.connect({ location, onDown() {}, onUp() {} });
  return {
    redis,
    fake,
    [Symbol.asyncDispose]() {
      redis.close();
      fake[Symbol.dispose]();
      return Promise.resolve();
    },
  };
}
