/**
 * Answers that are asked for again and again, kept as they go on the wire: of public repositories only,
 * and no longer than what was decided when they were first given holds. Whatever might change such a
 * decision forgets them.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { RepositoryKey } from "../oci/registry.ts";
import { httpDate, statusLine } from "./wire.ts";
import { ByteLru, detached, stringBytes } from "../util/lru.ts";
import { accepts } from "../oci/media_type.ts";
import { MAX_FIELD } from "../request/bounds.ts";
import { credentialOf } from "../transforms/auth.ts";

/** What makes an answer one that others may be given too. */
export interface HotFacts {
  readonly key: RepositoryKey;
  /** The tag it was asked for by, if it was. */
  readonly tag?: string;
  readonly digest: string;
  /** Of a manifest: it is given to those only who accept it. */
  readonly mediaType?: string;
  /** The body. Absent for HEAD. */
  readonly bytes?: Uint8Array<ArrayBuffer>;
  /** What `Age` counts from, ms since the epoch. */
  readonly since: number;
  /** When it was decided, ms since the epoch: where the clock has been set back beyond that, it has to be anew. */
  readonly from: number;
  /** When it has to be decided anew, ms since the epoch: the repository is proved public, the tag fresh. */
  readonly until: number;
  /** Notes a use of the digest. */
  used(digest: string): void;
}

/** The request, as far as it matters here. */
export interface HotRequest {
  readonly method: string;
  /** The host that routing goes by. */
  readonly host: string;
  /** Path and query. */
  readonly target: string;
  header(name: string): string | null;
}

/** Memory for entries, bytes. */
const MEMORY = 16 * 2 ** 20;
/** What an entry takes beside its bytes and texts: objects, and what logs and counts it. */
const OVERHEAD = 1500;
/** Longer paths and queries are nobody's who pulls an image: names have 255 characters, tags 128. */
export const LONGEST_TARGET = 1024;
/** Longer bodies are as well read from where they are. */
export const LARGEST_HOT = 64 * 1024;
/** Memory for what Accept headers say of media types, bytes. */
const ACCEPTS_MEMORY = 2 ** 19;
/** Longer Accept headers are read again each time. */
const LONGEST_ACCEPT = 1024;
/** Media types remembered of each. */
const MOST_TYPES = 8;
/** What one of them takes, bytes. */
const TYPE_BYTES = 256;

/** With one of these the answer may be another. */
const CONDITIONS = ["if-none-match", "range", "if-range"] as const;
/** Said anew each time. */
const TIMELY: ReadonlySet<string> = new Set(["age", "date", "content-length"]);

/** Options for {@linkcode CachedResponse}. */
export interface CachedResponseOptions {
  /** Of the answer as it was first given. */
  readonly headers: Headers;
  readonly facts: HotFacts;
  readonly record: (client: string) => void;
}

/** An answer with status 200 that is in memory. */
export class CachedResponse {
  readonly facts: HotFacts;
  /** Counts and logs that a client of some address got it. */
  readonly record: (client: string) => void;
  readonly #headers: readonly (readonly [string, string])[];
  readonly #head: string;
  #wire = new Uint8Array(0);
  #second = 0;

  constructor({ headers, facts, record }: CachedResponseOptions) {
    this.facts = facts;
    this.record = record;
    const length = facts.bytes ? String(facts.bytes.byteLength) : headers.get("content-length");
    this.#headers = [
      ...[...headers].filter(([name]) => !TIMELY.has(name))
        .map(([name, value]) => [name, detached(value)] as const),
      ["content-length", length ?? "0"],
    ];
    this.#head = statusLine(200) +
      this.#headers.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  }

  /** Whether a client with this Accept may be given it. */
  isFor(accept: string | null): boolean {
    const { mediaType } = this.facts;
    if (mediaType === undefined || accept === null) return true;
    // Longer than it may be: refused where requests are read.
    return accept.length <= MAX_FIELD && isAccepted(accept, mediaType);
  }

