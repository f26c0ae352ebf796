/**
 * Operates a running instance through its operator's listener.
 *
 * @module
 */
import type { IncomingMessage } from "node:http";
import type { HeldImage } from "../cache/content/inventory.ts";
import type { Removal } from "../cache/content/removal.ts";
import type { VerifyProgress, VerifyReport } from "../cache/content/verify.ts";
import type { Config } from "../config/config.ts";
import type { CacheReport, Operations } from "../operator/operations.ts";
import { orAborted } from "../util/deadline.ts";
import type { WarmedImage, WarmOptions } from "../warm/warm.ts";
import { readEvents } from "./event_stream.ts";

/** Thrown when no instance answers at the operator's address. */
export class NotRunningError extends Error {
  override readonly name = "NotRunningError";
}

/** Thrown when the instance reports an error. */
export class RemoteError extends Error {
  override readonly name = "RemoteError";
  /** The HTTP status. Undefined if the answer was cut off. */
  readonly status?: number;

  constructor(message: string, status?: number) {
    super(message);
    this.status = status;
  }
}

/** Number of images listed, or warmed, with one request. */
const PAGE = 500;
const WARM_AT_ONCE = 100;
/** Maximum time between two reads of an answer, in ms. */
const TIMEOUT = 60_000;

/** Options for {@linkcode RemoteOperations.verify}. */
export interface VerifyOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: VerifyProgress) => void;
}

/** Options of one request to the listener. */
interface ApiRequest {
  readonly method?: string;
  readonly body?: unknown;
}

/** Returns the host to connect to for a listener at `host`: a wildcard address becomes loopback. */
function addressOf(host: string): string {
  return host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
}

/** Operations carried out by the instance whose listener is at `admin`. */
export class RemoteOperations implements Operations {
  readonly #admin: NonNullable<Config["admin"]>;

  constructor(admin: NonNullable<Config["admin"]>) {
    this.#admin = admin;
  }

  /**
   * Resolves when the instance answers. Throws a {@linkcode NotRunningError} if nothing answers, or if
   * another program uses the port.
   */
  async check(): Promise<void> {
    try {
      const { cache } = await this.report();
      if (typeof cache?.entries === "number") return;
    } catch (error) {
      const isOurs = error instanceof RemoteError && [401, 403].includes(error.status ?? 0);
      if (isOurs || error instanceof NotRunningError) throw error;
    }
    throw new NotRunningError(
      `No instance answers at ${this.#where}: another program uses the port`,
    );
  }

  async *images(): AsyncIterable<HeldImage> {
    let last: string | undefined = "";
    while (last !== undefined) {
      const query = new URLSearchParams({ limit: String(PAGE), last });
      const page: { images: HeldImage[]; next?: string } = await this.#json(`/api/images?${query}`);
      yield* page.images;
      last = page.next;
    }
  }

  async remove(name: string): Promise<Removal> {
    const query = new URLSearchParams({ name });
    return await this.#json<Removal>(`/api/images?${query}`, { method: "DELETE" });
  }

  async warm(images: readonly string[], options: WarmOptions): Promise<WarmedImage[]> {
    const results: WarmedImage[] = [];
    for (let from = 0; from < images.length; from += WARM_AT_ONCE) {
      results.push(...await this.#warm(images.slice(from, from + WARM_AT_ONCE), options));
    }
    return results;
  }

  async #warm(images: readonly string[], options: WarmOptions): Promise<WarmedImage[]> {
    const { platforms = "all", signal, onProgress } = options;
    const request = { method: "POST", body: { images, platforms } };
    // Older Deno versions turn destroying an aborted request into an uncatchable error. The process ends
    // soon anyway, and closes the connection.
    return await orAborted(
      this.#send("/api/warm", request).then((message) => readWarming(message, onProgress)),
      signal,
    );
  }

  /** Verifies the cache, as `verify` does in a process that has it open. */
  async verify({ signal, onProgress }: VerifyOptions): Promise<VerifyReport> {
    const request = { method: "POST", body: {} };
    return await orAborted(
      this.#send("/api/verify", request).then((message) => readVerifying(message, onProgress)),
      signal,
    );
  }

