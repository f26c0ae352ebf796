/**
 * Warms one image: its manifests, its blobs, and its attachments.
 *
 * @module
 */
import type { Caller } from "../auth/access.ts";
import type { Answer } from "../response/answer.ts";
import { COSIGN_SUFFIXES } from "../oci/attachment_tag.ts";
import type { Cache } from "../cache/cache.ts";
import { orAborted } from "../util/deadline.ts";
import type { ImageName } from "../oci/image_name.ts";
import { isDigest } from "../oci/digest.ts";
import { OciError } from "../oci/error.ts";
import { type Descriptor, readManifest } from "../oci/manifest.ts";
import { isIndex, isManifestType } from "../oci/media_type.ts";
import { isWanted, type Platforms } from "../oci/platform.ts";
import type { Target, TargetKind } from "../transforms/route.ts";
import { repositoryKey } from "../upstream/registry_client.ts";
import { causeOf } from "../upstream/transport/send.ts";
import type {
  WarmedImage,
  WarmFailure,
  WarmOptions,
  WarmProgress,
  WarmRole,
  WarmState,
} from "./warm.ts";
import { WorkList } from "../util/work_list.ts";

/** Maximum depth of nested indexes and of attachments of attachments. */
const MAX_DEPTH = 4;
/** Maximum number of parts of one image. An index of 4 MiB could name some 20,000. */
const MAX_PARTS = 10_000;
/** Progress of a layer is reported each time this many more bytes have arrived. */
const REPORT_EVERY = 2 ** 20;

/** A part to download. */
interface Part {
  readonly role: WarmRole;
  readonly reference: string;
  readonly platform?: string;
  readonly size?: number;
  readonly depth: number;
}

/** A cached manifest. */
interface Held {
  readonly digest: string;
  readonly mediaType: string;
  readonly bytes: Uint8Array;
}

/** Warms one image. An instance runs once. */
export class ImageWarmer {
  readonly #cache: Cache;
  readonly #name: ImageName;
  readonly #platforms: Platforms;
  readonly #signal?: AbortSignal;
  readonly #onProgress?: WarmOptions["onProgress"];
  readonly #work: WorkList;
  readonly #seen = new Set<string>();
  readonly #here = new Map<string, number>();
  readonly #lists = new Set<string>();
  readonly #failures: WarmFailure[] = [];
  readonly #manifestOnly: boolean;
  #caller: Caller;
  #fetched = 0;

  constructor(cache: Cache, options: WarmOptions & { name: ImageName }) {
    this.#cache = cache;
    this.#name = options.name;
    this.#platforms = options.platforms ?? "all";
    this.#signal = options.signal;
    this.#onProgress = options.onProgress;
    this.#work = new WorkList(options.concurrency ?? 4);
    this.#manifestOnly = options.manifestOnly ?? false;
    const { registry } = options.name;
    this.#caller = cache.access.caller(registry, { kind: "anonymous" });
  }

  async run(): Promise<WarmedImage> {
    const { name, reference } = this.#name;
    let digest: string | undefined;
    this.#start({ role: "manifest", reference, depth: 0 }, async (part) => {
      const held = await this.#manifest(part);
      digest = held.digest;
      if (!this.#manifestOnly) this.#descend(held, part);
    });
    // Do not wait for upstream, which may take long.
    await orAborted(this.#work.done(), this.#signal);
    return {
      image: name,
      ok: this.#failures.length === 0,
      digest,
      digests: [...this.#here.keys()],
      lists: [...this.#lists],
      size: [...this.#here.values()].reduce((sum, size) => sum + size, 0),
      fetched: this.#fetched,
      failures: this.#failures,
    };
  }

  /** Adds a part to the work list, unless it is there already. */
  #start(part: Part, work: (part: Part) => Promise<void>): void {
    const isManifest = part.role !== "config" && part.role !== "layer";
    // The same bytes may be a manifest in one place and a layer in another.
    const key = `${isManifest} ${part.reference}`;
    if (this.#seen.has(key)) return;
    this.#seen.add(key);
    if (this.#seen.size > MAX_PARTS) {
      if (this.#seen.size === MAX_PARTS + 1) this.#fail(part, "Too many parts");
      return;
    }
    this.#report(part, { state: "waiting" });
    this.#work.add(async () => {
      if (this.#signal?.aborted) return this.#work.clear();
      try {
        await work(part);
      } catch (error) {
        if (!this.#signal?.aborted) this.#fail(part, causeOf(error));
      }
    });
  }

  #report(part: Part, progress: Partial<WarmProgress> & { state: WarmState }): void {
    const { role, reference, platform, size } = part;
    const image = this.#name.name;
    this.#onProgress?.({ image, role, reference, platform, size, received: 0, ...progress });
  }

  #fail(part: Part, error: string): void {
    this.#failures.push({ role: part.role, reference: part.reference, error });
    this.#report(part, { state: "failed", error });
  }

  /** Records that a part is cached. */
  #arrived(part: Part, found: { digest: string; size: number; fetched: boolean }): void {
    const { digest, size, fetched } = found;
    this.#here.set(digest, size);
    if (fetched) this.#fetched += size;
    this.#report(part, { state: fetched ? "fetched" : "here", received: size, size });
  }

  #target(kind: TargetKind, reference: string): Target {
    const { registry, repository } = this.#name;
    return { registry, repository, kind, reference, base: "/v2/", prefix: "" };
  }

