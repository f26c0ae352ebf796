/**
 * Blobs from the cache: served where a link and a proof of access are here, else asked of upstream, which
 * either proves the access to what is here already or starts the one fill.
 *
 * @module
 */
import type { Access } from "../access.ts";
import {
  type Answer,
  type Body,
  type CacheResult,
  contentAnswer,
  type Delivery,
} from "../answer.ts";
import { type ByteSource, streamOf } from "../byte_source.ts";
import { Flights } from "../flight.ts";
import { cacheLog } from "../log.ts";
import { API_VERSION } from "../oci/api_version.ts";
import { isStorable } from "../oci/digest.ts";
import { OciError } from "../oci/error.ts";
import { handOver, refuseBroken, type Relay, type TargetRequest } from "../relay.ts";
import type { Part } from "../transforms/range.ts";
import { type Asker, repositoryKey } from "../upstream/ask.ts";
import { announcedLength } from "../upstream/body.ts";
import type { UpstreamAnswer } from "../upstream/client.ts";
import { isUpstreamTrouble } from "../upstream/failure.ts";
import { causeOf } from "../upstream/send.ts";
import type { FairQueue } from "../limits/fair_queue.ts";
import type { StoredBlob } from "./blob_store.ts";
import type { Content } from "./content.ts";
import { logDecision } from "./decision.ts";
import type { Fill } from "./fill.ts";
import type { Heat } from "./heat.ts";
import type { LeaseHolder } from "./lease.ts";
import type { Notes } from "./resilient.ts";
import type { Claim, Together } from "./together.ts";

/** What asking upstream came to, for everybody who waited for it. */
type Opened =
  | { readonly kind: "here" }
  | { readonly kind: "fill"; readonly fill: Fill }
  | { readonly kind: "size"; readonly size: number | undefined }
  | { readonly kind: "hand-over"; readonly answer: UpstreamAnswer; readonly to: URL }
  /** Neither stored nor storable now: one of those who waited takes the body. */
  | { readonly kind: "uncached"; take(): UpstreamAnswer | undefined };

/** A blob up to this size is read whole, and may stay in memory. */
const SMALL = 64 * 1024;

/** Options for {@linkcode Blobs}. */
export interface BlobsOptions {
  readonly content: Content;
  readonly index: Notes;
  readonly access: Access;
  readonly asker: Asker;
  readonly relay: Relay;
  readonly together?: Together;
  /** Lets answers be given from memory. */
  readonly heat?: Heat;
  /** Where downloads wait for their turn, if only so many may run at once. */
  readonly queue?: Pick<FairQueue, "enter">;
  /** Where a client can get stored content by itself, if anywhere: `STORE_REDIRECT`. */
  readonly redirect?: (digest: string) => Promise<string | undefined>;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** The blobs. */
export class Blobs {
  readonly #content: Content;
  readonly #index: Notes;
  readonly #access: Access;
  readonly #asker: Asker;
  readonly #relay: Relay;
  readonly #together: Together | undefined;
  readonly #heat: Heat | undefined;
  readonly #queue: BlobsOptions["queue"];
  readonly #redirect: BlobsOptions["redirect"];
  readonly #now: () => number;
  readonly #flights = new Flights<Opened>();

  constructor(options: BlobsOptions) {
    this.#content = options.content;
    this.#index = options.index;
    this.#access = options.access;
    this.#asker = options.asker;
    this.#relay = options.relay;
    this.#together = options.together;
    this.#heat = options.heat;
    this.#queue = options.queue;
    this.#redirect = options.redirect;
    this.#now = options.now ?? Date.now;
  }

