/**
 * {@linkcode Index} in Redis, shared by several instances. Every change that touches more than one key is
 * one script, so that no instance ever sees half of it.
 *
 * @module
 */
import type { RepositoryKey } from "../../oci/registry.ts";
import {
  type Budgets,
  budgetsOf,
  FACT_KINDS,
  type FactKind,
  INDEX_SIZE,
  isNearlyFull,
  targetOf,
} from "./budgets.ts";
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
  TagPage,
  TagPageOptions,
  TagRow,
  Totals,
} from "./index.ts";
import { LEASE_LIFE, type Redis, type Reply } from "../store/redis.ts";
import { NOTES } from "./referrers_note.ts";
import * as scripts from "./redis_scripts.ts";

/** Content used within this is not offered for eviction: another instance may be sending it, ms. */
const IN_USE = 5 * 60_000;
/** A digest noted within this is being published or removed by somebody, ms. */
const AT_WORK = 60_000;
/** What an instance promised ends this long after its last sign of life, ms: with its leases. */
const PROMISE_LIFE = LEASE_LIFE;
/** Rows that are read or written at a time. */
const PAGE = 500;
/** Facts that one script removes: Redis does nothing else meanwhile. */
const SLICE = 100;
/** Uses of links and tags that are remembered until they are written. */
const USES = 1_000;
/** What a public mark counts for, bytes: Redis keeps its name twice. */
const MARK_BYTES = 300;

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

function kindOf(tag: string): FactKind {
  return tag.startsWith(NOTES) ? "referrers" : "tags";
}

/** A clock that is this far from Redis', ms, is not worth a word, nor a conversion. */
const SAME_TIME = 2_000;

/** Options for {@linkcode RedisIndex}. */
export interface RedisIndexOptions {
  /** Tells apart who promised what. */
  readonly instance: string;
  /** How long content stays after its last use, ms. @default {300000} */
  readonly inUse?: number;
  /** How old a note must be to be told as unsettled, ms: a younger one is somebody's work. @default {60000} */
  readonly atWork?: number;
  /** What the index may take, bytes: see `budgets.ts`. @default {256 MiB} */
  readonly size?: number;
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
  readonly #budgets: Budgets;
  /** What was looked up since uses were written last, as arguments; of more than these only some. */
  readonly #uses: (readonly [FactKind, string, string])[] = [];
  #used = 0;
  /** Repositories whose facts of a kind are close to their budget. */
  readonly #crowded = new Map<string, { kind: FactKind; repository: string }>();
  #trimming: Promise<void> | undefined;
  #promised = 0;
  #turn: Promise<unknown> = Promise.resolve();
  readonly #heartbeat: ReturnType<typeof setInterval>;

