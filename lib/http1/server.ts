/**
 * The listener for plain HTTP/1. It exists beside `Deno.serve` because most of what that costs per request
 * and per byte is not needed here (BENCHMARKS.md has the numbers): answers in memory go out as they are, and
 * bodies from files through buffers that are reused.
 *
 * @module
 */
import { programLog } from "../log.ts";
import { Buffers } from "./buffers.ts";
import { Connection, type ConnectionContext, type Handler, type Waiting } from "./connection.ts";

/** How long, ms, a connection may wait for something before it is broken off. */
const PATIENCE: Readonly<Record<Waiting, number>> = {
  /** Longer than clients and load balancers keep theirs: they should be the first to close. */
  "request": 120_000,
  "rest of request": 30_000,
  /** What the answer is made of has limits of its own. */
  "answer": Infinity,
  /** For one buffer to be taken. */
  "client": 10 * 60_000,
};
/** How often that is looked at, ms: how coarse the clock is. */
const TICK = 1_000;
/** The wait after the system refused a connection, ms: for want of handles, mostly. */
const ACCEPT_AGAIN = 100;
/** The same trouble is logged once in this time, ms. */
const QUIET = 60_000;

/** Options for {@linkcode serveHttp1}. */
export interface ServeOptions {
  readonly hostname: string;
  /** 0 for any free one. */
  readonly port: number;
  readonly onListen?: (address: Deno.NetAddr) => void;
  /** @default {as a registry needs it} */
  readonly patience?: Partial<Readonly<Record<Waiting, number>>>;
  /** Milliseconds. @default {1000} */
  readonly tick?: number;
}

/** A running listener; as much of a `Deno.HttpServer` as is needed. */
export interface Http1Server {
  readonly addr: Deno.NetAddr;
  /** Settles when it has ended. */
  readonly finished: Promise<void>;
  /** Accepts nothing more, and settles when the answers under way have been sent. */
  shutdown(): Promise<void>;
  /** Breaks every connection off. */
  close(): void;
}

/** Listens at once. Throws what `Deno.listen` throws. */
export function serveHttp1(options: ServeOptions, handler: Handler): Http1Server {
  return new Server(options, handler);
}

class Server implements Http1Server, ConnectionContext {
  readonly addr: Deno.NetAddr;
  readonly finished: Promise<void>;
  readonly handler: Handler;
  readonly buffers = new Buffers();
  readonly host: string;
  readonly #listener: Deno.TcpListener;
  readonly #connections = new Set<Connection>();
  readonly #ended = Promise.withResolvers<void>();
  readonly #patience: Readonly<Record<Waiting, number>>;
  readonly #timer: ReturnType<typeof setInterval>;
  isClosing = false;
  #quietUntil = 0;
  now = Date.now();

  constructor(options: ServeOptions, handler: Handler) {
    const { hostname, port } = options;
    this.#listener = Deno.listen({ hostname, port });
    this.handler = handler;
    this.addr = this.#listener.addr as Deno.NetAddr;
    const address = this.addr.hostname;
    this.host = `${address.includes(":") ? `[${address}]` : address}:${this.addr.port}`;
    this.#patience = { ...PATIENCE, ...options.patience };
    this.#timer = setInterval(() => this.#tick(), options.tick ?? TICK);
    this.finished = this.#ended.promise;
    options.onListen?.(this.addr);
    this.#accept();
  }

  async #accept(): Promise<void> {
    while (!this.isClosing) {
      let conn: Deno.TcpConn;
      try {
        conn = await this.#listener.accept();
      } catch (error) {
        if (this.isClosing) return;
        this.#complain(error);
        await new Promise((resolve) => setTimeout(resolve, ACCEPT_AGAIN));
        continue;
      }
      this.#serve(conn);
    }
  }

  /** Says so once in a while: it may go on for long. */
  #complain(error: unknown): void {
    if (this.now < this.#quietUntil) return;
    this.#quietUntil = this.now + QUIET;
    programLog.warn("Cannot accept a connection: {cause}", { cause: (error as Error).message });
  }

  async #serve(conn: Deno.TcpConn): Promise<void> {
    const connection = new Connection(conn, this);
    this.#connections.add(connection);
    try {
      conn.setNoDelay(true);
      await connection.run();
    } catch {
      connection.close(); // gone before it was looked at
    }
    this.#connections.delete(connection);
    this.#endIfDone();
  }

  #tick(): void {
    this.now = Date.now();
    for (const connection of this.#connections) {
      const { on, since } = connection.waiting;
      if (this.now - since > this.#patience[on]) connection.close();
    }
    if (this.#connections.size === 0) this.buffers.trim();
  }

  #endIfDone(): void {
    if (!this.isClosing || this.#connections.size > 0) return;
    clearInterval(this.#timer);
    this.#ended.resolve();
  }

  #stopAccepting(): void {
    if (this.isClosing) return;
    this.isClosing = true;
    this.#listener.close();
  }

  async shutdown(): Promise<void> {
    this.#stopAccepting();
    for (const connection of this.#connections) {
      if (connection.waiting.on === "request") connection.close();
    }
    this.#endIfDone();
    await this.finished;
  }

  close(): void {
    this.#stopAccepting();
    for (const connection of this.#connections) connection.close();
    this.#endIfDone();
  }
}
