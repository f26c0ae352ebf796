/**
 * The listener. It exists beside `Deno.serve` because most of what that costs per request and per byte is not
 * needed here (BENCHMARKS.md has the numbers): answers in memory go out as they are, and bodies from files
 * through buffers that are reused. And because `Deno.serve` breaks nobody off: who says nothing, or half of
 * something, has his connection for ever there.
 *
 * @module
 */
import { BurstCollector } from "../../util/gc.ts";
import { programLog } from "../../telemetry/log.ts";
import { underWay } from "../../response/under_way.ts";
import type { MemoryBudget } from "../../util/memory_budget.ts";
import { Buffers } from "./buffers.ts";
import { Connection, type ConnectionContext } from "./connection.ts";
import { Connections, type ConnectionsOptions, type ManagedConnection } from "./connections.ts";
import type { Handler, Scheme } from "./handler.ts";
import { Slabs } from "./slabs.ts";
import type { Socket } from "./socket.ts";

/** How often connections are looked at, ms: how coarse the clock is. */
const TICK = 1_000;
/** The wait after the system refused a connection, ms: for want of handles, mostly. */
const ACCEPT_AGAIN = 100;
/** How often it is seen whether there is garbage of a burst, ms. */
const LOOK = 2_000;
/** All connections are looked at for memory once in this time, ms. */
const CALM = 100;
/** How full the memory for requests and answers under way is once some have made way. */
const RELIEVED = 3 / 4;
/** The same trouble is logged once in this time, ms. */
const QUIET = 60_000;

/** Options for {@linkcode serveHttp1}. */
export interface ServeOptions extends ConnectionsOptions {
  readonly hostname: string;
  /** 0 for any free one. */
  readonly port: number;
  readonly onListen?: (address: Deno.NetAddr) => void;
  /** Milliseconds. @default {1000} */
  readonly tick?: number;
  /** Where is counted what requests and answers under way take. @default {that of the process} */
  readonly memory?: MemoryBudget;
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

/** Listens at once, without TLS. Throws what `Deno.listen` throws. */
export function serveHttp1(options: ServeOptions, handler: Handler): Http1Server {
  const { hostname, port } = options;
  const listener = Deno.listen({ hostname, port });
  const addr = listener.addr as Deno.NetAddr;
  const server = new Server({ addr, close: () => listener.close() }, { handler, options });
  accept(listener, server);
  return server;
}

async function accept(listener: Deno.TcpListener, server: Server): Promise<void> {
  while (!server.isClosing) {
    let conn: Deno.TcpConn;
    try {
      conn = await listener.accept();
    } catch (error) {
      if (server.isClosing) return;
      server.makeRoom(error);
      await new Promise((resolve) => setTimeout(resolve, ACCEPT_AGAIN));
      continue;
    }
    if (!server.connections.hasRoomOf(addressOf(conn))) refuse(conn);
    else if (server.connections.hasRoom()) serve(conn, server);
    else conn.close();
  }
}

function addressOf({ remoteAddr }: Deno.TcpConn): string {
  return remoteAddr.hostname;
}

const TOO_MANY = JSON.stringify({
  errors: [{
    code: "TOOMANYREQUESTS",
    message: "Too many connections of this address: behind a proxy, set TRUST_PROXY",
  }],
});
const REFUSAL = new TextEncoder().encode(
  `HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: ${TOO_MANY.length}\r\n` +
    "docker-distribution-api-version: registry/2.0\r\nretry-after: 5\r\nconnection: close\r\n\r\n" +
    TOO_MANY,
);
/** How long one that is refused may take to say what nobody answers, ms: closed at once, it might not read why. */
const FAREWELL = 500;
/** That are refused at once; further ones are closed without a word. */
const MAX_FAREWELLS = 64;
let farewells = 0;

/** Tells a client at once that it has too many connections. Never rejects. */
async function refuse(conn: Deno.TcpConn): Promise<void> {
  if (farewells >= MAX_FAREWELLS) return conn.close();
  farewells++;
  let isOpen = true;
  const close = () => {
    if (isOpen) conn.close();
    isOpen = false;
  };
  const timer = setTimeout(close, FAREWELL);
  try {
    await conn.write(REFUSAL); // less than any socket buffer
    await conn.closeWrite();
    const nowhere = new Uint8Array(4096);
    for (let left = 16; left > 0 && await conn.read(nowhere) !== null;) left--;
  } catch {
    // It has gone.
  } finally {
    clearTimeout(timer);
    farewells--;
    close();
  }
}

async function serve(conn: Deno.TcpConn, server: Server): Promise<void> {
  try {
    conn.setNoDelay(true);
  } catch {
    return conn.close(); // gone before it was looked at
  }
  await server.serve(conn);
}

/** Where connections come in. */
export interface Acceptor {
  readonly addr: Deno.NetAddr;
  close(): void;
}

/** What a {@linkcode Server} is made of. */
export interface ServerParts {
  readonly handler: Handler;
  readonly options: Pick<ServeOptions, "onListen" | "tick" | "memory" | keyof ConnectionsOptions>;
  /** @default {"http"} */
  readonly scheme?: Scheme;
}

/** What listeners have in common, whatever their connections come in by. */
export class Server implements Http1Server, ConnectionContext {
  readonly addr: Deno.NetAddr;
  readonly finished: Promise<void>;
  readonly handler: Handler;
  readonly buffers = new Buffers();
  readonly slabs = new Slabs();
  readonly memory: MemoryBudget;
  readonly scheme: Scheme;
  readonly host: string;
  readonly connections: Connections;
  readonly #door: Acceptor;
  readonly #ended = Promise.withResolvers<void>();
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #collector = new BurstCollector();
  #lookedAt = 0;
  readonly #noPressure: () => void;
  /** Before which, by a fine clock, nobody has to make way again: ms. */
  #calmUntil = 0;
  isClosing = false;
  #quietUntil = 0;
  /** Time in which the event loop ran, ms: what clients sent while it stood still is not late. */
  now = 0;
  readonly #tickMs: number;
  #ticked = performance.now();

