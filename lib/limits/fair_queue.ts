/**
 * A fair queue for a limited number of places. Clients take turns, so that one client's many requests
 * cannot starve another's. Every operation takes constant time.
 *
 * @module
 */
import { OciError } from "../oci/error.ts";
import { LinkedList, ListNode } from "../util/linked_list.ts";
import { startTimeout } from "../util/timeout.ts";

/** The owner of a place: a client, and one of its repositories. */
export interface QueueOwner {
  readonly client: string;
  readonly repository: string;
}

/** Options for {@linkcode FairQueue}. */
export interface FairQueueOptions {
  /** Number of places. */
  readonly limit: number;
  /** Maximum number of places per client. @default {limit} */
  readonly perClient?: (client: string) => number;
  /** Maximum number of waiters. @default {10_000} */
  readonly maxWaiting?: number;
  /**
   * Maximum waiting time, in ms. containerd aborts a pull without progress after 5 minutes. @default
   * {240_000}
   */
  readonly maxWait?: number;
  /** Called for each rejected waiter. */
  readonly onRejected?: () => void;
}

/** A waiter. */
class Waiter {
  readonly client: Client;
  readonly repository: Repository;
  readonly turn = Promise.withResolvers<void>();
  /** Its entries in its client's list, by arrival, and in its repository's. */
  readonly byArrival = new ListNode<Waiter>(this);
  readonly inRepository = new ListNode<Waiter>(this);

  constructor(client: Client, repository: Repository) {
    this.client = client;
    this.repository = repository;
  }
}

/** A repository with waiters. */
class Repository {
  readonly name: string;
  readonly waiters = new LinkedList<Waiter>();
  readonly node = new ListNode<Repository>(this);

  constructor(name: string) {
    this.name = name;
  }
}

/** A client with places or waiters. */
class Client {
  readonly name: string;
  readonly perClient: number;
  running = 0;
  readonly waiters = new LinkedList<Waiter>();
  /** In the order of their next turns. */
  readonly repositories = new LinkedList<Repository>();
  readonly byName = new Map<string, Repository>();
  /** Its entries among those whose turn can come, and among those with as many waiters. */
  readonly ready = new ListNode<Client>(this);
  readonly ranked = new ListNode<Client>(this);

  constructor(name: string, perClient: number) {
    this.name = name;
    this.perClient = perClient;
  }
}

/**
 * The queue. Clients take turns, and within a client its repositories do: a hundred layers wanted by one
 * wait behind each other and not before the one of somebody else. Where too many wait, the client with the most
 * waiters loses the one that came last.
 */
export class FairQueue {
  readonly #limit: number;
  readonly #perClient: (client: string) => number;
  readonly #maxWaiting: number;
  readonly #maxWait: number;
  readonly #onRejected?: () => void;
  /** Those with a place or a waiter. */
  readonly #clients = new Map<string, Client>();
  /** Those with a waiter and without all the places that they may have, in the order of their next turns. */
  readonly #ready = new LinkedList<Client>();
  /** By how many waiters they have. */
  readonly #ranks: LinkedList<Client>[] = [];
  /** The most waiters that a client has. */
  #longest = 0;
  #running = 0;
  #waiting = 0;

  constructor(options: FairQueueOptions) {
    this.#limit = options.limit;
    this.#perClient = options.perClient ?? (() => options.limit);
    this.#maxWaiting = options.maxWaiting ?? 10_000;
    this.#maxWait = options.maxWait ?? 240_000;
    this.#onRejected = options.onRejected;
  }

  /** Number of waiters. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Number of places in use. */
  get running(): number {
    return this.#running;
  }

  /** Number of clients with a place or a waiter. */
  get clients(): number {
    return this.#clients.size;
  }

  /** A place if one is free for `owner` now, as {@linkcode enter} gives it; else undefined. */
  tryEnter(owner: QueueOwner): (() => void) | undefined {
    const client = this.#client(owner);
    if (!this.#isFree(client)) {
      this.#forget(client);
      return undefined;
    }
    return this.#give(client);
  }

  /**
   * Resolves when it is `owner`'s turn, with what gives the place back (once; more calls do nothing). Throws
   * an `OciError` (429) when too many wait, or when it took too long, and `signal`'s reason once that is
   * aborted.
   */
  async enter(owner: QueueOwner, signal?: AbortSignal): Promise<() => void> {
    signal?.throwIfAborted();
    const client = this.#client(owner);
    if (this.#isFree(client)) return this.#give(client);
    await this.#wait(client, owner.repository, signal);
    return this.#leaving(client);
  }

  #isFree(client: Client): boolean {
    return this.#running < this.#limit && client.running < client.perClient;
  }

