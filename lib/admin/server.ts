/**
 * The operator's listener. It rejects unauthenticated requests before it reads their bodies.
 *
 * @module
 */
import type { Config } from "../config/config.ts";
import { adminLog } from "../telemetry/log.ts";
import { OciError } from "../oci/error.ts";
import type { Proxy } from "../proxy/proxy.ts";
import { Api } from "./api.ts";
import { pageFile, SAFE_HEADERS } from "./files.ts";
import { readJson } from "./body.ts";
import { type Refusal, refuseForeign } from "./guard.ts";
import { Login } from "./login.ts";

/** A running operator's listener. */
export interface AdminServer {
  readonly addr: Deno.NetAddr;
  close(): Promise<void>;
}

/** Answers the requests of the listener. */
export class Admin {
  readonly #settings: NonNullable<Config["admin"]>;
  readonly #api: Api;
  readonly #login: Login;

  constructor(proxy: Proxy, settings: NonNullable<Config["admin"]>) {
    this.#settings = settings;
    this.#api = new Api(proxy);
    this.#login = new Login(settings);
  }

  /** Answers one request from `client`, an IP address. Never rejects. */
  fetch = async (request: Request, client: string): Promise<Response> => {
    try {
      return await this.#answer(request, client);
    } catch (error) {
      if (error instanceof OciError) return problem(error.status, error.message);
      adminLog.error("Unexpected error: {error}", { error: String((error as Error)?.stack) });
      return problem(500, "Internal error");
    }
  };

  async #answer(request: Request, client: string): Promise<Response> {
    const url = new URL(request.url);
    const { method, headers } = request;
    const foreign = refuseForeign(request, this.#settings);
    if (foreign) return problem(foreign.status, foreign.reason);
    if (url.pathname === "/api/logout") {
      return method === "POST" ? cookieAnswer(Login.forgetCookie()) : notAllowed(["POST"]);
    }
    // The page itself contains no secrets. It asks for the token.
    const file = method === "GET" || method === "HEAD" ? await pageFile(url.pathname) : undefined;
    if (file) return file;
    const refusal = this.#login.refuse(headers, client);
    if (refusal) return refusalAnswer(refusal);
    // Only authenticated requests get past this point. Before it, no body is read, and only the page's
    // paths are resolved.
    if (url.pathname === "/api/login") {
      return method === "POST" ? cookieAnswer(this.#login.cookie()) : notAllowed(["POST"]);
    }
    const asked = method === "HEAD" ? "GET" : method;
    const route = this.#api.routes.get(`${asked} ${url.pathname}`);
    if (!route) {
      const allowed = ["GET", "POST", "DELETE"]
        .filter((other) => this.#api.routes.has(`${other} ${url.pathname}`));
      return allowed.length > 0 ? notAllowed(allowed) : problem(404, "Not found");
    }
    const result = await route({ query: url.searchParams, json: () => readJson(request) });
    if (!(result instanceof Response)) return json(result);
    for (const [name, value] of Object.entries(SAFE_HEADERS)) result.headers.set(name, value);
    if (method !== "HEAD") return result;
    await result.body?.cancel(); // otherwise a stream of events would continue without a reader
    return new Response(null, result);
  }

  async close(): Promise<void> {
    await this.#api.close();
  }
}

/** Starts the operator's listener of `proxy`. Throws what `Deno.serve` throws. */
export function startAdmin(proxy: Proxy, settings: NonNullable<Config["admin"]>): AdminServer {
  const admin = new Admin(proxy, settings);
  const { host: hostname, port } = settings;
  const abort = new AbortController();
  const { signal } = abort;
  let server: Deno.HttpServer;
  try {
    server = Deno.serve(
      { hostname, port, signal, onListen() {} },
      (request, { remoteAddr }) => admin.fetch(request, (remoteAddr as Deno.NetAddr).hostname),
    );
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

function refusalAnswer({ status, reason, retryAfter }: Refusal): Response {
  if (status === 401) return problem(status, reason, { "www-authenticate": "Bearer" });
  return problem(status, reason, retryAfter ? { "retry-after": String(retryAfter) } : {});
}

function cookieAnswer(cookie: string): Response {
  return new Response(null, { status: 204, headers: { "set-cookie": cookie, ...SAFE_HEADERS } });
}
