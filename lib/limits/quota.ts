/**
 * How many pulls upstreams have left for this proxy's accounts, as their own headers say (Docker Hub's
 * `ratelimit-remaining: 76;w=21600`), and which account to use next.
 *
 * @module
 */
import type { QuotaThreshold } from "../config/values.ts";
import type { Registry, ServiceCredential } from "../oci/registry.ts";
import type { Credential } from "../transforms/auth.ts";

/** Where pulls without an account are counted. */
export const ANONYMOUS_ACCOUNT = "anonymous";

/** What was last heard of one account's quota. Times in ms since the epoch. */
export interface Quota {
  /** The registry's `id`. */
  readonly registry: string;
  /** A user name, or {@linkcode ANONYMOUS_ACCOUNT}. */
  readonly account: string;
  readonly remaining: number;
  /** In a window; absent where only a refusal told. */
  readonly limit?: number;
  readonly seenAt: number;
  /** From when on this says nothing any more. */
  readonly until: number;
}

/** The number and window (in ms) of a header such as `76;w=21600`; undefined for what is none. */
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

/** Docker Hub's window, for answers that do not name theirs. */
const DEFAULT_WINDOW = 6 * 60 * 60_000;
/** How long a refusal without Retry-After is believed, ms. */
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
  /** Called with what an upstream said; instances that share a cache pass it on. */
  onSeen?: (quota: Quota) => void;
  readonly #now: () => number;
  readonly #quotas = new Map<string, Quota>();
  /** When each account was last chosen, so that equals take turns. */
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

  /** Takes over what another instance heard, unless something newer is known here. */
  accept(quota: Quota): void {
    const key = keyOf(quota.registry, quota.account);
    if ((this.#quotas.get(key)?.seenAt ?? 0) <= quota.seenAt) this.#quotas.set(key, quota);
  }

  /** What is known now, of every account. */
  entries(): Quota[] {
    const now = this.#now();
    return [...this.#quotas.values()].filter(({ until }) => until > now);
  }

  /** Whether the pulls that are left at the registry, with the best of its accounts, are to be spared. */
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

/** The account that `credential` is among the operator's; undefined for anybody else's. */
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
