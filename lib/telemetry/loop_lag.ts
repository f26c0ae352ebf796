/**
 * How long the event loop stands still, in which nothing else can happen, and which request was worked on then.
 *
 * @module
 */
import { programLog } from "./log.ts";
import { cut } from "../util/text.ts";

/** How often a timer shows that the loop runs, ms. */
const EVERY = 100;
/** The worst of so many measurements is told: those of the last ten seconds. */
const KEPT = 100;
/** A timer is never quite in time; what is longer than this, ms, is counted. */
const COUNTED = 50;
/** A standstill of this length, ms, is told in the log. */
const TOLD = 1_000;
/** One line in so many ms. */
const QUIET = 10_000;
/** The longest path in it, characters. */
const LONGEST_PATH = 256;

/** What is noted of a request. */
export interface NotedRequest {
  readonly method: string;
  /** Path and query. */
  readonly target: string;
}

/** The request that was worked on last, and since when, ms since the epoch. */
interface Work {
  readonly request: NotedRequest;
  readonly client: string | undefined;
  readonly since: number;
}

let request: NotedRequest | undefined;
let client: string | undefined;
let since = 0;
/** What was worked on when the timer was first missed: what comes after a standstill comes before the timer does. */
let suspect: Work | undefined;
/** When the timer of a {@linkcode LoopLag} is missed, ms since the epoch. */
let missedAt = Infinity;

/**
 * Notes that `work` is worked on from now on, for the client at an address. Called for every request, so it costs next to
 * nothing: `performance.now()` takes several times as long as `Date.now()`, and a clock that is set misleads for one tick.
 */
export function noteRequest(work: NotedRequest, address: string | undefined): void {
  const now = Date.now();
  if (now > missedAt) suspect ??= lastWork();
  request = work;
  client = address;
  since = now;
}

function lastWork(): Work | undefined {
  return request && { request, client, since };
}

/** Measures until it is closed. */
export class LoopLag {
  readonly #lags: number[] = [];
  readonly #timer: ReturnType<typeof setInterval>;
  #due = performance.now() + EVERY;
  #quietUntil = 0;
  #untold = 0;
  #total = 0;

  constructor() {
    this.#timer = setInterval(() => this.#look(), EVERY);
    Deno.unrefTimer(this.#timer);
    missedAt = Date.now() + EVERY + TOLD;
  }

  #look(): void {
    const now = performance.now();
    const lag = Math.max(0, now - this.#due);
    this.#lags.push(lag);
    if (this.#lags.length > KEPT) this.#lags.shift();
    if (lag > COUNTED) this.#total += lag;
    if (lag > TOLD) this.#tell(lag, now);
    suspect = undefined;
    this.#due = now + EVERY;
    missedAt = Date.now() + EVERY + TOLD;
  }

  /** The longest of the last ten seconds, ms. */
  get worst(): number {
    return Math.round(Math.max(0, ...this.#lags) * 10) / 10;
  }

  /** All standstills so far together, ms. */
  get total(): number {
    return Math.round(this.#total);
  }

  #tell(lag: number, now: number): void {
    if (now < this.#quietUntil) {
      this.#untold++;
      return;
    }
    const work = suspect ?? lastWork();
    this.#quietUntil = now + QUIET;
    programLog.warn("The event loop stood still for {ms} ms at {method} {path}", {
      ms: Math.round(lag),
      method: work?.request.method ?? "-",
      // Without the query, which may hold a secret.
      path: cut(work?.request.target.split("?", 1)[0] ?? "-", LONGEST_PATH),
      client: work?.client,
      // Not much more than the standstill itself, where it is this request's.
      elapsed: work && Date.now() - work.since,
      untold: this.#untold || undefined,
    });
    this.#untold = 0;
  }

  close(): void {
    clearInterval(this.#timer);
    missedAt = Infinity;
  }
}
