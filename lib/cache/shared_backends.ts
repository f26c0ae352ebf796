/**
 * The engines that several instances share: bytes in S3 or Redis, everything small in Redis. Loaded only
 * when one of them is configured.
 *
 * @module
 */
import { randomBytes } from "node:crypto";
import { join } from "@std/path";
import type { Config } from "../config/config.ts";
import type { RedisLocation, S3Setting } from "../config/engine_url.ts";
import { cacheLog } from "../telemetry/log.ts";
import type { Stats } from "../telemetry/stats.ts";
import { causeOf } from "../upstream/transport/send.ts";
import { Reindex } from "./content/reindex.ts";
import type { BackendEvents, Backends } from "./backends.ts";
import { Staging } from "./store/staging.ts";
import { FileStore } from "./store/file_store.ts";
import { RedisGrants } from "./cluster/grants.ts";
import { Leader } from "./cluster/leader.ts";
import { RedisLeases } from "./cluster/lease.ts";
import { openIndex, replaceIndex } from "./content/recover.ts";
import { Redis } from "./store/redis.ts";
import { RedisIndex } from "./index/redis_index.ts";
import { POLICY } from "./index/redis_scripts.ts";
import { RedisStore } from "./store/redis_store.ts";
import { S3Objects } from "./store/s3/objects.ts";
import { S3Store } from "./store/s3/store.ts";
import { LeaderTasks } from "./cluster/leader_tasks.ts";
import { SqliteFile } from "./index/sqlite_file.ts";
import { BufferedIndex } from "./index/buffered_index.ts";
import { Coordinator } from "./cluster/coordinator.ts";
import { startTimeout } from "../util/timeout.ts";

/** How often what dead instances left is looked for, ms. */
const UPKEEP_EVERY = 60_000;
/** That Redis takes no writes is logged once in this time, ms. */
const QUIET = 60_000;
/** How long a start waits for the store, ms. */
const FIRST_PATIENCE = 3_000;
/** How long an object may stand still, ms: upstream has it too, and may be asked instead. */
const STORE_IDLE = 10_000;
/** An object was verified before it became one. */
const WHOLE = { isWhole: true } as const;

type CacheConfig = NonNullable<Config["cache"]>;

/** Options for {@linkcode openShared}. */
export interface SharedOptions {
  readonly events: BackendEvents;
  readonly stats: Stats;
  /** How long the store may stand still in the middle of an object, ms. */
  readonly idle: number;
  /** Where this instance listens. */
  readonly listen?: Config["listen"];
}

/** Opens the engines of `cache`. Throws what the folder for drafts throws, and nothing for what is remote. */
export async function openShared(cache: CacheConfig, options: SharedOptions): Promise<Backends> {
  const drafts = new Staging(new FileStore(cache.dir), { maxSize: cache.fillsSize });
  return cache.index.engine === "sqlite"
    ? await openAlone(cache.store as S3Setting, { cache, drafts, options })
    : await openTogether(cache, { location: cache.index, drafts, options });
}

function openS3(
  location: S3Setting,
  { drafts, options, ...parts }: {
    drafts: Staging;
    options: SharedOptions;
    onBack?: () => void;
  },
): S3Store {
  const { stats } = options;
  const idle = Math.min(options.idle, STORE_IDLE);
  const { onBack } = parts;
  const onDown = (cause: unknown) => {
    stats.cacheEvents.add("store_down");
    cacheLog.error("The store is gone, serving without it: {cause}", { cause: causeOf(cause) });
  };
  const onUp = () => {
    stats.cacheEvents.add("store_up");
    cacheLog.info("The store is back");
    onBack?.();
  };
  return new S3Store({ objects: new S3Objects(location, { onDown, onUp }), drafts, idle });
}

/** One instance: bytes in S3, the index here. */
async function openAlone(
  location: S3Setting,
  { cache, drafts, options }: { cache: CacheConfig; drafts: Staging; options: SharedOptions },
): Promise<Backends> {
  const { dir, indexSize: size } = cache;
  let onBack = (): void => {};
  const store = openS3(location, { drafts, options, onBack: () => onBack() });
  const { onDamaged, onRebuilt } = options.events;
  const opening = { ...WHOLE, store, onDamaged, size, isElsewhere: true };
  const { index } = await openIndex(dir, opening);
  await drafts.sweep();
  const catchUp = await Reindex.begin({
    ...WHOLE,
    store,
    index,
    dir,
    isNew: index.isNew,
    onRebuilt,
  });
  onBack = () => void catchUp.run();
  await atFirst(catchUp.run());
  const timer = setInterval(onBack, UPKEEP_EVERY);
  return {
    store,
    index,
    // What was left unsettled is compared when the store can be reached.
    wasKilled: false,
    isIndexWhole: () => Promise.resolve(catchUp.isDone),
    async repair() {
      // The store may be away now.
      catchUp.doubt();
      await replaceIndex(dir, { index, refill: () => catchUp.run() });
    },
    // deno-lint-ignore require-await -- SQLite is done at once
    close: async () => {
      clearInterval(timer);
      index.close();
    },
  };
}

/** What instances of one cache are configured with alike, and nobody else has. */
function secretsOf({ store, index }: CacheConfig): (string | undefined)[] {
  return [
    index.engine === "redis" ? index.password : undefined,
    store.engine === "s3" ? store.secretKey : undefined,
  ];
}

