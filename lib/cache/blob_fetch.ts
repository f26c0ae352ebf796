/**
 * Asking upstream for blobs: as the proof that a caller may have what is here, or for the one fill that all
 * clients and instances share.
 *
 * @module
 */
import { type Access, isPast, type Proofs } from "../auth/access.ts";
import { SingleFlight } from "../util/single_flight.ts";
import { ownerOf } from "../limits/downloads.ts";
import type { FairQueue, QueueOwner } from "../limits/fair_queue.ts";
import { OciError } from "../oci/error.ts";
import type { Passthrough, TargetRequest } from "../upstream/passthrough.ts";
import type { Part } from "../transforms/range.ts";
import type { Target } from "../transforms/route.ts";
import {
  otherAnswer,
  type Proof,
  type Question,
  type RegistryClient,
  repositoryKey,
  type TargetAnswer,
} from "../upstream/registry_client.ts";
import { announcedLength } from "../upstream/download/body.ts";
import { clientLeft } from "../upstream/failure.ts";
import type { Content } from "./content/content.ts";
import type { Fill } from "./content/fill.ts";
import type { FillStart } from "./content/fills.ts";
import type { LeaseHolder } from "./cluster/lease.ts";
import type { FollowedSource } from "./cluster/peer.ts";
import { type Known, lookUp } from "./lookup.ts";
import type { BestEffortIndex } from "./index/best_effort_index.ts";
import { chooseSample, isSameSample, type Sample } from "./content/sample.ts";
import { drop, type StoppedPart } from "./content/stopped_fills.ts";
import type { Coordinator, Turn } from "./cluster/coordinator.ts";
import type { Claim } from "./content/claim.ts";

/** What asking upstream came to, for everybody who waited for it. */
export type Opened =
  | { readonly kind: "here" }
  | { readonly kind: "fill"; readonly fill: Fill }
  | { readonly kind: "size"; readonly size: number | undefined }
  | { readonly kind: "hand-over"; readonly answer: TargetAnswer; readonly to: URL }
  /** Neither stored nor storable now: one of those who waited takes the body. */
  | { readonly kind: "uncached"; take(): TargetAnswer | undefined };

/** Nothing that others could share: the client gets its own answer from upstream. */
const PASS_ON: Opened = { kind: "uncached", take: () => undefined };

/** Who has been let read what is being downloaded, and by which answer. */
interface Member {
  readonly question: Question;
  readonly answer: Proof;
}

/** How long an answer lets its caller join the download that it began, ms: as long as a grant holds. */
const MEMBER_FOR = 5 * 60_000;

/** Options for {@linkcode BlobFetch}. */
export interface BlobFetchOptions {
  readonly content: Content;
  readonly index: BestEffortIndex;
  readonly access: Access;
  readonly asker: RegistryClient;
  readonly relay: Passthrough;
  readonly together?: Coordinator;
  /** Where downloads wait for a place. @default {nowhere} */
  readonly queue?: Pick<FairQueue, "enter">;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** Asks upstream for blobs. */
export class BlobFetch {
  readonly #content: Content;
  readonly #index: BestEffortIndex;
  readonly #access: Access;
  readonly #asker: RegistryClient;
  readonly #relay: Passthrough;
  readonly #together: Coordinator | undefined;
  readonly #queue: BlobFetchOptions["queue"];
  readonly #now: () => number;
  readonly #flights = new SingleFlight<Opened>();
  /** Of every fill that was started here: by repository and caller, who may read it when it is verified. */
  readonly #members = new WeakMap<Fill, Map<string, Map<string, Member>>>();
  /** Who waits for each of them. */
  readonly #audiences = new Map<string, Audience>();

  constructor(options: BlobFetchOptions) {
    this.#content = options.content;
    this.#index = options.index;
    this.#access = options.access;
    this.#asker = options.asker;
    this.#relay = options.relay;
    this.#together = options.together;
    this.#queue = options.queue;
    this.#now = options.now ?? Date.now;
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
    const flight = this.#flights.run(key, () => {
      isFirst = true;
      if (isHead) return this.#head(request);
      if (!this.#queue) return this.#getNow({ ...request, left: undefined });
      const audience = new Audience(this.#queue);
      this.#audiences.set(key, audience);
      // It is for all who wait: the first of them may leave before the others.
      const shared = { ...request, left: () => audience.left };
      return this.#get(shared, audience.place).finally(() => this.#audiences.delete(key));
    });
    this.#audiences.get(key)?.add(request);
    return { opened: await flight, isFirst };
  }

