/**
 * One HTTP/1 connection: requests in turn, each answered before the next is looked at.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { type Answer, headOf } from "../../response/answer.ts";
import { requestLog } from "../../telemetry/log.ts";
import { readBody } from "./body.ts";
import type { Buffers } from "./buffers.ts";
import {
  field,
  framingOf,
  HttpError,
  keepsAlive,
  LineCount,
  parseHead,
  type RequestHead,
  targetOf,
  TlsHelloError,
} from "./head.ts";
import type { ManagedConnection, Waiting } from "./connections.ts";
import type { Handler, Scheme } from "./handler.ts";
import { type QuickAnswer, replyFraming, replyHead } from "../../response/wire.ts";
import { ResponseWriter } from "./response_writer.ts";
import { type Slabs, SMALL_BUFFER } from "./slabs.ts";
import type { Socket } from "./socket.ts";
import { noteRequest } from "../../telemetry/loop_lag.ts";
import type { MemoryBudget } from "../../util/memory_budget.ts";

/** What the connections of a server have in common. */
export interface ConnectionContext {
  readonly handler: Handler;
  readonly buffers: Buffers;
  readonly slabs: Slabs;
  /** Where is counted what requests and answers under way take. */
  readonly memory: MemoryBudget;
  readonly scheme: Scheme;
  /** The host of requests that name none. */
  readonly host: string;
  /** Whether no further request is to be taken. */
  readonly isClosing: boolean;
  /** A clock, ms; coarse. */
  readonly now: number;
}

/** What a buffer that is too small grows to first, bytes. */
const MIDDLE_BUFFER = 24 * 1024;
/** The largest head, bytes. What it is made of has bounds of its own. */
const LARGEST_HEAD = 32 * 1024;
/** What a request takes for each byte of its head: its text, its fields and its URL, each for itself. */
const PER_BYTE = 4;
/** What it takes besides: what handles it, and an open file mostly. */
const PER_REQUEST = 12 * 1024;
/** Requests with a head up to this length are answered however much is under way. */
const SMALL_HEAD = 2048;
/** The largest body that is read: only token requests have one. */
const LARGEST_BODY = 64 * 1024;
/** What a client that is told off may still send before it is cut off, bytes. */
const LINGER = 2 ** 20;

/** Only to these is a body read. Nobody else's means anything here. */
const WITH_BODY: ReadonlySet<string> = new Set(["POST"]);
const CONTINUE = Buffer.from("HTTP/1.1 100 Continue\r\n\r\n", "latin1");

/** A connection. */
export class Connection implements ManagedConnection {
  readonly #conn: Socket;
  readonly #context: ConnectionContext;
  readonly #client: string;
  #buffer: Buffer;
  #start = 0;
  #end = 0;
  /** A read under way: it tells of a client that left while its answer is being made. */
  #reading: Promise<boolean> | undefined;
  #waiting: Waiting = "request";
  #since: number;
  #isClosed = false;
  /** What the request under way takes of the memory for all, bytes. */
  #asked = 0;
  readonly #out: ResponseWriter;
  /** Of the request that is being answered, where somebody wants to know that its client has left. */
  #left: AbortController | undefined;