  constructor(redis: Redis, options: RedisIndexOptions) {
    this.#redis = redis;
    this.#instance = options.instance;
    this.#inUse = options.inUse ?? IN_USE;
    this.#atWork = options.atWork ?? AT_WORK;
    this.#now = options.now ?? Date.now;
    this.#budgets = budgetsOf(options.size ?? INDEX_SIZE);
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
    let cursor = "";
    while (cursor !== "-1") {
      cursor = String(await this.#redis.run(scripts.REMOVE_BLOB, digest, String(SLICE), cursor));
    }
  }

  async touch(uses: ReadonlyMap<string, number>): Promise<void> {
    const entries = [...uses];
    for (let i = 0; i < entries.length; i += PAGE) {
      const args = entries.slice(i, i + PAGE).flatMap(([digest, at]) => [this.#there(at), digest]);
      await this.#redis.command("ZADD", this.#redis.key("u"), "XX", "GT", ...args);
    }
    const used = this.#uses.splice(0);
    for (let i = 0; i < used.length; i += SLICE) {
      const args = used.slice(i, i + SLICE).flat();
      await this.#redis.run(scripts.TOUCH_FACTS, this.#there(this.#now()), ...args);
    }
  }

  #noteUse(kind: FactKind, repository: string, member: string): void {
    const use = [kind, repository, member] as const;
    if (this.#uses.length < USES) this.#uses.push(use);
    else this.#uses[this.#used++ % USES] = use;
  }

  #noteLink(key: LinkKey): void {
    this.#noteUse("links", repositoryText(key), `${key.digest} ${key.kind}`);
  }

  #noteTag(key: RepositoryKey, tag: string): void {
    this.#noteUse(kindOf(tag), repositoryText(key), tag);
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
    if (mediaType === undefined) return undefined;
    this.#noteLink(key);
    return { mediaType };
  }

  async addLink(key: LinkKey, { mediaType }: LinkRow): Promise<void> {
    const now = this.#there(this.#now());
    const args = [key.digest, linkField(key), mediaType, repositoryText(key), now];
    this.#notedIn("links", key, await this.#redis.run(scripts.ADD_LINK, ...args, ...this.#room()));
  }

  /** The budgets, as arguments. */
  #room(): string[] {
    return [this.#budgets.kind, this.#budgets.repository].map(String);
  }

  /** Begins to trim where a fact that was noted, or was not, leaves little room. */
  #notedIn(kind: FactKind, key: RepositoryKey | undefined, crowded: Reply): void {
    if (crowded === 0) return;
    const repository = key && repositoryText(key);
    // A budget of all facts of the kind is looked at in any case.
    if (repository) this.#crowded.set(`${kind} ${repository}`, { kind, repository });
    // The upkeep does it too, and tells of what fails.
    if (!this.#trimming) this.trim().catch(() => {});
  }

  async tag(key: RepositoryKey, tag: string): Promise<TagRow | undefined> {
    const name = this.#redis.key(`t:${repositoryText(key)}`);
    const value = text(await this.#redis.command("HGET", name, tag));
    if (value === undefined) return undefined;
    this.#noteTag(key, tag);
    return this.#tagRow(value);
  }

  async setTag(key: RepositoryKey, tag: string, { digest, checkedAt }: TagRow): Promise<void> {
    const [at, now] = [this.#there(checkedAt), this.#there(this.#now())];
    const args = [repositoryText(key), tag, digest, at, now, ...this.#room()];
    this.#notedIn(kindOf(tag), key, await this.#redis.run(scripts.SET_TAG, ...args));
  }

  async removeTag(key: RepositoryKey, tag: string): Promise<void> {
    await this.#redis.run(scripts.REMOVE_TAGS, repositoryText(key), tag);
  }

  async removeTags(entries: readonly TagEntry[]): Promise<void> {
    for (let i = 0; i < entries.length; i += SLICE) {
      const args = entries.slice(i, i + SLICE).flatMap((key) => [repositoryText(key), key.tag]);
      await this.#redis.run(scripts.REMOVE_TAGS, ...args);
    }
  }

  async tagPage({ limit, after, of }: TagPageOptions): Promise<TagPage> {
    const prefix = of ? `${repositoryText(of)} ` : "";
    const from = after || prefix ? `(${after || prefix}` : "-";
    // In UTF-8 nothing of a name is as high as this.
    const to = of ? `[${prefix}\u{10ffff}` : "+";
    const reply = list(await this.#redis.run(scripts.TAG_PAGE, from, to, String(limit)));
    const tags: TagEntry[] = [];
    for (let i = 0; i < reply.length; i += 2) {
      const [registry = "", repository = "", tag = ""] = String(reply[i]).split(" ");
      const value = text(reply[i + 1]);
      if (value) tags.push({ registry, repository, tag, ...this.#tagRow(value) });
    }
    if (reply.length < 2 * limit) return { tags };
    return { tags, next: String(reply.at(-2)) };
  }

  async *tags(): AsyncIterable<TagEntry> {
    let after: string | undefined;
    do {
      const page: TagPage = await this.tagPage({ limit: PAGE, after });
      yield* page.tags;
      after = page.next;
    } while (after !== undefined);
  }

  async tagCount(): Promise<number> {
    return Number(await this.#redis.command("HGET", this.#redis.key("n"), "tags:rows") ?? 0);
  }

  trim(): Promise<void> {
    return this.#trimming ??= this.#trim().finally(() => this.#trimming = undefined);
  }

  async #trim(): Promise<void> {
    const { kind: all, repository: own } = this.#budgets;
    for (const [name, { kind, repository }] of this.#crowded) {
      await this.#trimTo(kind, repository, targetOf(own));
      this.#crowded.delete(name);
    }
    const sizes = list(await this.#redis.command("HMGET", this.#redis.key("n"), ...FACT_KINDS));
    for (const [i, kind] of FACT_KINDS.entries()) {
      const isNear = kind === "marks" || isNearlyFull(Number(sizes[i] ?? 0), all);
      if (isNear) await this.#trimTo(kind, "", targetOf(kind === "marks" ? this.#marks : all));
    }
  }

  /** How many marks there may be. */
  get #marks(): number {
    return this.#budgets.kind / MARK_BYTES;
  }

  async #trimTo(kind: FactKind, repository: string, target: number): Promise<void> {
    const args = [kind, repository, String(Math.floor(target)), String(SLICE)];
    while (Number(await this.#redis.run(scripts.TRIM, ...args)) >= SLICE);
  }

  async shed(): Promise<boolean> {
    let left = 0;
    for (const kind of FACT_KINDS) {
      left += Number(await this.#redis.run(scripts.TRIM, kind, "", "0", String(SLICE / 4)));
    }
    return left > 0;
  }

  /** Counts facts that an earlier version noted, which did not count them. */
  async adopt(): Promise<void> {
    const scan = async (command: string, name: string, each: (member: string) => Promise<void>) => {
      const step = command === "SSCAN" ? 1 : 2;
      let cursor = "0";
      do {
        const reply = await this.#redis.command(
          command,
          this.#redis.key(name),
          cursor,
          "COUNT",
          "200",
        );
        const [next, page] = list(reply);
        for (const [i, member] of list(page).entries()) {
          if (i % step === 0) await each(String(member));
        }
        cursor = String(next);
      } while (cursor !== "0");
    };
    const now = this.#there(this.#now());
    const enter = async (kind: FactKind, name: string, owner: string) => {
      let members: string[] = [];
      const flush = async () => {
        if (members.length > 0) await this.#redis.run(scripts.ADOPT, kind, owner, now, ...members);
        members = [];
      };
      await scan("HSCAN", `${name}:${owner}`, async (member) => {
        if (members.push(member) >= SLICE) await flush();
      });
      await flush();
    };
    await scan("SSCAN", "T", (repository) => enter("tags", "t", repository));
    for (const digests of ["u", "o"]) {
      await scan("ZSCAN", digests, (digest) => enter("links", "l", digest));
    }
    await this.#redis.command("UNLINK", this.#redis.key("T"));
  }

  async look(question: Question): Promise<Facts> {
    const { kind, by, grant = "" } = question;
    const [digest, tag] = "tag" in by ? ["", by.tag] : [by.digest, ""];
    const reply = list(
      await this.#redis.run(scripts.LOOK, repositoryText(question), kind, digest, tag, grant),
    );
    const [meaning, mediaType, publicSince] = [reply[0], reply[1], reply[3]].map(text);
    const meant = meaning === undefined ? undefined : this.#tagRow(meaning);
    if (meant) this.#noteTag(question, tag);
    if (mediaType !== undefined) {
      this.#noteLink({ ...question, kind, digest: meant?.digest ?? digest });
    }
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
    if (at === undefined) await this.#redis.run(scripts.REVOKE, repositoryText(key));
    else {
      const args = [repositoryText(key), this.#there(at), String(this.#marks)];
      this.#notedIn("marks", undefined, await this.#redis.run(scripts.SET_PUBLIC, ...args));
    }
  }

  /**
   * The repositories that instances have noted to be public no longer, since `since` by Redis' clock (0: ever), at most
   * `limit` of them, and the time now by that clock.
   */
  async revoked(
    since: string,
    limit: number,
  ): Promise<{ readonly now: string; readonly repositories: readonly string[] }> {
    const reply = await this.#redis.run(scripts.REVOKED, since, String(limit)) as string[];
    return { now: reply[0]!, repositories: reply.slice(1) };
  }

  async prune(before: number, cursor?: string): Promise<string | undefined> {
    const skip = Number(cursor ?? 0);
    const reply = await this.#redis.run(
      scripts.PRUNE,
      this.#there(before),
      String(SLICE),
      String(skip),
    );
    const next = Number(reply);
    return next < 0 ? undefined : String(next);
  }

  async markPending(digest: string): Promise<void> {
    const at = this.#there(this.#now());
    await this.#redis.command("ZADD", this.#redis.key("x"), at, digest);
  }

  async clearPending(digest: string): Promise<void> {
    await this.#redis.command("ZREM", this.#redis.key("x"), digest);
  }

  async pending(): Promise<readonly string[]> {
    const until = this.#there(this.#now() - this.#atWork);
    const key = this.#redis.key("x");
    return list(await this.#redis.command("ZRANGE", key, "-inf", until, "BYSCORE")).map(String);
  }

  close(): void {
    clearInterval(this.#heartbeat);
  }
}
