/**
 * The few S3 operations that the store needs and the client library has no method for: multipart uploads
 * that are completed or aborted by us, and requests that cannot hang.
 *
 * @module
 */
import { S3Client, S3Errors } from "@bradenmacdonald/s3-lite-client";
import { DeadlineError, within } from "../deadline.ts";
import type { S3Setting } from "../engine_url.ts";
import { UnreachableError } from "./blob_store.ts";
import { readWithin } from "../upstream/body.ts";
import { backoff } from "../upstream/send.ts";

/** A part of a multipart upload that the service has. */
export interface UploadedPart {
  readonly number: number;
  readonly etag: string;
}

/** A multipart upload that was neither completed nor aborted. */
export interface PendingUpload {
  readonly key: string;
  readonly id: string;
  /** When it began, ms since the epoch. */
  readonly startedAt: number;
}

/** An object that is there. */
export interface S3Entry {
  readonly key: string;
  /** Bytes. */
  readonly size: number;
  /** ms since the epoch. */
  readonly storedAt: number;
}

/** An object on its way here. */
export interface S3Body {
  /** Bytes of the whole object. */
  readonly size: number;
  readonly body: ReadableStream<Uint8Array>;
}

/** One request may take this long until its headers are here, ms; a part is 8 MiB. */
const REQUEST_TIMEOUT = 60_000;
/** The same for requests that a client waits for, ms. */
const FIRST_BYTE_TIMEOUT = 10_000;
const SMALL = 2 ** 20;
/** The service copies by itself, but all of it before it answers, ms. */
const COPY_TIMEOUT = 10 * 60_000;
const ATTEMPTS = 3;
/** Objects listed by one request: more are not to be had. */
const PAGE = 1_000;
/** While it is down, it is tried this often, ms. */
const TRY_AGAIN = 2_000;

/** `text` of the first element called `name`; S3's answers are flat and their ids need no unescaping. */
function element(xml: string, name: string): string | undefined {
  return new RegExp(`<${name}>([^<]*)</${name}>`).exec(xml)?.[1];
}

function unescapeXml(text: string): string {
  const names: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };
  return text.replace(/&(?:#(\d+)|#x([\da-f]+)|(\w+));/gi, (whole, decimal, hex, name) => {
    if (decimal) return String.fromCodePoint(Number(decimal));
    if (hex) return String.fromCodePoint(parseInt(hex, 16));
    return names[name] ?? whole;
  });
}

function isMissing(error: unknown): boolean {
  return error instanceof S3Errors.ServerError && error.statusCode === 404;
}

/** Whether the service answered that it has too much to do, or a fault of its own: asking again may help. */
function isBusy(error: unknown): boolean {
  return error instanceof S3Errors.ServerError &&
    (error.statusCode >= 500 || error.statusCode === 429);
}

/** Whether it tells of the service, or of our account there, and nothing of what was asked for. */
function isTrouble(error: unknown): boolean {
  if (!(error instanceof S3Errors.ServerError)) return true;
  const { statusCode, code } = error;
  return isBusy(error) || statusCode === 401 || statusCode === 403 ||
    ["NoSuchBucket", "ExpiredToken", "InvalidToken"].includes(code);
}

/** Hears whether the service is there. */
export interface S3Events {
  /** Called once each time it goes. */
  onDown(cause: unknown): void;
  /** Called once each time it is back. */
  onUp(): void;
}

/**
 * Objects below the prefix. Methods throw an `UnreachableError` where the service does not answer, and what
 * the client throws for what it answers.
 */
export class S3Objects {
  readonly #client: S3Client;
  readonly #prefix: string;
  readonly #events: S3Events | undefined;
  #isUp = true;
  /** While it is down: when it is tried again. */
  #tryAt = 0;

