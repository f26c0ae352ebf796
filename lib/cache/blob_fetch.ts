/**
 * Asking upstream for blobs: as the proof that a caller may have what is here, or for the one fill that all
 * clients and instances share.
 *
 * @module
 */
import type { Access } from "../access.ts";
import { Flights } from "../flight.ts";
import type { FairQueue } from "../limits/fair_queue.ts";
import { OciError } from "../oci/error.ts";
import type { Relay, TargetRequest } from "../relay.ts";
import { type Asker, repositoryKey } from "../upstream/ask.ts";
import { announcedLength } from "../upstream/body.ts";
import type { UpstreamAnswer } from "../upstream/client.ts";
import type { Content } from "./content.ts";
import type { Fill } from "./fill.ts";
import type { LeaseHolder } from "./lease.ts";
import { type Known, lookUp } from "./lookup.ts";
import type { Notes } from "./resilient.ts";
import type { Claim, Together } from "./together.ts";

/** What asking upstream came to, for everybody who waited for it. */
export type Opened =
  | { readonly kind: "here" }
  | { readonly kind: "fill"; readonly fill: Fill }
  | { readonly kind: "size"; readonly size: number | undefined }
  | { readonly kind: "hand-over"; readonly answer: UpstreamAnswer; readonly to: URL }
  /** Neither stored nor storable now: one of those who waited takes the body. */
  | { readonly kind: "uncached"; take(): UpstreamAnswer | undefined };

/** Options for {@linkcode BlobFetch}. */
export interface BlobFetchOptions {
  readonly content: Content;
  readonly index: Notes;
  readonly access: Access;
  readonly asker: Asker;
  readonly relay: Relay;
  readonly together?: Together;
  /** Where downloads wait for their turn, if only so many may run at once. */
  readonly queue?: Pick<FairQueue, "enter">;
}

/** Asks upstream for blobs. */
export class BlobFetch {
  readonly #content: Content;
  readonly #index: Notes;
  readonly #access: Access;
  readonly #asker: Asker;
  readonly #relay: Relay;
  readonly #together: Together | undefined;
  readonly #queue: BlobFetchOptions["queue"];
  readonly #flights = new Flights<Opened>();

  constructor(options: BlobFetchOptions) {
    this.#content = options.content;
    this.#index = options.index;
    this.#access = options.access;
    this.#asker = options.asker;
    this.#relay = options.relay;
    this.#together = options.together;
    this.#queue = options.queue;
  }

  /**
   * Asks once for all who ask for the same at once with the same credential. Returns what came of it, and
   * whether it was for this request that upstream was asked. Throws an `OciError`.
   */
  async open(request: TargetRequest): Promise<{ opened: Opened; isFirst: boolean }> {
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
    return { opened, isFirst };
  }

  /** What is known here of the blob: a link says that upstream told of it in this repository. */
  async lookUp(request: TargetRequest): Promise<Known> {
    return await lookUp(request, {
      index: this.#index,
      access: this.#access,
      content: this.#content,
    });
  }

