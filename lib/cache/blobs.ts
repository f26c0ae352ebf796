/**
 * Blobs from the cache: served where a link and a proof of access are here, else as asking upstream comes out:
 * from what is here, from a fill under way, or passed through.
 *
 * @module
 */
import type { Access, Proofs } from "../auth/access.ts";
import {
  type Answer,
  type Body,
  type CacheResult,
  contentAnswer,
  type Delivery,
} from "../response/answer.ts";
import { type ByteSource, streamOf } from "../response/byte_source.ts";
import { cacheLog } from "../telemetry/log.ts";
import { API_VERSION } from "../oci/api_version.ts";
import { isStorable } from "../oci/digest.ts";
import type { Part } from "../transforms/range.ts";
import {
  handOver,
  type Passthrough,
  refuseBroken,
  type TargetRequest,
} from "../upstream/passthrough.ts";
import { type RegistryClient, repositoryKey } from "../upstream/registry_client.ts";
import type { Chunks } from "../upstream/download/chunks.ts";
import { causeOf } from "../upstream/transport/send.ts";
import { verifiedStream } from "../upstream/download/verified.ts";
import { clientLeft } from "../upstream/failure.ts";
import { orAborted } from "../util/deadline.ts";
import { BlobFetch, type BlobFetchOptions } from "./blob_fetch.ts";
import type { Content, OpenedContent } from "./content/content.ts";
import { storedSource, type StoredSourceOptions } from "./content/stored_source.ts";
import type { Known } from "./lookup.ts";
import { logDecision } from "./decision.ts";
import type { Fill } from "./content/fill.ts";
import type { Heat } from "./heat.ts";
import type { BlobStore } from "./store/blob_store.ts";
import type { BlobRow } from "./index/index.ts";

/** A blob up to this size is read whole, and may stay in memory. */
const SMALL = 64 * 1024;

/** Options for {@linkcode Blobs}. */
export interface BlobsOptions extends BlobFetchOptions {
  /** Lets answers be given from memory. */
  readonly heat?: Heat;
  /** Where a client can get stored content by itself, if anywhere: `STORE_REDIRECT`. */
  readonly redirect?: BlobStore["redirect"];
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** The blobs. */
export class Blobs {
  readonly #content: Content;
  readonly #access: Access;
  readonly #asker: RegistryClient;
  readonly #relay: Passthrough;
  readonly #heat: Heat | undefined;
  readonly #redirect: BlobsOptions["redirect"];
  readonly #now: () => number;
  readonly #fetch: BlobFetch;

  constructor(options: BlobsOptions) {
    this.#content = options.content;
    this.#access = options.access;
    this.#asker = options.asker;
    this.#relay = options.relay;
    this.#heat = options.heat;
    this.#redirect = options.redirect;
    this.#now = options.now ?? Date.now;
    this.#fetch = new BlobFetch(options);
  }

  /** The answer to a GET or HEAD of a blob. Throws an `OciError`. */
  async answer(request: TargetRequest): Promise<Answer> {
    const { target, caller } = request;
    if (!isStorable(target.reference)) return await this.#relay.answer(request);
    const key = repositoryKey(target);
    const known = await this.#fetch.lookUp(request);
    const isLinked = known.link !== undefined;
    let isStoreTried = false;
    if (isLinked) {
      const isAllowed = await this.#access.mayRead(caller, key, known.proofs);
      logDecision(target, isAllowed ? "allowed" : "unproved");
      if (isAllowed) {
        const answer = await this.#local(request, "HIT", known);
        const about = { digest: target.reference };
        if (answer) return await this.#heat?.(answer, request, about) ?? answer;
        isStoreTried = await this.#content.row(target.reference) !== undefined;
      } else if (this.#asker.isDown(target) && await this.#access.mayReadStale(caller, key)) {
        const answer = await this.#local(request, "STALE");
        if (answer) return answer;
      }
    } else {
      const isJoined = await this.#fetch.mayJoin(request, known.proofs);
      logDecision(target, isJoined ? "allowed" : "absent");
      const answer = isJoined ? await this.#local(request, "HIT") : undefined;
      if (answer) return answer;
    }
    // Whether or not it is here: the answer must not tell.
    await request.beforeMiss?.();
    try {
      return await this.#open(request, { isStoreTried });
    } catch (error) {
      if (isLinked && await this.#asker.mayServeStale(request, { error })) {
        cacheLog.warn("Serving {digest} of {repository} stale: {cause}", {
          digest: target.reference,
          repository: target.repository,
          cause: causeOf(error),
        });
        const answer = await this.#local(request, "STALE");
        if (answer) return answer;
      }
      throw error;
    }
  }