  /** What is known here of the blob: a link says that upstream told of it in this repository. */
  async lookUp(request: TargetRequest): Promise<Known> {
    return await lookUp(request, {
      index: this.#index,
      access: this.#access,
      content: this.#content,
    });
  }

  /**
   * Whether the caller may join the download of the blob that is under way: it is known to be of this repository, and
   * the caller was let in there, or had the same answer from upstream lately. Until its digest has been verified that is
   * all that follows from it.
   */
  async mayJoin(request: TargetRequest, proofs?: Proofs): Promise<boolean> {
    const { target, caller } = request;
    const fill = this.#content.filling(target.reference);
    const members = fill && this.#members.get(fill)?.get(memberKey(target));
    if (!members) return false;
    const since = members.get(caller.id)?.answer.provedAt ?? -Infinity;
    const isMember = this.#now() - since < MEMBER_FOR && isPast(since, this.#now());
    return isMember || await this.#access.mayRead(caller, repositoryKey(target), proofs);
  }

  /**
   * Asks for the size alone. That proves something only where the blob is known to be of this repository: any other
   * size would be as good. Nor may the answer tell whether the blob is here by way of another.
   */
  async #head(request: TargetRequest): Promise<Opened> {
    const { target, caller } = request;
    let answer: TargetAnswer;
    try {
      answer = await this.#asker.ask(target, { method: "HEAD", caller });
    } catch (error) {
      const isRefused = error instanceof OciError && [401, 403, 405].includes(error.status);
      if (!isRefused) throw error;
      // public.ecr.aws refuses the HEAD of a blob whose GET it allows.
      answer = await this.#asker.ask(target, { method: "GET", caller });
      answer.abort();
    }
    if (answer.handOver) return { kind: "hand-over", answer, to: answer.handOver };
    const size = announcedLength(answer.response.headers);
    const { link } = await this.lookUp(request);
    const row = link && await this.#content.row(target.reference);
    if (row && size !== undefined) {
      if (size !== row.size) throw otherAnswer(answer);
      await this.#asker.proved(request, answer);
    }
    return { kind: "size", size };
  }

  /** Whether the content is stored, or being fetched. */
  async isHere(digest: string): Promise<boolean> {
    return this.#content.filling(digest) !== undefined ||
      await this.#content.row(digest) !== undefined;
  }