  /** The answer to a GET or HEAD of a blob. Throws an `OciError`. */
  async answer(request: TargetRequest): Promise<Answer> {
    const { target, caller } = request;
    if (!isStorable(target.reference)) return await this.#relay.answer(request);
    const key = repositoryKey(target);
    const isLinked = await this.#isLinked(request);
    if (isLinked) {
      const isAllowed = await this.#access.mayRead(caller, key);
      logDecision(target, isAllowed ? "allowed" : "unproved");
      if (isAllowed) {
        const answer = await this.#local(request, "HIT");
        const about = { digest: target.reference };
        if (answer) return await this.#heat?.(answer, request, about) ?? answer;
      } else if (this.#asker.isDown(target) && await this.#access.mayReadStale(caller, key)) {
        const answer = await this.#local(request, "STALE");
        if (answer) return answer;
      }
    } else logDecision(target, "absent");
    if (request.beforeMiss && !await this.#isHere(target.reference)) await request.beforeMiss();
    try {
      return await this.#open(request);
    } catch (error) {
      if (isLinked && isUpstreamTrouble(error) && await this.#access.mayReadStale(caller, key)) {
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

  async #isLinked({ target }: TargetRequest): Promise<boolean> {
    const key = { ...repositoryKey(target), digest: target.reference, kind: "blob" } as const;
    return await this.#index.link(key) !== undefined;
  }

  /** The answer from what is here: the store, or a fill to join. The caller's access has been proved. */
  async #local(request: TargetRequest, cache: CacheResult): Promise<Answer | undefined> {
    const digest = request.target.reference;
    const row = await this.#content.row(digest);
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
    const elsewhere = await this.#redirect?.(digest);
    if (elsewhere !== undefined) {
      this.#content.space.use(digest);
      return redirectAnswer(elsewhere, cache);
    }
    if (row.size <= SMALL) {
      const bytes = await this.#content.read(digest);
      return bytes && contentAnswer(request, content, { bytes });
    }
    const blob = await this.#content.open(digest);
    if (!blob) return undefined;
    return contentAnswer(request, content, {
      source: (part, onEnd) => sourceOf(blob, part, onEnd),
      close: () => blob.close(),
    });
  }

  /** The answer from a fill under way. */
  async #fromFill(
    request: TargetRequest,
    fill: Fill,
    cache: CacheResult,
  ): Promise<Answer | undefined> {
    const { digest, size } = fill;
    // A client can do more with an error than with a connection that breaks; headers alone are of no use to it.
    if (request.method !== "HEAD") await fill.begun;
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

  /** Asks upstream, once for all who ask for the same at once with the same credential. */
  async #open(request: TargetRequest): Promise<Answer> {
    const { target, caller, method } = request;
    const isHead = method === "HEAD";
    const key = JSON.stringify([
      target.registry.id,
      target.repository,
      target.reference,
      caller.id,
      isHead,
      request.warming ?? false,
    ]);
    let isFirst = false;
    const opened = await this.#flights.run(key, () => {
      isFirst = true;
      return isHead ? this.#head(request) : this.#get(request);
    });
    switch (opened.kind) {
      case "here": {
        const answer = await this.#local(request, "HIT");
        if (answer) return answer;
        return await this.#relay.answer(request); // the store is in trouble: that is not the client's
      }
      case "fill": {
        const answer = await this.#fromFill(request, opened.fill, isFirst ? "MISS" : "HIT");
        if (answer) return answer;
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
        if (answer && !isRanged) return await this.#relay.blob(answer, request);
        answer?.abort();
        return await this.#relay.answer(request);
      }
    }
  }

