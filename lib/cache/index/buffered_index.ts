/**
 * An index on another machine that may go away: while it is gone, what this instance has seen of it goes on
 * being known here, and what happens is kept and told when it is back.
 *
 * @module
 */
import type { RepositoryKey } from "../../oci/registry.ts";
import { cacheLog } from "../../telemetry/log.ts";
import { ByteLru, stringBytes } from "../../util/lru.ts";
import { causeOf } from "../../upstream/transport/send.ts";
import {
  type Awaitable,
  type BlobRow,
  type Facts,
  type Index,
  type LeastRecentOptions,
  type LinkKey,
  type LinkRow,
  NoteRefusedError,
  type Question,
  type Reservation,
  type TagEntry,
  type TagPage,
  type TagPageOptions,
  type TagRow,
  type Totals,
} from "./index.ts";
import { RedisDownError, RedisRefusesError } from "../store/redis.ts";

/** What changes that are kept for later may take, bytes; the oldest go first, and are found again by asking upstream. */
const JOURNAL = 8 * 2 ** 20;
/** What each of them takes with the longest names, bytes. */
const CHANGE = 800;
/** What a row of content or a use takes that is one of many in a change, bytes. */
const CHANGED_ROW = 300;

/** A change that is kept for later. */
interface Change {
  readonly tell: () => Awaitable<void>;
  /** What it takes in memory. */
  readonly bytes: number;
}

/** How often room is made for one change before it is given up. */
const SHED_ATTEMPTS = 3;

const MIB = 2 ** 20;

/** What a link takes in memory, bytes: upstreams choose media types. */
function linkBytes({ mediaType }: LinkRow): number {
  return 50 + stringBytes(mediaType);
}

function textOf(...parts: readonly string[]): string {
  return parts.join(" ");
}

function repositoryText({ registry, repository }: RepositoryKey): string {
  return textOf(registry, repository);
}

function remember<V extends object | number>(
  view: ByteLru<V>,
  key: string,
  value: V | undefined,
): void {
  if (value === undefined) view.delete(key);
  else view.set(key, value);
}

/** So many removed marks are looked up at once. */
const MOST_REVOKED = 1_000;
/** How often marks that others removed are looked up, ms. */
const LOOK_EVERY = 5_000;

/** An index that several instances have in common. */
export interface RemoteIndex extends Required<Index> {
  /** See `RedisIndex.revoked`. */
  revoked(
    since: string,
    limit: number,
  ): Promise<{ readonly now: string; readonly repositories: readonly string[] }>;
}

/** Options for {@linkcode BufferedIndex}. */
export interface SurvivingIndexOptions {
  /** How long a remembered proof that a repository is public holds, ms. @default {an hour} */
  readonly marksHold?: number;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** The index, and what is remembered of it. */
export class BufferedIndex implements Index {
  readonly #remote: RemoteIndex;
  readonly #marksHold: number;
  readonly #now: () => number;
  /** Until when removed marks have been looked up, by Redis' clock. */
  #revokedSince = "0";
  readonly #watching: ReturnType<typeof setInterval>;
  readonly #rows = new ByteLru<BlobRow>({ bytes: 8 * MIB, sizeOf: () => 300 });
  readonly #links = new ByteLru<LinkRow>({ bytes: 16 * MIB, sizeOf: linkBytes });
  readonly #tags = new ByteLru<TagRow>({ bytes: 4 * MIB, sizeOf: () => 250 });
  readonly #marks = new ByteLru<number>({ bytes: 4 * MIB });
  readonly #journal: Change[] = [];
  #journalBytes = 0;
  #shedding: Promise<boolean> | undefined;
  #totals: Totals = { bytes: 0, entries: 0, reserved: 0 };
  /** Promised here while nobody else could be asked, bytes. */
  #promised = 0;

