/**
 * {@linkcode Index} in Redis, shared by several instances. Every change that touches more than one key is
 * one script, so that no instance ever sees half of it.
 *
 * @module
 */
import type { RepositoryKey } from "../access.ts";
import type {
  BlobRow,
  Facts,
  Index,
  LeastRecentOptions,
  LinkKey,
  LinkRow,
  Question,
  Reservation,
  TagEntry,
  TagRow,
  Totals,
} from "./index.ts";
import { LEASE_LIFE } from "./lease.ts";
import type { Redis, Reply } from "./redis.ts";
import * as scripts from "./redis_scripts.ts";

/** Content used within this is not offered for eviction: another instance may be sending it, ms. */
const IN_USE = 10 * 60_000;
/** A digest noted within this is being published or removed by somebody, ms. */
const AT_WORK = 60_000;
/** What an instance promised ends this long after its last sign of life, ms: with its leases. */
const PROMISE_LIFE = LEASE_LIFE;
/** Rows that are read or written at a time. */
const PAGE = 500;

function text(reply: Reply | undefined): string | undefined {
  return typeof reply === "string" ? reply : undefined;
}

function list(reply: Reply | undefined): readonly Reply[] {
  return Array.isArray(reply) ? reply : [];
}

function repositoryText({ registry, repository }: RepositoryKey): string {
  return `${registry} ${repository}`;
}

function linkField({ registry, repository, kind }: LinkKey): string {
  return `${registry} ${repository} ${kind}`;
}

/** A clock that is this far from Redis', ms, is not worth a word, nor a conversion. */
const SAME_TIME = 2_000;

/** Options for {@linkcode RedisIndex}. */
export interface RedisIndexOptions {
  /** Tells apart who promised what. */
  readonly instance: string;
  /** How long content stays after its last use, ms. @default {600000} */
  readonly inUse?: number;
  /** How old a note must be to be told as unsettled, ms: a younger one is somebody's work. @default {60000} */
  readonly atWork?: number;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/**
 * The shared index. Every method throws when Redis is down. Times in it are by Redis' clock, so that a proof or
 * a tag that one instance notes holds no longer for others whose clocks differ.
 */
export class RedisIndex implements Index {
  readonly #redis: Redis;
  readonly #instance: string;
  readonly #inUse: number;
  readonly #atWork: number;
  readonly #now: () => number;
  /** What Redis' clock is ahead of ours, ms. */
  #ahead = 0;
  #promised = 0;
  #turn: Promise<unknown> = Promise.resolve();
  readonly #heartbeat: ReturnType<typeof setInterval>;

  constructor(redis: Redis, options: RedisIndexOptions) {
    this.#redis = redis;
    this.#instance = options.instance;
    this.#inUse = options.inUse ?? IN_USE;
    this.#atWork = options.atWork ?? AT_WORK;
    this.#now = options.now ?? Date.now;
    this.#heartbeat = setInterval(() => {
      if (this.#promised === 0 || !redis.isUp) return;
      this.#promise(0, Infinity).catch(() => {}); // while it is down nobody else promises anything
    }, PROMISE_LIFE / 3);
    Deno.unrefTimer(this.#heartbeat);
  }

