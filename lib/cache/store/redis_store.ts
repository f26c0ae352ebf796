/**
 * {@linkcode BlobStore} in Redis, for a small shared cache: bytes in chunks, each draft under a generation
 * of its own, so that a reader never gets chunks of two. Keys beside the index's:
 *
 * - `C:<generation>:<n>` a chunk; it expires unless its generation is published
 * - `M:<digest>` hash `generation size at`, what is published; `S` set of these digests
 * - `Q:<digest>` and `QS`, the same for what was set aside
 * - `R` generations that are not published any more and may still be read, in the order in which they ceased to be; `RS`
 *   hash of their sizes, with `bytes` in all and the number of the `last`
 *
 * @module
 */
import { isStorable } from "../../oci/digest.ts";
import {
  BlobReplacedError,
  type BlobStore,
  type BlobWriter,
  type BlobWriterOptions,
  type ByteReader,
  type StoredBlob,
  type StoredEntry,
} from "./blob_store.ts";
import { type Redis, type Reply, script } from "./redis.ts";

/** Redis refuses strings above 512 MB, and a smaller one does not keep others waiting. */
const CHUNK = 512 * 1024;
/** A chunk whose draft came to nothing ends after this, s: what fits into Redis is sent to it in less. */
const CHUNK_LIFE = 10 * 60;

/** Chunks of what was removed stay for readers so long, s, and no more of it than these bytes and generations. */
const RETIRED_LIFE = 5 * 60;
const MOST_RETIRED = 64 * 2 ** 20;
const MOST_RETIRED_GENERATIONS = 1_000;
/** Nor more than this part of the cap: they take room too. */
const RETIRED_SHARE = 1 / 32;

const DROP = `
  local function unlink(generation, size)
    local last = math.floor((size - 1) / ${CHUNK})
    for n = 0, last do redis.call('UNLINK', p .. 'C:' .. generation .. ':' .. n) end
  end
  local function drop(map)
    local old = redis.call('HMGET', map, 'generation', 'size')
    if not old[1] then return end
    unlink(old[1], old[2])
    redis.call('DEL', map)
  end
`;

/** Removes what is published, whose chunks go when there is no room for more of the kind, or a while later. */
const RETIRE = `
  local function retire(map, most)
    local old = redis.call('HMGET', map, 'generation', 'size')
    if not old[1] then return end
    redis.call('DEL', map)
    local last = math.floor((old[2] - 1) / ${CHUNK})
    for n = 0, last do
      redis.call('EXPIRE', p .. 'C:' .. old[1] .. ':' .. n, ${RETIRED_LIFE})
    end
    local retired, sizes = p .. 'R', p .. 'RS'
    redis.call('ZADD', retired, redis.call('HINCRBY', sizes, 'last', 1), old[1])
    redis.call('HSET', sizes, old[1], old[2])
    local bytes = redis.call('HINCRBY', sizes, 'bytes', old[2])
    while bytes > tonumber(most) or redis.call('ZCARD', retired) > ${MOST_RETIRED_GENERATIONS} do
      local oldest = redis.call('ZRANGE', retired, 0, 0)[1]
      local size = oldest and redis.call('HGET', sizes, oldest)
      if not size then
        redis.call('DEL', retired, sizes)
        break
      end
      unlink(oldest, tonumber(size))
      redis.call('ZREM', retired, oldest)
      redis.call('HDEL', sizes, oldest)
      bytes = redis.call('HINCRBY', sizes, 'bytes', -tonumber(size))
    end
    for _, key in ipairs({ 'R', 'RS' }) do redis.call('EXPIRE', p .. key, ${RETIRED_LIFE}) end
  end
`;

/** digest generation size at most */
const PUBLISH = script(`
  local p, digest = KEYS[1], ARGV[1]
  ${DROP}
  ${RETIRE}
  local last = math.floor((ARGV[3] - 1) / ${CHUNK})
  for n = 0, last do
    if redis.call('PERSIST', p .. 'C:' .. ARGV[2] .. ':' .. n) == 0 then return 0 end
  end
  retire(p .. 'M:' .. digest, ARGV[5])
  redis.call('HSET', p .. 'M:' .. digest, 'generation', ARGV[2], 'size', ARGV[3], 'at', ARGV[4])
  redis.call('SADD', p .. 'S', digest)
  return 1
`);

