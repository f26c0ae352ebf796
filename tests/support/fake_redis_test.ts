/**
 * The fake Redis, by the contract that a real one meets too (tests/e2e/engines_test.ts).
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { FakeRedis } from "./fake_redis.ts";
import { ROOT } from "./proxy_process.ts";
import { fakeRedis } from "./redis.ts";
import { testRedis } from "./redis_contract.ts";

testRedis("FakeRedis", { make: fakeRedis });

Deno.test("FakeRedis knows every command that the proxy uses, and its contract tries each", async () => {
  using fake = await FakeRedis.start();
  const contract = await Deno.readTextFile(join(ROOT, "tests/support/redis_contract.ts"));
  const used = new Set<string>();
  for (const path of modules("lib/cache")) {
    const text = await Deno.readTextFile(join(ROOT, path));
    for (const [, name] of text.matchAll(/redis\.p?call\('([A-Z]+)'/g)) used.add(name!);
    for (const [, name] of text.matchAll(/[rR]edis\.(?:command|bytes)\(\s*"([A-Z]+)"/g)) {
      used.add(name!);
    }
  }
  assert(used.size > 20, "the commands were not found in the sources");
  const tried = (name: string) => new RegExp(`["']${name}["']`).test(contract);
  // What only tells of the server: there is nothing to compare.
  const untold = ["INFO", "TIME"];
  for (const name of used) {
    assert(fake.names.includes(name), `${name} is not faked`);
    assert(untold.includes(name) || tried(name), `${name} is not in the contract`);
  }
});

Deno.test("a FakeRedis whose memory is full refuses writes, and removes all the same", async () => {
  using fake = await FakeRedis.start();
  fake.run("SET", "a", "1");
  fake.faults.refuseWrites = "OOM command not allowed when used memory > 'maxmemory'.";
  assertEquals(fake.run("SET", "b", "1"), { err: fake.faults.refuseWrites });
  assertEquals(fake.run("GET", "a"), "1");
  assertEquals(fake.run("DEL", "a"), 1);
});

/** The modules of a folder, all the way down, as paths from the project. */
function modules(folder: string): string[] {
  return [...Deno.readDirSync(join(ROOT, folder))].flatMap(({ name, isDirectory }) =>
    isDirectory ? modules(`${folder}/${name}`) : name.endsWith(".ts") ? [`${folder}/${name}`] : []
  );
}