  #give(client: Client): () => void {
    this.#running++;
    client.running++;
    return this.#leaving(client);
  }

  #leaving(client: Client): () => void {
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#running--;
      client.running--;
      this.#rank(client);
      // The place is handed on directly, so that no newcomer takes it.
      this.#next();
      this.#forget(client);
    };
  }

  async #wait(client: Client, repository: string, signal?: AbortSignal): Promise<void> {
    if (this.#waiting >= this.#maxWaiting) this.#makeRoom(client);
    const waiter = this.#add(client, repository);
    const giveUp = (reason: () => unknown) => {
      if (this.#remove(waiter)) waiter.turn.reject(reason());
    };
    const tooLong = () => this.#rejection("The download was queued for too long");
    const stop = startTimeout(this.#maxWait, () => giveUp(tooLong));
    const onAbort = () => giveUp(() => signal?.reason);
    signal?.addEventListener("abort", onAbort);
    try {
      await waiter.turn.promise;
    } finally {
      stop();
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /** Has the longest list lose its tail; where that is the newcomer's own, throws that it is turned away. */
  #makeRoom(client: Client): void {
    const tail = this.#ranks[this.#longest]?.first?.value.waiters.last?.value;
    if (!tail || client.waiters.size + 1 >= this.#longest) {
      this.#forget(client);
      throw this.#rejection("Too many downloads are queued");
    }
    this.#remove(tail);
    tail.turn.reject(this.#rejection("This client has too many queued downloads"));
  }

  #rejection(message: string): OciError {
    this.#onRejected?.();
    return new OciError("TOOMANYREQUESTS", message, { headers: { "retry-after": "10" } });
  }

  #client({ client: name }: QueueOwner): Client {
    let client = this.#clients.get(name);
    if (!client) this.#clients.set(name, client = new Client(name, this.#perClient(name)));
    return client;
  }

  #forget(client: Client): void {
    if (client.running === 0 && client.waiters.size === 0) this.#clients.delete(client.name);
  }

  #add(client: Client, name: string): Waiter {
    let repository = client.byName.get(name);
    if (!repository) {
      client.byName.set(name, repository = new Repository(name));
      client.repositories.push(repository.node);
    }
    const waiter = new Waiter(client, repository);
    repository.waiters.push(waiter.inRepository);
    client.waiters.push(waiter.byArrival);
    this.#waiting++;
    this.#rank(client);
    return waiter;
  }

  /** Removes `waiter`. Returns whether it was still waiting. */
  #remove({ client, repository, byArrival, inRepository }: Waiter): boolean {
    if (!client.waiters.remove(byArrival)) return false;
    repository.waiters.remove(inRepository);
    if (repository.waiters.size === 0) {
      client.repositories.remove(repository.node);
      client.byName.delete(repository.name);
    }
    this.#waiting--;
    this.#rank(client);
    this.#forget(client);
    return true;
  }

  /** Puts `client` where it belongs after something of it has changed. */
  #rank(client: Client): void {
    const { ranked, ready, waiters: { size } } = client;
    ranked.list?.remove(ranked);
    if (size > 0) (this.#ranks[size] ??= new LinkedList()).push(ranked);
    // One at a time: the longest changes by one.
    if (size > this.#longest) this.#longest = size;
    while (this.#longest > 0 && !this.#ranks[this.#longest]?.size) {
      this.#ranks.length = this.#longest--;
    }
    const isReady = size > 0 && client.running < client.perClient;
    if (!isReady) this.#ready.remove(ready);
    else if (!ready.list) this.#ready.push(ready);
  }

  /** Gives a free place to the next one; its client and its repository go to the end of their rows. */
  #next(): void {
    if (this.#running >= this.#limit) return;
    const client = this.#ready.first?.value;
    const repository = client?.repositories.first;
    const waiter = repository?.value.waiters.first?.value;
    if (!client || !repository || !waiter) return;
    this.#running++;
    client.running++;
    this.#ready.remove(client.ready);
    client.repositories.remove(repository);
    client.repositories.push(repository);
    this.#remove(waiter);
    waiter.turn.resolve();
  }
}
