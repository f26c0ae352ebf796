/**
 * {@linkcode BlobStore} in Redis, for a small shared cache: bytes in chunks, each draft under a generation
 * of its own, so that a reader never gets chunks of two. Keys beside the index's:
 *
 * - `C:<generation>:<n>` a chunk; it expires unless its generation is published
 * - `M:<digest>` hash `generation size at`, what is published; `S` set of these digests
 * - `Q:<digest>` and `QS`, the same for what was set aside
 *
 * @module
 */
import { isStorable } from "../oci/digest.ts";
import type {
  BlobStore,
  ByteReader,
  Draft,
  DraftOptions,
  StoredBlob,
  StoredEntry,
} from "./blob_store.ts";
import { type Redis, type Reply, script } from "./redis.ts";

/** Redis refuses strings above 512 MB, and a smaller one does not keep others waiting. */
const CHUNK = 512 * 1024;
/** A chunk whose draft came to nothing ends after this, s: what fits into Redis is sent to it in less. */
const CHUNK_LIFE = 10 * 60;

const DROP = `
  local function drop(map)
    local old = redis.call('HMGET', map, 'generation', 'size')
    if not old[1] then return end
    local last = math.floor((old[2] - 1) / ${CHUNK})
    for n = 0, last do redis.call('UNLINK', p .. 'C:' .. old[1] .. ':' .. n) end
    redis.call('DEL', map)
  end
`;

/** digest generation size at */
const PUBLISH = script(`
  local p, digest = KEYS[1], ARGV[1]
  ${DROP}
  local last = math.floor((ARGV[3] - 1) / ${CHUNK})
  for n = 0, last do
    if redis.call('PERSIST', p .. 'C:' .. ARGV[2] .. ':' .. n) == 0 then return 0 end
  end
  drop(p .. 'M:' .. digest)
  redis.call('HSET', p .. 'M:' .. digest, 'generation', ARGV[2], 'size', ARGV[3], 'at', ARGV[4])
  redis.call('SADD', p .. 'S', digest)
  return 1
`);

/** digest */
const REMOVE = script(`
  local p, digest = KEYS[1], ARGV[1]
  ${DROP}
  drop(p .. 'M:' .. digest)
  redis.call('SREM', p .. 'S', digest)
`);

/** digest at */
const QUARANTINE = script(`
  local p, digest, at = KEYS[1], ARGV[1], ARGV[2]
  ${DROP}
  if redis.call('EXISTS', p .. 'M:' .. digest) == 0 then return end
  drop(p .. 'Q:' .. digest)
  redis.call('RENAME', p .. 'M:' .. digest, p .. 'Q:' .. digest)
  redis.call('HSET', p .. 'Q:' .. digest, 'at', at)
  redis.call('SREM', p .. 'S', digest)
  redis.call('SADD', p .. 'QS', digest)
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

/** The chunks below one prefix. */
export class RedisStore implements BlobStore {
  readonly #redis: Redis;
  readonly #drafts: Pick<BlobStore, "begin" | "sweep">;

  /** `drafts` is where drafts are while they grow. */
  constructor(redis: Redis, { drafts }: { drafts: Pick<BlobStore, "begin" | "sweep"> }) {
    this.#redis = redis;
    this.#drafts = drafts;
  }

  async open(digest: string): Promise<StoredBlob | undefined> {
    const published = await this.#published(digest);
    return published && new RedisBlob(this.#redis, published);
  }

  async begin(digest: string, options?: DraftOptions): Promise<Draft> {
    checked(digest);
    return new RedisDraft({
      redis: this.#redis,
      digest,
      local: await this.#drafts.begin(digest, options),
      open: () => this.open(digest),
    });
  }

  async remove(digest: string): Promise<void> {
    await this.#redis.run(REMOVE, checked(digest));
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

  async quarantine(digest: string): Promise<void> {
    await this.#redis.run(QUARANTINE, checked(digest), String(Date.now()));
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
  readonly #redis: Redis;
  readonly #generation: string;

  constructor(redis: Redis, { generation, size }: Published) {
    this.#redis = redis;
    this.#generation = generation;
    this.size = size;
  }

  async read(offset: number, buffer: Uint8Array): Promise<number> {
    if (offset >= this.size) return 0;
    const n = Math.floor(offset / CHUNK);
    const start = offset % CHUNK;
    const end = Math.min(start + buffer.byteLength, CHUNK) - 1;
    const key = this.#redis.key(`C:${this.#generation}:${n}`);
    const bytes = await this.#redis.bytes("GETRANGE", key, String(start), String(end));
    if (!(bytes instanceof Uint8Array) || bytes.byteLength === 0) {
      throw new Error("The content was removed while it was read");
    }
    buffer.set(bytes);
    return bytes.byteLength;
  }

  close(): void {}
}

interface RedisDraftOptions {
  readonly redis: Redis;
  readonly digest: string;
  readonly local: Draft;
  readonly open: () => Promise<StoredBlob | undefined>;
}

class RedisDraft implements Draft {
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
    const { redis, digest, local } = this.#options;
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
    const args = [digest, this.#generation, String(this.#written), String(Date.now())];
    if (await redis.run(PUBLISH, ...args) !== 1) {
      throw new Error("Redis dropped chunks before they were published: is it short of memory?");
    }
    await local.discard();
  }

  async discard(): Promise<void> {
    await this.#options.local.discard();
  }
}
