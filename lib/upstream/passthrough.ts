/**
 * Upstream's answer passed through: everything without a cache, and with one what it does not keep.
 *
 * @module
 */
import type { Hash } from "node:crypto";
import type { Caller } from "../auth/access.ts";
import {
  type Answer,
  bytesAnswer,
  type CacheResult,
  type ClientRequest,
  contentAnswer,
  heldBody,
  watchBody,
  whileDelivered,
} from "../response/answer.ts";
import { upstreamLog } from "../telemetry/log.ts";
import { type DownloadQueues, ownerOf } from "../limits/downloads.ts";
import { API_VERSION } from "../oci/api_version.ts";
import {
  digestOf,
  isDigest,
  isStorable,
  parseDigest,
  type StorableAlgorithm,
} from "../oci/digest.ts";
import { OciError } from "../oci/error.ts";
import { essence, isManifestType } from "../oci/media_type.ts";
import { replyHeaders, upstreamHeaders } from "../transforms/headers.ts";
import { reserveMemory } from "../response/under_way.ts";
import type { Stats } from "../telemetry/stats.ts";
import type { Part } from "../transforms/range.ts";
import { clientLeft } from "./failure.ts";
import type { Target } from "../transforms/route.ts";
import {
  otherAnswer,
  type Question,
  type RegistryClient,
  type TargetAnswer,
} from "./registry_client.ts";
import {
  announcedLength,
  decoded,
  firstByte,
  readBounded,
  readStart,
  withIdleLimit,
} from "./download/body.ts";
import type { UpstreamAnswer } from "./client.ts";
import { Download, MismatchError, type Source } from "./download/download.ts";
import { firstOf, ofLength, partOf } from "./download/part.ts";
import { isList, isManifest, isManifestHead } from "./proof.ts";
import { causeOf } from "./transport/send.ts";
import { blobSource } from "./blob_source.ts";
import { verifiedStream } from "./download/verified.ts";
import { parseJson } from "../util/json.ts";

/** Bytes; the distribution specification lets registries refuse larger manifests. */
export const MAX_MANIFEST = 4 * 2 ** 20;
/** The whole manifest must be here within this, ms. */
export const MANIFEST_DEADLINE = 60_000;

/** A request as a handler gets it. */
export interface TargetRequest extends ClientRequest {
  readonly target: Target;
  readonly caller: Caller;
  /** As the client sent it. */
  readonly url: URL;
  /**
   * Set where the proxy itself wants the content here: a tag is asked of upstream however fresh it is,
   * and storage is followed and not handed over. @default {false}
   */
  readonly warming?: boolean;
  /** Where it comes from, for taking turns; absent where that is not known. */
  readonly client?: string;
  /** Aborted when the client leaves before its answer has begun. Absent: it never does. */
  readonly left?: () => AbortSignal;
  /**
   * Called before upstream is asked for content that is not here; throws an `OciError` where the client has
   * no more misses left. Absent where they are not counted.
   */
  readonly beforeMiss?: () => Promise<void>;
}

/** A manifest as upstream gave it, verified. */
export interface Manifest {
  readonly digest: string;
  /** As upstream's Content-Type says, without parameters, unless that is nonsense. */
  readonly mediaType: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Whether it shows that it is a registry's answer. */
  readonly isProof: boolean;
}

/** The client's query without what was meant for this proxy. */
export function forwardedSearch(url: URL): string {
  if (!url.searchParams.has("ns")) return url.search;
  const params = new URLSearchParams(url.search);
  params.delete("ns");
  const text = params.toString();
  return text && `?${text}`;
}

