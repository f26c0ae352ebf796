/**
 * The proxy's state as it changes: one stream for the whole page, taken up again when it breaks.
 *
 * @module
 */
import { events, get, withQuery } from "./api.js";
import { recall, remember } from "./i18n.js";

/** The server tells something every second; after this long without anything it is gone, ms. */
const SILENCE = 8000;
const LONGEST_WAIT = 10_000;
const HISTORY_EVERY = 10_000;
/** What the stream tells; the rest is asked for. */
const STREAMED = ["overview", "fills", "registries"];
/** Who comes back to the page and sees something older than this is not to wait for a timer, ms. */
const LATE = 3000;

/**
 * Listeners get `(state, what)`, where `what` names what changed: `overview`, `fills`, `history`,
 * `registries` or `connection`.
 */
export class Live {
  /** What is known; undefined before the first answer. */
  state = {
    connection: "connecting",
    overview: undefined,
    fills: undefined,
    history: undefined,
    registries: undefined,
  };
  /** The span of the charts. */
  range = recall("range") ?? "hour";
  #listeners = new Set();
  #run;
  #heard = 0;

  constructor() {
    // A device that slept has a stream through which nothing comes any more, and no timer told.
    const wake = () => {
      const isRunning = this.#run && !this.#run.signal.aborted;
      const isLate = performance.now() - this.#heard > LATE;
      if (isRunning && isLate && document.visibilityState === "visible") this.start();
    };
    document.addEventListener("visibilitychange", wake);
    addEventListener("pageshow", wake);
    addEventListener("online", wake);
  }

  /** Shows another span in the charts, on the next visit too. */
  setRange(range) {
    this.range = range;
    remember("range", range);
    this.#askHistory(this.#run.signal);
  }

  /** Calls `listener` at each change, until the returned function is called. */
  listen(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #set(what, value) {
    this.state[what] = value;
    for (const listener of this.#listeners) listener(this.state, what);
  }

  /** Starts, or starts over. */
  start() {
    this.stop();
    this.#run = new AbortController();
    this.#stream(this.#run.signal);
    this.#pollHistory(this.#run.signal);
  }

  /** Stops, as when a token is needed. */
  stop() {
    this.#run?.abort();
  }

  async #stream(signal) {
    for (let wait = 1000; !signal.aborted; wait = Math.min(LONGEST_WAIT, wait * 2)) {
      try {
        for await (const { event, data } of events("api/events", { signal, silence: SILENCE })) {
          wait = 500;
          this.#heard = performance.now();
          if (signal.aborted) return;
          if (this.state.connection !== "up") this.#set("connection", "up");
          if (STREAMED.includes(event)) this.#set(event, data);
        }
      } catch (error) {
        if (signal.aborted || error.status === 401) return;
      }
      this.#set("connection", "down");
      await sleep(wait, signal);
    }
  }

  async #pollHistory(signal) {
    while (!signal.aborted) {
      await this.#askHistory(signal);
      await sleep(HISTORY_EVERY, signal);
    }
  }

  async #askHistory(signal) {
    const { range } = this;
    try {
      const history = await get(withQuery("api/history", { range }), { signal });
      // Another span may be wanted by now.
      if (!signal.aborted && range === this.range) this.#set("history", history);
    } catch {
      // The stream tells about an outage, once for all, and about a token that is needed.
    }
  }
}

function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    }, { once: true });
  });
}
