/**
 * A fill that runs on another instance: its bytes as they come, so that upstream is asked once for all
 * instances, and what the others are given of ours.
 *
 * @module
 */
import { timingSafeEqual } from "node:crypto";
import type { RequestContext } from "../../request/request_context.ts";
import { cacheLog } from "../../telemetry/log.ts";
import type { Source } from "../../upstream/download/download.ts";
import { startTimeout } from "../../util/timeout.ts";
import type { BlobStore, StoredBlob } from "../store/blob_store.ts";
import type { Fill } from "../content/fill.ts";
import type { Lease, LeaseHolder, Leases } from "./lease.ts";
import { LEASE_LIFE } from "../store/redis.ts";

/** Where instances ask each other. No registry's route can begin so. */
export const PEER_PATH = "/.fills/";
/** How long an instance that gives no answer is tried before upstream is read here too, ms. */
const PATIENCE = 2_000;
/** For how long an instance that could not be reached is not tried again, ms: a pull is many blobs. */
const AVOIDED_FOR = 30_000;
/** How many such instances are remembered. */
const MAX_AVOIDED = 256;
/** What an instance says of itself when it has nothing of a fill yet: any other 404 comes from somewhere else. */
const NOTHING_YET = "x-fill";
/** How often the lease of an instance that is followed is looked at, ms. */
const WATCH_EVERY = 2_000;
/** How often a fill that cannot be reached is looked for again, ms. */
const LOOK_AGAIN = 500;

/** As much of a request as is looked at here. */
export type PeerRequest = Pick<RequestContext, "headers" | "path">;

/** What another instance is given of `fill`: from the byte it asks for on, as it comes. */
export function peerResponse(request: PeerRequest, fill: Fill): Response {
  const start = Number(/^bytes=(\d{1,15})-$/.exec(request.headers.get("range") ?? "")?.[1] ?? 0);
  const end = fill.size === undefined ? Infinity : fill.size - 1;
  const headers = {
    "content-type": "application/octet-stream",
    "content-range": `bytes ${start}-${fill.size === undefined ? "" : end}/${fill.size ?? "*"}`,
    "cache-control": "no-store",
  };
  return new Response(fill.stream({ start, end }, () => {}), { status: 206, headers });
}

/** What another instance is told that asks for a fill that has not begun here, or has ended. */
export function peerHasNothing(): Response {
  return new Response(null, { status: 404, headers: { [NOTHING_YET]: "none" } });
}

/** Instances that could not be reached lately, and whether that has been told. */
export class UnreachablePeers {
  readonly #since = new Map<string, number>();
  readonly #now: () => number;

  constructor({ now = performance.now.bind(performance) }: { now?: () => number } = {}) {
    this.#now = now;
  }

  /** Whether the instance need not be tried now. */
  has({ url }: LeaseHolder): boolean {
    return this.#now() - (this.#since.get(url) ?? -Infinity) < AVOIDED_FOR;
  }