  /**
   * Asks for the content: of what is here already a part, as a proof of access, else all, as the start of its fill.
   * Both wait in the same queue: how long it takes must not tell which it is.
   */
  async #get(request: TargetRequest, place: Promise<() => void>): Promise<Opened> {
    const leave = await place;
    let isFilling = false;
    try {
      const opened = await this.#getNow(request);
      isFilling = opened.kind === "fill";
      if (opened.kind === "fill") opened.fill.done.then(leave);
      return opened;
    } finally {
      if (!isFilling) leave();
    }
  }

  async #getNow(request: TargetRequest): Promise<Opened> {
    const isHere = await this.isHere(request.target.reference);
    return isHere ? await this.#prove(request) : await this.#download(request);
  }

  /** Downloads, or follows the instance that does. */
  async #download(request: TargetRequest): Promise<Opened> {
    const together = this.#together;
    if (!together) return await this.#fill(request);
    const { target, caller } = request;
    const digest = target.reference;
    // A caller that upstream lets in takes the lease first, so that upstream is asked once. Of anybody else the answer
    // comes first: others would wait for the leases of strangers.
    if (!await this.#access.wasLetIn(caller, repositoryKey(target))) {
      return await this.#fill(request, { turn: () => together.turn(digest) });
    }
    const turn = await together.turn(digest);
    if (turn.kind === "theirs") return await this.#follow(request, turn);
    const { claim } = turn;
    let isFilling = false;
    try {
      // Another instance may have been done just before it was our turn.
      if (await this.isHere(digest)) return await this.#prove(request);
      const opened = await this.#fill(request, { claim });
      isFilling = opened.kind === "fill";
      return opened;
    } finally {
      if (!isFilling) await claim.release();
    }
  }

  /**
   * A proof of access to what is here, so that it is not fetched again: upstream gives the caller a part of it that only
   * chance chose, or all of it where it is small, and that is the same as here. Its size would not do, which others may
   * know, nor a HEAD or a redirect, which anything may answer.
   */
  async #prove(request: TargetRequest): Promise<Opened> {
    const { target, caller } = request;
    const digest = target.reference;
    const { link, proofs } = await this.lookUp(request);
    const key = repositoryKey(target);
    if (link && await this.#access.mayRead(caller, key, proofs)) return { kind: "here" };
    if (await this.mayJoin(request, proofs)) return { kind: "here" };
    const fill = this.#content.filling(digest);
    const size = fill ? fill.size : (await this.#content.row(digest))?.size;
    // There is nothing to compare with: it has its own answer from upstream.
    if (size === undefined) return PASS_ON;
    const sample = chooseSample({
      registry: target.registry.id,
      digest,
      size,
      here: fill?.received,
    });
    const answer = await this.#ask(request, sample);
    const isSame = await isSameSample(answer, {
      ...sample,
      size,
      idle: this.#relay.idle,
      local: () => fill ? readFill(fill, sample) : this.#readStored(digest, sample),
    });
    if (isSame === undefined) return PASS_ON;
    if (!isSame) {
      // Nobody knows yet whether what is being downloaded is right.
      if (fill && fill.state !== "verified") return PASS_ON;
      this.#relay.mismatched(target, "It is not what is here");
      throw otherAnswer(answer);
    }
    if (fill && this.#join(fill, { question: request, answer })) return { kind: "here" };
    await this.#verified(request, answer);
    return { kind: "here" };
  }

  async #ask({ target, caller }: TargetRequest, sample: Sample): Promise<TargetAnswer> {
    const headers = new Headers({ "accept-encoding": "identity" });
    if (!sample.isWhole) headers.set("range", `bytes=${sample.start}-${sample.end}`);
    try {
      return await this.#asker.ask(target, { method: "GET", caller, headers, redirects: "follow" });
    } catch (error) {
      if (!(error instanceof OciError) || error.status !== 416) throw error;
      throw new OciError("UNAVAILABLE", "Upstream answers with something else", { cause: error });
    }
  }

  /** The bytes of `part` of what is stored; undefined where it turns out not to be. */
  async #readStored(digest: string, { start, end }: Part): Promise<Uint8Array | undefined> {
    const blob = await this.#content.open(digest);
    if (!blob) return undefined;
    try {
      const bytes = new Uint8Array(end + 1 - start);
      for (let done = 0; done < bytes.byteLength;) {
        const n = await blob.read(start + done, bytes.subarray(done));
        if (n === 0) return undefined;
        done += n;
      }
      return bytes;
    } catch {
      return undefined; // the store is in trouble, and has said so
    } finally {
      blob.close();
    }
  }

  /**
   * Has the caller read what `fill` downloads, as `answer` lets it. Once the digest has been verified, that is noted.
   * False where that has been already.
   */
  #join(fill: Fill, member: Member): boolean {
    const members = this.#members.get(fill);
    if (!members || fill.state === "verified") return false;
    const { question: { target, caller }, answer: { used, provedAt } } = member;
    const key = memberKey(target);
    const callers = members.get(key) ?? new Map<string, Member>();
    callers.set(caller.id, { question: { target, caller }, answer: { used, provedAt } });
    members.set(key, callers);
    return true;
  }

  /** A fill that has members, to which `first` belongs, if anybody does. */
  async #startFill(
    start: Omit<FillStart, "onBegun" | "onVerified">,
    first?: Member,
  ): Promise<{ fill: Fill | undefined; isOurs: boolean }> {
    let isOurs = false;
    const fill = await this.#content.startFill({
      ...start,
      onBegun: (fill) => {
        isOurs = true;
        this.#members.set(fill, new Map());
        if (first) this.#join(fill, first);
      },
      onVerified: async (fill) => {
        for (const callers of this.#members.get(fill)?.values() ?? []) {
          for (const { question, answer } of callers.values()) {
            await this.#verified(question, answer);
          }
        }
      },
    });
    return { fill, isOurs };
  }

  /** What another instance downloads, for a caller whose access is proved by what comes of it. */
  async #follow(
    request: TargetRequest,
    { holder, isLetIn = false }: { readonly holder: LeaseHolder; readonly isLetIn?: boolean },
  ): Promise<Opened> {
    const { target } = request;
    const digest = target.reference;
    // Callers that upstream refuses make nobody download anything here.
    if (!isLetIn) (await this.#ask(request, { start: 0, end: 0, isWhole: false })).abort();
    const upstream = this.#relay.source(request, new Headers());
    const { source, claim } = this.#together!.follow(digest, {
      holder,
      upstream,
      open: (digest) => this.#content.open(digest),
      check: (digest) => this.#content.recheck(digest),
    });
    const part = await this.#content.takeStopped(digest, memberKey(target));
    let isTaken = false;
    let isResumed = false;
    try {
      const first = await source.find(part?.written ?? 0);
      if (first) {
        isTaken = isResumed = true;
        return await this.#fillFrom(request, { source, claim, first, part });
      }
      if (part) await this.#content.giveBackStopped(part);
      isResumed = true;
      // It became ours, or who has it cannot be reached. Upstream's own answer says more than the bytes alone.
      const opened = await this.#fill(request, { claim });
      isTaken = opened.kind === "fill";
      return opened;
    } finally {
      if (part && !isResumed) await this.#content.giveBackStopped(part);
      if (!isTaken) await claim.release(); // nobody else could download then
    }
  }

  async #fillFrom(
    request: TargetRequest,
    { source, claim, first, part }: {
      source: FollowedSource;
      claim: Claim;
      first: ReadableStream<Uint8Array>;
      part?: StoppedPart;
    },
  ): Promise<Opened> {
    const digest = request.target.reference;
    const size = part?.size ?? source.size;
    const start = { digest, size, first, part, source, claim, ...originOf(request) };
    const { fill } = await this.#startFill(start);
    if (!fill) {
      first.cancel().catch(() => {}); // no room here: straight from upstream, then
      return PASS_ON;
    }
    const letGo = fill.hold();
    try {
      const opened = await this.#prove(request);
      return opened.kind === "here" ? { kind: "fill", fill } : opened;
    } finally {
      setTimeout(letGo); // by then those who wait for it hold it themselves
    }
  }

  /**
   * Asks upstream for the content: for what is missing, where a fill of it was stopped. Without `part` in
   * what is returned, the answer is about the whole.
   */
  async #begin(
    { target, caller, warming }: TargetRequest,
  ): Promise<{ answer: TargetAnswer; part?: StoppedPart }> {
    const options = { method: "GET", caller, redirects: warming ? "follow" : "policy" } as const;
    const part = await this.#content.takeStopped(target.reference, memberKey(target));
    if (!part) return { answer: await this.#asker.ask(target, options) };
    const headers = new Headers({
      "accept-encoding": "identity",
      "range": `bytes=${part.written}-${part.size - 1}`,
    });
    let answer: TargetAnswer;
    try {
      answer = await this.#asker.ask(target, { ...options, headers });
    } catch (error) {
      const isElsewhere = error instanceof OciError && error.status === 416;
      if (!isElsewhere) {
        await this.#content.giveBackStopped(part);
        throw error;
      }
      await drop(part);
      return { answer: await this.#asker.ask(target, options) };
    }
    if (answer.handOver || isRestOf(part, answer.response)) return { answer, part };
    await drop(part);
    if (answer.response.status === 200) return { answer };
    answer.abort();
    return { answer: await this.#asker.ask(target, options) };
  }

  /** Asks upstream for the content and starts its fill, by `claim` or by the `turn` that is taken then. */
  async #fill(
    request: TargetRequest,
    { claim, turn }: { claim?: Claim; turn?: () => Promise<Turn> } = {},
  ): Promise<Opened> {
    const { target, caller } = request;
    const digest = target.reference;
    const { answer, part } = await this.#begin(request);
    if (answer.handOver) {
      if (part) await this.#content.giveBackStopped(part);
      return { kind: "hand-over", answer, to: answer.handOver };
    }
    // Somebody with another credential may have been faster.
    if (await this.isHere(digest)) {
      answer.abort();
      if (part) await drop(part);
      return await this.#prove(request);
    }
    const { body } = answer.response;
    if (!body || !part && answer.response.status !== 200) {
      answer.abort();
      if (part) await drop(part);
      throw new OciError("UNAVAILABLE", "Upstream's answer is no blob", {
        detail: { status: answer.response.status },
      });
    }
    const taken = await turn?.();
    if (taken?.kind === "theirs") {
      answer.abort();
      if (part) await this.#content.giveBackStopped(part);
      return await this.#follow(request, { holder: taken.holder, isLetIn: true });
    }
    if (taken && await this.isHere(digest)) {
      answer.abort();
      if (part) await drop(part);
      await taken.claim.release();
      return await this.#prove(request);
    }
    let started: { fill: Fill | undefined; isOurs: boolean };
    try {
      started = await this.#startFill({
        digest,
        size: part ? part.size : this.#relay.sizeOf(answer.response, target),
        first: body,
        part,
        source: this.#relay.source(request, part ? headersOf(part) : answer.response.headers),
        claim: claim ?? taken?.claim,
        ...originOf(request),
      }, { question: { target, caller }, answer });
    } catch (error) {
      await taken?.claim.release();
      throw error;
    }
    const { fill, isOurs } = started;
    if (fill) return isOurs ? { kind: "fill", fill } : await this.#prove(request);
    if (part) answer.abort(); // it is the rest, and what it is the rest of is gone
    let left: TargetAnswer | undefined = part ? undefined : answer;
    return {
      kind: "uncached",
      take() {
        const taken = left;
        left = undefined;
        return taken;
      },
    };
  }

  /** Notes what is verified: the repository has the blob, and the caller may read it. */
  async #verified(question: Question, answer: Proof): Promise<void> {
    await this.#asker.proved(question, answer);
    const key = { ...repositoryKey(question.target), digest: question.target.reference } as const;
    const link = { ...key, kind: "blob" } as const;
    // Its manifest came first, mostly, and it was learned then whether the repository is public.
    const isNew = !await this.#access.isPublic(key) && await this.#index.link(link) === undefined;
    if (isNew) await this.#access.revokePublic(key, answer.used);
    await this.#index.addLink(link, { mediaType: "" });
  }
}

