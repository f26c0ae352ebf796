/**
 * The operator's listener. What comes from outside is refused before anything looks at it.
 *
 * @module
 */
import type { Config } from "../config.ts";
import { adminLog } from "../log.ts";
import { OciError } from "../oci/error.ts";
import type { Proxy } from "../proxy.ts";
import { Api } from "./api.ts";
import { pageFile, SAFE_HEADERS } from "./files.ts";
import { COOKIE, isSame, refuseForeign, refuseStranger, sessionOf } from "./guard.ts";

/** Larger bodies are no commands. */
const MAX_BODY = 64 * 1024;

/** A running operator's listener. */
export interface AdminServer {
  readonly addr: Deno.NetAddr;
  close(): Promise<void>;
}

/** What the listener answers. */
export class Admin {
  readonly #settings: NonNullable<Config["admin"]>;
  readonly #api: Api;

  constructor(proxy: Proxy, settings: NonNullable<Config["admin"]>) {
    this.#settings = settings;
    this.#api = new Api(proxy);
  }

  /** Answers one request. Never rejects. */
  fetch = async (request: Request): Promise<Response> => {
    try {
      return await this.#answer(request);
    } catch (error) {
      if (error instanceof OciError) return problem(error.status, error.message);
      adminLog.error("Unexpected error: {error}", { error: String((error as Error)?.stack) });
      return problem(500, "Internal error");
    }
  };

  async #answer(request: Request): Promise<Response> {
    const url = new URL(request.url);
    const { method, headers } = request;
    const foreign = refuseForeign(request, this.#settings);
    if (foreign) return problem(foreign.status, foreign.reason);
    if (url.pathname === "/api/login" || url.pathname === "/api/logout") {
      if (method !== "POST") return notAllowed(["POST"]);
      return url.pathname === "/api/login" ? await this.#login(request) : forget();
    }
    // The page itself holds no secret; it asks for the token.
    const file = method === "GET" || method === "HEAD" ? await pageFile(url.pathname) : undefined;
    if (file) return file;
    const stranger = refuseStranger(headers, this.#settings);
    if (stranger) {
      return problem(stranger.status, stranger.reason, { "www-authenticate": "Bearer" });
    }
    const asked = method === "HEAD" ? "GET" : method;
    const route = this.#api.routes.get(`${asked} ${url.pathname}`);
    if (!route) {
      const allowed = ["GET", "POST", "DELETE"]
        .filter((other) => this.#api.routes.has(`${other} ${url.pathname}`));
      return allowed.length > 0 ? notAllowed(allowed) : problem(404, "There is nothing here");
    }
    const result = await route({ query: url.searchParams, json: () => readJson(request) });
    if (!(result instanceof Response)) return json(result);
    for (const [name, value] of Object.entries(SAFE_HEADERS)) result.headers.set(name, value);
    if (method !== "HEAD") return result;
    await result.body?.cancel(); // else a stream of events would go on for nobody
    return new Response(null, result);
  }

  async #login(request: Request): Promise<Response> {
    const { token } = this.#settings;
    const body = await readJson(request) as { token?: unknown };
    const isRight = token === undefined ||
      typeof body.token === "string" && isSame(body.token, token);
    if (!isRight) return problem(401, "That is not the operator's token");
    const session = token === undefined ? "" : sessionOf(token);
    const cookie = `${COOKIE}=${session}; HttpOnly; SameSite=Strict; Path=/`;
    return new Response(null, { status: 204, headers: { "set-cookie": cookie, ...SAFE_HEADERS } });
  }

  async close(): Promise<void> {
    await this.#api.close();
  }
}

/** Listens for the operator of `proxy`. Throws what `Deno.serve` throws. */
export function startAdmin(proxy: Proxy, settings: NonNullable<Config["admin"]>): AdminServer {
  const admin = new Admin(proxy, settings);
  const { host: hostname, port } = settings;
  const abort = new AbortController();
  const { signal } = abort;
  let server: Deno.HttpServer;
  try {
    server = Deno.serve({ hostname, port, signal, onListen() {} }, admin.fetch);
  } catch (error) {
    void admin.close();
    throw error;
  }
  const addr = server.addr as Deno.NetAddr;
  return {
    addr,
    async close() {
      abort.abort();
      await server.finished;
      await admin.close();
    },
  };
}

async function readJson(request: Request): Promise<Record<string, unknown>> {
  const type = (request.headers.get("content-type") ?? "").split(";")[0]!.trim().toLowerCase();
  if (type !== "application/json") {
    throw new OciError("NAME_INVALID", "Expected application/json", { status: 415 });
  }
  const length = Number(request.headers.get("content-length") ?? 0);
  if (length > MAX_BODY) throw tooLarge();
  const bytes = await request.bytes();
  if (bytes.byteLength > MAX_BODY) throw tooLarge();
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new OciError("NAME_INVALID", "The body is no JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new OciError("NAME_INVALID", "The body is no JSON object");
  }
  return value as Record<string, unknown>;
}

function tooLarge(): OciError {
  return new OciError("NAME_INVALID", "The body is too large", { status: 413 });
}

function json(value: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(value), {
    status,
    headers: {
      "content-type": "application/json",
      "cache-control": "no-store",
      ...SAFE_HEADERS,
      ...headers,
    },
  });
}

function problem(
  status: number,
  reason: string,
  headers: Record<string, string> = {},
): Response {
  return json({ error: reason }, status, headers);
}

function notAllowed(methods: readonly string[]): Response {
  return problem(405, `Only ${methods.join(", ")}`, { allow: methods.join(", ") });
}

function forget(): Response {
  const cookie = `${COOKIE}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0`;
  return new Response(null, { status: 204, headers: { "set-cookie": cookie, ...SAFE_HEADERS } });
}
