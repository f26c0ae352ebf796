/**
 * Where connections with TLS come in. By `node:net` and `node:tls`, because a connection of `Deno.listenTls`
 * (and of `Deno.serve`) cannot be given up: in the middle of a handshake, or with something that its client
 * does not read, it stays until the client leaves, closed or not.
 *
 * @module
 */
import { createServer, type Server as NetServer, type Socket as NetSocket } from "node:net";
import { createSecureContext, type SecureContext, TLSSocket } from "node:tls";
import { within } from "../../util/deadline.ts";
import type { Acceptor } from "../http1/server.ts";
import { requestLog } from "../../telemetry/log.ts";
import { startTimeout } from "../../util/timeout.ts";

/** PEM. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** What is agreed on in a handshake. A client that offers other protocols only is refused there (RFC 7301 §3.2). */
const ALPNProtocols = ["http/1.1"];
/** How often it is seen whether connections still come in, ms. */
const WATCH = 5_000;
/** How long a connection from here may take to come in, ms. */
const KNOCK = 5_000;

/** Options for {@linkcode openTls}. */
export interface TlsOptions {
  readonly hostname: string;
  /** 0 for any free one. */
  readonly port: number;
  readonly tls: Certificate;
  /** Called with each connection: its handshake has not begun. */
  readonly onConnection: (socket: TLSSocket) => void;
  /** Called when connections cannot come in, for want of handles mostly. */
  readonly onTrouble: (error: unknown) => void;
  /** Milliseconds. @default {5000} */
  readonly watch?: number;
}

/**
 * Listens. Rejects with `Deno.errors.AddrInUse` for a port that is taken, and for a certificate that is none.
 */
export async function openTls(options: TlsOptions): Promise<Acceptor> {
  check(options.tls);
  const door = new TlsDoor(options);
  await door.open();
  return door;
}

/** `node:tls` finds out about a certificate when somebody connects, Deno at once. */
function check({ cert, key }: Certificate): void {
  Deno.listenTls({ hostname: "127.0.0.1", port: 0, cert, key }).close();
}

/** A connection of our own to our own listener. */
interface Knock {
  readonly conn: Promise<Deno.TcpConn>;
  heard(): void;
}

class TlsDoor implements Acceptor {
  addr: Deno.NetAddr;
  readonly #options: TlsOptions;
  readonly #context: SecureContext;
  #server: NetServer | undefined;
  /** Whether anybody came in since it was last looked. */
  #isUsed = false;
  /** Our own connection, which shows whether any comes in. */
  #knock: Knock | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isClosed = false;

  constructor(options: TlsOptions) {
    const { hostname, port, tls: { cert, key } } = options;
    this.#options = options;
    this.#context = createSecureContext({ cert, key });
    this.addr = { transport: "tcp", hostname, port };
  }

  async open(): Promise<void> {
    await this.#listen();
    this.#watch();
  }

  async #listen(): Promise<void> {
    const { hostname, port } = this.addr;
    const server = createServer((socket) => this.#accept(socket));
    this.#server = server;
    this.addr = { transport: "tcp", hostname, port: await listening(server, { hostname, port }) };
    if (this.#isClosed) server.close();
  }

  async #accept(socket: NetSocket): Promise<void> {
    this.#isUsed = true;
    socket.on("error", () => {}); // the one with TLS tells it too
    if (this.#knock && await this.#isOwn(socket, this.#knock)) socket.destroy();
    else this.#lead(socket);
  }

  /** Whoever it is, connections do come in. */
  async #isOwn(socket: NetSocket, { conn, heard }: Knock): Promise<boolean> {
    heard();
    const own = await conn.then(({ localAddr }) => localAddr as Deno.NetAddr, () => undefined);
    return own?.port === socket.remotePort && own?.hostname === socket.remoteAddress;
  }

  #lead(socket: NetSocket): void {
    socket.setNoDelay(true);
    const secureContext = this.#context;
    const secure = new TLSSocket(socket, { isServer: true, secureContext, ALPNProtocols });
    const client = socket.remoteAddress; // gone when it has failed
    secure.on("error", ({ message }: Error) => {
      // Nobody else is told of a client that does not trust the certificate, or speaks plain http.
      requestLog.debug("TLS with {client} failed: {cause}", { client, cause: message });
    });
    this.#options.onConnection(secure);
  }

  #watch(): void {
    const look = () =>
      this.#look().catch((error) => {
        if (!this.#isClosed) this.#options.onTrouble(error);
      }).finally(() => this.#isClosed || this.#watch());
    this.#timer = setTimeout(look, this.#options.watch ?? WATCH);
  }

  /** A listener of `node:net` that had no handle left once accepts nothing ever after, and tells nobody. */
  async #look(): Promise<void> {
    if (this.#isUsed || await this.#canComeIn()) {
      this.#isUsed = false;
      return;
    }
    if (this.#isClosed) return;
    this.#options.onTrouble(new Error("Nothing came in: listening anew"));
    this.#server?.close();
    await within(this.#listen(), { ms: KNOCK, what: "The listener" });
  }

  /** Also no connection in good time is none: behind many that nobody accepts it would wait for minutes. */
  async #canComeIn(): Promise<boolean> {
    const { hostname, port } = this.addr;
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    const no = () => resolve(false);
    const conn = Deno.connect({ hostname: ANY[hostname] ?? hostname, port });
    this.#knock = { conn, heard: () => resolve(true) };
    const stop = startTimeout(KNOCK, no);
    conn.then(
      (knocking) => knocking.read(new Uint8Array(1)).then(no, no), // turned away
      (error) => error instanceof Deno.errors.ConnectionRefused ? no() : reject(error),
    );
    try {
      return await promise;
    } finally {
      stop();
      this.#knock = undefined;
      conn.then((knocking) => knocking.close(), () => {}); // however late it comes
    }
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#server?.close();
    this.#knock?.heard();
  }
}

/** Where to connect to what listens everywhere. */
const ANY: Readonly<Record<string, string>> = { "0.0.0.0": "127.0.0.1", "::": "::1" };

/** Returns the port. */
async function listening(
  server: NetServer,
  { hostname, port }: { hostname: string; port: number },
): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen({ host: hostname, port, backlog: 511 }, resolve);
  try {
    await promise;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw code === "EADDRINUSE" ? new Deno.errors.AddrInUse(message) : error;
  }
  server.off("error", reject);
  return (server.address() as { port: number }).port;
}

/** Settles when the handshake has been made. Rejects when it comes to nothing. */
export function handshake(socket: TLSSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = () => reject(new Error("No handshake"));
    socket.once("secure", () => {
      socket.off("close", fail);
      resolve();
    });
    socket.once("close", fail);
    socket.once("end", fail);
  });
}
