/**
 * What the commands that the proxy uses do, on whatever speaks Redis' protocol: the same for a fake and a real one.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { type Redis, script } from "../../lib/cache/store/redis.ts";
import { type Tool, toolTest } from "./requirements.ts";

/** A Redis to try, with no key under the prefix of `redis`. */
export interface RedisUnderTest extends AsyncDisposable {
  readonly redis: Redis;
}

/** A command and what it is answered with; `sorted` where Redis promises no order. */
interface Step {
  readonly run: readonly [command: string, key: string, ...args: string[]];
  readonly gives: unknown;
  readonly sorted?: boolean;
}

const CASES: Readonly<Record<string, readonly Step[]>> = {
  "strings": [
    { run: ["SET", "a", "one"], gives: "OK" },
    { run: ["SET", "a", "two", "NX"], gives: null },
    { run: ["SET", "b", "two", "XX"], gives: null },
    { run: ["GET", "a"], gives: "one" },
    { run: ["GET", "none"], gives: null },
    { run: ["GETRANGE", "a", "0", "1"], gives: "on" },
    { run: ["GETRANGE", "a", "-2", "-1"], gives: "ne" },
    { run: ["GETRANGE", "a", "5", "9"], gives: "" },
    { run: ["STRLEN", "a"], gives: 3 },
    { run: ["INCR", "n"], gives: 1 },
    { run: ["INCR", "n"], gives: 2 },
    { run: ["EXISTS", "a"], gives: 1 },
    { run: ["DEL", "a"], gives: 1 },
    { run: ["UNLINK", "a"], gives: 0 },
  ],
  "times to live": [
    { run: ["PTTL", "a"], gives: -2 },
    { run: ["SET", "a", "1", "EX", "100"], gives: "OK" },
    { run: ["PERSIST", "a"], gives: 1 },
    { run: ["PERSIST", "a"], gives: 0 },
    { run: ["PTTL", "a"], gives: -1 },
    { run: ["PEXPIRE", "a", "0"], gives: 1 },
    { run: ["EXISTS", "a"], gives: 0 },
    { run: ["EXPIRE", "none", "10"], gives: 0 },
    { run: ["SET", "b", "1", "PX", "100000"], gives: "OK" },
    { run: ["SET", "b", "2"], gives: "OK" },
    { run: ["PTTL", "b"], gives: -1 },
  ],
  "hashes": [
    { run: ["HSET", "h", "x", "1", "y", "2"], gives: 2 },
    { run: ["HSET", "h", "x", "3", "z", ""], gives: 1 },
    { run: ["HGET", "h", "x"], gives: "3" },
    { run: ["HGET", "h", "none"], gives: null },
    { run: ["HMGET", "h", "z", "none", "y"], gives: ["", null, "2"] },
    { run: ["HKEYS", "h"], gives: ["x", "y", "z"], sorted: true },
    { run: ["HRANDFIELD", "h", "5"], gives: ["x", "y", "z"], sorted: true },
    { run: ["HRANDFIELD", "none", "5"], gives: [] },
    { run: ["HSCAN", "none", "0", "COUNT", "5"], gives: ["0", []] },
    { run: ["HVALS", "h"], gives: ["", "2", "3"], sorted: true },
    { run: ["HGETALL", "none"], gives: [] },
    { run: ["HLEN", "h"], gives: 3 },
    { run: ["HEXISTS", "h", "y"], gives: 1 },
    { run: ["HINCRBY", "h", "y", "-5"], gives: -3 },
    { run: ["HINCRBY", "h", "new", "7"], gives: 7 },
    { run: ["HDEL", "h", "x", "y", "z", "new", "none"], gives: 4 },
    { run: ["EXISTS", "h"], gives: 0 },
  ],
  "sets": [
    { run: ["SADD", "s", "a", "b", "a"], gives: 2 },
    { run: ["SADD", "s", "b", "c"], gives: 1 },
    { run: ["SMEMBERS", "s"], gives: ["a", "b", "c"], sorted: true },
    { run: ["SCARD", "s"], gives: 3 },
    { run: ["SISMEMBER", "s", "c"], gives: 1 },
    { run: ["SSCAN", "s", "0", "COUNT", "500"], gives: ["0", ["a", "b", "c"]], sorted: true },
    { run: ["SRANDMEMBER", "s", "5"], gives: ["a", "b", "c"], sorted: true },
    { run: ["SREM", "s", "a", "b", "c", "d"], gives: 3 },
    { run: ["EXISTS", "s"], gives: 0 },
  ],
  "sorted sets": [
    { run: ["ZADD", "z", "3", "c", "1", "a", "2", "b", "2", "bb"], gives: 4 },
    { run: ["ZADD", "z", "XX", "GT", "1", "b", "5", "a", "9", "none"], gives: 0 },
    { run: ["ZADD", "z", "NX", "9", "a"], gives: 0 },
    { run: ["ZADD", "z", "CH", "4", "a", "1", "d"], gives: 2 },
    { run: ["ZSCORE", "z", "a"], gives: "4" },
    { run: ["ZSCORE", "z", "none"], gives: null },
    { run: ["ZADD", "z", "1764000000123", "late"], gives: 1 },
    { run: ["ZSCORE", "z", "late"], gives: "1764000000123" },
    { run: ["ZREM", "z", "late"], gives: 1 },
    { run: ["ZCARD", "z"], gives: 5 },
    { run: ["ZCOUNT", "z", "(1", "3"], gives: 3 },
    { run: ["ZRANGE", "z", "0", "-1"], gives: ["d", "b", "bb", "c", "a"] },
    { run: ["ZRANGE", "z", "1", "2", "WITHSCORES"], gives: ["b", "2", "bb", "2"] },
    { run: ["ZRANGE", "z", "-inf", "(3", "BYSCORE", "LIMIT", "1", "5"], gives: ["b", "bb"] },
    { run: ["ZRANGE", "z", "+inf", "2", "BYSCORE", "REV"], gives: ["a", "c", "bb", "b"] },
    { run: ["ZSCAN", "none", "0"], gives: ["0", []] },
    { run: ["ZREMRANGEBYSCORE", "z", "-inf", "(3"], gives: 3 },
    { run: ["ZREM", "z", "a", "c"], gives: 2 },
    { run: ["ZADD", "z", "0", "a b", "0", "a-b", "0", "a", "0", "b"], gives: 4 },
    { run: ["ZRANGE", "z", "-", "+", "BYLEX", "LIMIT", "0", "3"], gives: ["a", "a b", "a-b"] },
    { run: ["ZRANGE", "z", "(a", "[b", "BYLEX"], gives: ["a b", "a-b", "b"] },
    { run: ["ZREMRANGEBYRANK", "z", "0", "2"], gives: 3 },
    { run: ["ZREM", "z", "b"], gives: 1 },
    { run: ["EXISTS", "z"], gives: 0 },
  ],
};

