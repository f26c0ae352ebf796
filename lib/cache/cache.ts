/**
 * The cache as the pipeline sees it: answers for manifests and blobs, opened from a directory, with its
 * upkeep in the background. Loaded only when the cache is on.
 *
 * @module
 */
import { Access, type AccessOptions } from "../auth/access.ts";
import type { Answer } from "../response/answer.ts";
import type { Config } from "../config/config.ts";
import type { ResponseCache } from "../response/response_cache.ts";
import type { DownloadQueues } from "../limits/downloads.ts";
import { cacheLog } from "../telemetry/log.ts";
import { Passthrough, type TargetRequest } from "../upstream/passthrough.ts";
import type { Stats } from "../telemetry/stats.ts";
import { RegistryClient } from "../upstream/registry_client.ts";
import type { Upstream } from "../upstream/client.ts";
import { span } from "../telemetry/trace.ts";
import { causeOf } from "../upstream/transport/send.ts";
import { Attachments } from "./attachments.ts";
import type { BlobStore } from "./store/blob_store.ts";
import { Blobs } from "./blobs.ts";
import { Content } from "./content/content.ts";
import { type BackendEvents, type Backends, openEmbedded } from "./backends.ts";
import { warnOfLostIndex } from "./content/recover.ts";
import { createHeat } from "./heat.ts";
import type { Index } from "./index/index.ts";
import { Manifests, type ManifestsOptions } from "./manifests.ts";
import { Referrers } from "./referrers.ts";
import { bestEffortIndex } from "./index/best_effort_index.ts";
import { IndexLockedError } from "./index/sqlite_file.ts";
import type { PeerRequest } from "./cluster/peer.ts";
import type { Coordinator } from "./cluster/coordinator.ts";
import { Maintenance } from "./content/maintenance.ts";
import { notifyInvalidation } from "./index/invalidation.ts";

/** The cache cannot be opened, and that is for the operator to mend. */
export class CacheOpenError extends Error {
  override readonly name = "CacheOpenError";
}

/** What the cache works with. */
export interface CacheOptions {
  readonly config: NonNullable<Config["cache"]>;
  readonly upstream: Upstream;
  readonly quota?: ManifestsOptions["quota"];
  readonly chooseAccount?: AccessOptions["chooseAccount"];
  /** Where downloads wait for a place. */
  readonly queues?: DownloadQueues;
  /** Where answers are kept that are asked for again and again; told of what changes. */
  readonly hot?: ResponseCache;
  /** How long upstream's body may stand still, ms. */
  readonly idle: number;
  readonly stats: Stats;
  /** Where this instance listens: others that share the cache reach it there, unless `ADVERTISE_URL` says. */
  readonly listen?: Config["listen"];
}

/** The parts of an open cache. */
interface Parts {
  readonly store: BlobStore;
  readonly index: Index;
  readonly content: Content;
  readonly access: Access;
  readonly asker: RegistryClient;
  readonly relay: Passthrough;
  readonly attachments: Attachments;
  readonly manifests: Manifests;
  readonly blobs: Blobs;
  readonly referrers: Referrers;
  readonly upkeep: Maintenance;
  readonly engines: Backends;
}

/** An open cache. */
export class Cache {
  readonly content: Content;
  readonly access: Access;
  readonly asker: RegistryClient;
  readonly relay: Passthrough;
  readonly store: BlobStore;
  readonly index: Index;
  readonly referrers: Referrers;
  readonly #attachments: Attachments;
  readonly #manifests: Manifests;
  readonly #blobs: Blobs;
  readonly #upkeep: Maintenance;
  readonly #engines: Backends;

  private constructor(parts: Parts) {
    this.content = parts.content;
    this.access = parts.access;
    this.asker = parts.asker;
    this.relay = parts.relay;
    this.store = parts.store;
    this.index = parts.index;
    this.referrers = parts.referrers;
    this.#attachments = parts.attachments;
    this.#manifests = parts.manifests;
    this.#blobs = parts.blobs;
    this.#upkeep = parts.upkeep;
    this.#engines = parts.engines;
  }

