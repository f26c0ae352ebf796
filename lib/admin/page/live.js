/**
 * The proxy's state as it changes: one stream for the whole page, taken up again when it breaks.
 *
 * @module
 */
import { events, get } from "./api.js";

/** The server tells something every second; after this long without anything it is gone, ms. */
const SILENCE = 8000;
const LONGEST_WAIT = 10_000;

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
  #listeners = new Set();
  #run;

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
    this.#poll(this.#run.signal, { what: "registries", every: 5000 });
    this.#poll(this.#run.signal, { what: "history", every: 10_000 });
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
          if (signal.aborted) return;
          if (this.state.connection !== "up") this.#set("connection", "up");
          if (event === "overview" || event === "fills") this.#set(event, data);
        }
      } catch (error) {
        if (signal.aborted || error.status === 401) return;
      }
      this.#set("connection", "down");
      await sleep(wait, signal);
    }
  }

  async #poll(signal, { what, every }) {
    while (!signal.aborted) {
      try {
        const value = await get(`api/${what}`, { signal });
        if (!signal.aborted) this.#set(what, value);
      } catch (error) {
        // The stream tells about an outage, once for all.
        if (signal.aborted || error.status === 401) return;
      }
      await sleep(every, signal);
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