/** digest most */
const REMOVE = script(`
  local p, digest = KEYS[1], ARGV[1]
  ${DROP}
  ${RETIRE}
  retire(p .. 'M:' .. digest, ARGV[2])
  redis.call('SREM', p .. 'S', digest)
`);

/** digest at generation → whether nothing is published any more */
const QUARANTINE = script(`
  local p, digest, at, generation = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
  ${DROP}
  local published = redis.call('HGET', p .. 'M:' .. digest, 'generation')
  if not published then return 1 end
  if generation ~= '' and generation ~= published then return 0 end
  drop(p .. 'Q:' .. digest)
  redis.call('RENAME', p .. 'M:' .. digest, p .. 'Q:' .. digest)
  redis.call('HSET', p .. 'Q:' .. digest, 'at', at)
  redis.call('SREM', p .. 'S', digest)
  redis.call('SADD', p .. 'QS', digest)
  return 1
`);

/** before → bytes that stay */
const PURGE = script(`
  local p, before, kept = KEYS[1], tonumber(ARGV[1]), 0
  ${DROP}
  for _, digest in ipairs(redis.call('SMEMBERS', p .. 'QS')) do
    local entry = redis.call('HMGET', p .. 'Q:' .. digest, 'at', 'size')
    if not entry[1] or tonumber(entry[1]) < before then
      drop(p .. 'Q:' .. digest)
      redis.call('SREM', p .. 'QS', digest)
    else kept = kept + entry[2] end
  end
  return kept
`);

interface Published {
  readonly generation: string;
  readonly size: number;
  readonly at: number;
}

/** Options for {@linkcode RedisStore}. */
export interface RedisStoreOptions {
  /** Where drafts are while they grow. */
  readonly drafts: Pick<BlobStore, "begin" | "sweep">;
  /** The cap in bytes. @default {Infinity} */
  readonly maxSize?: number;
}

/** The chunks below one prefix. */
export class RedisStore implements BlobStore {
  readonly #redis: Redis;
  readonly #drafts: Pick<BlobStore, "begin" | "sweep">;
  /** Bytes of chunks that stay for readers only. */
  readonly #retired: string;

  constructor(redis: Redis, { drafts, maxSize = Infinity }: RedisStoreOptions) {
    this.#redis = redis;
    this.#drafts = drafts;
    this.#retired = String(Math.floor(Math.min(MOST_RETIRED, maxSize * RETIRED_SHARE)));
  }

  async open(digest: string): Promise<StoredBlob | undefined> {
    const published = await this.#published(digest);
    return published && new RedisBlob(this.#redis, { ...published, digest });
  }

  async begin(digest: string, options?: BlobWriterOptions): Promise<BlobWriter> {
    checked(digest);
    return new RedisDraft({
      redis: this.#redis,
      digest,
      retired: this.#retired,
      local: await this.#drafts.begin(digest, options),
      open: () => this.open(digest),
    });
  }

  async remove(digest: string): Promise<void> {
    await this.#redis.run(REMOVE, checked(digest), this.#retired);
  }

  async stat(digest: string): Promise<StoredEntry | undefined> {
    const published = await this.#published(digest);
    return published && { digest, size: published.size, storedAt: published.at };
  }

  async *list(): AsyncIterable<StoredEntry> {
    let cursor = "0";
    do {
      const key = this.#redis.key("S");
      const reply = await this.#redis.command("SSCAN", key, cursor, "COUNT", "500") as Reply[];
      for (const digest of reply[1] as string[]) {
        const entry = await this.stat(digest);
        if (entry) yield entry;
      }
      cursor = String(reply[0]);
    } while (cursor !== "0");
  }

  async quarantine(digest: string, version = ""): Promise<boolean> {
    const at = String(Date.now());
    return await this.#redis.run(QUARANTINE, checked(digest), at, version) === 1;
  }

  async purge(before: number): Promise<number> {
    return Number(await this.#redis.run(PURGE, String(before)));
  }

  async sweep(): Promise<void> {
    await this.#drafts.sweep(); // chunks end by themselves
  }

  async #published(digest: string): Promise<Published | undefined> {
    const key = this.#redis.key(`M:${checked(digest)}`);
    const reply = await this.#redis.command("HMGET", key, "generation", "size", "at");
    const [generation, size, at] = reply as (string | null)[];
    if (!generation) return undefined;
    return { generation, size: Number(size), at: Number(at) };
  }
}

function checked(digest: string): string {
  if (!isStorable(digest)) throw new TypeError(`Not a storable digest: ${digest}`);
  return digest;
}

class RedisBlob implements StoredBlob {
  readonly size: number;
  readonly version: string;
  readonly #redis: Redis;
  readonly #digest: string;

