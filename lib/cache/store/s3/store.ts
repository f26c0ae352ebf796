/**
 * {@linkcode BlobStore} on an S3-compatible service: `<prefix>/blobs/sha256/ab/<hex>`. A draft is a local
 * file that readers follow; its parts go up while it grows, and it becomes an object only by `commit`.
 *
 * @module
 */
import { ByteLru } from "../../../util/lru.ts";
import { isStorable } from "../../../oci/digest.ts";
import {
  BlobReplacedError,
  type BlobStore,
  BlobUnavailableError,
  type BlobWriter,
  type BlobWriterOptions,
  type ByteReader,
  type StoredBlob,
  type StoredEntry,
} from "../blob_store.ts";
import { BodyReader } from "../body_reader.ts";
import { Semaphore } from "../../../util/semaphore.ts";
import type { S3Body, S3Objects, S3Stat } from "./objects.ts";
import type { UploadedPart } from "./uploads.ts";

/** The size of a part: S3's least is 5 MiB, its most parts 10,000 (80 GiB in all). */
const PART = 8 * 2 ** 20;
/** Parts in memory at once, of all drafts together. */
const PARTS_AT_ONCE = 4;
/** How often an object may break off: a client waits for it, and upstream has it too. */
const ATTEMPTS = 2;
/** After so many bytes it counts anew. */
const PROGRESS = 64 * 1024;
/** What an object was a moment ago it is believed to be for so long, ms, before clients are sent to it. */
const SEEN_FOR = 30_000;
/** How long a link holds at most, ms; one that would hold for less than this could end before it is followed. */
const LONGEST_LINK = 10 * 60_000;
const LEAST_LINK = 5_000;
/** An upload younger than this, ms, is not swept: its lease may not be visible yet. */
const YOUNG = 60_000;

function keyOf(digest: string, folder: "blobs" | "quarantine" = "blobs"): string {
  if (!isStorable(digest)) throw new TypeError(`Not a storable digest: ${digest}`);
  const [algorithm, hex] = digest.split(":") as [string, string];
  return `${folder}/${algorithm}/${hex.slice(0, 2)}/${hex}`;
}

function digestOfKey(key: string): string | undefined {
  const [, algorithm, , hex] = key.split("/");
  const digest = `${algorithm}:${hex}`;
  return isStorable(digest) ? digest : undefined;
}

