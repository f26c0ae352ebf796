/**
 * A fill that runs on another instance: its bytes as they come, so that upstream is asked once for all
 * instances, and what the others are given of ours.
 *
 * @module
 */
import { timingSafeEqual } from "node:crypto";
import type { RequestContext } from "../request/request_context.ts";
import type { Source } from "../upstream/download.ts";
import { startTimeout } from "../util/timeout.ts";
import type { BlobStore } from "./blob_store.ts";
import type { Fill } from "./fill.ts";
import type { Lease, LeaseHolder, Leases } from "./lease.ts";

/** Where instances ask each other. No registry's route can begin so. */
export const PEER_PATH = "/.fills/";
/** Another instance must begin to answer within this, ms. */
const PEER_TIMEOUT = 5_000;
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

/** The fill of `digest` at `holder` from `offset` on, until `signal`; undefined where it has none. */
async function fromPeer(
  holder: LeaseHolder,
  { digest, offset, signal }: { digest: string; offset: number; signal: AbortSignal },
): Promise<Rest | undefined> {
  // Until the headers only: the body may take its time, and the fill watches over that.
  const late = new AbortController();
  const stop = startTimeout(PEER_TIMEOUT, () => late.abort());
  try {
    const response = await fetch(holder.url + PEER_PATH + digest, {
      headers: { "authorization": `Bearer ${holder.key}`, "range": `bytes=${offset}-` },
      redirect: "error",
      signal: AbortSignal.any([signal, late.signal]),
    });
    if (response.status === 206 && response.body) {
      const total = /\/(\d+)$/.exec(response.headers.get("content-range") ?? "")?.[1];
      return { body: response.body, size: total === undefined ? undefined : Number(total) };
    }
    await response.body?.cancel();
  } catch {
    // Gone, or not to be reached from here: the lease tells what comes of it.
  } finally {
    stop();
  }
}

/** What is stored of `digest` from `offset` on; undefined when it is not there. */
async function fromStore(
  store: BlobStore,
  { digest, offset }: { digest: string; offset: number },
): Promise<Rest | undefined> {
  const blob = await store.open(digest).catch(() => undefined); // in trouble: upstream has it
  if (!blob) return undefined;
  let position = offset;
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const buffer = new Uint8Array(256 * 1024);
      const n = await blob.read(position, buffer);
      if (n > 0) {
        position += n;
        return controller.enqueue(buffer.subarray(0, n));
      }
      blob.close();
      controller.close();
    },
    cancel: () => blob.close(),
  }, { highWaterMark: 0 });
  return { body, size: blob.size };
}

/** Options for {@linkcode FollowedSource}. */
export interface FollowedSourceOptions {
  readonly digest: string;
  readonly holder: LeaseHolder;
  readonly leases: Leases;
  readonly store: BlobStore;
  /** Upstream, for when nobody else fills any more. */
  readonly upstream: Source;
}

/** The bytes of another instance's fill; of the store when it is done, of upstream when it died. */
export class FollowedSource implements Source {
  readonly #options: FollowedSourceOptions;
  #holder: LeaseHolder | undefined;
  #lease: Lease | undefined;
  #isAlone = false;
  #size: number | undefined;
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

  /** Whether it may be published by us: where Redis went, whoever has the bytes publishes them. */
  async mayPublish(): Promise<boolean> {
    return this.isOurs && await (this.#lease?.isHeld() ?? true);
  }

  /** Ends what was begun for it. */
  async release(): Promise<void> {
    clearInterval(this.#watching);
    await this.#lease?.release();
  }

  async open(offset: number, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const { digest, leases, store, upstream } = this.#options;
    while (!this.isOurs) {
      signal?.throwIfAborted();
      const rest = await this.#fromHolder(offset) ?? await fromStore(store, { digest, offset });
      if (rest) {
        this.#size ??= rest.size;
        return rest.body;
      }
      try {
        const taken = await leases.acquire(digest);
        if ("lease" in taken) this.#lease = taken.lease;
        else this.#holder = taken.holder;
      } catch {
        this.#isAlone = true; // nobody can be asked
      }
      // It is alive and cannot be reached: its object will come, or its lease will end.
      if (!this.isOurs) await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN));
    }
    return await upstream.open(offset, signal);
  }

  async #fromHolder(offset: number): Promise<Rest | undefined> {
    if (!this.#holder) return undefined;
    const { digest } = this.#options;
    this.#watch(this.#holder);
    const { signal } = this.#leaving;
    return await fromPeer(this.#holder, { digest, offset, signal });
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