  /** Notes that it could not be reached, and says so unless that was said since it last could be. */
  add({ url }: LeaseHolder): void {
    if (!this.#since.has(url)) {
      cacheLog.warn(
        "Cannot reach the instance at {url}, reading from upstream: see its ADVERTISE_URL",
        {
          url,
        },
      );
    }
    this.#since.delete(url);
    this.#since.set(url, this.#now());
    for (const oldest of this.#since.keys()) {
      if (this.#since.size <= MAX_AVOIDED) break;
      this.#since.delete(oldest);
    }
  }

  /** Notes that it was reached. */
  delete({ url }: LeaseHolder): void {
    this.#since.delete(url);
  }
}

/** Whether `request` shows `key`. */
export function showsKey(request: PeerRequest, key: string): boolean {
  const shown = new TextEncoder().encode(request.headers.get("authorization") ?? "");
  const expected = new TextEncoder().encode(`Bearer ${key}`);
  return shown.byteLength === expected.byteLength && timingSafeEqual(shown, expected);
}

/** Bytes from `offset` on. */
interface Rest {
  readonly body: ReadableStream<Uint8Array>;
  /** Of the whole, where it is known. */
  readonly size: number | undefined;
}

/** `body`, once its first bytes are here, or its end. */
async function firstByte(body: ReadableStream<Uint8Array>): Promise<ReadableStream<Uint8Array>> {
  const reader = body.getReader();
  const first = await reader.read();
  let isFirst = true;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = isFirst ? first : await reader.read();
      isFirst = false;
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}

/**
 * The fill of `digest` at `holder` from `offset` on, until `signal`. `"none"` where it says that it has nothing of it;
 * undefined where it gives no answer of its own within `ms`.
 */
async function fromPeer(
  holder: LeaseHolder,
  { digest, offset, signal, ms }: {
    digest: string;
    offset: number;
    signal: AbortSignal;
    ms: number;
  },
): Promise<Rest | "none" | undefined> {
  // Until the first byte only: the rest may take its time, and the fill watches over that.
  const late = new AbortController();
  const stop = startTimeout(ms, () => late.abort());
  try {
    const response = await fetch(holder.url + PEER_PATH + digest, {
      headers: { "authorization": `Bearer ${holder.key}`, "range": `bytes=${offset}-` },
      redirect: "error",
      signal: AbortSignal.any([signal, late.signal]),
    });
    if (response.status === 206 && response.body) {
      const total = /\/(\d{1,15})$/.exec(response.headers.get("content-range") ?? "")?.[1];
      const body = await firstByte(response.body);
      return { body, size: total === undefined ? undefined : Number(total) };
    }
    await response.body?.cancel();
    if (response.headers.has(NOTHING_YET)) return "none";
  } catch {
    // Gone, or not to be reached from here: the lease tells what comes of it.
  } finally {
    stop();
  }
}

/** The bytes of `blob` from `offset` on; `onError` hears that they cannot be read. */
function bytesFrom(
  blob: StoredBlob,
  { offset, onError }: { offset: number; onError: () => void },
): ReadableStream<Uint8Array> {
  let position = offset;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const buffer = new Uint8Array(256 * 1024);
      try {
        const n = await blob.read(position, buffer);
        if (n > 0) {
          position += n;
          return controller.enqueue(buffer.subarray(0, n));
        }
      } catch (error) {
        blob.close();
        onError();
        throw error;
      }
      blob.close();
      controller.close();
    },
    cancel: () => blob.close(),
  }, { highWaterMark: 0 });
}

/** Options for {@linkcode FollowedSource}. */
export interface FollowedSourceOptions {
  readonly digest: string;
  readonly holder: LeaseHolder;
  readonly leases: Leases;
  readonly store: Pick<BlobStore, "stat">;
  /** Opens what is stored of `digest`, if that is what the index says. */
  readonly open: (digest: string) => Promise<StoredBlob | undefined>;
  /** Hashes what is stored of `digest`, which may be damaged, and sets it aside if it is. Never throws. */
  readonly check: (digest: string) => Promise<void>;
  /** Upstream, for when nobody else fills any more, or cannot be reached. */
  readonly upstream: Source;
  readonly unreachable: UnreachablePeers;
}

/** The bytes of another instance's fill; of the store when it is done, of upstream when it died. */
export class FollowedSource implements Source {
  readonly #options: FollowedSourceOptions;
  #holder: LeaseHolder | undefined;
  #lease: Lease | undefined;
  #isAlone = false;
  /** Whether upstream is read although somebody else has the lease: he cannot be reached. */
  #isBeside = false;
  #size: number | undefined;
  /** Whether what is stored could not be read: it is not tried again, for upstream has it too. */
  #isStoreInTrouble = false;
  /** From where bytes came that upstream did not send to us. */
  #isPeerUsed = false;
  #isStoreUsed = false;
  /** Ends what comes of the other instance. */
  #leaving = new AbortController();
  #watching: ReturnType<typeof setInterval> | undefined;

  constructor(options: FollowedSourceOptions) {
    this.#options = options;
    this.#holder = options.holder;
  }

  /** Bytes of the whole, once somebody said. */
  get size(): number | undefined {
    return this.#size;
  }

  /** Whether what comes of this fill is ours to publish. */
  get isOurs(): boolean {
    return this.#isAlone || this.#lease !== undefined;
  }

