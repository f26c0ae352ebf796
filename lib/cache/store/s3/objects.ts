/**
 * The objects of an S3 service, below the prefix that the store is given.
 *
 * @module
 */
import type { S3Setting } from "../../../config/engine_url.ts";
import { isMissing, REQUEST_TIMEOUT, type S3Events, S3Requests } from "./requests.ts";
import { S3Uploads } from "./uploads.ts";

/** An object that is there. */
export interface S3Entry {
  readonly key: string;
  /** Bytes. */
  readonly size: number;
  /** ms since the epoch. */
  readonly storedAt: number;
}

/** What an object that is there is. */
export interface S3Stat extends S3Entry {
  readonly version: string;
}

/** An object on its way here. */
export interface S3Body {
  /** Bytes of the whole object. */
  readonly size: number;
  readonly version: string;
  readonly body: ReadableStream<Uint8Array>;
}

/** The ETag of the same bytes is the same: only the time tells what was stored again. */
function versionOf(etag: string, modified: Date): string {
  return `${etag} ${modified.getTime()}`;
}

/** The same as {@linkcode REQUEST_TIMEOUT} for requests that a client waits for, ms. */
const FIRST_BYTE_TIMEOUT = 10_000;
const SMALL = 2 ** 20;
/** The service copies by itself, but all of it before it answers, ms. */
const COPY_TIMEOUT = 10 * 60_000;
/** Objects listed by one request: more are not to be had. */
const PAGE = 1_000;

/** Objects below the prefix. Methods throw as {@linkcode S3Requests} does. */
export class S3Objects {
  readonly uploads: S3Uploads;
  readonly #requests: S3Requests;

  constructor(location: S3Setting, events?: S3Events) {
    this.#requests = new S3Requests(location, events);
    this.uploads = new S3Uploads(this.#requests);
  }

  /** What the `error` means that ended the body of `key`: see {@linkcode S3Requests.judged}. */
  async judged(error: unknown, key: string): Promise<unknown> {
    return await this.#requests.judged(error, key);
  }

  /** Notes that an object was read to its end. */
  succeeded(): void {
    this.#requests.succeeded();
  }

  /** Whether the service answered when it was last asked. */
  get isUp(): boolean {
    return this.#requests.isUp;
  }

  /** The object from byte `offset` on; undefined when there is none. */
  async get(key: string, offset = 0): Promise<S3Body | undefined> {
    try {
      const response = await this.#requests.ask(
        () =>
          this.#requests.client.getPartialObject(this.#requests.prefix + key, {
            offset,
            length: 0,
          }),
        FIRST_BYTE_TIMEOUT,
        // Nobody waits for it any more.
        (late) => late.body?.cancel(),
        key,
      );
      const body = response.body ?? new ReadableStream({ start: (c) => c.close() });
      const rest = Number(response.headers.get("content-length"));
      const etag = (response.headers.get("etag") ?? "").replaceAll('"', "");
      const modified = new Date(response.headers.get("last-modified") ?? 0);
      return { size: offset + rest, version: versionOf(etag, modified), body };
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /** What the object is; undefined when there is none. */
  async stat(key: string): Promise<S3Stat | undefined> {
    try {
      const { size, etag, lastModified } = await this.#requests.ask(
        () => this.#requests.client.statObject(this.#requests.prefix + key),
        FIRST_BYTE_TIMEOUT,
      );
      const version = versionOf(etag, lastModified);
      return { key, size, version, storedAt: lastModified.getTime() };
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /** Copies an object (of at most 5 GiB) to another key; false when there is none. */
  async copy(from: string, to: string): Promise<boolean> {
    try {
      const source = { sourceKey: this.#requests.prefix + from };
      await this.#requests.ask(
        () => this.#requests.client.copyObject(source, this.#requests.prefix + to),
        COPY_TIMEOUT,
      );
      return true;
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
  }

  /** Stores all of `bytes`. */
  async put(key: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    // What is small is a manifest, and a client waits for it.
    const ms = bytes.byteLength < SMALL ? FIRST_BYTE_TIMEOUT : REQUEST_TIMEOUT;
    await this.#requests.request(key, { method: "PUT", payload: bytes, ms });
  }

  /** Removes the object; what is not there is removed already. */
  async remove(key: string): Promise<void> {
    try {
      await this.#requests.ask(
        () => this.#requests.client.deleteObject(this.#requests.prefix + key),
        REQUEST_TIMEOUT,
      );
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }

  /** Every object below `prefix`. */
  async *list(prefix: string): AsyncIterable<S3Entry> {
    let from: string | undefined;
    do {
      const { page, next } = await this.#requests.ask(
        () => this.#page(prefix, from),
        REQUEST_TIMEOUT,
      );
      yield* page;
      from = next;
    } while (from !== undefined);
  }

  async #page(prefix: string, from?: string): Promise<{ page: S3Entry[]; next?: string }> {
    const entries = this.#requests.client.listObjectsGrouped({
      prefix: this.#requests.prefix + prefix,
      delimiter: "",
      continuationToken: from,
      maxResults: PAGE,
    });
    const page: S3Entry[] = [];
    while (true) {
      const { done, value } = await entries.next();
      if (done) return { page, next: value || undefined };
      if (value.type !== "Object") continue;
      const { key, size, lastModified } = value;
      page.push({
        key: key.slice(this.#requests.prefix.length),
        size,
        storedAt: lastModified.getTime(),
      });
    }
  }

  /** A URL that gives the object to whoever has it, for `seconds`. */
  presign(key: string, seconds: number): Promise<string> {
    return this.#requests.client.presignedGetObject(this.#requests.prefix + key, {
      expirySeconds: seconds,
    });
  }
}