/** Scripts and what they return: how replies and errors pass between Redis and Lua. */
const SCRIPTS: Readonly<Record<string, readonly [lua: string, args: string[], gives: unknown]>> = {
  "a list ends at nil, and false is null": [`return { 1, false, 'x', nil, 5 }`, [], [1, null, "x"]],
  "fractions are cut": [`return 3.99`, [], 3],
  "infinity is a number": [`return tonumber('Infinity') > 1 and tonumber('-inf') < 1`, [], 1],
  "numbers as text add up": [`return 0 - ARGV[1] + '2'`, ["40"], -38],
  "what is absent is false": [
    `return { redis.call('GET', KEYS[1] .. 'none') == false, redis.call('HGET', KEYS[1] .. 'none', 'x') }`,
    [],
    [1, null],
  ],
  "a large whole number goes to a command without an exponent": [
    `redis.call('SET', KEYS[1] .. 'n', 1764000000 * 1000 + 123) return redis.call('GET', KEYS[1] .. 'n')`,
    [],
    "1764000000123",
  ],
  "a key takes another's name, and its time to live with it": [
    `redis.call('SET', KEYS[1] .. 'a', '1', 'PX', 100000)
     redis.call('SET', KEYS[1] .. 'b', '2')
     redis.call('RENAME', KEYS[1] .. 'a', KEYS[1] .. 'b')
     return { redis.call('GET', KEYS[1] .. 'b'), redis.call('PTTL', KEYS[1] .. 'b') > 0, redis.call('GET', KEYS[1] .. 'a') }`,
    [],
    ["1", 1, null],
  ],
  "a status is a table with ok": [`return redis.call('SET', KEYS[1] .. 'a', '1')['ok']`, [], "OK"],
  "an error that is caught is a table with err": [
    `redis.call('SET', KEYS[1] .. 'a', '1')
     return redis.pcall('HGET', KEYS[1] .. 'a', 'x')['err']:match('^%a+')`,
    [],
    "WRONGTYPE",
  ],
  "patterns of Lua": [`return { ('12 sha256:ab'):match('^(%d+) (%S+)$') }`, [], [
    "12",
    "sha256:ab",
  ]],
};

/** Registers the tests of a Redis that `make` makes; each gets one of its own. */
export function testRedis(
  name: string,
  { make, needs = [] }: { make: () => Promise<RedisUnderTest>; needs?: readonly Tool[] },
): void {
  for (const [what, steps] of Object.entries(CASES)) {
    toolTest(`${name}: ${what}`, {
      needs,
      async fn() {
        await using made = await make();
        const { redis } = made;
        for (const { run: [command, key, ...args], gives, sorted } of steps) {
          const reply = await redis.command(command, redis.key(key), ...args);
          assertEquals(sorted ? sort(reply) : reply, gives, `${command} ${key} ${args.join(" ")}`);
        }
      },
    });
  }
  for (const [what, [lua, args, gives]] of Object.entries(SCRIPTS)) {
    toolTest(`${name}, in scripts: ${what}`, {
      needs,
      async fn() {
        await using made = await make();
        const code = script(lua);
        // Twice: once as text, once by its hash.
        assertEquals(await made.redis.run(code, ...args), gives);
        assertEquals(await made.redis.run(code, ...args), gives);
      },
    });
  }
  toolTest(`${name}: bytes that are no text stay as they are`, {
    needs,
    async fn() {
      await using made = await make();
      const { redis } = made;
      const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
      await redis.command("SET", redis.key("a"), bytes);
      const reply = await redis.bytes("GET", redis.key("a"));
      assertEquals(new Uint8Array(reply as Uint8Array), bytes);
    },
  });
}

/** `reply` with its lists in order. */
function sort(reply: unknown): unknown {
  if (!Array.isArray(reply)) return reply;
  return reply.every((item) => typeof item === "string") ? reply.toSorted() : reply.map(sort);
}
