/**
 * Turns: so many at once, the rest waiting in a queue in which nobody's many keep out another's one.
 *
 * @module
 */
import { OciError } from "../oci/error.ts";
import { startTimeout } from "../util/timeout.ts";

/** Whose turn it is to be, from the coarsest: a client, then what it wants. */
export interface TurnOwner {
  readonly client: string;
  readonly repository: string;
}

/** Somebody who waits. */
interface Waiter {
  start(): void;
}

/** Options for {@linkcode FairQueue}. */
export interface FairQueueOptions {
  /** How many have their turn at once. */
  readonly limit: number;
  /** How many wait at most. @default {10_000} */
  readonly maxWaiting?: number;
  /** How long one waits at most, ms; containerd gives up a pull without progress after 5 minutes. @default {240_000} */
  readonly maxWait?: number;
  /** Called for each that is turned away. */
  readonly onRejected?: () => void;
}

/** Waiters by repository, in the order of their next turns. */
type Repositories = Map<string, Waiter[]>;

/**
 * The queue. Clients take turns, and within a client its repositories do: a hundred layers wanted by one
 * wait behind each other and not before the one of somebody else.
 */
export class FairQueue {
  readonly #limit: number;
  readonly #maxWaiting: number;
  readonly #maxWait: number;
  readonly #onRejected?: () => void;
  /** By client, in the order of their next turns. */
  readonly #clients = new Map<string, Repositories>();
  #running = 0;
  #waiting = 0;

  constructor(options: FairQueueOptions) {
    this.#limit = options.limit;
    this.#maxWaiting = options.maxWaiting ?? 10_000;
    this.#maxWait = options.maxWait ?? 240_000;
    this.#onRejected = options.onRejected;
  }

  /** How many wait. */
  get waiting(): number {
    return this.#waiting;
  }

  /** How many have their turn. */
  get running(): number {
    return this.#running;
  }

  /**
   * Resolves when it is `owner`'s turn, with what ends it (once; more calls do nothing). Throws an
   * `OciError` (429) when too many wait, or when it took too long.
   */
  async enter(owner: TurnOwner): Promise<() => void> {
    if (this.#running < this.#limit) this.#running++;
    else await this.#wait(owner);
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      // The turn is handed on: nobody who comes just now gets in between.
      const next = this.#next();
      if (next) next.start();
      else this.#running--;
    };
  }

  async #wait(owner: TurnOwner): Promise<void> {
    if (this.#waiting >= this.#maxWaiting) throw this.#rejection("Too many downloads wait");
    const turn = Promise.withResolvers<void>();
    const waiter: Waiter = { start: turn.resolve };
    this.#add(owner, waiter);
    const stop = startTimeout(this.#maxWait, () => {
      if (this.#remove(owner, waiter)) turn.reject(this.#rejection("The download waited too long"));
    });
    try {
      await turn.promise;
    } finally {
      stop();
    }
  }

  #rejection(message: string): OciError {
    this.#onRejected?.();
    return new OciError("TOOMANYREQUESTS", message, { headers: { "retry-after": "10" } });
  }

  #add({ client, repository }: TurnOwner, waiter: Waiter): void {
    let repositories = this.#clients.get(client);
    if (!repositories) this.#clients.set(client, repositories = new Map());
    const waiters = repositories.get(repository);
    if (waiters) waiters.push(waiter);
    else repositories.set(repository, [waiter]);
    this.#waiting++;
  }

  /** Takes the next one out; its client and its repository go to the end of their rows. */
  #next(): Waiter | undefined {
    const [client] = this.#clients;
    if (!client) return undefined;
    const [name, repositories] = client;
    const [repository] = repositories;
    const [path, waiters] = repository!;
    const waiter = waiters.shift();
    this.#waiting--;
    repositories.delete(path);
    if (waiters.length > 0) repositories.set(path, waiters);
    this.#clients.delete(name);
    if (repositories.size > 0) this.#clients.set(name, repositories);
    return waiter;
  }

  #remove({ client, repository }: TurnOwner, waiter: Waiter): boolean {
    const repositories = this.#clients.get(client);
    const waiters = repositories?.get(repository);
    const at = waiters?.indexOf(waiter) ?? -1;
    if (!repositories || !waiters || at < 0) return false;
    waiters.splice(at, 1);
    this.#waiting--;
    if (waiters.length === 0) repositories.delete(repository);
    if (repositories.size === 0) this.#clients.delete(client);
    return true;
  }
}