  /** Asks for the size alone. */
  async #head(request: TargetRequest): Promise<Opened> {
    const { target, caller } = request;
    let answer: UpstreamAnswer;
    try {
      answer = await this.#asker.ask(target, { method: "HEAD", caller });
    } catch (error) {
      const isRefused = error instanceof OciError && [401, 403, 405].includes(error.status);
      if (!isRefused) throw error;
      // public.ecr.aws refuses the HEAD of a blob whose GET it allows.
      answer = await this.#asker.ask(target, { method: "GET", caller });
      answer.abort();
    }
    await this.#link(request);
    if (answer.handOver) return { kind: "hand-over", answer, to: answer.handOver };
    return { kind: "size", size: announcedLength(answer.response.headers) };
  }

  /** Whether the content is stored, or being fetched. */
  async isHere(digest: string): Promise<boolean> {
    return this.#content.filling(digest) !== undefined ||
      await this.#content.row(digest) !== undefined;
  }

  /** Asks for the content: a proof of access where it is here already, else the start of its fill. */
  async #get(request: TargetRequest): Promise<Opened> {
    const digest = request.target.reference;
    if (await this.isHere(digest)) return await this.#prove(request);
    if (!this.#queue) return await this.#download(request);
    const { client = "", target: { registry, repository } } = request;
    const leave = await this.#queue.enter({ client, repository: `${registry.id}/${repository}` });
    let isFilling = false;
    try {
      // Somebody may have fetched it while this waited.
      if (await this.isHere(digest)) return await this.#prove(request);
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
      if (claim && await this.isHere(digest)) return await this.#prove(request);
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
    const { link, proofs } = await this.lookUp(request);
    const isProved = link !== undefined &&
      await this.#access.mayRead(caller, repositoryKey(target), proofs);
    if (!isProved) await this.#askWhether(request);
    return { kind: "here" };
  }

  /**
   * Has upstream say that the caller may have what is here: by its size, or, where a HEAD is refused (by
   * public.ecr.aws, and by storage that signs URLs for GET), by a byte of it. A redirect alone proves nothing: to a
   * page for people everybody is redirected.
   */
  async #askWhether(request: TargetRequest): Promise<void> {
    const { target, caller } = request;
    const digest = target.reference;
    const size = this.#content.filling(digest)?.size ?? (await this.#content.row(digest))?.size;
    const headers = new Headers({ "accept-encoding": "identity" });
    const ask = (method: "GET" | "HEAD") =>
      this.#asker.ask(target, {
        method,
        caller,
        headers,
        redirects: "follow",
        proves: ({ response }) => size === undefined || (sizeSaid(response) ?? size) === size,
      });
    try {
      await ask("HEAD");
    } catch (error) {
      const isRefused = error instanceof OciError && [400, 401, 403, 405].includes(error.status);
      if (!isRefused) throw error;
      if (size !== 0) headers.set("range", "bytes=0-0"); // of nothing there is no first byte
      (await ask("GET")).abort();
    }
    await this.#link(request);
  }

  /** What another instance downloads, for a caller whose access is proved first. */
  async #follow(request: TargetRequest, holder: LeaseHolder): Promise<Opened> {
    const { target } = request;
    const digest = target.reference;
    await this.#prove(request);
    const upstream = this.#relay.source(request, new Headers());
    const { source, claim } = this.#together!.follow(digest, { holder, upstream });
    let first: ReadableStream<Uint8Array>;
    try {
      first = await source.open(0);
    } catch (error) {
      await claim.release(); // it may have become ours meanwhile, and nobody else could download then
      throw error;
    }
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
    if (await this.isHere(digest)) {
      answer.abort();
      return { kind: "here" };
    }
    const { body } = answer.response;
    if (!body || answer.response.status !== 200) {
      answer.abort();
      throw new OciError("UNAVAILABLE", "Upstream's answer is no blob", {
        detail: { status: answer.response.status },
      });
    }
    const size = this.#relay.sizeOf(answer.response, target);
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

  async #link({ target, caller }: TargetRequest): Promise<void> {
    const key = { ...repositoryKey(target), digest: target.reference, kind: "blob" } as const;
    // Its manifest came first, mostly, and it was learned then whether the repository is public.
    const isNew = caller.credential.kind !== "anonymous" && !await this.#access.isPublic(key) &&
      await this.#index.link(key) === undefined;
    if (isNew) await this.#access.grew(caller, key);
    await this.#index.addLink(key, { mediaType: "" });
  }
}

/** The size in bytes of the whole content that `response` has, or has a part of, where it says. */
function sizeSaid({ status, headers }: Response): number | undefined {
  if (status !== 206) return announcedLength(headers);
  const [, size] = /^bytes \d+-\d+\/(\d{1,15})$/.exec(headers.get("content-range") ?? "") ?? [];
  return size === undefined ? undefined : Number(size);
}