  /**
   * Whether it may be published by us: where Redis went, whoever has the bytes publishes them. What was read beside a
   * holder waits for its lease, until `closing` at most: one that lives publishes, one that died does not.
   */
  async mayPublish(closing?: Promise<void>): Promise<boolean> {
    if (this.#isBeside && !this.isOurs) await this.#inherit(closing);
    return this.isOurs && await (this.#lease?.isHeld() ?? true);
  }

  async #inherit(closing: Promise<void> | undefined): Promise<void> {
    const { digest, leases, store } = this.#options;
    let isClosing = false;
    closing?.then(() => isClosing = true);
    const until = performance.now() + LEASE_LIFE + WATCH_EVERY;
    try {
      while (true) {
        if (await store.stat(digest)) return;
        const taken = await leases.acquire(digest);
        if ("lease" in taken) return void (this.#lease = taken.lease);
        if (isClosing || performance.now() >= until) return;
        const pause = new Promise<void>((resolve) => setTimeout(resolve, LOOK_AGAIN));
        await Promise.race([pause, ...closing ? [closing] : []]);
      }
    } catch {
      // Store or Redis cannot be asked: it is not known whose it is, and the holder may be at it still.
    }
  }

  /** Ends what was begun for it. */
  async release(): Promise<void> {
    clearInterval(this.#watching);
    await this.#lease?.release();
  }

  async open(offset: number, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    return await this.find(offset, signal) ?? await this.#options.upstream.open(offset, signal);
  }

  /** The bytes from `offset` on that somebody else has or gets; undefined where upstream is to be asked here. */
  async find(
    offset: number,
    signal?: AbortSignal,
  ): Promise<ReadableStream<Uint8Array> | undefined> {
    let isLate = false;
    // Time in which the event loop stood still is not the holder's.
    const stop = startTimeout(PATIENCE, () => isLate = true);
    try {
      return await this.#find(offset, { signal, isLate: () => isLate });
    } finally {
      stop();
    }
  }

  async #find(
    offset: number,
    { signal, isLate }: {
      readonly signal: AbortSignal | undefined;
      readonly isLate: () => boolean;
    },
  ): Promise<ReadableStream<Uint8Array> | undefined> {
    const { digest, leases, unreachable } = this.#options;
    while (!this.isOurs && !this.#isBeside) {
      signal?.throwIfAborted();
      const asked = this.#holder;
      const rest = await this.#fromHolder(offset, isLate() ? LOOK_AGAIN : PATIENCE);
      if (rest && asked) unreachable.delete(asked);
      const found = rest instanceof Object ? rest : await this.#fromStore(offset);
      if (found) {
        if (found === rest) this.#isPeerUsed = true;
        else this.#isStoreUsed = true;
        this.#size ??= found.size;
        return found.body;
      }
      try {
        const taken = await leases.acquire(digest);
        if ("lease" in taken) this.#lease = taken.lease;
        else this.#holder = taken.holder;
      } catch {
        this.#isAlone = true; // nobody can be asked
      }
      if (this.isOurs) break;
      // It has the lease. If it says nothing at all, its fill may be long, and the client has waited long enough.
      const isKnown = asked !== undefined && unreachable.has(asked);
      if (asked && !rest && (isKnown || isLate())) {
        if (!isKnown) unreachable.add(asked);
        this.#isBeside = true;
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN));
    }
    clearInterval(this.#watching);
  }

  /** Has what is stored looked at, if some of the wrong bytes came from there. */
  mismatched(reason: string): boolean {
    if (!this.#isPeerUsed && !this.#isStoreUsed) return false;
    const { digest, check } = this.#options;
    cacheLog.error("Bytes of {digest} from {where} are wrong: {reason}", {
      digest,
      where: this.#isStoreUsed ? "the store" : "another instance",
      reason,
    });
    if (this.#isStoreUsed) void check(digest);
    return true;
  }

  async #fromStore(offset: number): Promise<Rest | undefined> {
    if (this.#isStoreInTrouble) return undefined;
    const onError = () => void (this.#isStoreInTrouble = true);
    const blob = await this.#options.open(this.#options.digest).catch(onError);
    if (!blob) return undefined;
    const { size } = blob;
    if (size === (this.#size ?? size)) return { body: bytesFrom(blob, { offset, onError }), size };
    blob.close();
    onError();
  }

  async #fromHolder(offset: number, ms: number): Promise<Rest | "none" | undefined> {
    const holder = this.#holder;
    if (!holder || this.#options.unreachable.has(holder)) return undefined;
    const { digest } = this.#options;
    this.#watch(holder);
    const { signal } = this.#leaving;
    return await fromPeer(holder, { digest, offset, signal, ms });
  }

  /**
   * Looks now and then whether the other still has its lease. An instance that stands still keeps its
   * connections, and they would be waited for as for a slow upstream.
   */
  #watch(holder: LeaseHolder): void {
    const { digest, leases } = this.#options;
    clearInterval(this.#watching);
    const leaving = this.#leaving = new AbortController();
    let missed = 0;
    this.#watching = setInterval(async () => {
      // While nobody can be asked nothing is known of it.
      const isHeld = await leases.isHeldBy(digest, holder).catch(() => true);
      // One that was released a moment ago may still be sending the end.
      missed = isHeld ? 0 : missed + 1;
      if (missed < 2) return;
      clearInterval(this.#watching);
      if (this.#holder === holder) this.#holder = undefined;
      leaving.abort(new Error("The instance that downloads it lost its lease"));
    }, WATCH_EVERY);
    Deno.unrefTimer(this.#watching);
  }
}
