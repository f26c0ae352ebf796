/**
 * Budgets of clients and quotas of registries, counted by several instances as one.
 *
 * @module
 */
import { MemoryRateCounter, type RateCounter } from "../../limits/rate_limit.ts";
import type { Rate } from "../../config/values.ts";
import type { Quota, Quotas } from "../../limits/quota.ts";
import { type Redis, script } from "../store/redis.ts";

/** How often what other instances heard of quotas is looked up, ms. */
const LOOK_EVERY = 5_000;

/**
 * The generic cell rate algorithm of {@linkcode MemoryRateCounter}, by Redis' clock.
 * key count period → ms to wait, or 0: then one was taken
 */
const TAKE = script(`
  local key, count, period = KEYS[1] .. 'rate:' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
  local time = redis.call('TIME')
  local now = time[1] * 1000 + time[2] / 1000
  local whole = math.max(tonumber(redis.call('GET', key) or 0), now) + period / count
  local over = whole - now - period
  if over > period * 0.000001 then return math.max(1, math.ceil(over)) end
  redis.call('SET', key, string.format('%.3f', whole), 'PX', math.max(1, math.ceil(whole - now)))
  return 0
`);

/** Gives one back that was taken. key count period → 1 */
const GIVE_BACK = script(`
  local key, count, period = KEYS[1] .. 'rate:' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
  local time = redis.call('TIME')
  local now = time[1] * 1000 + time[2] / 1000
  local before = tonumber(redis.call('GET', key) or 0) - period / count
  if before > now then
    redis.call('SET', key, string.format('%.3f', before), 'PX', math.max(1, math.ceil(before - now)))
  else
    redis.call('DEL', key)
  end
  return 1
`);

/** {@linkcode RateCounter} in Redis; while that is away each instance counts by itself. */
export class RedisRateCounter implements RateCounter {
  readonly #redis: Redis;
  readonly #local = new MemoryRateCounter();

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  async take(key: string, rate: Rate): Promise<number> {
    return await this.#run(TAKE, key, rate) ?? this.#local.take(key, rate);
  }

  async giveBack(key: string, rate: Rate): Promise<boolean> {
    // First what was taken here, while Redis refused or was away: it knows nothing of that.
    return this.#local.giveBack(key, rate) ||
      await this.#run(GIVE_BACK, key, rate) !== undefined;
  }

  async #run(
    script: typeof TAKE,
    key: string,
    { count, period }: Rate,
  ): Promise<number | undefined> {
    try {
      return Number(await this.#redis.run(script, key, String(count), String(period)));
    } catch {
      return undefined; // a limit is no reason not to serve
    }
  }
}

/** Tells other instances what one hears of quotas, until it is closed. */
export class SharedQuotas {
  readonly #redis: Redis;
  readonly #quotas: Quotas;
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(redis: Redis, quotas: Quotas) {
    this.#redis = redis;
    this.#quotas = quotas;
    quotas.onSeen = (quota) => void this.#tell(quota);
    this.#timer = setInterval(() => void this.look(), LOOK_EVERY);
    Deno.unrefTimer(this.#timer);
    void this.look();
  }

  async #tell(quota: Quota): Promise<void> {
    const field = `${quota.registry} ${quota.account}`;
    try {
      await this.#redis.command("HSET", this.#redis.key("quotas"), field, JSON.stringify(quota));
    } catch {
      // It is told again with the next answer.
    }
  }

  /** Takes over what the others heard. */
  async look(): Promise<void> {
    try {
      const values = await this.#redis.command("HVALS", this.#redis.key("quotas"));
      for (const text of values as string[]) this.#quotas.accept(JSON.parse(text) as Quota);
    } catch {
      // What is known here still holds.
    }
  }

  close(): void {
    clearInterval(this.#timer);
  }
}