  constructor(door: Acceptor, { handler, options, scheme = "http" }: ServerParts) {
    this.#door = door;
    this.scheme = scheme;
    this.handler = handler;
    this.connections = new Connections(options);
    this.memory = options.memory ?? underWay;
    this.addr = door.addr;
    const { hostname, port } = this.addr;
    this.host = `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
    this.#tickMs = options.tick ?? TICK;
    this.#timer = setInterval(() => this.#tick(), this.#tickMs);
    this.#noPressure = this.memory.onPressure(() => this.#relieve());
    this.finished = this.#ended.promise;
    options.onListen?.(this.addr);
  }

  /** Answers HTTP/1 until one side ends it. Never rejects. */
  async serve(socket: Socket): Promise<void> {
    const connection = new Connection(socket, this);
    await this.hold(connection, () => connection.run());
  }

  /** As {@linkcode Connections.hold}: what is held is waited for at the end. */
  async hold<T>(held: ManagedConnection, work: () => Promise<T>): Promise<T> {
    try {
      return await this.connections.hold(held, work);
    } finally {
      this.#endIfDone();
    }
  }

  /** After `error`, for want of handles mostly: some who ask for nothing go. Says so once in a while. */
  makeRoom(error: unknown): void {
    this.connections.closeIdle();
    if (this.now < this.#quietUntil) return;
    this.#quietUntil = this.now + QUIET;
    programLog.warn("Cannot accept a connection: {cause}", { cause: (error as Error).message });
  }

  /** Has clients that are stalled make way: some memory is free then for others. */
  #relieve(): void {
    const now = performance.now();
    if (now < this.#calmUntil) return;
    this.#calmUntil = now + CALM;
    const { used, limit } = this.memory;
    this.connections.shedStalled(used - limit * RELIEVED, this.now);
  }

  #tick(): void {
    const now = performance.now();
    this.now += Math.min(now - this.#ticked, 2 * this.#tickMs);
    this.#ticked = now;
    this.connections.check(this.now);
    this.memory.check();
    if (this.now - this.#lookedAt >= LOOK) {
      this.#lookedAt = this.now;
      this.#collector.look();
    }
    if (this.connections.size === 0) this.buffers.trim();
  }

  #endIfDone(): void {
    if (!this.isClosing || this.connections.size > 0) return;
    clearInterval(this.#timer);
    this.#noPressure();
    this.#ended.resolve();
  }

  #stopAccepting(): void {
    if (this.isClosing) return;
    this.isClosing = true;
    this.#door.close();
  }

  async shutdown(): Promise<void> {
    this.#stopAccepting();
    this.connections.drain();
    this.#endIfDone();
    await this.finished;
  }

  close(): void {
    this.#stopAccepting();
    this.connections.close();
    this.#endIfDone();
  }
}
