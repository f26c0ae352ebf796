/**
 * Manifests from the cache: by digest for ever, by tag while fresh, revalidated by a HEAD (which counts
 * against nobody's pull limit), and however old while upstream is in trouble.
 *
 * @module
 */
import { type Access, isPast, type Proofs } from "../auth/access.ts";
import {
  type Answer,
  type Body,
  type CacheResult,
  contentAnswer,
  heldBody,
} from "../response/answer.ts";
import type { ByteSource } from "../response/byte_source.ts";
import { SingleFlight } from "../util/single_flight.ts";
import { cacheLog } from "../telemetry/log.ts";
import { isDigest, isStorable } from "../oci/digest.ts";
import { OciError } from "../oci/error.ts";
import { ACCEPT_EVERY_MANIFEST, accepts, essence } from "../oci/media_type.ts";
import {
  type Manifest,
  MAX_MANIFEST,
  type Passthrough,
  type TargetRequest,
} from "../upstream/passthrough.ts";
import { sharedBytes } from "../response/under_way.ts";
import type { Registry } from "../oci/registry.ts";
import type { Part } from "../transforms/range.ts";
import type { Target } from "../transforms/route.ts";
import type { Credential } from "../transforms/auth.ts";
import { otherAnswer, type RegistryClient, repositoryKey } from "../upstream/registry_client.ts";
import { announcedLength } from "../upstream/download/body.ts";
import { isManifestHead } from "../upstream/proof.ts";
import { causeOf } from "../upstream/transport/send.ts";
import type { Content } from "./content/content.ts";
import type { Heat, HotContent } from "./heat.ts";
import { logDecision } from "./decision.ts";
import type { BlobRow } from "./index/index.ts";
import type { StoredBlob } from "./store/blob_store.ts";
import { lookUp } from "./lookup.ts";
import type { BestEffortIndex } from "./index/best_effort_index.ts";
import type { Coordinator } from "./cluster/coordinator.ts";

/** A manifest that is here. */
interface Held {
  readonly digest: string;
  readonly mediaType: string;
  /** Bytes. */
  readonly size: number;
  /** When upstream last said that this is it, ms since the epoch. */
  readonly checkedAt: number;
  readonly row: BlobRow;
  readonly proofs?: Proofs;
}

/** What asking upstream came to. */
interface Resolved {
  readonly digest: string;
  readonly mediaType: string;
  readonly size: number;
  /** Absent when only a HEAD was asked for, or the content is in the store. */
  readonly bytes?: Uint8Array<ArrayBuffer>;
  /** Of content in the store, where it was just looked up. */
  readonly row?: BlobRow;
  readonly cache: CacheResult;
}

/** Larger manifests are not read into memory for being sent, bytes. */
const IN_MEMORY = 2 ** 19;

/** Who has an old answer does not wait longer than this for a new one, ms. */
const REVALIDATION_TIMEOUT = 5_000;

/** Options for {@linkcode Manifests}. */
export interface ManifestsOptions {
  readonly content: Content;
  readonly index: BestEffortIndex;
  readonly access: Access;
  readonly asker: RegistryClient;
  readonly relay: Passthrough;
  readonly together?: Coordinator;
  /** Lets answers be given from memory. */
  readonly heat?: Heat;
  /** How long a tag's answer is fresh, ms. */
  readonly ttl: number;
  /** When pulls are to be spared, and how long a tag's answer is fresh then, ms. */
  readonly quota?: { isLow(registry: Registry): boolean; readonly ttl: number };
  /** @default {Date.now} */
  readonly now?: () => number;
}

function acceptEvery(): Headers {
  return new Headers({ "accept": ACCEPT_EVERY_MANIFEST, "accept-encoding": "identity" });
}

