/**
 * The rules of a token server as Docker Hub's: anonymous tokens for what is public, a token with less than was asked
 * instead of a refusal, 401 for a wrong password.
 *
 * @module
 */

/** What a scope names, and what is wanted or granted there. */
export interface Access {
  readonly type: string;
  readonly name: string;
  readonly actions: readonly string[];
}

/** A token request, whichever way it came. */
export interface TokenRequest {
  readonly service: string;
  readonly scopes: readonly Access[];
  readonly username?: string;
  readonly password?: string;
  readonly refreshToken?: string;
  /** Whether a refresh token is wanted too. */
  readonly offline: boolean;
}

/** Reads GET's query and Basic header, or POST's form. */
export function parseTokenRequest(request: {
  readonly method: string;
  readonly url: URL;
  readonly headers: Headers;
  readonly body: Uint8Array<ArrayBuffer>;
}): TokenRequest {
  const form = request.method === "POST"
    ? new URLSearchParams(new TextDecoder().decode(request.body))
    : request.url.searchParams;
  const basic = basicOf(request.headers.get("authorization"));
  return {
    service: form.get("service") ?? "",
    scopes: form.getAll("scope").flatMap((scope) => scope.split(" ")).filter(Boolean).map(
      parseScope,
    ),
    username: basic?.username ?? form.get("username") ?? undefined,
    password: basic?.password ?? form.get("password") ?? undefined,
    refreshToken: form.get("refresh_token") ?? undefined,
    offline: form.get("access_type") === "offline" || form.get("offline_token") === "true",
  };
}

/** The parts of `repository:library/nginx:pull,push`; a name may hold a port's colon. */
export function parseScope(scope: string): Access {
  const first = scope.indexOf(":");
  const last = scope.lastIndexOf(":");
  return {
    type: scope.slice(0, first),
    name: scope.slice(first + 1, last),
    actions: scope.slice(last + 1).split(",").filter(Boolean),
  };
}

/** The credentials of a Basic header. */
export function basicOf(
  header: string | null,
): { username: string; password: string } | undefined {
  const match = header?.match(/^basic +(\S+)$/i);
  if (!match) return undefined;
  const bytes = Uint8Array.from(atob(match[1]!), (char) => char.charCodeAt(0));
  const text = new TextDecoder().decode(bytes);
  const colon = text.indexOf(":");
  return { username: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** A Basic header. */
export function basicHeader(username: string, password: string): string {
  const bytes = new TextEncoder().encode(`${username}:${password}`);
  return "Basic " + btoa(String.fromCharCode(...bytes));
}