  constructor(
    redis: Redis,
    { digest, generation, size }: Published & { readonly digest: string },
  ) {
    this.#redis = redis;
    this.#digest = digest;
    this.version = generation;
    this.size = size;
  }

  async read(offset: number, buffer: Uint8Array): Promise<number> {
    if (offset >= this.size) return 0;
    const n = Math.floor(offset / CHUNK);
    const start = offset % CHUNK;
    const end = Math.min(start + buffer.byteLength, CHUNK) - 1;
    const key = this.#redis.key(`C:${this.version}:${n}`);
    const bytes = await this.#redis.bytes("GETRANGE", key, String(start), String(end));
    if (!(bytes instanceof Uint8Array) || bytes.byteLength === 0) {
      const published = await this.#redis.command(
        "HGET",
        this.#redis.key(`M:${this.#digest}`),
        "generation",
      );
      if (published === this.version) throw new Error(`Chunk ${n} is missing`);
      throw new BlobReplacedError("The content was removed while it was read");
    }
    buffer.set(bytes);
    return bytes.byteLength;
  }

  close(): void {}
}

interface RedisDraftOptions {
  readonly redis: Redis;
  readonly digest: string;
  /** Bytes of chunks that stay for readers only. */
  readonly retired: string;
  readonly local: BlobWriter;
  readonly open: () => Promise<StoredBlob | undefined>;
}

class RedisDraft implements BlobWriter {
  readonly #options: RedisDraftOptions;
  readonly #generation = crypto.randomUUID();
  #written = 0;

  constructor(options: RedisDraftOptions) {
    this.#options = options;
  }

  async write(chunk: Uint8Array): Promise<void> {
    await this.#options.local.write(chunk);
    this.#written += chunk.byteLength;
  }

  async reader(): Promise<ByteReader> {
    try {
      return await this.#options.local.reader();
    } catch (error) {
      const blob = await this.#options.open(); // committed a moment ago
      if (!blob) throw error;
      return blob;
    }
  }

  async commit(): Promise<void> {
    const { redis, digest, local, retired } = this.#options;
    const source = await local.reader();
    try {
      const buffer = new Uint8Array(CHUNK);
      for (let n = 0; n * CHUNK < this.#written; n++) {
        const length = Math.min(CHUNK, this.#written - n * CHUNK);
        for (let done = 0; done < length;) {
          const read = await source.read(n * CHUNK + done, buffer.subarray(done, length));
          if (read === 0) throw new Error("The draft is shorter than what was written to it");
          done += read;
        }
        const key = redis.key(`C:${this.#generation}:${n}`);
        await redis.command("SET", key, buffer.slice(0, length), "EX", String(CHUNK_LIFE));
      }
    } finally {
      source.close();
    }
    const [size, now] = [String(this.#written), String(Date.now())];
    const args = [digest, this.#generation, size, now, retired];
    if (await redis.run(PUBLISH, ...args) !== 1) {
      throw new Error("Redis dropped chunks before they were published: is it short of memory?");
    }
    await local.discard();
  }

  async discard(): Promise<void> {
    await this.#options.local.discard();
  }
}
