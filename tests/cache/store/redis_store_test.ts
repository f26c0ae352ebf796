import { FileStore } from "../../../lib/cache/store/file_store.ts";
import { RedisStore } from "../../../lib/cache/store/redis_store.ts";
import { testBlobStore } from "../../support/blob_store_contract.ts";
import { fakeRedis } from "../../support/redis.ts";
import { tempDir } from "../../support/temp.ts";

testBlobStore("RedisStore on a fake Redis", {
  async make() {
    const dir = await tempDir();
    const made = await fakeRedis();
    const open = () => new RedisStore(made.redis, { drafts: new FileStore(dir.path) });
    return {
      store: open(),
      reopen: () => Promise.resolve(open()),
      async [Symbol.asyncDispose]() {
        await made[Symbol.asyncDispose]();
        await dir[Symbol.asyncDispose]();
      },
    };
  },
});