/** The bytes of `part` of a stored manifest; closes it at the end. Reading a file that was cut throws. */
function wholeSource(
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

/** The manifests. */
export class Manifests {
  readonly #content: Content;
  readonly #index: BestEffortIndex;
  readonly #access: Access;
  readonly #asker: RegistryClient;
  readonly #relay: Passthrough;
  readonly #together: Coordinator | undefined;
  readonly #heat: Heat | undefined;
  readonly #ttl: number;
  readonly #quota: ManifestsOptions["quota"];
  readonly #now: () => number;
  readonly #flights = new SingleFlight<Resolved>();

  constructor(options: ManifestsOptions) {
    this.#content = options.content;
    this.#index = options.index;
    this.#access = options.access;
    this.#asker = options.asker;
    this.#relay = options.relay;
    this.#together = options.together;
    this.#heat = options.heat;
    this.#ttl = options.ttl;
    this.#quota = options.quota;
    this.#now = options.now ?? Date.now;
  }

  /** The answer to a GET or HEAD of a manifest. Throws an `OciError`. */
  async answer(request: TargetRequest): Promise<Answer> {
    const { target, caller, headers } = request;
    const { reference } = target;
    if (isDigest(reference) && !isStorable(reference)) return await this.#relay.answer(request);
    const key = repositoryKey(target);
    const held = await this.#held(request);
    if (held) {
      const isFresh = isDigest(reference) || !request.warming && this.#isFresh(held, target);
      const isAllowed = isFresh && await this.#access.mayRead(caller, key, held.proofs);
      logDecision(target, isAllowed ? "allowed" : isFresh ? "unproved" : "old");
      if (isAllowed) {
        const answer = await this.#reply(request, { ...held, cache: "HIT" }, held.checkedAt);
        if (answer) return await this.#heat?.(answer, request, this.#about(held, target)) ?? answer;
      } else if (this.#asker.isDown(target) && await this.#access.mayReadStale(caller, key)) {
        const answer = await this.#stale(request, held, "upstream was unreachable a moment ago");
        if (answer) return answer;
      }
    } else logDecision(target, "absent");
    await request.beforeMiss?.();
    let resolved: Resolved;
    try {
      resolved = await this.#resolve(request, held);
    } catch (error) {
      if (held && await this.#asker.mayServeStale(request, { error })) {
        const answer = await this.#stale(request, held, causeOf(error));
        if (answer) return answer;
      }
      throw error;
    }
    // The representation this client asks for is another: it gets its own answer, not somebody else's.
    if (!accepts(headers.get("accept"), resolved.mediaType)) {
      cacheLog.debug("{mediaType} is not acceptable to the client", {
        mediaType: resolved.mediaType,
      });
      return await this.#relay.answer(request);
    }
    const answer = await this.#reply(request, resolved, this.#now());
    if (answer) return answer;
    // It turned out to be damaged, or the disk is in trouble: that is not the client's.
    const fetched = await this.#fetch(request);
    return await this.#reply(request, fetched, this.#now()) ?? await this.#relay.answer(request);
  }

  /** What {@linkcode Heat} has to know of a manifest. */
  #about({ mediaType, digest, checkedAt }: Held, { reference }: Target): HotContent {
    return isDigest(reference)
      ? { digest, mediaType }
      : { digest, mediaType, tag: reference, until: checkedAt + this.#ttl };
  }

  /** Whether the tag's last meaning is recent enough; while pulls are scarce it lasts longer. */
  #isFresh({ checkedAt }: Held, { registry }: Target): boolean {
    const now = this.#now();
    if (!isPast(checkedAt, now)) return false;
    const age = now - checkedAt;
    return age < this.#ttl ||
      this.#quota !== undefined && age < this.#quota.ttl && this.#quota.isLow(registry);
  }

  /** Whether the tag was asked for since `began`, ms since the epoch. */
  #isSince({ checkedAt }: Held, began: number): boolean {
    return checkedAt >= began && isPast(checkedAt, this.#now());
  }

  /** What is here for `target`: the tag's last meaning, with its content and its link. */
  async #held(request: TargetRequest): Promise<Held | undefined> {
    const { reference } = request.target;
    const { tag, link, row: found, proofs } = await lookUp(request, {
      index: this.#index,
      access: this.#access,
      content: this.#content,
    });
    if (!link) return undefined;
    const digest = tag?.digest ?? reference;
    const row = found ?? await this.#content.row(digest);
    // What is larger is no manifest, whatever is noted of it: it is a blob, and would be read whole.
    if (!row || row.size > MAX_MANIFEST) return undefined;
    const { mediaType } = link;
    const checkedAt = tag?.checkedAt ?? row.createdAt;
    return { digest, mediaType, size: row.size, checkedAt, row, proofs };
  }

  /** The reply with a manifest, or undefined when its content turns out not to be here. */
  async #reply(
    request: TargetRequest,
    found: Resolved,
    checkedAt: number,
  ): Promise<Answer | undefined> {
    const { method, headers, target } = request;
    const { digest, mediaType, size, cache } = found;
    if (!accepts(headers.get("accept"), mediaType)) return await this.#relay.answer(request);
    const body = method === "HEAD" ? {} : await this.#body(found);
    if (!body) return undefined;
    if (method === "HEAD" && cache !== "MISS") this.#content.space.use(digest);
    const ageSeconds = cache === "MISS" || cache === "BYPASS"
      ? undefined
      : (this.#now() - checkedAt) / 1000;
    const byTag = !isDigest(target.reference);
    return contentAnswer(
      request,
      { kind: "manifest", digest, mediaType, size, cache, ageSeconds, byTag },
      body,
    );
  }

  /** The bytes of a manifest; undefined where they turn out not to be here. A large one is sent from the store. */
  async #body({ digest, size, bytes, row, cache }: Resolved): Promise<Body | undefined> {
    if (size <= IN_MEMORY) {
      const all = bytes ?? await this.#content.read(digest, row);
      return all && heldBody(digest, all);
    }
    const stored = cache === "BYPASS" ? undefined : await this.#content.openHashed(digest, row);
    if (!stored) return bytes && heldBody(digest, bytes);
    return {
      source: (part, onEnd) => wholeSource(stored, part, onEnd),
      close: () => stored.close(),
    };
  }

  async #stale(request: TargetRequest, held: Held, cause: string): Promise<Answer | undefined> {
    const { registry, repository, reference } = request.target;
    cacheLog.warn("Serving {repository}:{reference} of {registry} stale: {cause}", {
      registry: registry.name,
      repository,
      reference,
      cause,
    });
    return await this.#reply(request, { ...held, cache: "STALE" }, held.checkedAt);
  }

  /** Asks upstream, once for all who ask for the same at once with the same credential. */
  async #resolve(request: TargetRequest, held: Held | undefined): Promise<Resolved> {
    const { target, caller, method } = request;
    const needsBody = method !== "HEAD";
    const key = JSON.stringify([
      target.registry.id,
      target.repository,
      target.reference,
      caller.id,
      needsBody,
    ]);
    const resolved = await this.#flights.run(key, async () => {
      if (!held) return needsBody ? await this.#first(request) : await this.#head(request);
      const current = await this.#headFirst(request, held);
      if (current.digest === held.digest) return { ...held, cache: "HIT" };
      cacheLog.debug("{reference} is now {digest}", {
        reference: target.reference,
        digest: current.digest,
      });
      if (!needsBody || current.cache === "HIT" || current.bytes) return current;
      return await this.#get(request);
    });
    // Also for nobody in particular the operator's account may have been used.
    if (caller.credential.kind !== "anonymous" || target.registry.credential) {
      void this.#asker.probePublic(target);
    }
    return resolved;
  }

  /**
   * A manifest that is not here. A HEAD asks first while pulls are scarce, since it may be here by another tag; and for a
   * caller that has not been let in, as it does where the manifest is here: what is asked must not tell which it is.
   */
  async #first(request: TargetRequest): Promise<Resolved> {
    const { target, caller } = request;
    const { registry, reference } = target;
    const isScarce = !isDigest(reference) && this.#quota?.isLow(registry);
    const isLetIn = await this.#access.mayRead(caller, repositoryKey(target));
    if (isLetIn && !isScarce) return await this.#get(request);
    const current = await this.#headFirst(request);
    return current.cache === "MISS" && !current.bytes ? await this.#get(request) : current;
  }

  /**
   * What a HEAD tells; where that is refused, what a GET says of it, which has the registry's words and counts against
   * no limit: the same again whether the manifest is here or not.
   */
  async #headFirst(request: TargetRequest, held?: Held): Promise<Resolved> {
    try {
      return await this.#head(request, held);
    } catch (error) {
      const isRefused = error instanceof OciError && [401, 403, 404, 405].includes(error.status);
      if (!isRefused || request.method === "HEAD") throw error;
      return await this.#get(request);
    }
  }

  /** What the reference means now, by a HEAD: `HIT` where the repository is known to have it, and it is here. */
  async #head(request: TargetRequest, held?: Held): Promise<Resolved> {
    const { target, caller } = request;
    // Only for who would be given the old one then: from anybody else the time would tell that it is here.
    const mayBeOld = held && await this.#access.mayReadStale(caller, repositoryKey(target));
    const answer = await this.#asker.ask(target, {
      method: "HEAD",
      caller,
      headers: acceptEvery(),
      timeout: mayBeOld ? REVALIDATION_TIMEOUT : undefined,
      redirects: "follow",
    });
    const { headers } = answer.response;
    const digest = headers.get("docker-content-digest") ?? "";
    // Anything else tells too little, for us and for clients, or is no registry's answer: its bytes will tell.
    if (!isManifestHead(answer, target, MAX_MANIFEST) || !isStorable(digest)) {
      return await this.#get(request);
    }
    const mediaType = essence(headers.get("content-type") ?? "");
    const size = announcedLength(headers)!;
    // Content that is here by way of another repository is none of this one's because a HEAD says so: anybody can
    // say a digest. It is linked when its bytes have come from here. Nor does the answer tell that it is here.
    const isLinked =
      await this.#index.link({ ...repositoryKey(target), digest, kind: "manifest" }) !== undefined;
    const row = isLinked ? await this.#content.row(digest) : undefined;
    if (row && row.size !== size) throw otherAnswer(answer);
    await this.#asker.proved(request, answer);
    // Until the new meaning is here, the old one is what there is to serve should upstream get in trouble.
    if (row || !held) await this.#noteTag(request, digest);
    return { digest, mediaType, size, cache: row ? "HIT" : "MISS" };
  }

  /** The manifest itself, verified and stored; asked for by one instance where there are several. */
  async #get(request: TargetRequest): Promise<Resolved> {
    const together = this.#together;
    if (!together) return await this.#fetch(request);
    const { target, caller } = request;
    const { registry, repository } = repositoryKey(target);
    const began = this.#now();
    // Callers that upstream lets in wait for each other. Anybody else has a lease of his own, which holds up nobody.
    const isKnown = await this.#access.wasLetIn(caller, { registry, repository });
    const who = isKnown ? "" : together.nameOf(caller, { registry, repository });
    if (who === undefined) return await this.#fetch(request);
    const name = `${registry} ${repository} ${target.reference} ${who}`.trimEnd();
    return await together.once(name, {
      ask: () => this.#fetch(request),
      known: async () => {
        const held = await this.#held(request);
        const isNew = held && (isDigest(target.reference) || this.#isSince(held, began));
        if (!isNew) return;
        if (!await this.#access.mayRead(caller, { registry, repository }, held.proofs)) return;
        return { ...held, cache: "HIT" };
      },
    });
  }

  async #fetch(request: TargetRequest): Promise<Resolved> {
    const { target, caller } = request;
    const answer = await this.#asker.ask(target, {
      method: "GET",
      caller,
      headers: acceptEvery(),
      redirects: "follow",
    });
    const manifest: Manifest = await this.#relay.manifest(answer, request);
    const { digest, mediaType, bytes } = manifest;
    const held = sharedBytes.hold(digest, bytes);
    const isHere = await this.#content.put(digest, bytes).finally(held.release);
    if (isHere) await this.#link(request, { digest, mediaType, used: answer.used });
    await this.#noteTag(request, digest);
    return { ...manifest, size: bytes.byteLength, cache: isHere ? "MISS" : "BYPASS" };
  }

  /** Notes that the repository contains the manifest, whose bytes upstream just gave when asked with `used`. */
  async #link(
    { target }: TargetRequest,
    { digest, mediaType, used }: { digest: string; mediaType: string; used: Credential },
  ): Promise<void> {
    const key = repositoryKey(target);
    const link = { ...key, digest, kind: "manifest" } as const;
    // Whether it is public all the same is learned when the caller has been answered.
    if (!await this.#index.link(link)) await this.#access.revokePublic(key, used);
    await this.#index.addLink(link, { mediaType });
  }

  /** Notes what the tag means. For a HEAD too: containerd asks for tags by HEAD only, and then gets the digest. */
  async #noteTag({ target }: TargetRequest, digest: string): Promise<void> {
    const { reference } = target;
    if (isDigest(reference)) return;
    await this.#index.setTag(repositoryKey(target), reference, { digest, checkedAt: this.#now() });
  }
}