  constructor(remote: RemoteIndex, options: SurvivingIndexOptions = {}) {
    this.#remote = remote;
    this.#marksHold = options.marksHold ?? 60 * 60_000;
    this.#now = options.now ?? Date.now;
    this.#watching = setInterval(() => void this.forgetRevoked(), LOOK_EVERY);
    Deno.unrefTimer(this.#watching);
  }

  /**
   * Tells the index what happened while it was gone. Throws when it goes again; what is left is kept. What it refuses for
   * good is dropped, and that is told: upstream is asked again for what nobody knows.
   */
  async replay(): Promise<void> {
    let refused = 0;
    let cause: unknown;
    try {
      while (this.#journal.length > 0) {
        const entry = this.#journal[0]!;
        try {
          await entry.tell();
        } catch (error) {
          if (error instanceof RedisDownError) throw error;
          refused++;
          cause = error;
        }
        if (this.#journal[0] === entry) this.#dropOldest();
      }
    } finally {
      if (refused > 0) {
        cacheLog.warn("Redis refused {count} changes from while it was away: {cause}", {
          count: refused,
          cause: causeOf(cause),
        });
      }
    }
  }

  async blob(digest: string): Promise<BlobRow | undefined> {
    return await this.#read(this.#rows, digest, () => this.#remote.blob(digest));
  }

  async addBlob(row: BlobRow): Promise<void> {
    this.#rows.set(row.digest, row);
    try {
      await this.#note(() => this.#remote.addBlob(row));
    } catch (error) {
      this.#rows.delete(row.digest);
      throw error;
    }
  }

  async restoreBlobs(rows: readonly BlobRow[]): Promise<void> {
    await this.#write(() => this.#remote.restoreBlobs(rows), CHANGED_ROW * rows.length);
  }

  async removeBlob(digest: string): Promise<void> {
    this.#rows.delete(digest);
    await this.#write(() => this.#remote.removeBlob(digest));
  }

  async touch(uses: ReadonlyMap<string, number>): Promise<void> {
    // Uses of links and tags alone are not worth being told later.
    if (uses.size === 0) await this.#whenUp(() => this.#remote.touch(uses), undefined);
    else await this.#write(() => this.#remote.touch(uses), CHANGED_ROW * uses.size);
  }

  async setVerified(digest: string, at: number): Promise<void> {
    await this.#write(() => this.#remote.setVerified(digest, at));
  }

  async leastRecent(limit: number, options?: LeastRecentOptions): Promise<readonly BlobRow[]> {
    return await this.#whenUp(() => this.#remote.leastRecent(limit, options), []);
  }

  async leastVerified(limit: number): Promise<readonly BlobRow[]> {
    return await this.#whenUp(() => this.#remote.leastVerified(limit), []);
  }

  blobs(): AsyncIterable<BlobRow> {
    return this.#remote.blobs();
  }

  async totals(): Promise<Totals> {
    this.#totals = await this.#whenUp(() => this.#remote.totals(), this.#totals);
    return this.#totals;
  }

  async link(key: LinkKey): Promise<LinkRow | undefined> {
    const name = textOf(repositoryText(key), key.digest, key.kind);
    return await this.#read(this.#links, name, () => this.#remote.link(key));
  }

  async addLink(key: LinkKey, row: LinkRow): Promise<void> {
    this.#links.set(textOf(repositoryText(key), key.digest, key.kind), row);
    await this.#write(() => this.#remote.addLink(key, row), linkBytes(row));
  }

  async tag(key: RepositoryKey, tag: string): Promise<TagRow | undefined> {
    const name = textOf(repositoryText(key), tag);
    return await this.#read(this.#tags, name, () => this.#remote.tag(key, tag));
  }

  async setTag(key: RepositoryKey, tag: string, row: TagRow): Promise<void> {
    this.#tags.set(textOf(repositoryText(key), tag), row);
    await this.#write(() => this.#remote.setTag(key, tag, row));
  }

  async removeTag(key: RepositoryKey, tag: string): Promise<void> {
    this.#tags.delete(textOf(repositoryText(key), tag));
    await this.#write(() => this.#remote.removeTag(key, tag));
  }

  async removeTags(entries: readonly TagEntry[]): Promise<void> {
    for (const { registry, repository, tag } of entries) {
      this.#tags.delete(textOf(registry, repository, tag));
    }
    await this.#write(() => this.#remote.removeTags(entries), CHANGE * entries.length);
  }

  tagPage(options: TagPageOptions): Awaitable<TagPage> {
    return this.#remote.tagPage(options);
  }

  tagCount(): Awaitable<number> {
    return this.#whenUp(() => this.#remote.tagCount(), 0);
  }

  async trim(): Promise<void> {
    await this.#whenUp(() => this.#remote.trim(), undefined);
  }

  async shed(): Promise<boolean> {
    return await this.#whenUp(() => this.#remote.shed(), false);
  }

  tags(): AsyncIterable<TagEntry> {
    return this.#remote.tags();
  }

  async prune(before: number, cursor?: string): Promise<string | undefined> {
    return await this.#whenUp(() => this.#remote.prune(before, cursor), undefined);
  }

  async look(question: Question): Promise<Facts> {
    const { kind, by } = question;
    const repository = repositoryText(question);
    const tagName = "tag" in by ? textOf(repository, by.tag) : undefined;
    const linkName = (digest: string) => textOf(repository, digest, kind);
    let facts: Facts;
    try {
      facts = await this.#remote.look(question);
    } catch (error) {
      if (!(error instanceof RedisDownError)) throw error;
      const tag = tagName === undefined ? undefined : this.#tags.get(tagName);
      const digest = "digest" in by ? by.digest : tag?.digest;
      const link = digest === undefined ? undefined : this.#links.get(linkName(digest));
      const row = digest === undefined ? undefined : this.#rows.get(digest);
      // Of grants the instance knows its own, without being asked here.
      return { tag, link, row, publicSince: this.#markOf(repository), isGranted: false };
    }
    const { tag, link, row, publicSince } = facts;
    const digest = "digest" in by ? by.digest : tag?.digest;
    if (tagName !== undefined) remember(this.#tags, tagName, tag);
    if (digest === undefined) return facts;
    remember(this.#links, linkName(digest), link);
    if (!link) return facts; // then the rest was not looked up
    remember(this.#rows, digest, row);
    remember(this.#marks, repository, publicSince);
    return facts;
  }

  async publicSince(key: RepositoryKey): Promise<number | undefined> {
    const name = repositoryText(key);
    try {
      const at = await this.#remote.publicSince(key);
      remember(this.#marks, name, at);
      return at;
    } catch (error) {
      if (error instanceof RedisDownError) return this.#markOf(name);
      throw error;
    }
  }

  /** What is remembered of a mark, as long as it holds: others may have removed it meanwhile. */
  #markOf(repository: string): number | undefined {
    const at = this.#marks.get(repository);
    if (at === undefined || this.#now() - at < this.#marksHold) return at;
    this.#marks.delete(repository);
  }

  /** Forgets the marks that other instances removed. Never throws. */
  async forgetRevoked(): Promise<void> {
    try {
      const { now, repositories } = await this.#remote.revoked(this.#revokedSince, MOST_REVOKED);
      // Too many to be sure of the rest.
      if (repositories.length === MOST_REVOKED) this.#marks.clear();
      for (const repository of repositories) this.#marks.delete(repository);
      this.#revokedSince = now;
    } catch {
      // Redis is away: again when it is back, from where this one was.
    }
  }

  async setPublic(key: RepositoryKey, at: number | undefined): Promise<void> {
    if (at === undefined) this.#marks.delete(repositoryText(key));
    else this.#marks.set(repositoryText(key), at);
    await this.#write(() => this.#remote.setPublic(key, at));
  }

  async markPending(digest: string): Promise<void> {
    await this.#note(() => this.#remote.markPending(digest));
  }

  async clearPending(digest: string): Promise<void> {
    await this.#write(() => this.#remote.clearPending(digest));
  }

  async pending(): Promise<readonly string[]> {
    return await this.#whenUp(() => this.#remote.pending(), []);
  }

  async reserve(bytes: number, limit: number): Promise<Reservation | undefined> {
    const own = this.#promise();
    let remote: Reservation | undefined;
    try {
      remote = await this.#remote.reserve(bytes, limit);
      if (!remote) return undefined;
    } catch (error) {
      if (!(error instanceof RedisDownError)) throw error;
      if (!own.grow(bytes, limit)) return undefined;
    }
    return {
      grow: async (more, limit) => {
        try {
          if (remote) return await remote.grow(more, limit);
        } catch (error) {
          if (!(error instanceof RedisDownError)) throw error;
        }
        return own.grow(more, limit);
      },
      release: async () => {
        own.release();
        if (remote) await this.#write(() => remote.release());
      },
    };
  }

  /** A promise by what was last known of the totals. */
  #promise(): { grow(bytes: number, limit: number): boolean; release(): void } {
    let held = 0;
    return {
      grow: (bytes, limit) => {
        const { bytes: stored, reserved } = this.#totals;
        if (stored + reserved + this.#promised + bytes > limit) return false;
        held += bytes;
        this.#promised += bytes;
        return true;
      },
      release: () => {
        this.#promised -= held;
        held = 0;
      },
    };
  }

  async close(): Promise<void> {
    clearInterval(this.#watching);
    await this.#remote.close();
  }

  async #whenUp<T>(ask: () => Awaitable<T>, otherwise: T): Promise<T> {
    try {
      return await ask();
    } catch (error) {
      if (error instanceof RedisDownError) return otherwise;
      throw error;
    }
  }

  /** What the index says, remembered; what it last said while it is gone. */
  async #read<V extends object | number>(
    view: ByteLru<V>,
    key: string,
    ask: () => Awaitable<V | undefined>,
  ): Promise<V | undefined> {
    try {
      const value = await ask();
      remember(view, key, value);
      return value;
    } catch (error) {
      if (error instanceof RedisDownError) return view.get(key);
      throw error;
    }
  }

  /**
   * Tells what the cap depends on: content that Redis refuses to count must not be there. Throws where it does;
   * where Redis cannot be reached at all it is told later.
   */
  async #note(tell: () => Awaitable<void>, bytes = 0): Promise<void> {
    try {
      await this.#withRoom(tell);
    } catch (error) {
      // No store is full because of it.
      if (error instanceof RedisRefusesError) {
        throw new NoteRefusedError("Redis takes no writes", { cause: error });
      }
      if (!(error instanceof RedisDownError)) throw error;
      this.#later(tell, bytes);
    }
  }

  async #write(tell: () => Awaitable<void>, bytes = 0): Promise<void> {
    try {
      await this.#withRoom(tell);
    } catch (error) {
      if (!(error instanceof RedisDownError)) throw error;
      this.#later(tell, bytes);
    }
  }

  #later(tell: () => Awaitable<void>, more: number): void {
    const bytes = CHANGE + more;
    this.#journal.push({ tell, bytes });
    this.#journalBytes += bytes;
    while (this.#journalBytes > JOURNAL) this.#dropOldest();
  }

  #dropOldest(): void {
    this.#journalBytes -= this.#journal.shift()?.bytes ?? 0;
  }

  /** Where Redis' memory is full, what was used longest ago makes room for what is new. */
  async #withRoom(tell: () => Awaitable<void>): Promise<void> {
    for (let attempt = 0;; attempt++) {
      try {
        return await tell();
      } catch (error) {
        const isFull = error instanceof RedisRefusesError && error.code === "ENOSPC";
        if (!isFull || attempt >= SHED_ATTEMPTS || !await this.#shedOnce()) throw error;
      }
    }
  }

  /** However many ask for room at once, some is made once. */
  async #shedOnce(): Promise<boolean> {
    this.#shedding ??= this.shed().finally(() => this.#shedding = undefined);
    return await this.#shedding;
  }
}