/** The repository of a blob that is being downloaded, by registry and name. */
function memberKey({ registry, repository }: Target): string {
  return `${registry.id} ${repository}`;
}

/** The bytes of `part` of what is being downloaded, when they have come; undefined where it fails before. */
async function readFill(fill: Fill, part: Part): Promise<Uint8Array | undefined> {
  const source = fill.source(part, () => {});
  const bytes = new Uint8Array(part.end + 1 - part.start);
  let done = 0;
  try {
    while (done < bytes.byteLength) {
      const chunk = await source.read(new Uint8Array(bytes.byteLength - done));
      if (!chunk) return undefined;
      bytes.set(chunk, done);
      done += chunk.byteLength;
    }
    return bytes;
  } catch {
    return undefined; // its other clients are told why
  } finally {
    source.end(done);
  }
}

/** Whose content a fill is, and who wants it. */
function originOf({ target, warming, left }: TargetRequest) {
  const { registry: { name: registry }, repository } = target;
  return { registry, repository, origin: memberKey(target), warming, left: left?.() };
}

/** Whether `response` is exactly what `part` is missing. */
function isRestOf({ written, size }: StoppedPart, { status, headers }: Response): boolean {
  return status === 206 &&
    headers.get("content-range")?.trim() === `bytes ${written}-${size - 1}/${size}`;
}