  /**
   * Opens the cache in `config.dir`. Returns undefined, with an error in the log, when the disk fails or is
   * full: clients are served without a cache then. Throws a {@linkcode CacheOpenError} for what the
   * operator has to mend: another process has the directory, or it may not be used.
   */
  static async open(options: CacheOptions): Promise<Cache | undefined> {
    const { config, upstream, idle, stats, queues } = options;
    // The index may turn out to be damaged before there is anybody to mend it for.
    let isDamaged = false;
    let mend = (): void => {
      isDamaged = true;
    };
    let tell = (): void => {};
    let engines: Backends;
    try {
      const events = { onDamaged: () => mend(), onRebuilt: () => tell() };
      engines = await openBackends(config, { events, stats, idle, listen: options.listen });
    } catch (error) {
      if (error instanceof CacheOpenError) throw error;
      stats.cacheEvents.add("disk_error");
      cacheLog.error("Cannot open cache, serving without it: {cause}", { cause: causeOf(error) });
      return undefined;
    }
    const { store, index } = engines;
    const content = new Content({ store, index, maxSize: config.maxSize, idle, stats });
    const upkeep = new Maintenance({ content, engines, blobTtl: config.blobTtl });
    mend = () => upkeep.repair();
    if (isDamaged) mend();
    if (config.only) {
      tell = () => void warnOfLostIndex(index).catch((error) => content.diskTrouble(error));
      if (await engines.isIndexWhole?.().catch(() => false) ?? true) tell();
    }
    const notes = bestEffortIndex(index, (error) => content.diskTrouble(error));
    const { tokens } = upstream;
    const access = new Access({
      marks: notes,
      isAnonymousToken: (token) => tokens.isAnonymous(token),
      shared: engines.together?.grants,
      chooseAccount: options.chooseAccount,
      // Where upstream is never asked, nothing that is known of it grows old.
      publicFor: config.only ? Infinity : undefined,
    });
    const asker = new RegistryClient({ upstream, access });
    const relay = new Passthrough({ asker, idle, stats, queues });
    // What another instance changes is not told here: there every answer is decided anew.
    const hot = engines.together ? undefined : options.hot;
    if (hot) notifyInvalidation(index, hot);
    const heat = hot && createHeat({
      access,
      use: (digest) => content.space.use(digest),
    });
    const shared = { content, index: notes, access, asker, relay, heat };
    const manifests = new Manifests({
      ...shared,
      together: engines.together,
      ttl: config.only ? Infinity : config.manifestTtl,
      quota: options.quota,
    });
    const { together } = engines;
    const redirect = config.storeRedirect ? store.redirect?.bind(store) : undefined;
    const blobs = new Blobs({ ...shared, together, redirect, queue: queues?.fills });
    const referrers = new Referrers(shared);
    const attachments = new Attachments(shared);
    upkeep.start();
    return new Cache({
      ...shared,
      store,
      index,
      attachments,
      manifests,
      blobs,
      referrers,
      upkeep,
      engines,
    });
  }

  /** The answer to a GET or HEAD of a manifest or blob; anything else is not cached. */
  async answer(request: TargetRequest): Promise<Answer> {
    const { registry, kind } = request.target;
    const attributes = { "registry.name": registry.name, "registry.kind": kind };
    return await span("cache", attributes, () => this.#answer(request));
  }

  async #answer(request: TargetRequest): Promise<Answer> {
    switch (request.target.kind) {
      case "manifest":
        return await this.#attachments.answer(request, () => this.#manifests.answer(request));
      case "blob":
        return await this.#blobs.answer(request);
      case "referrers":
        return await this.referrers.answer(request);
      default:
        return await this.relay.answer(request);
    }
  }

  /**
   * What another instance that shares the cache is given of a fill of ours; undefined for any other request.
   */
  peer(request: PeerRequest): Response | undefined {
    return this.#engines.together?.answer(request, {
      filling: (digest) => this.content.filling(digest),
    });
  }

  /** What instances that share the cache have in common beside it. */
  get together(): Coordinator | undefined {
    return this.#engines.together;
  }

  /** Ends; fills under way are waited for up to `grace` ms. */
  async close(grace: number): Promise<void> {
    await Promise.all([this.#upkeep.stop(), this.asker.close()]);
    await this.content.close(grace);
    await this.#engines.close();
  }
}

/**
 * Opens store and index. Throws a {@linkcode CacheOpenError} for what the operator has to mend, and what
 * the disk throws.
 */
export async function openBackends(
  config: NonNullable<Config["cache"]>,
  options: { events: BackendEvents; stats: Stats; idle: number; listen?: Config["listen"] },
): Promise<Backends> {
  try {
    if (config.store.engine !== "files") {
      // Loaded here, so that who has one machine has none of it.
      const { openShared } = await import("./shared_backends.ts");
      return await openShared(config, options);
    }
    return await openEmbedded(config.dir, options.events, config);
  } catch (error) {
    if (error instanceof IndexLockedError) {
      throw new CacheOpenError(`Cannot open cache: another process is using ${config.dir}`, {
        cause: error,
      });
    }
    const isForbidden = error instanceof Deno.errors.PermissionDenied ||
      error instanceof Deno.errors.NotCapable || error instanceof Deno.errors.NotADirectory;
    if (isForbidden) {
      throw new CacheOpenError(`Cannot open cache: ${causeOf(error)}: ${config.dir}`);
    }
    throw error;
  }
}