  /** Requests `target` from the cache as a client would. Throws an `OciError`. */
  async #ask(method: "GET" | "HEAD", target: Target): Promise<Answer> {
    return await this.#cache.answer({
      method,
      headers: new Headers(),
      url: new URL("http://localhost/"),
      target,
      caller: this.#caller,
      warming: true,
      client: "warm",
    });
  }

  /**
   * Requests a manifest by HEAD, which does not count against pull limits and shows whether the repository
   * is public. If it is not, this tries the operator's account. Content that it fetches is only served to
   * clients that prove their own access.
   */
  async #head(target: Target): Promise<Answer> {
    try {
      return await this.#ask("HEAD", target);
    } catch (error) {
      const { registry } = this.#name;
      const isRefused = error instanceof OciError && [401, 403, 404].includes(error.status);
      const isOwn = this.#caller.credential.kind !== "anonymous";
      if (!isRefused || isOwn || !registry.credential) throw error;
      const anonymous = this.#caller;
      this.#caller = this.#cache.access.caller(registry, { kind: "basic", ...registry.credential });
      try {
        return await this.#ask("HEAD", target);
      } catch {
        this.#caller = anonymous;
        throw error;
      }
    }
  }

  /**
   * Downloads one manifest. Throws an `OciError` if it is unavailable, or is not the current version
   * upstream.
   */
  async #manifest(part: Part): Promise<Held> {
    const target = this.#target("manifest", part.reference);
    this.#report(part, { state: "running" });
    // Access to the root manifest includes its children.
    if (part.depth === 0 && this.#name.registry.credential) await this.#head(target);
    const { response, cache } = await this.#ask("GET", target);
    const bytes = await response.bytes();
    if (cache === "BYPASS") throw noRoom();
    const held: Held = {
      digest: response.headers.get("docker-content-digest") ?? "",
      mediaType: response.headers.get("content-type") ?? "",
      bytes,
    };
    this.#arrived(part, {
      digest: held.digest,
      size: bytes.byteLength,
      fetched: cache === "MISS",
    });
    if (cache === "STALE" && !isDigest(part.reference)) {
      this.#fail(part, "Upstream is unavailable: kept the cached version");
    }
    return held;
  }

  /** Adds the manifest's references to the work list. */
  #descend(held: Held, part: Part): void {
    const depth = part.depth + 1;
    if (depth > MAX_DEPTH) return;
    const { children, config, layers } = readManifest(held.bytes, held.mediaType);
    const wanted = children.filter(({ platform }) => isWanted(platform, this.#platforms));
    if (children.length > 0 && wanted.length === 0) {
      this.#fail(part, `The index contains none of ${[...this.#platforms].join(", ")}`);
    }
    for (const child of wanted) this.#child(child, { part, depth });
    if (config) this.#blob(config, { role: "config", part, depth });
    for (const layer of layers) this.#blob(layer, { role: "layer", part, depth });
    this.#attached(held.digest, depth);
  }

  #child(child: Descriptor, { part, depth }: { part: Part; depth: number }): void {
    const { digest: reference, platform } = child;
    if (child.mediaType !== "" && !isManifestType(child.mediaType)) {
      return this.#blob(child, { role: "layer", part, depth });
    }
    const isAttached = part.role === "referrer" || part.role === "signature";
    const role = isAttached ? part.role : isIndex(child.mediaType) ? "index" : "manifest";
    this.#start({ role, reference, platform, size: sizeOf(child), depth }, async (part) => {
      this.#descend(await this.#manifest(part), part);
    });
  }

  #blob(
    blob: Descriptor,
    { role, part, depth }: { role: "config" | "layer"; part: Part; depth: number },
  ): void {
    const { digest: reference } = blob;
    this.#start(
      { role, reference, platform: part.platform, size: sizeOf(blob), depth },
      (own) => this.#fetchBlob(own, blob),
    );
  }

  /** Downloads one blob. */
  async #fetchBlob(part: Part, blob: Descriptor): Promise<void> {
    const { content, index } = this.#cache;
    const target = this.#target("blob", part.reference);
    const digest = part.reference;
    const link = { ...repositoryKey(target), digest, kind: "blob" } as const;
    const here = await index.link(link) && await content.open(digest);
    if (here) {
      here.close();
      return this.#arrived(part, { digest, size: here.size, fetched: false });
    }
    let answer: Answer;
    try {
      answer = await this.#ask("GET", target);
    } catch (error) {
      // A foreign layer: its licence forbids registries to distribute it, and clients know its URL.
      const isForeign = blob.urls !== undefined && error instanceof OciError &&
        error.status === 404;
      if (!isForeign) throw error;
      return this.#report(part, { state: "skipped" });
    }
    const { response, cache } = answer;
    if (cache === "BYPASS") {
      await response.body?.cancel();
      throw noRoom();
    }
    await this.#drain(part, response);
    // Readers receive the last byte shortly before the blob is in the store.
    await content.settled(digest);
    const stored = await content.open(digest);
    if (!stored) throw noRoom();
    stored.close();
    this.#arrived(part, { digest, size: stored.size, fetched: cache === "MISS" });
  }

  /** Reads a body to its end and reports progress. */
  async #drain(part: Part, response: Response): Promise<void> {
    const length = response.headers.get("content-length");
    const size = length === null ? part.size : Number(length);
    let received = 0;
    let reported = 0;
    this.#report(part, { state: "running", size });
    for await (const chunk of response.body ?? []) {
      this.#signal?.throwIfAborted();
      received += chunk.byteLength;
      if (received - reported < REPORT_EVERY) continue;
      reported = received;
      this.#report(part, { state: "running", received, size });
    }
  }

  /**
   * Finds attachments of a manifest through the API, or by tag if the registry has no API or cosign
   * attached them.
   */
  #attached(digest: string, depth: number): void {
    if (depth >= MAX_DEPTH) return;
    const tag = digest.replace(":", "-");
    const list: Part = { role: "referrer", reference: `referrers of ${digest}`, depth };
    this.#work.add(async () => {
      if (this.#signal?.aborted) return this.#work.clear();
      try {
        if (!await this.#referrers(digest, depth)) this.#tagged(tag, "referrer", depth);
      } catch (error) {
        if (!this.#signal?.aborted) this.#fail(list, causeOf(error));
      }
    });
    for (const suffix of COSIGN_SUFFIXES) this.#tagged(tag + suffix, "signature", depth);
  }

  /** Returns whether the registry lists attachments of `digest`. Adds them to the work list. */
  async #referrers(digest: string, depth: number): Promise<boolean> {
    const target = this.#target("referrers", digest);
    let answer: Answer;
    try {
      answer = await this.#ask("GET", target);
    } catch (error) {
      // Many registries lack this API, and signal it in different ways.
      const isUnknown = error instanceof OciError && error.status < 500 && error.status !== 429;
      if (!isUnknown) throw error;
      return false;
    } finally {
      for (const list of await this.#cache.referrers.kept(target)) this.#lists.add(list);
    }
    const bytes = await answer.response.bytes();
    const part: Part = { role: "referrer", reference: digest, depth };
    const { children } = readManifest(bytes, answer.response.headers.get("content-type") ?? "");
    for (const child of children) this.#child(child, { part, depth });
    return true;
  }

  /** Downloads what is attached by a tag, if the tag exists. */
  #tagged(tag: string, role: "referrer" | "signature", depth: number): void {
    this.#work.add(async () => {
      if (this.#signal?.aborted) return this.#work.clear();
      const part: Part = { role, reference: tag, depth };
      try {
        await this.#ask("HEAD", this.#target("manifest", tag));
      } catch (error) {
        const isUnknown = error instanceof OciError && error.status < 500 && error.status !== 429;
        if (!isUnknown) this.#fail(part, causeOf(error));
        return;
      }
      this.#start(part, async (part) => this.#descend(await this.#manifest(part), part));
    });
  }
}

function sizeOf({ size }: Descriptor): number | undefined {
  return size < 0 ? undefined : size;
}

function noRoom(): OciError {
  return new OciError("UNAVAILABLE", "Cannot store it: the cache is full or its disk is failing");
}
