/**
 * The connections of a listener: how many there may be, and for how long one may wait for what.
 *
 * @module
 */

import { rateLimitKey } from "../../transforms/policy.ts";
import { plainAddress } from "../../util/address.ts";

/** What a connection waits for. */
export type Waiting = "request" | "rest of request" | "answer" | "client" | "goodbye";

/** How long, ms, a connection may wait for something before it is broken off. */
export type Timeouts = Readonly<Record<Waiting, number>>;

/** What is held of a connection. */
export interface ManagedConnection {
  /** What it waits for, and since when: ms, by the clock of {@linkcode Connections.check}. */
  readonly waiting: { readonly on: Waiting; readonly since: number };
  /** The address at its other end, where it has one. */
  readonly address?: string;
  /** What it takes of the memory of requests and answers under way, bytes. @default {0} */
  readonly memory?: number;
  /** Takes no request more: ends when what it has been asked is answered. */
  drain(): void;
  /** Breaks it off. */
  close(): void;
}

const PATIENCE: Timeouts = {
  /** Longer than clients and load balancers keep theirs: they should be the first to close. */
  "request": 120_000,
  "rest of request": 30_000,
  /** What the answer is made of has limits of its own. */
  "answer": Infinity,
  /** For one buffer to be taken. */
  "client": 10 * 60_000,
  /** Of one that is to end, to be heard; and nothing else is asked for any more. */
  "goodbye": 2_000,
};
/** An idle one takes 15 KB, with TLS 45. */
const MOST = 8192;
/** Of one address: a hundred nodes behind one, with the three downloads at once that Docker makes, are too busy for it. */
const MOST_OF_ONE = 256;
/** Of those who ask for nothing, the part that has to go when there is no room for another. */
const SHED = 1 / 16;
/** A client that has neither taken nor sent anything for so long, ms, makes way where memory is short. */
const STALLED = 2_000;

/** Options for {@linkcode Connections}. */
export interface ConnectionsOptions {
  /** Connections at once. @default {8192} */
  readonly most?: number;
  /** Of those, of one address, an IPv6 one by its /64. @default {256} */
  readonly mostOfOne?: number;
  /** Whether connections of `address` are without that limit: a proxy's, which come from many clients. @default {none} */
  readonly isProxy?: (address: string) => boolean;
  /** Called for each that is turned away because its address has too many that are busy. */
  readonly onRefused?: () => void;
  /** @default {as a registry needs it} */
  readonly patience?: Partial<Timeouts>;
}

/** All connections of a listener. */
export class Connections {
  readonly #held = new Set<ManagedConnection>();
  readonly #most: number;
  readonly #patience: Timeouts;
  readonly #mostOfOne: number;
  readonly #isProxy: (address: string) => boolean;
  readonly #onRefused: () => void;
  /** Those of one address, in the order they came. */
  readonly #byAddress = new Map<string, Set<ManagedConnection>>();

  constructor(options: ConnectionsOptions = {}) {
    const { most = MOST, mostOfOne = MOST_OF_ONE, patience } = options;
    this.#most = most;
    this.#mostOfOne = mostOfOne;
    this.#isProxy = options.isProxy ?? (() => false);
    this.#onRefused = options.onRefused ?? (() => {});
    this.#patience = { ...PATIENCE, ...patience };
  }

  /** How many there are. */
  get size(): number {
    return this.#held.size;
  }

  /** Holds `held` as long as `work` lasts. */
  async hold<T>(held: ManagedConnection, work: () => Promise<T>): Promise<T> {
    this.#held.add(held);
    const key = this.#keyOf(held.address);
    let own = key === undefined ? undefined : this.#byAddress.get(key);
    if (key !== undefined && !own) this.#byAddress.set(key, own = new Set());
    own?.add(held);
    try {
      return await work();
    } finally {
      this.#held.delete(held);
      own?.delete(held);
      if (key !== undefined && own?.size === 0 && this.#byAddress.get(key) === own) {
        this.#byAddress.delete(key);
      }
    }
  }

  #keyOf(address: string | undefined): string | undefined {
    if (!address || this.#isProxy(address)) return undefined;
    return rateLimitKey(plainAddress(address) ?? address);
  }

  /**
   * Whether `address` may have another one. Where it has as many as it may, the one of them that has asked for nothing
   * longest is broken off for it; false where all of them are busy.
   */
  hasRoomOf(address: string): boolean {
    const key = this.#keyOf(address);
    const own = key === undefined ? undefined : this.#byAddress.get(key);
    if (!own || own.size < this.#mostOfOne) return true;
    let idlest: ManagedConnection | undefined;
    for (const held of own) {
      const { on, since } = held.waiting;
      if (on !== "request" && on !== "rest of request") continue;
      if (!idlest || since < idlest.waiting.since) idlest = held;
    }
    if (!idlest) {
      this.#onRefused();
      return false;
    }
    idlest.close();
    this.#held.delete(idlest);
    own.delete(idlest);
    return true;
  }

  /** Whether there is room for another. It is made, where somebody who asks for nothing can go. */
  hasRoom(): boolean {
    return this.#held.size < this.#most || this.closeIdle();
  }

  /** Breaks off those who have waited longest without asking for anything. Returns whether there were any. */
  closeIdle(): boolean {
    const idle = [...this.#held]
      .map((held) => ({ held, ...held.waiting }))
      .filter(({ on }) => on === "request" || on === "rest of request")
      .sort((a, b) => a.since - b.since);
    const gone = idle.slice(0, Math.ceil(idle.length * SHED));
    for (const { held } of gone) {
      held.close();
      this.#held.delete(held);
    }
    return gone.length > 0;
  }

  /**
   * Breaks off those who have neither taken nor sent anything for longest at `now`, and hold memory, until `bytes` of
   * it are free. Returns how many.
   */
  shedStalled(bytes: number, now: number): number {
    const stalled = [...this.#held]
      .map((held) => ({ held, ...held.waiting, memory: held.memory ?? 0 }))
      .filter(({ on, since, memory }) =>
        memory > 0 && now - since >= STALLED && (on === "client" || on === "rest of request")
      )
      .sort((a, b) => a.since - b.since);
    let left = bytes;
    let count = 0;
    for (const { held, memory } of stalled) {
      if (left <= 0) break;
      left -= memory;
      count++;
      held.close();
      this.#held.delete(held);
    }
    return count;
  }

  /** Breaks off those who have waited for too long at `now`. */
  check(now: number): void {
    for (const held of this.#held) {
      const { on, since } = held.waiting;
      if (now - since > this.#patience[on]) held.close();
    }
  }

  /** Tells all that they are to end. */
  drain(): void {
    for (const held of this.#held) held.drain();
  }

  /** Breaks all off. */
  close(): void {
    for (const held of this.#held) held.close();
  }
}