  /** What it takes in memory, its copy for the wire included: bytes. */
  get size(): number {
    const { bytes } = this.facts;
    return OVERHEAD + 2 * (bytes?.byteLength ?? 0) + 3 * stringBytes(this.#head);
  }

  /** Its bytes on an HTTP/1.1 connection that stays open, at `now`, ms since the epoch. */
  wire(now: number): Uint8Array<ArrayBuffer> {
    const second = Math.floor(now / 1000);
    if (second === this.#second) return this.#wire;
    this.#second = second;
    const head = `${this.#head}age: ${this.#age(now)}\r\ndate: ${httpDate(now)}\r\n\r\n`;
    const body = this.facts.bytes;
    // Not into the old one: it may be on its way to a slow client.
    const wire = new Uint8Array(head.length + (body?.byteLength ?? 0));
    Buffer.from(wire.buffer).write(head, "latin1");
    if (body) wire.set(body, head.length);
    return this.#wire = wire;
  }

  /** The same for `Deno.serve`. */
  response(now: number): Response {
    const headers = Object.fromEntries([...this.#headers, ["age", String(this.#age(now))]]);
    return new Response(this.facts.bytes ?? null, { headers });
  }

  #age(now: number): number {
    return Math.max(0, Math.floor((now - this.facts.since) / 1000));
  }
}

/** By Accept header and media type. */
const accepted = new ByteLru<Map<string, boolean>>({
  bytes: ACCEPTS_MEMORY,
  sizeOf: () => MOST_TYPES * TYPE_BYTES,
});

/**
 * What was asked last, and the answer: comparing it costs less than finding it by its hash. One request's head stays in
 * memory with it, which is not worth a copy.
 */
let last = { accept: "", mediaType: "", answer: false };

/** What `accepts` says, remembered where that takes little. */
function isAccepted(accept: string, mediaType: string): boolean {
  if (mediaType === last.mediaType && accept === last.accept) return last.answer;
  const answer = lookUpAccepted(accept, mediaType);
  last = { accept, mediaType, answer };
  return answer;
}

function lookUpAccepted(accept: string, mediaType: string): boolean {
  if (accept.length > LONGEST_ACCEPT || mediaType.length > TYPE_BYTES) {
    return accepts(accept, mediaType);
  }
  let types = accepted.get(accept);
  if (!types) accepted.set(accept, types = new Map());
  let answer = types.get(mediaType);
  if (answer === undefined) {
    if (types.size === MOST_TYPES) types.clear();
    types.set(detached(mediaType), answer = accepts(accept, mediaType));
  }
  return answer;
}

/** `facts` in memory of their own. */
function detachedFacts({ key, tag, digest, mediaType, ...facts }: HotFacts): HotFacts {
  const { registry, repository } = key;
  return {
    ...facts,
    key: { registry: detached(registry), repository: detached(repository) },
    tag: tag === undefined ? undefined : detached(tag),
    digest: detached(digest),
    mediaType: mediaType === undefined ? undefined : detached(mediaType),
  };
}

/** The answers in memory. */
export class ResponseCache {
  readonly #now: () => number;
  readonly #answers = new ByteLru<CachedResponse>({
    bytes: MEMORY,
    sizeOf: ({ size }) => size,
    onRemoved: ({ facts }) => this.#count(facts, -1),
  });
  /** How many answers there are of a digest, and of a repository: most of what changes concerns none. */
  readonly #counts = new Map<string, number>();
  #version = 0;

  constructor(options: { readonly now?: () => number } = {}) {
    this.#now = options.now ?? Date.now;
  }

  /** Changes whenever something is forgotten: what was decided before must not be kept after. */
  get version(): number {
    return this.#version;
  }

  /** What they take, keys included: bytes. */
  get bytes(): number {
    return this.#answers.bytes;
  }

  /** Removes what has not been asked for since this was called the last time. */
  dropUnused(): void {
    this.#answers.dropUnused();
  }

  /** The answer that `request` gets from memory, if any. */
  find(request: HotRequest, now: number): CachedResponse | undefined {
    if (request.target.length > LONGEST_TARGET) return undefined;
    const key = keyOf(request);
    const answer = this.#answers.get(key);
    if (!answer) return undefined;
    if (now >= answer.facts.until || now < answer.facts.from) {
      this.#answers.delete(key);
      return undefined;
    }
    if (!answer.isFor(request.header("accept")) || !isPlain(request)) return undefined;
    return answer;
  }

  /**
   * Keeps an answer with status 200 to `request`, decided while the version was `version`. Returns
   * undefined where it cannot be kept.
   */
  keep(
    request: HotRequest,
    { headers, facts, version, recorder }: {
      /** Of the answer as it was first given. */
      readonly headers: Headers;
      readonly facts: HotFacts;
      readonly version: number;
      /** Makes what counts and logs it; called only where it is kept. */
      readonly recorder: () => CachedResponse["record"];
    },
  ): CachedResponse | undefined {
    const isLarge = (facts.bytes?.byteLength ?? 0) > LARGEST_HOT;
    if (version !== this.#version || isLarge || !isPlain(request)) return undefined;
    if (facts.until <= this.#now() || request.target.length > LONGEST_TARGET) return undefined;
    const own = detachedFacts(facts);
    const answer = new CachedResponse({ headers, facts: own, record: recorder() });
    this.#count(own, 1);
    if (this.#answers.set(keyOf(request), answer)) return answer;
    this.#count(own, -1);
    return undefined;
  }

  /** Forgets what `digest` is answered with: the content is gone. */
  forgetContent(digest: string): void {
    this.#forget(digest, (facts) => facts.digest === digest);
  }

  /** Forgets what the tag is answered with: it may mean something else now. */
  forgetTag(key: RepositoryKey, tag: string): void {
    const name = nameOf(key);
    this.#forget(name, (facts) => facts.tag === tag && nameOf(facts.key) === name);
  }

  /** Forgets everything of a repository: it is not public any more. */
  forgetRepository(key: RepositoryKey): void {
    const name = nameOf(key);
    this.#forget(name, (facts) => nameOf(facts.key) === name);
  }

  #count({ digest, key }: HotFacts, by: 1 | -1): void {
    for (const what of [digest, nameOf(key)]) {
      const count = (this.#counts.get(what) ?? 0) + by;
      if (count > 0) this.#counts.set(what, count);
      else this.#counts.delete(what);
    }
  }

  #forget(counted: string, isMeant: (facts: HotFacts) => boolean): void {
    this.#version++;
    if (!this.#counts.has(counted)) return;
    for (const [key, { facts }] of this.#answers.entries()) {
      if (isMeant(facts)) this.#answers.delete(key);
    }
  }
}

/** A repository as it is counted; no digest looks like it. */
function nameOf({ registry, repository }: RepositoryKey): string {
  return `${registry} ${repository}`;
}

/**
 * The key must tell apart whatever changes an answer: the host and the query say the registry, the path the
 * rest. All are those of the request's context, which routing goes by: a key from anywhere else lets a client
 * choose the name under which others get its answer. No host holds a `/`, with which a target begins. Headers are
 * looked at beside it.
 */
function keyOf({ method, host, target }: HotRequest): string {
  return `${method} ${host}${target}`;
}

/** Whether nothing in the request's headers could make its answer another, for what is public. */
function isPlain(request: HotRequest): boolean {
  for (const name of CONDITIONS) if (request.header(name) !== null) return false;
  const authorization = request.header("authorization");
  if (authorization === null) return true;
  try {
    credentialOf(authorization); // whoever it is may read what is public, but a malformed one is an error
    return true;
  } catch {
    return false;
  }
}