async function readManifest(
  { response }: UpstreamAnswer,
  { reference, idle }: { reference: string; idle: number },
): Promise<Manifest> {
  const bytes = await readBounded(response, {
    limit: MAX_MANIFEST,
    deadline: MANIFEST_DEADLINE,
    idle,
    what: "manifest",
  });
  const said = response.headers.get("docker-content-digest") ?? "";
  const wanted = isDigest(reference) ? reference : isStorable(said) ? said : undefined;
  const content = jsonObject(bytes);
  const mediaType = typeOf(response.headers.get("content-type"), content);
  // A login page, or JSON that is the answer to everything: anybody can ask for it by its own digest.
  const isSuch = response.status === 200 && content !== undefined && isManifest(content);
  // What is too much to be read here is for the client to judge: it asked for these bytes.
  const isUnread = response.status === 200 && content === undefined && isDigest(reference) &&
    isManifestType(mediaType);
  // Of a digest that cannot be computed here nothing is claimed or kept; the client verifies it.
  if (wanted !== undefined && !isStorable(wanted)) {
    if (!isSuch && !isUnread) throw noManifest(response);
    return { digest: wanted, mediaType, bytes, isProof: false };
  }
  const algorithm = wanted === undefined ? "sha256" : parseDigest(wanted).algorithm;
  const digest = digestOf(bytes, algorithm as StorableAlgorithm);
  if (wanted !== undefined && digest !== wanted) {
    throw new OciError("UNAVAILABLE", "Upstream sent other content than the digest says", {
      detail: { digest: wanted, actual: digest },
      cause: new MismatchError(`Digest of the body is ${digest}`),
    });
  }
  if (!isSuch && !isUnread) throw noManifest(response);
  return { digest, mediaType, bytes, isProof: isSuch };
}

function noManifest({ status, headers }: Response): OciError {
  return new OciError("UNAVAILABLE", "Upstream's manifest is none", {
    detail: { mediaType: headers.get("content-type"), status },
  });
}

function jsonObject(bytes: Uint8Array): Readonly<Record<string, unknown>> | undefined {
  try {
    const value = parseJson(bytes, { fatal: true });
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    return isObject ? value as Readonly<Record<string, unknown>> : undefined;
  } catch {
    return undefined;
  }
}

/** What upstream says it is; where that is no manifest's type, what the manifest says of itself. */
function typeOf(said: string | null, manifest?: Readonly<Record<string, unknown>>): string {
  const type = essence(said ?? "application/octet-stream");
  const own = manifest?.["mediaType"];
  return !isManifestType(type) && typeof own === "string" && isManifestType(own)
    ? essence(own)
    : type;
}

/** The redirect that a client is to follow itself. Never cached: presigned URLs live for minutes. */
export function handOver(answer: UpstreamAnswer, target: URL): Answer {
  const headers = new Headers({
    "location": target.href,
    ...API_VERSION,
    "cache-control": "no-store",
    "x-cache": "BYPASS",
  });
  const response = new Response(null, { status: answer.response.status, headers });
  return { response, cache: "BYPASS", delivered: { bytes: 0, complete: true } };
}

/** A list up to this many bytes is read and checked before it is answered; a longer one proves nothing. */
const CHECKED_LIST = 128 * 1024;

/** What a list may take while it is passed through, upstream's connection and its buffers included: bytes. */
const LIST_MEMORY = 512 * 1024;

/**
 * Answers a request for a list when there is memory for one, and counts that until the answer is delivered. Upstream is
 * asked only then: what it has sent already is in memory, whether it is read or not. Throws an `OciError` (503) where there
 * is no memory in good time.
 */
export async function withListMemory(work: () => Promise<Answer>): Promise<Answer> {
  return await whileDelivered(work, await reserveMemory(LIST_MEMORY));
}

/** Options for {@linkcode listAnswer}. */
export interface ListOptions {
  readonly kind: "tags" | "referrers" | "catalog";
  /** The client's. */
  readonly method: string;
  /** The URL that the client asked for. */
  readonly client: URL;
  /** How long upstream's body may stand still, ms. */
  readonly idle: number;
  /** Called when it turns out to be such a list. */
  readonly proved?: () => Promise<void>;
}

/** The list in `answer` to a GET, without its body for HEAD. Throws an `OciError` (502) for what is none. */
export async function listAnswer(answer: UpstreamAnswer, options: ListOptions): Promise<Answer> {
  const { kind, method, client, idle, proved } = options;
  const { status, headers: said, body } = decoded(answer.response, `list of ${kind}`);
  if (status !== 200 || !body) throw otherAnswer(answer);
  const headers = replyHeaders(said, { kind, status, link: { upstream: answer.url, client } });
  const { start, rest } = await readStart(body, { limit: CHECKED_LIST, idle, what: "list" });
  if (rest) {
    if (!isObjectStart(start)) throw otherAnswer(answer);
    if (method !== "HEAD") return watchBody(rest, { status, headers });
    answer.abort();
    return watchBody(null, { status, headers });
  }
  if (!isList(start, kind)) throw otherAnswer(answer);
  await proved?.();
  headers.set("content-length", String(start.byteLength));
  if (method === "HEAD") return watchBody(null, { status, headers });
  return bytesAnswer(start, { status, headers });
}