/** Options for {@linkcode S3Store}. */
export interface S3StoreOptions {
  readonly objects: S3Objects;
  /** Where drafts are while they grow. */
  readonly drafts: Pick<BlobStore, "begin">;
  /** How long the service may stand still in the middle of an object, ms. */
  readonly idle: number;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** The objects below one prefix of a bucket. */
export class S3Store implements BlobStore {
  readonly #objects: S3Objects;
  readonly #drafts: Pick<BlobStore, "begin">;
  readonly #idle: number;
  readonly #now: () => number;
  readonly #permits = new Semaphore(PARTS_AT_ONCE);
  /** What was there a while ago, and until when that is believed, ms since the epoch. */
  readonly #seen = new ByteLru<{ size: number; until: number }>({
    bytes: 4 * 2 ** 20,
    sizeOf: () => 64,
  });

  constructor({ objects, drafts, idle, now = Date.now }: S3StoreOptions) {
    this.#now = now;
    this.#objects = objects;
    this.#drafts = drafts;
    this.#idle = idle;
  }

  async open(digest: string): Promise<StoredBlob | undefined> {
    const key = keyOf(digest);
    const found = await this.#objects.get(key);
    return found && new S3Blob({ objects: this.#objects, key, idle: this.#idle, ...found });
  }

  async begin(digest: string, options: BlobWriterOptions = {}): Promise<BlobWriter> {
    return new S3Draft({
      isOurs: options.isOurs ?? (() => true),
      objects: this.#objects,
      key: keyOf(digest),
      local: await this.#drafts.begin(digest, options),
      permits: this.#permits,
      open: () => this.open(digest),
    });
  }

  async remove(digest: string): Promise<void> {
    this.#seen.delete(digest);
    await this.#objects.remove(keyOf(digest));
  }

  async stat(digest: string): Promise<StoredEntry | undefined> {
    const entry = await this.#objects.stat(keyOf(digest));
    return entry && { digest, size: entry.size, storedAt: entry.storedAt };
  }

  async *list(): AsyncIterable<StoredEntry> {
    for await (const { key, size, storedAt } of this.#objects.list("blobs/")) {
      const digest = digestOfKey(key);
      if (digest) yield { digest, size, storedAt };
    }
  }

  async quarantine(digest: string, version?: string): Promise<boolean> {
    const key = keyOf(digest);
    this.#seen.delete(digest);
    if (version !== undefined && ((await this.#statIfAny(key))?.version ?? version) !== version) {
      return false;
    }
    try {
      await this.#objects.copy(key, keyOf(digest, "quarantine"));
    } catch (error) {
      if (!(error instanceof BlobUnavailableError)) throw error;
      // What the service itself cannot read nobody can look at: it is only removed.
    }
    await this.#objects.remove(key);
    return true;
  }

  /** What the object is; undefined too where just this one cannot be asked about. */
  async #statIfAny(key: string): Promise<S3Stat | undefined> {
    try {
      return await this.#objects.stat(key);
    } catch (error) {
      if (error instanceof BlobUnavailableError) return undefined;
      throw error;
    }
  }

  async purge(before: number): Promise<number> {
    let kept = 0;
    for await (const { key, size, storedAt } of this.#objects.list("quarantine/")) {
      if (storedAt < before) await this.#objects.remove(key);
      else kept += size;
    }
    return kept;
  }

  async sweep(
    isRunning: (digest: string) => boolean | Promise<boolean> = () => false,
  ): Promise<void> {
    for await (const { key, id, startedAt } of this.#objects.uploads.list("blobs/")) {
      const digest = digestOfKey(key);
      if (!digest || this.#now() - startedAt < YOUNG || await isRunning(digest)) continue;
      await this.#objects.uploads.abort(key, id);
    }
  }

  /** A URL for whoever has it; none while the service is down, or where its object is not the one that is meant. */
  async redirect(
    digest: string,
    { size, lifetime }: { readonly size: number; readonly lifetime: number },
  ): Promise<string | undefined> {
    if (!this.#objects.isUp || lifetime < LEAST_LINK) return undefined;
    const key = keyOf(digest);
    const seen = this.#seen.get(digest);
    if (!seen || seen.until <= this.#now() || seen.size !== size) {
      // A client that is sent to an object that is cut short, or gone, could not tell us.
      const entry = await this.#objects.stat(key).catch(() => undefined);
      if (entry?.size !== size) return undefined;
      this.#seen.set(digest, { size, until: this.#now() + SEEN_FOR });
    }
    const seconds = Math.floor(Math.min(lifetime, LONGEST_LINK) / 1000);
    return await this.#objects.presign(key, seconds);
  }
}

/** An object that is read: one request as long as the reader goes straight on. */
class S3Blob implements StoredBlob {
  readonly size: number;
  readonly version: string;
  readonly #objects: S3Objects;
  readonly #key: string;
  readonly #idle: number;
  #body: BodyReader;
  /** Whether nothing more comes of it. */
  #isBroken = false;
  /** Where the request under way began, and how often one broke off without progress. */
  #from = 0;
  #breaks = 0;

  constructor({ objects, key, idle, size, version, body }: S3Body & {
    readonly objects: S3Objects;
    readonly key: string;
    readonly idle: number;
  }) {
    this.size = size;
    this.version = version;
    this.#objects = objects;
    this.#key = key;
    this.#idle = idle;
    this.#body = new BodyReader(body, { position: 0, idle });
  }

  /** Throws a `BlobUnavailableError` where the object does not come while the service answers otherwise. */
  async read(offset: number, buffer: Uint8Array): Promise<number> {
    if (offset >= this.size) return 0;
    while (true) {
      if (offset !== this.#body.position || this.#isBroken) await this.#reopen(offset);
      let cause: unknown;
      try {
        const length = await this.#body.read(buffer);
        if (offset + length === this.size) this.#objects.succeeded();
        if (length > 0) return length;
        cause = new Error(`The object ended after ${offset} of ${this.size} bytes`);
      } catch (error) {
        cause = error;
      }
      // It broke off: that may be chance, and the rest still there.
      this.#isBroken = true;
      this.#breaks = this.#body.position - this.#from < PROGRESS ? this.#breaks + 1 : 1;
      if (this.#breaks >= ATTEMPTS) throw await this.#objects.judged(cause, this.#key);
    }
  }

  /** Goes on at `offset`. Throws a `BlobReplacedError` where the object is not what it was. */
  async #reopen(offset: number): Promise<void> {
    this.#body.close();
    this.#isBroken = true;
    const found = await this.#objects.get(this.#key, offset);
    if (!found) throw new BlobReplacedError("The object is gone");
    this.#body = new BodyReader(found.body, { position: offset, idle: this.#idle });
    this.#from = offset;
    if (found.size !== this.size) {
      throw new BlobReplacedError(`The object has ${found.size} bytes, not ${this.size}`);
    }
    this.#isBroken = false;
  }

  close(): void {
    this.#body.close();
  }
}

interface S3DraftOptions {
  readonly isOurs: () => boolean;
  readonly objects: S3Objects;
  readonly key: string;
  readonly local: BlobWriter;
  readonly permits: Semaphore;
  readonly open: () => Promise<StoredBlob | undefined>;
}

class S3Draft implements BlobWriter {
  readonly #options: S3DraftOptions;
  #written = 0;
  #uploaded = 0;
  #uploadId: string | undefined;
  readonly #parts: UploadedPart[] = [];
  #source: ByteReader | undefined;
  #uploading: Promise<void> | undefined;
  /** Why no more parts go up. Clients are served from the local file all the same. */
  #failure: unknown;

  constructor(options: S3DraftOptions) {
    this.#options = options;
  }

  async write(chunk: Uint8Array): Promise<void> {
    await this.#options.local.write(chunk);
    this.#written += chunk.byteLength;
    const isDue = this.#written - this.#uploaded >= PART && this.#failure === undefined;
    if (isDue && this.#options.isOurs()) {
      this.#uploading ??= this.#upload(PART).catch((error) => void (this.#failure = error))
        .finally(() => this.#uploading = undefined);
    }
  }

  async reader(): Promise<ByteReader> {
    try {
      return await this.#options.local.reader();
    } catch (error) {
      // Committed a moment ago: it is an object now.
      const blob = await this.#options.open();
      if (!blob) throw error;
      return blob;
    }
  }

  async commit(): Promise<void> {
    const { objects, key, permits } = this.#options;
    await this.#uploading;
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#uploadId === undefined) {
      await permits.use(async () => {
        await objects.put(key, await this.#readPart(this.#written));
      });
    } else {
      await this.#upload(1);
      await objects.uploads.complete(key, { id: this.#uploadId, parts: this.#parts });
      this.#uploadId = undefined;
    }
    this.#source?.close();
    await this.#options.local.discard();
  }

  async discard(): Promise<void> {
    await this.#uploading;
    this.#source?.close();
    await this.#options.local.discard();
    const { objects, key } = this.#options;
    if (this.#uploadId === undefined) return;
    // Best effort: what stays is swept.
    await objects.uploads.abort(key, this.#uploadId).catch(() => {});
  }

  /** Uploads parts while at least `least` bytes wait for it. */
  async #upload(least: number): Promise<void> {
    const { objects, key, permits } = this.#options;
    while (this.#written - this.#uploaded >= least) {
      await permits.use(async () => {
        const id = this.#uploadId ??= await objects.uploads.begin(key);
        const bytes = await this.#readPart(Math.min(PART, this.#written - this.#uploaded));
        const number = this.#parts.length + 1;
        this.#parts.push(await objects.uploads.part(key, { id, number, bytes }));
        this.#uploaded += bytes.byteLength;
      });
    }
  }

  async #readPart(length: number): Promise<Uint8Array<ArrayBuffer>> {
    this.#source ??= await this.#options.local.reader();
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length;) {
      const n = await this.#source.read(this.#uploaded + done, bytes.subarray(done));
      if (n === 0) throw new Error("The draft is shorter than what was written to it");
      done += n;
    }
    return bytes;
  }
}