  async report(): Promise<CacheReport> {
    return await this.#json<CacheReport>("/api/stats");
  }

  get #where(): string {
    const { host, port } = this.#admin;
    return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
  }

  async #json<T>(path: string, request: ApiRequest = {}): Promise<T> {
    return JSON.parse(await textOf(await this.#send(path, request)));
  }

  /**
   * Returns the head of a 2xx answer. It uses `node:http`, because `fetch` would send the request through
   * the outbound proxy that the environment names.
   */
  async #send(
    path: string,
    { method = "GET", body }: ApiRequest,
  ): Promise<IncomingMessage> {
    const { request } = await import("node:http");
    const { host, port, token } = this.#admin;
    const text = body === undefined ? undefined : JSON.stringify(body);
    const message = await new Promise<IncomingMessage>((resolve, reject) => {
      const outgoing = request({
        host: addressOf(host),
        port,
        path,
        method,
        timeout: TIMEOUT,
        headers: {
          ...token !== undefined && { authorization: `Bearer ${token}` },
          ...text !== undefined && {
            "content-type": "application/json",
            "content-length": String(new TextEncoder().encode(text).byteLength),
          },
        },
      }, resolve);
      outgoing.on("timeout", () => outgoing.destroy(new Error("No answer")));
      outgoing.on("error", (cause) => {
        const why = `No instance answers at ${this.#where}: ${cause.message}`;
        reject(new NotRunningError(why, { cause }));
      });
      outgoing.end(text);
    });
    const { statusCode = 0 } = message;
    if (statusCode >= 200 && statusCode < 300) return message;
    throw new RemoteError(await refusalOf(message), statusCode);
  }
}

/** The events and the result of warming. */
async function readWarming(
  message: IncomingMessage,
  onProgress: WarmOptions["onProgress"],
): Promise<WarmedImage[]> {
  const results: WarmedImage[] = [];
  let isDone = false;
  try {
    for await (const { event, data } of readEvents(message)) {
      const { type, error, ...content } = JSON.parse(data);
      if (event === "progress") onProgress?.({ ...content, ...error && { error } });
      else if (event === "result") results.push(content);
      else if (event === "done") isDone = true;
      else if (type === "error") throw new RemoteError(error);
    }
  } catch (error) {
    if (error instanceof RemoteError) throw error;
  }
  if (!isDone) throw new RemoteError("The instance stopped before the operation finished");
  return results;
}

/** The events and the result of verification. */
async function readVerifying(
  message: IncomingMessage,
  onProgress: VerifyOptions["onProgress"],
): Promise<VerifyReport> {
  try {
    for await (const { event, data } of readEvents(message)) {
      const said = JSON.parse(data);
      const { checked: entries, total: totalEntries, bytes, totalBytes } = said;
      const progress = { entries, totalEntries, bytes, totalBytes };
      if (event === "progress") onProgress?.({ ...progress, wrong: said.wrong });
      else if (event === "done") {
        const { wrongEntries: wrong, found, problems } = said;
        return { ...progress, wrong, found, problems };
      } else if (event === "error") throw new RemoteError(said.error);
    }
  } catch (error) {
    if (error instanceof RemoteError) throw error;
  }
  throw new RemoteError("The instance stopped before the operation finished");
}

async function textOf(message: IncomingMessage): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of message) chunks.push(chunk);
  return new TextDecoder().decode(await new Blob(chunks as BlobPart[]).bytes());
}

/** Returns a readable message for an error answer. */
async function refusalOf(message: IncomingMessage): Promise<string> {
  const text = await textOf(message);
  if (message.statusCode === 401) {
    return "The instance rejected the request: ADMIN_TOKEN is wrong or missing";
  }
  const otherwise = `The instance returned status ${message.statusCode}`;
  try {
    const { error } = JSON.parse(text);
    return typeof error === "string" ? error : otherwise;
  } catch {
    return otherwise;
  }
}