/** Whether what is asked for is a list. */
function isListKind(kind: TargetRequest["target"]["kind"]): kind is "tags" | "referrers" {
  return kind === "tags" || kind === "referrers";
}

/** Whether `text` begins as a JSON object does. */
function isObjectStart(text: Uint8Array): boolean {
  return text.find((byte) => !BLANKS.includes(byte)) === 0x7b;
}

/** What may stand before a value in JSON. */
const BLANKS: readonly number[] = [0x20, 0x09, 0x0a, 0x0d];

/** Throws what a download failed with, for who has not got a byte of it. */
export function refuseBroken(error: unknown): never {
  if (error instanceof OciError) throw error;
  throw new OciError("UNAVAILABLE", "Upstream's blob broke off", {
    detail: { cause: causeOf(error) },
    cause: error,
  });
}

/** Options for {@linkcode Passthrough.rest}. */
export interface RestOptions {
  /** Of the whole blob in bytes. */
  readonly size: number;
  readonly rest: Part;
  readonly isWhole: boolean;
  readonly hash: Hash | undefined;
}

/** Options for {@linkcode Passthrough}. */
export interface PassthroughOptions {
  readonly asker: RegistryClient;
  /** How long upstream's body may stand still, ms. */
  readonly idle: number;
  readonly stats: Stats;
  /** Where blobs wait that are passed through. @default {nowhere} */
  readonly queues?: Pick<DownloadQueues, "passthrough">;
}

/**
 * `body`, once its first byte is here. Calls `giveUp`, which breaks it off, when the client leaves before that. Throws an
 * `OciError` where it breaks.
 */
async function firstByteFor(
  { left }: Pick<TargetRequest, "left">,
  { body, giveUp }: {
    readonly body: ReadableStream<Uint8Array>;
    readonly giveUp: () => void;
  },
): Promise<ReadableStream<Uint8Array>> {
  const signal = left?.();
  if (signal?.aborted) giveUp();
  else signal?.addEventListener("abort", giveUp, { once: true });
  try {
    return await firstByte(body).catch(refuseBroken);
  } finally {
    signal?.removeEventListener("abort", giveUp);
  }
}

/** Passes requests through. */
export class Passthrough {
  readonly #asker: RegistryClient;
  /** How long upstream's body may stand still, ms. */
  readonly idle: number;
  readonly #stats: Stats;
  readonly #queue: DownloadQueues["passthrough"] | undefined;

  constructor(options: PassthroughOptions) {
    this.#asker = options.asker;
    this.idle = options.idle;
    this.#stats = options.stats;
    this.#queue = options.queues?.passthrough;
  }

