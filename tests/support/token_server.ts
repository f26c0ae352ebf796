/**
 * The token server that a real docker-registry trusts: JWTs signed with the key of its root certificate.
 *
 * @module
 */
import type { Certificate } from "./certificate.ts";
import { type Access, parseTokenRequest } from "./fake_token.ts";
import { extend, type HttpServer, type ServerReply, startHttpServer } from "./http_server.ts";

/** The user who may push and delete everywhere. */
export const ADMIN = { username: "admin", password: "admin-password" } as const;

/** One token request. */
export interface TokenEntry {
  readonly method: string;
  readonly target: string;
  readonly headers: Headers;
  /** `""` for an anonymous one. */
  readonly user: string;
  readonly status: number;
}

/** A running token server. */
export interface TokenServer extends HttpServer {
  readonly realm: string;
  readonly service: string;
  readonly issuer: string;
  readonly log: TokenEntry[];
  /** Makes a repository readable by these users only, or with `undefined` by everybody. */
  setReaders(repository: string, readers: readonly string[] | undefined): void;
  setUser(username: string, password: string | undefined): void;
}

/** Options for {@linkcode startTokenServer}. */
export interface TokenServerOptions {
  readonly certificate: Certificate;
  /** Passwords by name, besides {@linkcode ADMIN}'s. */
  readonly users?: Readonly<Record<string, string>>;
  /** Readers of private repositories; all others are public. */
  readonly private?: Readonly<Record<string, readonly string[]>>;
  /** Seconds. @default {300} */
  readonly life?: number;
}

/** Starts a token server. */
export async function startTokenServer(options: TokenServerOptions): Promise<TokenServer> {
  const { certificate, life = 300 } = options;
  const service = "test-registry";
  const issuer = "test-issuer";
  const users = new Map([...Object.entries(options.users ?? {}), Object.values(ADMIN)] as [
    string,
    string,
  ][]);
  const readers = new Map(Object.entries(options.private ?? {}));
  const refresh = new Map<string, string>();
  const log: TokenEntry[] = [];

  function granted(user: string, scope: Access): readonly string[] {
    if (user === ADMIN.username) return scope.actions;
    if (scope.type !== "repository") return [];
    const allowed = readers.get(scope.name);
    return !allowed || allowed.includes(user) ? scope.actions.filter((a) => a === "pull") : [];
  }

  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const pkcs8 = Uint8Array.from(atob(base64Of(certificate.key)), (char) => char.charCodeAt(0));
  const key = await crypto.subtle.importKey("pkcs8", pkcs8, algorithm, false, ["sign"]);

  async function tokenFor(user: string, scopes: readonly Access[]): Promise<string> {
    const now = Math.floor(Date.now() / 1000);
    const parts = [{ typ: "JWT", alg: "ES256", x5c: [base64Of(certificate.cert)] }, {
      iss: issuer,
      sub: user,
      aud: service,
      exp: now + life,
      nbf: now - 10,
      iat: now,
      jti: crypto.randomUUID(),
      access: scopes.map((scope) => ({ ...scope, actions: granted(user, scope) })),
    }].map((part) => base64url(new TextEncoder().encode(JSON.stringify(part))));
    const text = new TextEncoder().encode(parts.join("."));
    const signature = await crypto.subtle.sign(algorithm, key, text);
    return [...parts, base64url(new Uint8Array(signature))].join(".");
  }

  const server = await startHttpServer(async (request): Promise<ServerReply> => {
    const wanted = parseTokenRequest(request);
    const byRefresh = refresh.get(wanted.refreshToken ?? "");
    const user = byRefresh ?? wanted.username ?? "";
    const right = wanted.refreshToken !== undefined
      ? byRefresh !== undefined
      : wanted.username === undefined || (users.has(user) && users.get(user) === wanted.password);
    const { method, target, headers } = request;
    log.push({ method, target, headers, user, status: right ? 200 : 401 });
    const json = [["content-type", "application/json"]] as const;
    if (!right) {
      const errors = [{ code: "UNAUTHORIZED", message: "Incorrect username or password" }];
      return { status: 401, headers: json, body: JSON.stringify({ errors }) };
    }
    const token = await tokenFor(user, wanted.scopes);
    const more = wanted.offline && user ? { refresh_token: crypto.randomUUID() } : undefined;
    if (more) refresh.set(more.refresh_token, user);
    const body = { token, access_token: token, expires_in: life, ...more };
    const issued = { ...body, issued_at: new Date().toISOString() };
    return { status: 200, headers: json, body: JSON.stringify(issued) };
  });

  return extend(server, {
    // By name: credentials go to a realm on the registry's own domain only, and an address has none.
    realm: `http://localhost:${server.port}/token`,
    service,
    issuer,
    log,
    setReaders(repository: string, allowed: readonly string[] | undefined) {
      if (allowed) readers.set(repository, allowed);
      else readers.delete(repository);
    },
    setUser(username: string, password: string | undefined) {
      if (password === undefined) users.delete(username);
      else users.set(username, password);
    },
  });
}

/** What is between the lines of a PEM file. */
function base64Of(pem: string): string {
  return pem.replace(/-----[^-]+-----|\s/g, "");
}

function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_")
    .replace(/=+$/, "");
}