  /**
   * The answer from what is here: the store, or a fill to join. The caller's access has been proved: by what is `known`, or
   * a moment ago; without it only by what was once, which earns no link to the store.
   */
  async #local(
    request: TargetRequest,
    cache: CacheResult,
    known?: Pick<Known, "row" | "proofs">,
  ): Promise<Answer | undefined> {
    const digest = request.target.reference;
    const row = known?.row ?? await this.#content.row(digest);
    if (!row) {
      const fill = this.#content.filling(digest);
      return fill && await this.#fromFill(request, fill, cache);
    }
    const content = {
      kind: "blob",
      digest,
      size: row.size,
      cache,
      ageSeconds: cache === "MISS" ? undefined : (this.#now() - row.createdAt) / 1000,
    } as const;
    if (request.method === "HEAD") {
      this.#content.space.use(digest);
      return contentAnswer(request, content, {});
    }
    const elsewhere = known && await this.#elsewhere(request, row, known.proofs);
    if (elsewhere !== undefined) {
      this.#content.space.use(digest);
      return redirectAnswer(elsewhere, cache);
    }
    if (row.size <= SMALL) {
      const bytes = await this.#content.read(digest, row);
      return bytes && contentAnswer(request, content, { bytes });
    }
    const blob = await this.#content.open(digest, row);
    if (!blob) return undefined;
    return contentAnswer(request, content, {
      source: (part, onEnd) => this.#fromStore(request, blob, { part, onEnd, attempts: 0 }),
      close: () => blob.close(),
    });
  }

  /** Stored bytes, and what goes on from there where the store fails. */
  #fromStore(
    request: TargetRequest,
    blob: OpenedContent,
    { part, onEnd, attempts }: Pick<StoredSourceOptions, "part" | "onEnd"> & {
      readonly attempts: number;
    },
  ): ByteSource {
    return storedSource(blob, {
      part,
      onEnd,
      goOn: async ({ rest, isWhole, hash, cause }) => {
        const { size, createdAt } = blob;
        const digest = request.target.reference;
        cacheLog.warn("The store failed at {offset} of {digest}, going on elsewhere: {cause}", {
          digest,
          offset: rest.start,
          cause: causeOf(cause),
        });
        const stream = await this.#anew(request, { rest, createdAt, attempts });
        if (!stream) return this.#relay.rest(request, { size, rest, isWhole, hash });
        if (!hash) return stream;
        // What goes on is right by itself; so is this client's copy as a whole, which begins elsewhere.
        return verifiedStream(chunksOf(stream), {
          digest,
          hash,
          offset: rest.start,
          size,
          part: rest,
          onMismatch: (reason) => this.#relay.mismatched(request.target, reason),
        });
      },
    });
  }