  constructor(conn: Socket, context: ConnectionContext) {
    this.#conn = conn;
    this.#context = context;
    this.#since = context.now;
    this.#buffer = context.slabs.take();
    this.#out = new ResponseWriter(conn, {
      buffers: context.buffers,
      memory: context.memory,
      onProgress: () => this.#since = context.now,
    });
    const { remoteAddr } = conn;
    this.#client = "hostname" in remoteAddr ? remoteAddr.hostname : "";
  }

  get address(): string {
    return this.#client;
  }

  /** What it waits for, and since when by the context's clock. */
  get waiting(): { readonly on: Waiting; readonly since: number } {
    return { on: this.#waiting, since: this.#since };
  }

  /** What it takes of the memory for requests and answers under way, bytes. */
  get memory(): number {
    return this.#extra + this.#asked + this.#out.pending;
  }

  /** What the buffer takes of it: its first bytes are every connection's. */
  get #extra(): number {
    return this.#buffer.byteLength - SMALL_BUFFER;
  }

  /** Counts `bytes` as taken. Throws an {@linkcode HttpError} (503) where there is no room for them. */
  #reserve(bytes: number): void {
    if (this.#context.memory.take(bytes)) return;
    throw new HttpError(503, "Too much is under way: try again", "TOOMANYREQUESTS", 5);
  }

  /** Counts what a request takes until it is answered. Throws as {@linkcode Connection.#reserve}. */
  #count({ length }: RequestHead): void {
    const bytes = PER_REQUEST + PER_BYTE * length;
    if (length <= SMALL_HEAD) this.#context.memory.add(bytes);
    else this.#reserve(bytes);
    this.#asked = bytes;
  }

  /** Counts the body that a request is to have, too. */
  #countBody(bytes: number): void {
    this.#reserve(bytes);
    this.#asked += bytes;
  }

  #uncount(): void {
    this.#context.memory.remove(this.#asked);
    this.#asked = 0;
  }

  /** Breaks it off. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#conn.close();
    this.#left?.abort(); // nobody need wait for its turn any more
    this.#out.stop(); // a body may be waiting for upstream, which nobody needs any more
  }

  /** Takes no request more: one that is not in the middle of something ends. */
  drain(): void {
    if (this.#waiting === "request") this.close();
  }

  /** Answers requests until one side ends it. Never rejects. */
  async run(): Promise<void> {
    try {
      while (await this.#exchange());
      // With TLS an end without a word is taken for an attack.
      if (this.#context.scheme === "https") await this.#conn.closeWrite();
    } catch {
      // The client left, or its bytes were wasted: nobody is there to be told.
    } finally {
      this.close();
      this.#giveBuffer();
    }
  }

  /** Gives the buffer back as soon as nothing is read into it any more: the connection is closed. */
  #giveBuffer(): void {
    this.#context.memory.remove(this.#extra);
    const give = () => {
      if (this.#extra === 0) this.#context.slabs.give(this.#buffer);
    };
    if (this.#reading) this.#reading.then(give, give);
    else give();
  }

  #wait(on: Waiting): void {
    this.#waiting = on;
    this.#since = this.#context.now;
  }

  /** One request and its answer. Returns whether another may follow. */
  async #exchange(): Promise<boolean> {
    let head: RequestHead | undefined;
    try {
      head = await this.#head();
      if (!head) return false;
      noteRequest(head, this.#client);
      const quick = this.#quick(head);
      if (quick) {
        this.#wait("client");
        await this.#out.write(quick.bytes);
        quick.sent();
        return true;
      }
      this.#count(head);
      try {
        return await this.#answer(head);
      } finally {
        this.#uncount();
      }
    } catch (error) {
      if (!(error instanceof HttpError)) throw error;
      await this.#refuse(error, head?.method);
      return false;
    }
  }

  /** The next request's head; undefined at an orderly end. */
  async #head(): Promise<RequestHead | undefined> {
    this.#wait("request");
    let lines: LineCount | undefined;
    while (true) {
      if (this.#start < this.#end) {
        // Most come in one piece. Of others each piece is looked at once, however small it is.
        if (lines?.isMore(this.#buffer.subarray(this.#start, this.#end)) ?? true) {
          const head = parseHead(this.#buffer, { start: this.#start, end: this.#end });
          if (head) {
            this.#take(head.length);
            return head;
          }
        }
        if (!lines) {
          lines = new LineCount();
          lines.isMore(this.#buffer.subarray(this.#start, this.#end));
        }
        if (this.#end - this.#start >= LARGEST_HEAD) throw new HttpError(431, "Head too large");
        if (this.#waiting === "request") this.#wait("rest of request");
      } else if (this.#context.isClosing) return undefined;
      if (!await this.#more()) return undefined;
    }
  }

  #quick(head: RequestHead): QuickAnswer | undefined {
    const { handler, host, isClosing } = this.#context;
    if (!handler.quick || isClosing || head.minor !== 1) return undefined;
    if (head.method !== "GET" && head.method !== "HEAD") return undefined;
    const connection = field(head, "connection");
    if (connection !== null && connection.toLowerCase() !== "keep-alive") return undefined;
    if (hasBody(head)) return undefined;
    const header = (name: string) => field(head, name);
    const request = { method: head.method, ...targetOf(head, host), header };
    return handler.quick(request, this.#client);
  }

  async #answer(head: RequestHead): Promise<boolean> {
    const { method } = head;
    const { request, target, isRead } = await this.#request(head);
    this.#wait("answer");
    this.#listen();
    const { remoteAddr } = this.#conn;
    this.#left = undefined;
    const left = () => this.#leaving();
    let answer: Answer;
    try {
      const { handler, scheme } = this.#context;
      answer = await handler.answer(request, { remoteAddr, scheme, target, left });
    } catch {
      throw new HttpError(500, "Internal error"); // the handler has said why where it belongs
    }
    this.#wait("client");
    const { source, bytes } = answer;
    const says = headOf(answer);
    const hasBody = bytes !== undefined || source !== undefined || answer.response.body !== null;
    const framing = replyFraming(says, { method, minor: head.minor, hasBody });
    const keepAlive = keepsAlive(head) && isRead && framing.kind !== "close" &&
      !this.#context.isClosing;
    const reply = replyHead(says, { framing, keepAlive, minor: head.minor });
    if (framing.kind === "none" || framing.kind === "length" && framing.length === 0) {
      if (source) source.end(0);
      else if (!bytes) await answer.response.body?.cancel();
      await this.#out.write(reply);
    } else if (bytes) await this.#out.bytes(reply, bytes);
    else if (source) await this.#out.source(reply, source, framing);
    else await this.#out.stream(reply, answer.response.body!, framing);
    if (!isRead) await this.#linger();
    return keepAlive;
  }

  #leaving(): AbortSignal {
    this.#left ??= new AbortController();
    if (this.#isClosed) this.#left.abort();
    return this.#left.signal;
  }

  /** The request as the handler gets it, its body read where it may have one. */
  async #request(
    head: RequestHead,
  ): Promise<{ request: Request; target: string; isRead: boolean }> {
    const { method, fields } = head;
    const framing = framingOf(head);
    const { host, target } = targetOf(head, this.#context.host);
    const url = `http://${host}${target}`;
    const headers: [string, string][] = [];
    for (let i = 0; i < fields.length; i += 2) {
      if (fields[i] !== "host") headers.push([fields[i]!, fields[i + 1]!]);
    }
    headers.push(["host", host]);
    let body: Uint8Array<ArrayBuffer> | undefined;
    const isEmpty = framing.kind === "length" && framing.length === 0;
    const isRead = isEmpty || WITH_BODY.has(method);
    if (isRead && !isEmpty) {
      this.#wait("rest of request");
      if (field(head, "expect")?.toLowerCase() === "100-continue") await this.#out.write(CONTINUE);
      const most = framing.kind === "length" ? framing.length : LARGEST_BODY;
      this.#countBody(Math.min(most, LARGEST_BODY));
      body = await readBody(this.#inbound(), framing, { limit: LARGEST_BODY });
    }
    if (!URL.canParse(url)) throw new HttpError(400, "Malformed Host", "NAME_INVALID");
    try {
      return { request: new Request(url, { method, headers, body }), target, isRead };
    } catch {
      // CONNECT, TRACE: no request that could be handed on.
      throw new HttpError(405, "Method not allowed", "UNSUPPORTED");
    }
  }

  #inbound() {
    const view = () => this.#buffer.subarray(this.#start, this.#end);
    return {
      get bytes() {
        return view();
      },
      take: (n: number) => this.#take(n),
      more: () => this.#more(),
    };
  }

  #take(n: number): void {
    this.#start += n;
    if (this.#start < this.#end || this.#reading) return;
    this.#start = this.#end = 0;
    if (this.#extra === 0) return;
    this.#context.memory.remove(this.#extra);
    this.#buffer = this.#context.slabs.take();
  }

  /** Waits for more bytes; false at the end of the connection. */
  async #more(): Promise<boolean> {
    const reading = this.#reading ?? this.#read();
    const isMore = await reading;
    this.#reading = undefined;
    return isMore;
  }

  async #read(): Promise<boolean> {
    if (this.#end === this.#buffer.byteLength) this.#makeRoom();
    const n = await this.#conn.read(this.#buffer.subarray(this.#end));
    if (n === null) return false;
    this.#end += n;
    return true;
  }

  #makeRoom(): void {
    const length = this.#end - this.#start;
    const isHalf = length > this.#buffer.byteLength / 2;
    const { byteLength } = this.#buffer;
    const larger = byteLength < MIDDLE_BUFFER ? MIDDLE_BUFFER : LARGEST_HEAD + SMALL_BUFFER;
    if (isHalf) this.#reserve(larger - byteLength);
    const target = isHalf ? Buffer.allocUnsafeSlow(larger) : this.#buffer;
    this.#buffer.copy(target, 0, this.#start, this.#end);
    if (isHalf && byteLength === SMALL_BUFFER) this.#context.slabs.give(this.#buffer);
    this.#buffer = target;
    this.#start = 0;
    this.#end = length;
  }

  /** Reads on while the answer is made: at the end of the connection, the client has left. */
  #listen(): void {
    if (this.#reading || this.#start < this.#end) return;
    this.#reading = this.#read();
    const left = () => {
      if (this.#waiting === "answer" || this.#waiting === "client") this.close();
    };
    this.#reading.then((isMore) => isMore || left(), left);
  }

  async #refuse(error: HttpError, method: string | undefined): Promise<void> {
    const { code, message, status, retryAfter } = error;
    // No more of it: what is no request may hold anything, a credential too. That a client tries https first is
    // no news.
    requestLog[error instanceof TlsHelloError ? "debug" : "info"]("Refused: {status}", {
      status,
      client: this.#client,
      code,
      error: message,
    });
    const text = JSON.stringify({ errors: [{ code, message }] });
    const headers = new Headers({
      "content-type": "application/json",
      "docker-distribution-api-version": "registry/2.0",
      ...retryAfter !== undefined && { "retry-after": String(retryAfter) },
    });
    const reply = { status, headers };
    const framing = { kind: "length", length: Buffer.byteLength(text) } as const;
    const head = replyHead(reply, { framing, keepAlive: false, minor: 1 });
    this.#wait("client");
    await this.#out.write(method === "HEAD" ? head : Buffer.concat([head, Buffer.from(text)]));
    await this.#linger();
  }

  /** Lets the client read its answer although it is still sending: closing at once would cut that off. */
  async #linger(): Promise<void> {
    await this.#conn.closeWrite();
    this.#wait("rest of request");
    for (let left = LINGER; left > 0;) {
      left -= this.#end - this.#start;
      this.#start = this.#end;
      this.#take(0);
      if (!await this.#more()) return;
    }
  }
}

function hasBody({ fields }: RequestHead): boolean {
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] === "content-length" || fields[i] === "transfer-encoding") return true;
  }
  return false;
}
