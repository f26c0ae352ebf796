/**
 * A running instance, operated through its own listener.
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

/** Nobody answers at the operator's address. */
export class NotRunningError extends Error {
  override readonly name = "NotRunningError";
}

/** What the instance answered instead of doing it. */
export class RemoteError extends Error {
  override readonly name = "RemoteError";
  /** Absent where the answer broke off. */
  readonly status?: number;

  constructor(message: string, status?: number) {
    super(message);
    this.status = status;
  }
}

/** Images listed, and warmed, with one request. */
const PAGE = 500;
const WARM_AT_ONCE = 100;
/** An answer of which nothing comes for this long is given up, ms. */
const TIMEOUT = 60_000;

/** Options for {@linkcode RemoteOperations.verify}. */
export interface VerifyOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: VerifyProgress) => void;
}

/** One request to the listener. */
interface ApiRequest {
  readonly method?: string;
  readonly body?: unknown;
}

/** Where to reach a listener at `host`: a wildcard address is reached by loopback. */
function addressOf(host: string): string {
  return host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
}

/** The operations of the instance whose listener is `admin`. */
export class RemoteOperations implements Operations {
  readonly #admin: NonNullable<Config["admin"]>;

  constructor(admin: NonNullable<Config["admin"]>) {
    this.#admin = admin;
  }

  /**
   * Settles when the instance answers. Throws a {@linkcode NotRunningError} where none does, and where
   * something else listens: the port is popular.
   */
  async check(): Promise<void> {
    try {
      const { cache } = await this.report();
      if (typeof cache?.entries === "number") return;
    } catch (error) {
      const isOurs = error instanceof RemoteError && [401, 403].includes(error.status ?? 0);
      if (isOurs || error instanceof NotRunningError) throw error;
    }
    throw new NotRunningError(`No instance answers at ${this.#where}: something else does`);
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
    // Nothing is destroyed when it is aborted, of which older Denos make an error that nobody can catch: the
    // process ends then, and its connection with it.
    return await orAborted(
      this.#send("/api/warm", request).then((message) => readWarming(message, onProgress)),
      signal,
    );
  }

  /** As `verify` does in a process that has the cache. */
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
   * The answer's head, of a 2xx. By `node:http`: `fetch` would send it to the proxy that the environment
   * names for upstream.
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

/** What a warming reports and comes to. */
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
  if (!isDone) throw new RemoteError("The instance ended before it was done");
  return results;
}

/** What a verification reports and comes to. */
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
  throw new RemoteError("The instance ended before it was done");
}

async function textOf(message: IncomingMessage): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of message) chunks.push(chunk);
  return new TextDecoder().decode(await new Blob(chunks as BlobPart[]).bytes());
}

/** What a refusal says, for people. */
async function refusalOf(message: IncomingMessage): Promise<string> {
  const text = await textOf(message);
  if (message.statusCode === 401) return "The instance refuses: ADMIN_TOKEN is wrong or missing";
  const otherwise = `The instance answers ${message.statusCode}`;
  try {
    const { error } = JSON.parse(text);
    return typeof error === "string" ? error : otherwise;
  } catch {
    return otherwise;
  }
}