  /** The answer to any read request, as upstream gives it to this client. Blobs wait for a place. */
  async answer(request: TargetRequest): Promise<Answer> {
    await request.beforeMiss?.();
    if (isListKind(request.target.kind)) return await withListMemory(() => this.#answer(request));
    if (!this.#queue || request.target.kind !== "blob" || request.method === "HEAD") {
      return await this.#answer(request);
    }
    const leave = await this.#queue.enter(ownerOf(request), request.left?.());
    return await whileDelivered(() => this.#answer(request), leave);
  }

  /**
   * The answer with a whole blob that upstream has begun to send, as {@linkcode Passthrough.blob} makes it. Without
   * a place for it, it is asked for again when there is one.
   */
  async take(answer: TargetAnswer, request: TargetRequest): Promise<Answer> {
    const leave = this.#queue ? this.#queue.tryEnter(ownerOf(request)) : () => {};
    if (leave) return await whileDelivered(() => this.blob(answer, request), leave);
    answer.abort();
    return await this.answer(request);
  }

  async #answer(request: TargetRequest): Promise<Answer> {
    const { target, method } = request;
    // Whether it is a list only its body shows.
    const asked = isListKind(target.kind) ? "GET" : method as "GET" | "HEAD";
    const answer = await this.#ask(request, asked);
    if (answer.handOver) return handOver(answer, answer.handOver);
    switch (target.kind) {
      case "manifest":
        return await this.#manifest(answer, request);
      case "blob":
        // The size of what is not here could be anything: it proves nothing.
        return method === "HEAD" ? this.#head(answer, request) : await this.blob(answer, request);
      default:
        return await listAnswer(answer, {
          kind: target.kind,
          method,
          client: request.url,
          idle: this.idle,
          proved: () => this.#asker.proved(request, answer),
        });
    }
  }

  async #ask(request: TargetRequest, method: "GET" | "HEAD"): Promise<TargetAnswer> {
    const { target, caller, headers, url } = request;
    return await this.#asker.ask(target, {
      method,
      caller,
      headers: upstreamHeaders(headers, { kind: target.kind }),
      search: forwardedSearch(url),
      fromClient: true,
    });
  }

  async #manifest(answer: TargetAnswer, request: TargetRequest): Promise<Answer> {
    const { target, method } = request;
    const byTag = !isDigest(target.reference);
    let content = answer;
    if (method === "HEAD") {
      if (isManifestHead(answer, target, MAX_MANIFEST)) {
        await this.#asker.proved(request, answer);
        return this.#head(answer, request);
      }
      // Clients cannot do without what is missing, and what it is instead of a manifest does not show here.
      content = await this.#ask(request, "GET");
      if (content.handOver) return handOver(content, content.handOver);
    }
    const { digest, mediaType, bytes } = await this.manifest(content, request);
    const size = bytes.byteLength;
    return contentAnswer(
      request,
      { kind: "manifest", digest, mediaType, size, byTag, cache: "BYPASS" },
      heldBody(digest, bytes),
    );
  }

  /**
   * Reads the manifest in `answer`, whole and hashed before anybody gets a byte of it, and notes that the caller may
   * read it. Throws an `OciError` (502) when it is too large, is not what the requested digest says, not what
   * upstream's own header says, or no manifest.
   */
  async manifest(answer: TargetAnswer, question: Question): Promise<Manifest> {
    const { target } = question;
    try {
      const manifest = await readManifest(answer, {
        reference: target.reference,
        idle: this.idle,
      });
      if (manifest.isProof) await this.#asker.proved(question, answer);
      return manifest;
    } catch (error) {
      const { cause } = error as Error;
      if (cause instanceof MismatchError) this.mismatched(target, cause.message);
      throw error;
    }
  }

  #head(answer: UpstreamAnswer, { target }: TargetRequest): Answer {
    const { response } = answer;
    if (response.status !== 200) throw otherAnswer(answer);
    const reply = replyHeaders(response.headers, { kind: target.kind, status: response.status });
    const isContent = target.kind === "manifest" || target.kind === "blob";
    const cache: CacheResult | undefined = isContent ? "BYPASS" : undefined;
    if (cache) reply.set("x-cache", cache);
    // Some registries leave it out of a HEAD; clients cannot do without.
    if (isContent && isDigest(target.reference)) {
      reply.set("docker-content-digest", target.reference);
    }
    return watchBody(null, { status: response.status, headers: reply }, cache);
  }

  /**
   * A blob on its way to one client, verified as it passes where it is whole, as `bytes=0-` is too, and can be: then it is
   * noted that the caller may read it. A part of it is checked for its length alone. Throws an `OciError` (502) where it
   * breaks before its first byte: a client can do more with that than with a broken connection.
   */
  async blob(answer: TargetAnswer, request: TargetRequest): Promise<Answer> {
    const { response } = answer;
    const { target } = request;
    const digest = target.reference;
    const reply = replyHeaders(response.headers, { kind: "blob", status: response.status });
    reply.set("docker-content-digest", digest);
    reply.set("etag", `"${digest}"`);
    reply.set("cache-control", "private, no-transform");
    reply.set("x-cache", "BYPASS");
    if (!reply.has("content-type")) reply.set("content-type", "application/octet-stream");
    const init = { status: response.status, headers: reply };
    const part = response.status === 200
      ? undefined
      : partOf(response, request.headers.get("range"));
    if (part) reply.set("content-length", String(part.length));
    const first = response.body ?? new Blob().stream();
    if (part && !part.isWhole || !isStorable(digest)) {
      const body = withIdleLimit(first, this.idle);
      const passed = part ? ofLength(body, part.length) : body;
      const begun = firstByteFor(request, { body: passed, giveUp: () => answer.abort() });
      return watchBody(await begun, init, "BYPASS");
    }
    const size = part ? part.length : this.sizeOf(response, target);
    const headers = new Headers(response.headers);
    if (part) headers.set("content-length", String(size)); // as an answer about the whole has it
    const download = new Download({
      source: this.source(request, headers),
      first,
      size,
      idle: this.idle,
      onResume: (offset, cause) => this.resumed(target, { offset, cause }),
    });
    const body = verifiedStream(download, {
      digest,
      size,
      onMismatch: (reason) => this.mismatched(target, reason),
      onEnd: (_, isWhole) => void (isWhole && this.#asker.proved(request, answer)),
    });
    const giveUp = () => download.cancel(clientLeft());
    return watchBody(await firstByteFor(request, { body, giveUp }), init, "BYPASS");
  }

  /**
   * The size in bytes that upstream announces of a whole blob, if it does. Throws an `OciError` (502) where it
   * announces an empty one and the digest is not that of nothing: no last byte could be withheld from the
   * client until that is found out.
   */
  sizeOf(response: Response, target: Target): number | undefined {
    const size = announcedLength(response.headers);
    const { algorithm } = parseDigest(target.reference);
    const nothing = digestOf(new Uint8Array(), algorithm as StorableAlgorithm);
    if (size !== 0 || target.reference === nothing) return size;
    response.body?.cancel().catch(() => {}); // of no use
    this.mismatched(target, "The body is empty");
    throw new OciError("UNAVAILABLE", "Upstream sent other content than the digest says", {
      detail: { digest: target.reference, actual: nothing },
    });
  }

  /**
   * Part `rest` of a blob of `size` bytes, asked for with the client's own access, for a client that has got from here what
   * is before it. A client that gets all of the blob (`isWhole`) gets the last bytes only if the whole is right: what was
   * sent before by its `hash`, or, without one, what upstream has in its place.
   */
  rest(
    request: TargetRequest,
    { size, rest, isWhole, hash }: RestOptions,
  ): ReadableStream<Uint8Array<ArrayBuffer>> {
    const { target } = request;
    const { start } = rest;
    const headers = new Headers({ "content-length": String(size) });
    const offset = isWhole && !hash ? 0 : start;
    const download = new Download({
      source: this.source(request, headers),
      offset,
      size,
      idle: this.idle,
      onResume: (offset, cause) => this.resumed(target, { offset, cause }),
    });
    if (!isWhole) return firstOf(download, rest.end + 1 - start);
    return verifiedStream(download, {
      digest: target.reference,
      hash,
      offset,
      size,
      part: rest,
      onMismatch: (reason) => this.mismatched(target, reason),
    });
  }

  /** Where the download of a blob goes on when it breaks; `first` are the headers it began with. */
  source({ target, caller }: TargetRequest, first: Headers): Source {
    return blobSource({ asker: this.#asker, target, caller, first, idle: this.idle });
  }

  /** Counts and logs that a download is taken up again. */
  resumed(target: Target, { offset, cause }: { offset: number; cause: string }): void {
    this.#stats.upstreamResumes.add(target.registry.name);
    upstreamLog.warn("Download of {digest} broke at {offset}, resuming: {cause}", {
      digest: target.reference,
      registry: target.registry.name,
      offset,
      cause,
    });
  }

  /** Counts and logs that upstream's bytes are not those of the digest. */
  mismatched(target: Target, reason: string): void {
    this.#stats.cacheEvents.add("mismatch");
    upstreamLog.error("{registry} sent wrong bytes for {repository} {reference}: {reason}", {
      registry: target.registry.name,
      repository: target.repository,
      reference: target.reference,
      reason,
    });
  }
}