/** The headers that an answer about the whole would have had. */
function headersOf({ size }: StoppedPart): Headers {
  return new Headers({ "content-length": String(size) });
}

/**
 * Those who wait for one download to begin. They share it, but not a turn: each client's is tried, and the first
 * begins it for all. In the turn of one alone the others would wait behind all that this one asked for before.
 */
class Audience {
  readonly #queue: Pick<FairQueue, "enter">;
  readonly #place = Promise.withResolvers<() => void>();
  /** Aborted when a place was found, and when all have left: nobody need wait for one any more. */
  readonly #end = new AbortController();
  readonly #left = new AbortController();
  /** Clients whose turn is waited for, or was. */
  readonly #owners = new Set<string>();
  #size = 0;
  #waiting = 0;
  #isPlaced = false;

  constructor(queue: Pick<FairQueue, "enter">) {
    this.#queue = queue;
  }

  /** Resolves with what gives the place back; rejects when all have left, or every client was turned away. */
  get place(): Promise<() => void> {
    return this.#place.promise;
  }

  /** Aborted when all have left. */
  get left(): AbortSignal {
    return this.#left.signal;
  }

  /** Adds one, who leaves when its `left` is aborted. */
  add(request: TargetRequest): void {
    this.#size++;
    const owner = ownerOf(request);
    if (!this.#isPlaced && !this.#owners.has(owner.client)) {
      this.#owners.add(owner.client);
      this.#enter(owner);
    }
    const leave = () => {
      if (--this.#size > 0) return;
      this.#end.abort(clientLeft());
      this.#left.abort();
    };
    const left = request.left?.();
    if (left?.aborted) leave();
    else left?.addEventListener("abort", leave, { once: true });
  }

  async #enter(owner: QueueOwner): Promise<void> {
    this.#waiting++;
    let leave: () => void;
    try {
      leave = await this.#queue.enter(owner, this.#end.signal);
    } catch (error) {
      if (--this.#waiting === 0) this.#place.reject(error);
      return;
    }
    if (this.#isPlaced) return leave(); // both at once
    this.#isPlaced = true;
    this.#place.resolve(leave);
    this.#end.abort();
  }
}