  /** Compares our clock with Redis'; returns what Redis' is ahead, ms, and 0 for next to nothing. */
  async compareClocks(): Promise<number> {
    const before = this.#now();
    const [seconds, micros] = list(await this.#redis.run(scripts.CLOCK)).map(Number);
    const there = seconds! * 1000 + micros! / 1000;
    const ahead = Math.round(there - (before + this.#now()) / 2);
    return this.#ahead = Math.abs(ahead) < SAME_TIME ? 0 : ahead;
  }

  /** `at` by Redis' clock, as an argument. 0 stays: it is no time. */
  #there(at: number): string {
    return String(at === 0 ? 0 : at + this.#ahead);
  }

  /** The same by ours. */
  #here(at: Reply | undefined): number {
    return Number(at) === 0 ? 0 : Number(at) - this.#ahead;
  }

  #tagRow(value: string): TagRow {
    const [checkedAt, digest = ""] = value.split(" ");
    return { checkedAt: this.#here(checkedAt), digest };
  }

  #blobRow(reply: Reply): BlobRow {
    const [digest, size, createdAt, verifiedAt, usedAt] = list(reply);
    return {
      digest: String(digest),
      size: Number(size),
      createdAt: this.#here(createdAt),
      verifiedAt: this.#here(verifiedAt),
      usedAt: this.#here(usedAt),
    };
  }

  #rowArguments({ digest, size, createdAt, verifiedAt, usedAt }: BlobRow): string[] {
    const times = [createdAt, verifiedAt, usedAt].map((at) => this.#there(at));
    return [digest, String(size), ...times];
  }

  async blob(digest: string): Promise<BlobRow | undefined> {
    const [row, usedAt] = await Promise.all([
      this.#redis.command("HMGET", this.#redis.key(`b:${digest}`), "size", "created", "verified"),
      this.#redis.command("ZSCORE", this.#redis.key("u"), digest),
    ]);
    const values = list(row);
    return text(values[0]) === undefined ? undefined : this.#blobRow([digest, ...values, usedAt]);
  }

  async addBlob(row: BlobRow): Promise<void> {
    await this.#redis.run(scripts.ADD_BLOB, ...this.#rowArguments(row));
  }

  async restoreBlobs(rows: readonly BlobRow[]): Promise<void> {
    for (let i = 0; i < rows.length; i += PAGE) {
      const args = rows.slice(i, i + PAGE).flatMap((row) => this.#rowArguments(row));
      await this.#redis.run(scripts.RESTORE_BLOBS, ...args);
    }
  }

  async removeBlob(digest: string): Promise<void> {
    await this.#redis.run(scripts.REMOVE_BLOB, digest);
  }

  async touch(uses: ReadonlyMap<string, number>): Promise<void> {
    const entries = [...uses];
    for (let i = 0; i < entries.length; i += PAGE) {
      const args = entries.slice(i, i + PAGE).flatMap(([digest, at]) => [this.#there(at), digest]);
      await this.#redis.command("ZADD", this.#redis.key("u"), "XX", "GT", ...args);
    }
  }

  async setVerified(digest: string, at: number): Promise<void> {
    await this.#redis.run(scripts.SET_VERIFIED, digest, this.#there(at));
  }

  async leastRecent(limit: number, options: LeastRecentOptions = {}): Promise<readonly BlobRow[]> {
    const { before = Infinity, skip = 0 } = options;
    const until = Math.min(before, this.#now() - this.#inUse);
    return await this.#least("u", { limit, skip, until: this.#there(until) });
  }

  async leastVerified(limit: number): Promise<readonly BlobRow[]> {
    return await this.#least("v", { limit, skip: 0, until: "+inf" });
  }

  async #least(
    order: "u" | "v",
    { limit, skip, until }: { limit: number; skip: number; until: string },
  ): Promise<readonly BlobRow[]> {
    const reply = await this.#redis.run(
      scripts.LEAST,
      order,
      until,
      String(skip),
      String(limit),
    );
    return list(reply).map((row) => this.#blobRow(row));
  }

  async *blobs(): AsyncIterable<BlobRow> {
    let cursor = "0";
    do {
      const key = this.#redis.key("u");
      const [next, page] = list(await this.#redis.command("ZSCAN", key, cursor, "COUNT", "500"));
      const digests = list(page).filter((_member, i) => i % 2 === 0).map(String);
      const rows = await Promise.all(digests.map((digest) => this.blob(digest)));
      yield* rows.filter((row) => row !== undefined);
      cursor = String(next);
    } while (cursor !== "0");
  }

  async totals(): Promise<Totals> {
    const [bytes, entries, reserved] = list(await this.#redis.run(scripts.TOTALS)).map(Number);
    return { bytes: bytes!, entries: entries!, reserved: reserved! };
  }

  async reserve(bytes: number, limit: number): Promise<Reservation | undefined> {
    let held = 0;
    const grow = async (more: number, limit: number): Promise<boolean> => {
      if (!await this.#promise(more, limit)) return false;
      held += more;
      return true;
    };
    if (!await grow(bytes, limit)) return undefined;
    return {
      grow,
      release: async () => {
        const given = held;
        held = 0;
        await this.#promise(-given, Infinity);
      },
    };
  }

  /** Changes what this instance promises by `bytes`, if all that is here and promised stays within `limit`. */
  #promise(bytes: number, limit: number): Promise<boolean> {
    // One after the other: each says the whole of what is promised.
    const turn = this.#turn.then(async () => {
      const total = this.#promised + bytes;
      const args = [this.#instance, total, limit === Infinity ? -1 : limit, PROMISE_LIFE];
      // What is given back is given back, also where Redis hears of it later.
      if (bytes < 0) this.#promised = total;
      const isPromised = await this.#redis.run(scripts.PROMISE, ...args.map(String)) === 1;
      if (isPromised) this.#promised = total;
      return isPromised;
    });
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async link(key: LinkKey): Promise<LinkRow | undefined> {
    const name = this.#redis.key(`l:${key.digest}`);
    const mediaType = text(await this.#redis.command("HGET", name, linkField(key)));
    return mediaType === undefined ? undefined : { mediaType };
  }

  async addLink(key: LinkKey, { mediaType }: LinkRow): Promise<void> {
    const now = this.#there(this.#now());
    const args = [key.digest, linkField(key), mediaType, repositoryText(key), now];
    await this.#redis.run(scripts.ADD_LINK, ...args);
  }

  async tag(key: RepositoryKey, tag: string): Promise<TagRow | undefined> {
    const name = this.#redis.key(`t:${repositoryText(key)}`);
    const value = text(await this.#redis.command("HGET", name, tag));
    return value === undefined ? undefined : this.#tagRow(value);
  }

  async setTag(key: RepositoryKey, tag: string, { digest, checkedAt }: TagRow): Promise<void> {
    const at = this.#there(checkedAt);
    await this.#redis.run(scripts.SET_TAG, repositoryText(key), tag, digest, at);
  }

  async removeTag(key: RepositoryKey, tag: string): Promise<void> {
    await this.#redis.run(scripts.REMOVE_TAG, repositoryText(key), tag);
  }

  async *tags(): AsyncIterable<TagEntry> {
    for (const name of list(await this.#redis.command("SMEMBERS", this.#redis.key("T")))) {
      const [registry = "", repository = ""] = String(name).split(" ");
      const pairs = list(await this.#redis.command("HGETALL", this.#redis.key(`t:${name}`)));
      for (let i = 0; i < pairs.length; i += 2) {
        const row = this.#tagRow(String(pairs[i + 1]));
        yield { registry, repository, tag: String(pairs[i]), ...row };
      }
    }
  }

  async look(question: Question): Promise<Facts> {
    const { kind, by, grant = "" } = question;
    const [digest, tag] = "tag" in by ? ["", by.tag] : [by.digest, ""];
    const reply = list(
      await this.#redis.run(scripts.LOOK, repositoryText(question), kind, digest, tag, grant),
    );
    const [meaning, mediaType, publicSince] = [reply[0], reply[1], reply[3]].map(text);
    const meant = meaning === undefined ? undefined : this.#tagRow(meaning);
    const [size, createdAt, verifiedAt] = list(reply[2]);
    const grantedFor = Number(reply[4]);
    return {
      tag: meant,
      link: mediaType === undefined ? undefined : { mediaType },
      row: text(size) === undefined
        ? undefined
        : this.#blobRow([meant?.digest ?? digest, size!, createdAt!, verifiedAt!, createdAt!]),
      publicSince: publicSince === undefined ? undefined : this.#here(publicSince),
      isGranted: grantedFor > 0,
      grantedFor: grantedFor > 0 ? grantedFor : undefined,
    };
  }

  async publicSince(key: RepositoryKey): Promise<number | undefined> {
    const name = this.#redis.key("P");
    const at = text(await this.#redis.command("ZSCORE", name, repositoryText(key)));
    return at === undefined ? undefined : this.#here(at);
  }

  async setPublic(key: RepositoryKey, at: number | undefined): Promise<void> {
    const name = this.#redis.key("P");
    if (at === undefined) await this.#redis.command("ZREM", name, repositoryText(key));
    else await this.#redis.command("ZADD", name, this.#there(at), repositoryText(key));
  }

  async prune(before: number, cursor?: string): Promise<string | undefined> {
    const skip = Number(cursor ?? 0);
    const reply = await this.#redis.run(
      scripts.PRUNE,
      this.#there(before),
      String(PAGE),
      String(skip),
    );
    const next = Number(reply);
    return next < 0 ? undefined : String(next);
  }

  async unsettle(digest: string): Promise<void> {
    const at = this.#there(this.#now());
    await this.#redis.command("ZADD", this.#redis.key("x"), at, digest);
  }

  async settle(digest: string): Promise<void> {
    await this.#redis.command("ZREM", this.#redis.key("x"), digest);
  }

  async unsettled(): Promise<readonly string[]> {
    const until = this.#there(this.#now() - this.#atWork);
    const key = this.#redis.key("x");
    return list(await this.#redis.command("ZRANGE", key, "-inf", until, "BYSCORE")).map(String);
  }

  close(): void {
    clearInterval(this.#heartbeat);
  }
}
