/**
 * HTTP/2 for a listener of our own: Deno speaks it only where it accepts the connections itself, and then it
 * breaks off none, however long it says nothing. So it accepts them from us, inside of this machine, and who
 * is connected to it, for how long and with what is ours to say.
 *
 * @module
 */
import type { Handler } from "../http1/handler.ts";
import type { Held, Waiting } from "../http1/connections.ts";
import type { Socket } from "../http1/socket.ts";
import { Frames } from "./frames.ts";

/** Answers requests of HTTP/2. */
export type Fetch = NonNullable<Handler["fetch"]>;

const FIRST_BUFFER = 4 * 1024;
const LARGEST_BUFFER = 64 * 1024;

type Source = Pick<Socket, "read">;
type Target = Pick<Socket, "write" | "closeWrite">;

/** Options for {@linkcode Bridge}. */
export interface BridgeOptions {
  /** To what speaks HTTP/2. */
  readonly inner: Deno.Conn;
  /** A clock, ms; coarse. */
  readonly now: () => number;
  readonly onClosed: () => void;
}

/** A client's connection, and the one inside that it has been given. */
export class Bridge implements Held {
  readonly client: Deno.Addr;
  readonly #outer: Socket;
  readonly #inner: Deno.Conn;
  readonly #now: () => number;
  readonly #onClosed: () => void;
  readonly #frames = new Frames();
  /** Requests whose answers have not been sent to their end. */
  #requests = 0;
  /** Those of them that are being sent. */
  #answers = 0;
  #since: number;
  #isRetired = false;
  #isClosed = false;

  constructor(outer: Socket, { inner, now, onClosed }: BridgeOptions) {
    this.client = outer.remoteAddr;
    this.#outer = outer;
    this.#inner = inner;
    this.#now = now;
    this.#onClosed = onClosed;
    this.#since = now();
  }

  get waiting(): Held["waiting"] {
    return { on: this.#waitsFor(), since: this.#since };
  }

  #waitsFor(): Waiting {
    if (this.#requests > 0) return this.#answers > 0 ? "client" : "answer";
    return this.#isRetired ? "goodbye" : "request";
  }

  /** One request: `answer` makes its answer, which ends with `completed`, or is given up before. */
  async request(completed: Promise<void>, answer: () => Promise<Response>): Promise<Response> {
    let isAnswered = false;
    let isOver = false;
    this.#requests++;
    const end = () => {
      isOver = true;
      this.#requests--;
      if (isAnswered) this.#answers--;
      this.#since = this.#now();
    };
    completed.then(end, end);
    const response = await answer();
    if (!isOver) {
      isAnswered = true;
      this.#answers++;
      this.#since = this.#now();
    }
    return response;
  }

  /** Passes bytes on until there is nobody to pass them to. Never rejects. */
  async run(): Promise<void> {
    const inwards = this.#pass(this.#outer, this.#inner);
    await this.#pass(this.#inner, this.#outer, (bytes) => {
      if (this.#frames.hasAnswer(bytes)) this.#since = this.#now();
    });
    this.close(); // what speaks HTTP/2 is through with it, whatever the client still has to say
    await inwards;
  }

  async #pass(from: Source, to: Target, onPassed?: (bytes: Uint8Array) => void): Promise<void> {
    let buffer = new Uint8Array(FIRST_BUFFER);
    try {
      while (true) {
        const n = await from.read(buffer);
        if (n === null) break;
        for (let done = 0; done < n;) {
          const written = await to.write(buffer.subarray(done, n));
          onPassed?.(buffer.subarray(done, done + written));
          done += written;
        }
        // Most connections are idle, or ask for little: only who gets more is given more.
        if (n === buffer.byteLength && n < LARGEST_BUFFER) buffer = new Uint8Array(n * 4);
      }
      await to.closeWrite();
    } catch {
      this.close(); // one side is gone, and nothing can be told to the other
    }
  }

  /** What it leads to says goodbye by itself, and ends it when the client has heard. */
  retire(): void {
    this.#isRetired = true;
    if (this.#requests === 0) this.#since = this.#now();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#outer.close();
    this.#inner.close();
    this.#onClosed();
  }
}

/** What speaks HTTP/2. */
export class Bridges {
  readonly #fetch: Fetch;
  readonly #ended = Promise.withResolvers<void>();
  /** By the address that the inner connection comes from. */
  readonly #bridges = new Map<string, Bridge>();
  #server: Deno.HttpServer<Deno.NetAddr> | undefined;
  #abort = new AbortController();
  #isEnding = false;

  constructor(fetch: Fetch) {
    this.#fetch = fetch;
    this.#server = this.#serve();
  }

  /** Where it listens. Only who is passed on by {@linkcode open} is answered there. */
  get addr(): Deno.NetAddr | undefined {
    return this.#server?.addr;
  }

  /** Settles when it has ended. */
  get finished(): Promise<void> {
    return this.#ended.promise;
  }

  #serve(): Deno.HttpServer<Deno.NetAddr> {
    this.#abort = new AbortController();
    // A variable: Deno 2.5 does not know all of its members.
    const settings = {
      hostname: "127.0.0.1",
      port: 0,
      signal: this.#abort.signal,
      automaticCompression: false,
      onListen() {},
    };
    const server = Deno.serve(settings, (request, { remoteAddr, completed }) => {
      const bridge = this.#bridges.get(nameOf(remoteAddr));
      // Somebody else on this machine, past the certificate and in the name of nobody.
      if (!bridge) return new Response(null, { status: 421 });
      const info = { remoteAddr: bridge.client, scheme: "https" } as const;
      return bridge.request(completed, () => this.#fetch(request, info));
    });
    const end = () => this.#gone();
    server.finished.then(end, end);
    return server;
  }

  /** It ends by itself, for good, where it cannot accept a connection for want of handles. */
  #gone(): void {
    this.#server = undefined;
    if (this.#isEnding) return this.#ended.resolve();
    for (const bridge of this.#bridges.values()) bridge.close();
  }

  /** A bridge for a client that has been promised HTTP/2. Rejects where the system has no room for it. */
  async open(outer: Socket, now: () => number): Promise<Bridge> {
    if (this.#isEnding) throw new Error("Closed");
    const { hostname, port } = (this.#server ??= this.#serve()).addr;
    const inner = await Deno.connect({ hostname, port });
    inner.setNoDelay(true);
    const name = nameOf(inner.localAddr as Deno.NetAddr);
    const onClosed = () => this.#bridges.delete(name);
    const bridge = new Bridge(outer, { inner, now, onClosed });
    this.#bridges.set(name, bridge);
    return bridge;
  }

  /** Tells all clients to ask for nothing more; it ends when their connections have. */
  shutdown(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    if (this.#server) this.#server.shutdown();
    else this.#ended.resolve();
  }

  /** Ends it at once; after `shutdown`, as soon as its bridges are closed. */
  close(): void {
    if (this.#isEnding) return; // Deno takes it for an error
    this.#isEnding = true;
    if (this.#server) this.#abort.abort();
    else this.#ended.resolve();
  }
}

function nameOf({ hostname, port }: Deno.NetAddr): string {
  return `${hostname}:${port}`;
}