/** One of several instances. */
async function openTogether(
  cache: CacheConfig,
  { location, drafts, options }: {
    location: RedisLocation;
    drafts: Staging;
    options: SharedOptions;
  },
): Promise<Backends> {
  // Held for as long as we run: drafts of two processes must not be in one folder.
  const lock = new SqliteFile(join(cache.dir, "lock.sqlite"), { schema: "SELECT 1", version: 1 });
  await drafts.sweep();
  let isBack = async (_from: "down" | "refusing"): Promise<void> => {};
  const redis = await openRedis(location, { stats: options.stats, onUp: (from) => isBack(from) });
  const store = cache.store.engine === "redis"
    ? new RedisStore(redis, { drafts, maxSize: cache.maxSize })
    : openS3(cache.store as S3Setting, { drafts, options });
  const remote = new RedisIndex(redis, { instance: crypto.randomUUID(), size: cache.indexSize });
  // With OFFLINE nobody can be asked again.
  const index = new BufferedIndex(remote, { marksHold: cache.only ? Infinity : undefined });
  const self = {
    url: cache.peerUrl ?? (options.listen ? ownUrl(options.listen) : ""),
    key: randomBytes(24).toString("hex"),
  };
  const leases = new RedisLeases(redis, self);
  const leader = new Leader(leases, "patrol");
  const upkeep = new LeaderTasks({
    store,
    index: remote,
    leases,
    redis,
    onRebuilt: options.events.onRebuilt,
  });
  const compareClocks = clockComparison(remote);
  const grants = new RedisGrants(redis, { configured: secretsOf(cache) });
  isBack = async (from) => {
    await grants.agree();
    if (from === "down") await compareClocks();
    await index.forgetRevoked();
    await index.replay();
    if (from === "down") await upkeep.doubt();
  };
  await compareClocks();
  await grants.agree();
  await atFirst(upkeep.run());
  void warnOfEviction(redis);
  const timer = setInterval(() => {
    void compareClocks();
    void grants.agree();
    void upkeep.run();
  }, UPKEEP_EVERY);
  return {
    store,
    index,
    wasKilled: false,
    leader,
    together: new Coordinator({ leases, grants, store, self, redis }),
    isRunning: (digest) => leases.isTaken(digest),
    isIndexWhole: () => upkeep.isIndexWhole(),
    async close() {
      clearInterval(timer);
      upkeep.close();
      await leader.close();
      await index.close();
      redis.close();
      lock.close();
    },
  };
}

/** Waits for `work`, but not for long where others do not answer: it goes on, and clients are served. */
async function atFirst(work: Promise<void>): Promise<void> {
  const limit = Promise.withResolvers<void>();
  const stop = startTimeout(FIRST_PATIENCE, limit.resolve);
  await Promise.race([work, limit.promise]);
  stop();
}

async function openRedis(
  location: RedisLocation,
  { stats, onUp }: { stats: Stats; onUp: (from: "down" | "refusing") => Promise<void> },
): Promise<Redis> {
  let quietUntil = 0;
  let isTold = false;
  return await Redis.connect({
    location,
    onDown(cause) {
      stats.cacheEvents.add("redis_down");
      cacheLog.error("Redis is gone, going on with what is known here: {cause}", {
        cause: causeOf(cause),
      });
    },
    onRefused(cause) {
      stats.cacheEvents.add("redis_refuses");
      // Memory that is just about full is so again and again.
      isTold = performance.now() > quietUntil;
      if (!isTold) return;
      quietUntil = performance.now() + QUIET;
      cacheLog.error("Redis takes no writes, keeping what happens for later: {cause}", {
        cause: causeOf(cause),
      });
    },
    onUp(from) {
      stats.cacheEvents.add(from === "down" ? "redis_up" : "redis_accepts");
      if (from === "down") cacheLog.info("Redis is back");
      else if (isTold) cacheLog.info("Redis takes writes again");
      onUp(from).catch((error) => {
        // It went again: the next return goes on.
        cacheLog.debug("Could not tell Redis everything: {cause}", { cause: causeOf(error) });
      });
    },
  });
}

/** What learns how far Redis' clock is ahead of ours, if it is there, and tells of a difference once. */
function clockComparison(index: RedisIndex): () => Promise<void> {
  let isTold = false;
  return async () => {
    try {
      const ahead = await index.compareClocks();
      if (ahead !== 0 && !isTold) {
        cacheLog.warn("The clock differs from Redis' by {ms} ms", { ms: ahead });
      }
      isTold = ahead !== 0;
    } catch {
      // It is away, or may not be asked: what was learned last holds.
    }
  };
}

/**
 * Tells of a Redis that drops keys of its own choice: clients still get right bytes, but what the store holds is
 * not counted then, and the cap not kept.
 */
async function warnOfEviction(redis: Redis): Promise<void> {
  let policy: unknown;
  try {
    policy = await redis.run(POLICY);
  } catch {
    return; // it is away, or may not be asked
  }
  if (!String(policy).startsWith("allkeys")) return;
  cacheLog.warn("Redis drops keys when its memory is full: set maxmemory-policy noeviction", {
    policy,
  });
}

/** This instance by its first address that others can reach, or by the one it listens on. */
function ownUrl({ host, port, tls }: Config["listen"]): string {
  const isAny = host === "0.0.0.0" || host === "::";
  const outer = Deno.networkInterfaces().find(({ family, address }) =>
    family === "IPv4" && !address.startsWith("127.")
  );
  const address = isAny ? outer?.address ?? "127.0.0.1" : host;
  const name = address.includes(":") ? `[${address}]` : address;
  return `${tls ? "https" : "http"}://${name}:${port}`;
}
