/**
 * Tracks the remaining pulls of this proxy's upstream accounts from response headers (Docker Hub's
 * `ratelimit-remaining: 76;w=21600`), and chooses the account to use next.
 *
 * @module
 */
import type { QuotaThreshold } from "../config/values.ts";
import type { Registry, ServiceCredential } from "../oci/registry.ts";
import type { Credential } from "../transforms/auth.ts";

/** The account name of anonymous pulls. */
export const ANONYMOUS_ACCOUNT = "anonymous";

/** The last known quota of one account. Times are in ms since the epoch. */
export interface Quota {
  /** The registry's `id`. */
  readonly registry: string;
  /** A username, or {@linkcode ANONYMOUS_ACCOUNT}. */
  readonly account: string;
  readonly remaining: number;
  /** Pulls per window. Undefined if only a refusal is known. */
  readonly limit?: number;
  readonly seenAt: number;
  /** When this information expires. */
  readonly until: number;
}

/**
 * Parses the number and the window (in ms) of a header such as `76;w=21600`. Returns undefined if it is
 * invalid.
 */
export function parseQuotaHeader(
  text: string | null,
): { readonly count: number; readonly window?: number } | undefined {
  const [, count, window] = /^\s*(\d{1,9})(?:\s*;\s*w\s*=\s*(\d{1,9}))?\s*(?:;|,|$)/
    .exec(text ?? "") ?? [];
  if (count === undefined) return undefined;
  return { count: Number(count), ...window !== undefined && { window: Number(window) * 1000 } };
}

/**
 * The ms that a Retry-After means: seconds or a date (RFC 9110 §10.2.3), at least 1 s and at most a day;
 * `fallback` for what is neither.
 */
export function retryAfterMs(
  text: string | null,
  { now, fallback }: { now: number; fallback: number },
): number {
  const value = text?.trim() ?? "";
  const ms = /^\d{1,9}$/.test(value) ? Number(value) * 1000 : Date.parse(value) - now;
  if (!Number.isFinite(ms)) return fallback;
  return Math.min(Math.max(ms, 1_000), 24 * 60 * 60_000);
}

/** Docker Hub's window in ms, for answers that do not state theirs. */
const DEFAULT_WINDOW = 6 * 60 * 60_000;
/** How long a refusal without Retry-After remains in effect, in ms. */
const REFUSED_FOR = 60_000;

/** Options for {@linkcode Quotas}. */
export interface QuotasOptions {
  readonly threshold: QuotaThreshold;
  /** See {@linkcode Quotas.onSeen}. */
  readonly onSeen?: (quota: Quota) => void;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** The quotas of all accounts. Nothing here waits: it is asked on the way to upstream. */
export class Quotas {
  readonly #threshold: QuotaThreshold;
  /** Called with each report of an upstream. Instances that share a cache pass it on. */
  onSeen?: (quota: Quota) => void;
  readonly #now: () => number;
  readonly #quotas = new Map<string, Quota>();
  /** When each account was last chosen, to rotate between equal ones. */
  readonly #chosenAt = new Map<string, number>();
  #choices = 0;

  constructor(options: QuotasOptions) {
    this.#threshold = options.threshold;
    this.onSeen = options.onSeen;
    this.#now = options.now ?? Date.now;
  }

  /**
   * Notes what the registry's own answer says of the quota of `credential`. A client's own account is
   * nothing to go by: it is his.
   */
  observe(
    registry: Registry,
    credential: Credential,
    answer: Pick<Response, "status" | "headers">,
  ) {
    const account = accountOf(registry, credential);
    if (account === undefined) return;
    const now = this.#now();
    const { status, headers } = answer;
    const remaining = parseQuotaHeader(headers.get("ratelimit-remaining"));
    const limit = parseQuotaHeader(headers.get("ratelimit-limit"));
    if (status !== 429 && !remaining) return;
    const window = remaining?.window ?? limit?.window ?? DEFAULT_WINDOW;
    const until = status === 429
      ? now + retryAfterMs(headers.get("retry-after"), { now, fallback: REFUSED_FOR })
      : now + window;
    const quota: Quota = {
      registry: registry.id,
      account,
      remaining: status === 429 ? 0 : remaining!.count,
      limit: limit?.count ?? this.#of(registry.id, account)?.limit,
      seenAt: now,
      until,
    };
    this.accept(quota);
    this.onSeen?.(quota);
  }

  /** Applies another instance's report, unless a newer one is known. */
  accept(quota: Quota): void {
    const key = keyOf(quota.registry, quota.account);
    if ((this.#quotas.get(key)?.seenAt ?? 0) <= quota.seenAt) this.#quotas.set(key, quota);
  }

  /** Returns the known quotas of all accounts. */
  entries(): Quota[] {
    const now = this.#now();
    return [...this.#quotas.values()].filter(({ until }) => until > now);
  }

  /** Whether pulls at the registry should be conserved, judging by its best account. */
  isLow(registry: Registry): boolean {
    if (this.#quotas.size === 0) return false;
    const { credentials } = registry;
    const accounts = credentials.length > 0
      ? credentials.map(({ username }) => username)
      : [ANONYMOUS_ACCOUNT];
    return accounts.every((account) => this.#isLow(this.#of(registry.id, account)));
  }

  #isLow(quota: Quota | undefined): boolean {
    if (!quota) return false;
    const { remaining, limit } = quota;
    if ("count" in this.#threshold) return remaining < this.#threshold.count;
    return limit === undefined ? remaining === 0 : remaining < limit * this.#threshold.share;
  }

  /**
   * The operator's account to use next: the one with most of its quota left, equals in turn. One of which
   * nothing is known has all of it.
   */
  choose(registry: Registry): ServiceCredential | undefined {
    const { credentials } = registry;
    if (credentials.length < 2) return credentials[0];
    const rank = ({ username }: ServiceCredential) => {
      const quota = this.#of(registry.id, username);
      const share = quota ? quota.remaining / (quota.limit || Math.max(1, quota.remaining)) : 1;
      return { share, chosenAt: this.#chosenAt.get(keyOf(registry.id, username)) ?? 0 };
    };
    const [best] = credentials.map((credential) => ({ credential, ...rank(credential) }))
      .sort((a, b) => b.share - a.share || a.chosenAt - b.chosenAt);
    const { credential } = best!;
    this.#chosenAt.set(keyOf(registry.id, credential.username), ++this.#choices);
    return credential;
  }

  #of(registry: string, account: string): Quota | undefined {
    const quota = this.#quotas.get(keyOf(registry, account));
    return quota && quota.until > this.#now() ? quota : undefined;
  }
}

/** Returns the operator's account for `credential`, or undefined if it is not the operator's. */
function accountOf(registry: Registry, credential: Credential): string | undefined {
  if (credential.kind === "anonymous") return ANONYMOUS_ACCOUNT;
  if (credential.kind === "bearer") return undefined;
  return registry.credentials.find(({ username, password }) =>
    username === credential.username && password === credential.password
  )?.username;
}

function keyOf(registry: string, account: string): string {
  return `${registry} ${account}`;
}
