/**
 * Who downloads a digest, among several instances: a lease in Redis, kept alive by a heartbeat, with a
 * number that grows with every owner, so that one who slept through the end of its lease publishes nothing.
 *
 * @module
 */
import { LEASE_LIFE, type Redis, script } from "../store/redis.ts";

/** How others reach who has a lease. */
export interface LeaseHolder {
  /** The base URL of the instance. */
  readonly url: string;
  /** What it wants to be shown. */
  readonly key: string;
}

/** A lease that is ours. */
export interface Lease {
  /** Whether it is ours still; true as well while Redis cannot be asked. */
  isHeld(): Promise<boolean>;
  /** Gives it back. Never throws. */
  release(): Promise<void>;
}

/** The leases, as fills need them. */
export interface Leases {
  /** Takes the lease of `name`; or tells who has it. */
  acquire(name: string): Promise<{ readonly lease: Lease } | { readonly holder: LeaseHolder }>;
  /** Whether anybody has it. */
  isTaken(name: string): Promise<boolean>;
  /** Whether `holder` has it. */
  isHeldBy(name: string, holder: LeaseHolder): Promise<boolean>;
}

const ACQUIRE = script(`
  local p, name, url, key, life = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
  local lease = p .. 'f:' .. name
  local held = redis.call('HMGET', lease, 'url', 'key')
  if held[1] then return { 0, held[1], held[2] } end
  local fence = redis.call('INCR', p .. 'fence')
  redis.call('HSET', lease, 'url', url, 'key', key, 'fence', fence)
  redis.call('PEXPIRE', lease, life)
  return { fence }
`);

// The key too: a Redis that lost its last writes in a failover gives the same number again.
const RENEW = script(`
  local lease, fence, key, life = KEYS[1] .. 'f:' .. ARGV[1], ARGV[2], ARGV[3], ARGV[4]
  local held = redis.call('HMGET', lease, 'fence', 'key')
  if held[1] ~= fence or held[2] ~= key then return 0 end
  redis.call('PEXPIRE', lease, life)
  return 1
`);

const RELEASE = script(`
  local lease, fence, key = KEYS[1] .. 'f:' .. ARGV[1], ARGV[2], ARGV[3]
  local held = redis.call('HMGET', lease, 'fence', 'key')
  if held[1] == fence and held[2] == key then redis.call('DEL', lease) end
`);

/** Leases in Redis. */
export class RedisLeases implements Leases {
  readonly #redis: Redis;
  readonly #self: LeaseHolder;

  /** `self` is what others are told while we hold a lease. */
  constructor(redis: Redis, self: LeaseHolder) {
    this.#redis = redis;
    this.#self = self;
  }

  /** Throws when Redis is down. */
  async acquire(
    name: string,
  ): Promise<{ readonly lease: Lease } | { readonly holder: LeaseHolder }> {
    const { url, key } = this.#self;
    const reply = await this.#redis.run(ACQUIRE, name, url, key, String(LEASE_LIFE));
    const [fence, heldUrl, heldKey] = reply as [number, string?, string?];
    if (fence === 0) return { holder: { url: heldUrl!, key: heldKey! } };
    return { lease: new RedisLease(this.#redis, { name, fence: String(fence), key }) };
  }

  async isTaken(name: string): Promise<boolean> {
    return await this.#redis.command("EXISTS", this.#redis.key(`f:${name}`)) === 1;
  }

  async isHeldBy(name: string, { key }: LeaseHolder): Promise<boolean> {
    return await this.#redis.command("HGET", this.#redis.key(`f:${name}`), "key") === key;
  }
}

class RedisLease implements Lease {
  readonly #redis: Redis;
  /** What it is called, and what proves that it is ours. */
  readonly #proof: readonly [name: string, fence: string, key: string];
  readonly #heartbeat: ReturnType<typeof setInterval>;
  #isLost = false;

  constructor(redis: Redis, { name, fence, key }: { name: string; fence: string; key: string }) {
    this.#redis = redis;
    this.#proof = [name, fence, key];
    this.#heartbeat = setInterval(() => {
      this.isHeld().catch(() => {}); // isHeld() notes what matters
    }, LEASE_LIFE / 3);
    Deno.unrefTimer(this.#heartbeat);
  }

  async isHeld(): Promise<boolean> {
    if (this.#isLost) return false;
    try {
      const reply = await this.#redis.run(RENEW, ...this.#proof, String(LEASE_LIFE));
      this.#isLost = reply !== 1;
    } catch {
      return true; // uncoordinated while Redis is down: what is published is verified anyway
    }
    return !this.#isLost;
  }

  async release(): Promise<void> {
    clearInterval(this.#heartbeat);
    if (this.#isLost) return;
    this.#isLost = true;
    try {
      await this.#redis.run(RELEASE, ...this.#proof);
    } catch {
      // It ends by itself.
    }
  }
}
