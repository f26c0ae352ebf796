/**
 * The connections of a listener: how many there may be, and for how long one may wait for what.
 *
 * @module
 */

/** What a connection waits for. */
export type Waiting = "request" | "rest of request" | "answer" | "client" | "goodbye";

/** How long, ms, a connection may wait for something before it is broken off. */
export type Patience = Readonly<Record<Waiting, number>>;

/** What is held of a connection. */
export interface Held {
  /** What it waits for, and since when: ms, by the clock of {@linkcode Connections.check}. */
  readonly waiting: { readonly on: Waiting; readonly since: number };
  /** What it takes of the memory of requests and answers under way, bytes. @default {0} */
  readonly memory?: number;
  /** Takes no request more: ends when what it has been asked is answered. */
  retire(): void;
  /** Breaks it off. */
  close(): void;
}

const PATIENCE: Patience = {
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
/** Of those who ask for nothing, the part that has to go when there is no room for another. */
const SHED = 1 / 16;
/** A client that has neither taken nor sent anything for so long, ms, makes way where memory is short. */
const STALLED = 2_000;

/** Options for {@linkcode Connections}. */
export interface ConnectionsOptions {
  /** Connections at once. @default {8192} */
  readonly most?: number;
  /** @default {as a registry needs it} */
  readonly patience?: Partial<Patience>;
}

/** All connections of a listener. */
export class Connections {
  readonly #held = new Set<Held>();
  readonly #most: number;
  readonly #patience: Patience;

  constructor({ most = MOST, patience }: ConnectionsOptions = {}) {
    this.#most = most;
    this.#patience = { ...PATIENCE, ...patience };
  }

  /** How many there are. */
  get size(): number {
    return this.#held.size;
  }

  /** Holds `held` as long as `work` lasts. */
  async hold<T>(held: Held, work: () => Promise<T>): Promise<T> {
    this.#held.add(held);
    try {
      return await work();
    } finally {
      this.#held.delete(held);
    }
  }

  /** Whether there is room for another. It is made, where somebody who asks for nothing can go. */
  hasRoom(): boolean {
    return this.#held.size < this.#most || this.shed();
  }

  /** Breaks off those who have waited longest without asking for anything. Returns whether there were any. */
  shed(): boolean {
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
  retire(): void {
    for (const held of this.#held) held.retire();
  }

  /** Breaks all off. */
  close(): void {
    for (const held of this.#held) held.close();
  }
}