  /** Asks for the size alone; with `stop`, for a redirect as the proof that the caller may have it. */
  async #head(request: TargetRequest, redirects?: "stop"): Promise<Opened> {
    const { target, caller } = request;
    let answer: UpstreamAnswer;
    try {
      answer = await this.#asker.ask(target, { method: "HEAD", caller, redirects });
    } catch (error) {
      const isRefused = error instanceof OciError && [401, 403, 405].includes(error.status);
      if (!isRefused) throw error;
      // public.ecr.aws refuses the HEAD of a blob whose GET it allows.
      answer = await this.#asker.ask(target, { method: "GET", caller, redirects });
      answer.abort();
    }
    await this.#link(request);
    if (answer.handOver) return { kind: "hand-over", answer, to: answer.handOver };
    return { kind: "size", size: announcedLength(answer.response.headers) };
  }

  async #isHere(digest: string): Promise<boolean> {
    return this.#content.filling(digest) !== undefined ||
      await this.#content.row(digest) !== undefined;
  }

  /** Asks for the content: a proof of access where it is here already, else the start of its fill. */
  async #get(request: TargetRequest): Promise<Opened> {
    const digest = request.target.reference;
    if (await this.#isHere(digest)) return await this.#prove(request);
    if (!this.#queue) return await this.#download(request);
    const { client = "", target: { registry, repository } } = request;
    const leave = await this.#queue.enter({ client, repository: `${registry.id}/${repository}` });
    let isFilling = false;
    try {
      // Somebody may have fetched it while this waited.
      if (await this.#isHere(digest)) return await this.#prove(request);
      const opened = await this.#download(request);
      isFilling = opened.kind === "fill";
      if (opened.kind === "fill") opened.fill.done.then(leave);
      return opened;
    } finally {
      if (!isFilling) leave();
    }
  }

  /** Downloads, or follows the instance that does. */
  async #download(request: TargetRequest): Promise<Opened> {
    const digest = request.target.reference;
    const turn = await this.#together?.turn(digest);
    if (turn?.kind === "theirs") return await this.#follow(request, turn.holder);
    const claim = turn?.claim;
    let isFilling = false;
    try {
      // Another instance may have been done just before it was our turn.
      if (claim && await this.#isHere(digest)) return await this.#prove(request);
      const opened = await this.#fill(request, claim);
      isFilling = opened.kind === "fill";
      return opened;
    } finally {
      if (!isFilling) await claim?.release();
    }
  }

  /** A proof of access to what is here: nobody need fetch it again. */
  async #prove(request: TargetRequest): Promise<Opened> {
    const { target, caller } = request;
    const isProved = await this.#isLinked(request) &&
      await this.#access.mayRead(caller, repositoryKey(target));
    if (!isProved) await this.#head(request, "stop");
    return { kind: "here" };
  }

  /** What another instance downloads, for a caller whose access is proved first. */
  async #follow(request: TargetRequest, holder: LeaseHolder): Promise<Opened> {
    const { target } = request;
    const digest = target.reference;
    await this.#prove(request);
    const upstream = this.#relay.source(request, new Headers());
    const { source, claim } = this.#together!.follow(digest, { holder, upstream });
    const first = await source.open(0);
    const { size } = source;
    const origin = { registry: target.registry.name, repository: target.repository };
    const fill = await this.#content.startFill({ digest, size, first, source, claim, ...origin });
    if (fill) return { kind: "fill", fill };
    first.cancel().catch(() => {}); // no room here: straight from upstream, then
    return { kind: "uncached", take: () => undefined };
  }

  /** Asks upstream for the content and starts its fill. */
  async #fill(request: TargetRequest, claim: Claim | undefined): Promise<Opened> {
    const { target, caller } = request;
    const digest = target.reference;
    const redirects = request.warming ? "follow" : "policy";
    const answer = await this.#asker.ask(target, { method: "GET", caller, redirects });
    await this.#link(request);
    if (answer.handOver) return { kind: "hand-over", answer, to: answer.handOver };
    // Somebody with another credential may have been faster.
    if (await this.#isHere(digest)) {
      answer.abort();
      return { kind: "here" };
    }
    const { body } = answer.response;
    if (!body || answer.response.status !== 200) {
      throw new OciError("UNAVAILABLE", "Upstream's answer is no blob", {
        detail: { status: answer.response.status },
      });
    }
    const size = announcedLength(answer.response.headers);
    this.#relay.refuseEmpty(target, size);
    const fill = await this.#content.startFill({
      digest,
      size,
      first: body,
      source: this.#relay.source(request, answer.response.headers),
      registry: target.registry.name,
      repository: target.repository,
      claim,
    });
    if (fill) return { kind: "fill", fill };
    let left: UpstreamAnswer | undefined = answer;
    return {
      kind: "uncached",
      take() {
        const taken = left;
        left = undefined;
        return taken;
      },
    };
  }

  async #link({ target }: TargetRequest): Promise<void> {
    const key = { ...repositoryKey(target), digest: target.reference, kind: "blob" } as const;
    await this.#index.addLink(key, { mediaType: "" });
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

/** The bytes of `part` of a stored blob; closes it at the end. Reading a file that was cut throws. */
function sourceOf(
  blob: StoredBlob,
  part: Part | undefined,
  onEnd: (sent: number, complete: boolean) => void,
): ByteSource {
  const start = part?.start ?? 0;
  const end = part ? part.end + 1 : blob.size;
  let position = start;
  return {
    async read(buffer) {
      const left = end - position;
      if (left === 0) return undefined;
      const target = left < buffer.byteLength ? buffer.subarray(0, left) : buffer;
      const n = await blob.read(position, target);
      if (n === 0) throw new Error("The file is shorter than the index says");
      position += n;
      return n === target.byteLength ? target : target.subarray(0, n);
    },
    end(sent) {
      blob.close();
      onEnd(sent, start + sent === end);
    },
  };
}