  /**
   * Part `rest` of what has taken the place of content stored at `createdAt`, which was set aside: of the download under
   * way or of a new one, or of what is stored by now. Undefined where the content is still the same.
   */
  async #anew(
    request: TargetRequest,
    { rest, createdAt, attempts }: {
      readonly rest: Part;
      readonly createdAt: number;
      readonly attempts: number;
    },
  ): Promise<ReadableStream<Uint8Array<ArrayBuffer>> | undefined> {
    const digest = request.target.reference;
    const row = await this.#content.row(digest);
    if (row?.createdAt === createdAt || attempts > 0) return undefined;
    const fill = row ? undefined : await this.#fillAnew(request);
    const onEnd = () => {};
    if (fill) return fill.stream(rest, onEnd);
    const blob = await this.#content.open(digest);
    return blob &&
      streamOf(this.#fromStore(request, blob, { part: rest, onEnd, attempts: attempts + 1 }));
  }

  /** The download of what is not in the store any more: the one under way, or a new one. */
  async #fillAnew(request: TargetRequest): Promise<Fill | undefined> {
    const digest = request.target.reference;
    const fill = this.#content.filling(digest);
    if (fill) return fill;
    const { opened } = await this.#fetch.open(request);
    if (opened.kind === "fill") return opened.fill;
    if (opened.kind === "uncached") opened.take()?.abort();
    if (opened.kind === "hand-over") opened.answer.abort();
    return undefined;
  }

  /** Where the client may get the content by itself, for no longer than it may have it here. */
  async #elsewhere(
    { target, caller }: TargetRequest,
    { digest, size }: BlobRow,
    proofs: Proofs | undefined,
  ): Promise<string | undefined> {
    if (!this.#redirect) return undefined;
    const until = await this.#access.readableUntil(caller, repositoryKey(target), proofs);
    return await this.#redirect(digest, { size, lifetime: until - this.#now() });
  }

  /** The answer from a fill under way. */
  async #fromFill(
    request: TargetRequest,
    fill: Fill,
    cache: CacheResult,
  ): Promise<Answer | undefined> {
    if (fill.state === "stopped") return undefined;
    const letGo = fill.hold();
    try {
      return await this.#answerFrom(request, fill, cache);
    } finally {
      letGo(); // its body is a reader by now, where it has one
    }
  }

  async #answerFrom(
    request: TargetRequest,
    fill: Fill,
    cache: CacheResult,
  ): Promise<Answer | undefined> {
    const { digest, size } = fill;
    // A client can do more with an error than with a connection that breaks; headers alone are of no use to it.
    if (request.method !== "HEAD") await firstByteOf(fill, request.left?.());
    if (fill.state === "failed") refuseBroken(fill.error);
    const source: Body["source"] = (part, onEnd) => fill.source(part, onEnd);
    if (size !== undefined) {
      return contentAnswer(request, { kind: "blob", digest, size, cache }, { source });
    }
    if (request.method === "HEAD") return undefined;
    // Upstream did not say how long it is: all of it, without a length.
    const delivered = Promise.withResolvers<Delivery>();
    const body = source(undefined, (bytes, complete) => delivered.resolve({ bytes, complete }));
    const { response } = contentAnswer({ method: "HEAD", headers: new Headers() }, {
      kind: "blob",
      digest,
      size: 0,
      cache,
    }, {});
    const headers = new Headers(response.headers);
    headers.delete("content-length");
    headers.delete("accept-ranges");
    return {
      response: new Response(streamOf(body), { headers }),
      cache,
      source: body,
      delivered: delivered.promise,
    };
  }

  /** The answer from what asking upstream comes to. */
  async #open(
    request: TargetRequest,
    { isStoreTried, isAgain = false }: {
      readonly isStoreTried: boolean;
      readonly isAgain?: boolean;
    },
  ): Promise<Answer> {
    const { target } = request;
    const { opened, isFirst } = await this.#fetch.open(request);
    switch (opened.kind) {
      case "here": {
        // What the store did not give a moment ago it is not asked for once more: each time may take long.
        const answer = !isStoreTried && await this.#local(request, "HIT", {});
        if (answer) return answer;
        // It has left meanwhile, or its download was stopped.
        const isGone = !isStoreTried && !isAgain && !await this.#fetch.isHere(target.reference);
        if (isGone) return await this.#open(request, { isStoreTried, isAgain: true });
        return await this.#relay.answer(request); // the store is in trouble: that is not the client's
      }
      case "fill": {
        const { fill } = opened;
        const answer = await this.#fromFill(request, fill, isFirst ? "MISS" : "HIT");
        if (answer) return answer;
        // Those it was started for had left, and it was stopped when this client came.
        const isStopped = fill.state === "stopped" && !isAgain;
        if (isStopped) return await this.#open(request, { isStoreTried, isAgain: true });
        return await this.#relay.answer(request);
      }
      case "size": {
        const { size } = opened;
        const digest = target.reference;
        if (size === undefined) return await this.#relay.answer(request);
        return contentAnswer(request, { kind: "blob", digest, size, cache: "MISS" }, {});
      }
      case "hand-over":
        return handOver(opened.answer, opened.to);
      case "uncached": {
        const answer = opened.take();
        const isRanged = request.headers.has("range");
        if (answer && !isRanged) return await this.#relay.take(answer, request);
        answer?.abort();
        return await this.#relay.answer(request);
      }
    }
  }
}

/** Waits until `fill` has a byte or has ended. Throws an `OciError` (499) when the client leaves before. */
async function firstByteOf(fill: Fill, left: AbortSignal | undefined): Promise<void> {
  try {
    await orAborted(fill.firstByte, left);
  } catch {
    throw clientLeft();
  }
}

/** Sends the client to the store itself. */
function redirectAnswer(location: string, cache: CacheResult): Answer {
  const headers = new Headers({
    location,
    ...API_VERSION,
    "cache-control": "no-store",
    "x-cache": cache,
  });
  const response = new Response(null, { status: 307, headers });
  return { response, cache, delivered: { bytes: 0, complete: true } };
}

function chunksOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Chunks {
  const reader = stream.getReader();
  return {
    read: async () => (await reader.read()).value,
    cancel: (reason) => void reader.cancel(reason).catch(() => {}), // broken already
  };
}