  constructor(location: S3Setting, events?: S3Events) {
    this.#events = events;
    const { endpoint, region, bucket, prefix, pathStyle } = location;
    this.#client = new S3Client({
      endPoint: endpoint,
      region,
      bucket,
      pathStyle,
      accessKey: location.accessKey,
      secretKey: location.secretKey,
      sessionToken: location.sessionToken,
    });
    this.#prefix = prefix && `${prefix}/`;
  }

  /** The object from byte `offset` on; undefined when there is none. */
  async get(key: string, offset = 0): Promise<S3Body | undefined> {
    try {
      const response = await this.#ask(
        () => this.#client.getPartialObject(this.#prefix + key, { offset, length: 0 }),
        FIRST_BYTE_TIMEOUT,
        // Nobody waits for it any more.
        (late) => late.body?.cancel(),
      );
      const body = response.body ?? new ReadableStream({ start: (c) => c.close() });
      const rest = Number(response.headers.get("content-length"));
      return { size: offset + rest, body };
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /** The object's size and age; undefined when there is none. */
  async stat(key: string): Promise<S3Entry | undefined> {
    try {
      const { size, lastModified } = await this.#ask(
        () => this.#client.statObject(this.#prefix + key),
        FIRST_BYTE_TIMEOUT,
      );
      return { key, size, storedAt: lastModified.getTime() };
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /** Copies an object (of at most 5 GiB) to another key; false when there is none. */
  async copy(from: string, to: string): Promise<boolean> {
    try {
      const source = { sourceKey: this.#prefix + from };
      await this.#ask(() => this.#client.copyObject(source, this.#prefix + to), COPY_TIMEOUT);
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
    await this.#request("PUT", key, { payload: bytes, ms });
  }

  /** Removes the object; what is not there is removed already. */
  async remove(key: string): Promise<void> {
    try {
      await this.#ask(() => this.#client.deleteObject(this.#prefix + key), REQUEST_TIMEOUT);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }

  /** Every object below `prefix`. */
  async *list(prefix: string): AsyncIterable<S3Entry> {
    let from: string | undefined;
    do {
      const { page, next } = await this.#ask(() => this.#page(prefix, from), REQUEST_TIMEOUT);
      yield* page;
      from = next;
    } while (from !== undefined);
  }

  async #page(prefix: string, from?: string): Promise<{ page: S3Entry[]; next?: string }> {
    const entries = this.#client.listObjectsGrouped({
      prefix: this.#prefix + prefix,
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
      page.push({ key: key.slice(this.#prefix.length), size, storedAt: lastModified.getTime() });
    }
  }

  /** A URL that gives the object to whoever has it, for `seconds`. */
  presign(key: string, seconds: number): Promise<string> {
    return this.#client.presignedGetObject(this.#prefix + key, { expirySeconds: seconds });
  }

  /** Begins a multipart upload; returns its id. */
  async createUpload(key: string): Promise<string> {
    const xml = await this.#request("POST", key, { query: "uploads" });
    const id = element(xml, "UploadId");
    if (!id) throw new Error("The store began an upload without an id");
    return unescapeXml(id);
  }

  /** Uploads part `number`, from 1 on. */
  async uploadPart(
    key: string,
    { id, number, bytes }: { id: string; number: number; bytes: Uint8Array<ArrayBuffer> },
  ): Promise<UploadedPart> {
    const query = { partNumber: String(number), uploadId: id };
    let etag = "";
    await this.#request("PUT", key, {
      query,
      payload: bytes,
      onHeaders: (headers) => etag = headers.get("etag") ?? "",
    });
    return { number, etag };
  }

  /** Makes the object of the parts. */
  async completeUpload(
    key: string,
    { id, parts }: { id: string; parts: readonly UploadedPart[] },
  ): Promise<void> {
    const list = parts.map(({ number, etag }) =>
      `<Part><PartNumber>${number}</PartNumber><ETag>${etag}</ETag></Part>`
    );
    const payload = new TextEncoder().encode(
      `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${
        list.join("")
      }</CompleteMultipartUpload>`,
    );
    const xml = await this.#request("POST", key, { query: { uploadId: id }, payload });
    // An error may come after the 200: the service answers before it has put the parts together.
    if (!xml.includes("<CompleteMultipartUploadResult")) {
      throw new Error(`The store did not complete an upload: ${element(xml, "Code") ?? "?"}`);
    }
  }

  /** Drops an upload with its parts; one that is gone is dropped already. */
  async abortUpload(key: string, id: string): Promise<void> {
    try {
      await this.#request("DELETE", key, { query: { uploadId: id }, status: 204 });
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }

  /** Every upload under way below `prefix`. */
  async *uploads(prefix: string): AsyncIterable<PendingUpload> {
    const query: Record<string, string> = { uploads: "", prefix: this.#prefix + prefix };
    while (true) {
      const xml = await this.#ask(async () => {
        const request = { method: "GET", objectName: "", query, returnBody: true } as const;
        return await (await this.#client.makeRequest(request)).text();
      }, REQUEST_TIMEOUT);
      for (const [, upload = ""] of xml.matchAll(/<Upload>(.*?)<\/Upload>/gs)) {
        const key = unescapeXml(element(upload, "Key") ?? "");
        const id = unescapeXml(element(upload, "UploadId") ?? "");
        if (!key.startsWith(this.#prefix) || !id) continue;
        const startedAt = Date.parse(element(upload, "Initiated") ?? "");
        yield { key: key.slice(this.#prefix.length), id, startedAt };
      }
      const next = element(xml, "NextKeyMarker");
      if (element(xml, "IsTruncated") !== "true" || !next) return;
      query["key-marker"] = unescapeXml(next);
      query["upload-id-marker"] = unescapeXml(element(xml, "NextUploadIdMarker") ?? "");
    }
  }

  /** Whether it answered when it was last asked. */
  get isUp(): boolean {
    return this.#isUp;
  }

  /**
   * What `work` gives within `ms`, again while the service is busy. While it is down it is tried once in a
   * while only. What comes too late goes to `discard`.
   */
  async #ask<T>(
    work: () => Promise<T>,
    ms: number,
    discard: (late: T) => unknown = () => {},
  ): Promise<T> {
    const wasUp = this.#isUp;
    if (!wasUp && performance.now() < this.#tryAt) throw new UnreachableError("The store is down");
    for (let n = 1;; n++) {
      const pending = work();
      try {
        const result = await within(pending, { ms, what: "The store" });
        this.#reached();
        return result;
      } catch (error) {
        if (error instanceof DeadlineError) pending.then(discard).catch(() => {});
        if (wasUp && n < ATTEMPTS && isBusy(error)) {
          await new Promise((resolve) => setTimeout(resolve, backoff(n)));
          continue;
        }
        if (isTrouble(error)) throw this.#unreachable(error);
        this.#reached();
        throw error;
      }
    }
  }

  #reached(): void {
    if (this.#isUp) return;
    this.#isUp = true;
    this.#events?.onUp();
  }

  #unreachable(cause: unknown): UnreachableError {
    this.#tryAt = performance.now() + TRY_AGAIN;
    if (this.#isUp) {
      this.#isUp = false;
      this.#events?.onDown(cause);
    }
    return new UnreachableError("The store is down", { cause });
  }

  /** A request with its answer's text; again after passing trouble. */
  async #request(
    method: string,
    key: string,
    options: {
      query?: string | Record<string, string>;
      payload?: Uint8Array<ArrayBuffer>;
      status?: number;
      /** @default {REQUEST_TIMEOUT} */
      ms?: number;
      onHeaders?: (headers: Headers) => void;
    } = {},
  ): Promise<string> {
    const { query, payload, status, ms = REQUEST_TIMEOUT, onHeaders } = options;
    const attempt = async () => {
      const response = await this.#client.makeRequest({
        method,
        objectName: this.#prefix + key,
        query,
        payload,
        statusCode: status,
        returnBody: true,
      });
      onHeaders?.(response.headers);
      return await response.text();
    };
    for (let n = 1;; n++) {
      try {
        const text = await within(attempt(), { ms, what: "The store" });
        this.#reached();
        return text;
      } catch (error) {
        if (!isTrouble(error)) throw error;
        // An account that may not write will not a moment later.
        const mayPass = isBusy(error) || !(error instanceof S3Errors.ServerError);
        if (n === ATTEMPTS || !mayPass || error instanceof DeadlineError) {
          throw this.#unreachable(error);
        }
        await new Promise((resolve) => setTimeout(resolve, backoff(n)));
      }
    }
  }
}

/** Reads a body at rising positions into buffers of the reader's own size. */
export class BodyReader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #idle: number;
  #left: Uint8Array = new Uint8Array();
  /** The byte of the object that comes next. */
  position: number;

  constructor(
    body: ReadableStream<Uint8Array>,
    { position, idle }: { position: number; idle: number },
  ) {
    this.#reader = body.getReader();
    this.position = position;
    this.#idle = idle;
  }

  /** Reads into `buffer`; returns how many bytes, 0 at the end. */
  async read(buffer: Uint8Array): Promise<number> {
    let n = 0;
    while (n < buffer.byteLength) {
      if (this.#left.byteLength === 0) {
        if (n > 0) break; // what is here goes out before more is waited for
        const { done, value } = await readWithin(this.#reader, this.#idle);
        if (done) break;
        this.#left = value;
      }
      const take = this.#left.subarray(0, buffer.byteLength - n);
      buffer.set(take, n);
      n += take.byteLength;
      this.#left = this.#left.subarray(take.byteLength);
    }
    this.position += n;
    return n;
  }

  close(): void {
    this.#reader.cancel().catch(() => {}); // nobody reads it any more
  }
}
