/**
 * Parses and formats WWW-Authenticate (RFC 9110 §11.6.1; distribution's token specification).
 *
 * @module
 */

/** One challenge of a WWW-Authenticate header. */
export interface Challenge {
  /** The scheme in lower case: `bearer`. */
  readonly scheme: string;
  /** The parameters. Names are in lower case, values unquoted. The first of two equal names wins. */
  readonly params: Readonly<Record<string, string>>;
  /** The token68 of schemes such as Negotiate, instead of parameters. */
  readonly token68?: string;
}

/** Maximum length that is parsed, in characters. Registries send some 300. */
const MAX_LENGTH = 8 * 1024;

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))/y;
const EQUALS = /[ \t]*=[ \t]*/y;
const QUOTED = /"((?:[^"\\]|\\.)*)(?:"|\\?$)/sy;
const BARE = /[^\s,"]+/y;
const SPACE = /[ \t]+/y;
const SEPARATOR = /[ \t,]*/y;

/**
 * Returns the challenges of `header`, in order. Several headers are one value joined by commas, as
 * `Headers.get` gives it. Never throws: what is not a challenge is skipped.
 */
export function parseChallenges(header: string | null): Challenge[] {
  const scanner = new Scanner((header ?? "").slice(0, MAX_LENGTH));
  const challenges: Challenge[] = [];
  while (!scanner.done()) {
    scanner.take(SEPARATOR);
    const scheme = scanner.take(TOKEN)?.[0];
    if (scheme === undefined) {
      scanner.at++;
      continue;
    }
    const token68 = scanner.take(SPACE) ? scanner.take(TOKEN68)?.[0] : undefined;
    const params = token68 === undefined ? readParams(scanner) : {};
    challenges.push({
      scheme: scheme.toLowerCase(),
      params,
      ...token68 !== undefined && { token68 },
    });
  }
  return challenges;
}

/**
 * Returns the challenge to answer: a Bearer with a realm, else a Basic, else undefined. Registries that
 * offer both often list the weaker one first.
 */
export function chooseChallenge(challenges: readonly Challenge[]): Challenge | undefined {
  return challenges.find(({ scheme, params }) => scheme === "bearer" && params.realm) ??
    challenges.find(({ scheme }) => scheme === "basic");
}

/** The parameters of a Bearer challenge. */
export interface Bearer {
  readonly realm: string;
  readonly service: string;
  /** The scopes, separated by spaces. */
  readonly scope?: string;
}

/** Formats a Bearer challenge. Characters that are invalid in a header are dropped. */
export function formatBearer(bearer: Bearer): string {
  const { realm, service, scope } = bearer;
  return `Bearer realm=${quote(realm)},service=${quote(service)}` +
    (scope ? `,scope=${quote(scope)}` : "");
}

class Scanner {
  readonly #text: string;
  at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  done(): boolean {
    return this.at >= this.#text.length;
  }

  take(sticky: RegExp): RegExpExecArray | undefined {
    sticky.lastIndex = this.at;
    const match = sticky.exec(this.#text);
    if (match === null) return undefined;
    this.at = sticky.lastIndex;
    return match;
  }
}

function readParams(scanner: Scanner): Record<string, string> {
  const params = new Map<string, string>();
  while (!scanner.done()) {
    const start = scanner.at;
    scanner.take(SEPARATOR);
    const name = scanner.take(TOKEN)?.[0].toLowerCase();
    if (name === undefined || !scanner.take(EQUALS)) {
      // Not a parameter: the scheme of the next challenge, or garbage.
      scanner.at = start;
      break;
    }
    const value = scanner.take(QUOTED)?.[1]?.replace(/\\(.)/gs, "$1") ??
      scanner.take(BARE)?.[0] ?? "";
    if (!params.has(name)) params.set(name, value);
  }
  return Object.fromEntries(params);
}

function quote(value: string): string {
  return `"${value.replace(/[^\t\x20-\x7e\x80-\xff]/g, "").replace(/["\\]/g, "\\$&")}"`;
}
