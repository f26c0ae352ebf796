/**
 * How much a request may say. Everything is measured before it is read: what is longer, or more, is refused.
 *
 * @module
 */
import { OciError } from "../oci/error.ts";
import { splitScopes } from "../oci/scope.ts";

/** The most header fields. Clients of registries send about ten; a proxy in front adds a few. */
export const MAX_FIELDS = 100;

/** The longest header field, characters. Clients of registries send an Accept of up to 700. */
export const MAX_FIELD = 8 * 1024;

/**
 * The longest Authorization, characters. Tokens of GCP, AWS and Azure take up to 5 KiB, as a Basic password up to 7;
 * many servers refuse more than 16 KiB of header fields in all, some by breaking the connection off.
 */
export const MAX_AUTHORIZATION = 12 * 1024;

/** The longest header fields together, names included, characters. */
export const MAX_HEADERS = 16 * 1024;

/** The longest path, characters: names have 255, tags 128, and each may be written with percent signs. */
export const MAX_PATH = 2 * 1024;

/** The longest query, characters: {@linkcode MAX_SCOPES} scopes, encoded. Others have some hundred. */
export const MAX_QUERY = 8 * 1024;

/** The most scopes of a token request. Clients ask for one repository, or for those that a push mounts from. */
export const MAX_SCOPES = 16;

/** The longest scope, characters: a name of 255, a type and actions. */
export const MAX_SCOPE = 512;

/** The longest user name, and any other parameter of a token request that is no secret, characters. */
export const MAX_PARAMETER = 1024;

/** The longest password, characters: as Basic it is a third longer, and has to fit {@linkcode MAX_AUTHORIZATION}. */
export const MAX_PASSWORD = 7 * 1024;

/** The longest refresh token, characters. */
export const MAX_REFRESH_TOKEN = MAX_AUTHORIZATION;

/** Whether a header field is longer than it may be; `name` in lower case. */
export function isFieldTooLong(name: string, value: string): boolean {
  return value.length > (name === "authorization" ? MAX_AUTHORIZATION : MAX_FIELD);
}

/**
 * Throws an `OciError` for a request that says too much: 400 for its path and query, 431 (RFC 6585 §5) for its header
 * fields.
 */
export function checkRequest({ url, headers }: { url: string; headers: Headers }): void {
  checkTarget(url);
  let count = 0;
  let length = 0;
  for (const [name, value] of headers) {
    length += name.length + value.length;
    if (++count > MAX_FIELDS) throw tooMuch("Too many header fields");
    if (length > MAX_HEADERS || isFieldTooLong(name, value)) {
      throw tooMuch("Header fields too large");
    }
  }
}

/** The longest `http://host:port` before a path. */
const MAX_ORIGIN = 300;

/** Throws an `OciError` (400) for a URL whose path or query is too long. */
function checkTarget(url: string): void {
  if (url.length <= MAX_PATH) return;
  const query = url.indexOf("?");
  const path = query < 0 ? url.length : query;
  if (path > MAX_PATH + MAX_ORIGIN) throw new OciError("NAME_INVALID", "Path too long");
  if (url.length - path > MAX_QUERY) {
    throw new OciError("UNSUPPORTED", "Query too long", { status: 400 });
  }
}

function tooMuch(message: string): OciError {
  return new OciError("UNSUPPORTED", message, { status: 431 });
}

/** What a token request says, as far as it is bounded. */
export interface TokenParameters {
  /** As they were sent: one may hold several, separated by spaces. */
  readonly scopes: readonly string[];
  /** By name: `username`, `password`, `refresh_token` and what else is passed on. */
  readonly values: Readonly<Record<string, string>>;
}

const LONGEST_VALUE: Readonly<Record<string, number>> = {
  password: MAX_PASSWORD,
  refresh_token: MAX_REFRESH_TOKEN,
};

/** Throws an `OciError` (400) for a token request that asks for too much at once, or too long. */
export function checkTokenParameters({ scopes, values }: TokenParameters): void {
  const refused = (message: string) => new OciError("UNSUPPORTED", message, { status: 400 });
  const single = scopes.length > MAX_SCOPES ? scopes : splitScopes(scopes, MAX_SCOPES + 1);
  if (single.length > MAX_SCOPES) throw refused(`More than ${MAX_SCOPES} scopes`);
  if (single.some(({ length }) => length > MAX_SCOPE)) throw refused("Scope too long");
  for (const [name, { length }] of Object.entries(values)) {
    if (length > (LONGEST_VALUE[name] ?? MAX_PARAMETER)) throw refused(`${name} too long`);
  }
}
