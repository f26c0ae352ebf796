/**
 * Who may read what: who a caller is, which repositories are known to be public, and which credentials
 * have lately been let in by upstream. Cached content is served on these proofs and on nothing else.
 *
 * @module
 */
import type { Registry, RepositoryKey, ServiceCredential } from "../oci/registry.ts";
import { ByteLru } from "../util/lru.ts";
import type { Credential } from "../transforms/auth.ts";
import { credentialId } from "./credential.ts";

/** Where proofs that a repository is public are kept. */
export interface PublicMarks {
  /** When the repository was last proved public, ms since the epoch. */
  publicSince(key: RepositoryKey): number | undefined | Promise<number | undefined>;
  /** Marks it public at `at`, or, with undefined, no longer. */
  setPublic(key: RepositoryKey, at: number | undefined): void | Promise<void>;
}

/** Grants that other instances see too. What cannot be reached has none. */
export interface SharedGrants {
  /**
   * What the grant of a credential for a repository is called among the instances; undefined while they have not agreed
   * on that. It tells nothing of the credential.
   */
  nameOf(credential: Credential, key: RepositoryKey): string | undefined;
  has(grant: string): Promise<boolean>;
  /** For `ms`. */
  add(grant: string, ms: number): Promise<void>;
  remove(grant: string): Promise<void>;
}

/** What others know of a repository and a caller, looked up before. */
export interface Proofs {
  /** When the repository was last proved public, ms since the epoch. */
  readonly publicSince?: number;
  /** Whether the grant of {@linkcode Access.grantToLookFor} is there. */
  readonly isGranted: boolean;
  /** How long that grant still holds, ms, where it was looked up too. */
  readonly grantedFor?: number;
}

/** The caller of a request, as far as access is concerned. */
export interface Caller {
  /** Stands for the credential in keys; reveals nothing of it. */
  readonly id: string;
  /** What upstream is asked with on the caller's behalf. */
  readonly credential: Credential;
  /** Whether this is the operator's account, which `SHARE_PRIVATE` lends to everybody. */
  readonly isShared: boolean;
}

/** How long a proof that a repository is public holds, ms. */
const PUBLIC_FOR = 60 * 60_000;
/** How long a grant holds, ms. A revoked credential stops working within it. */
const GRANT_FOR = 5 * 60_000;
/** How far in the future something noted may be, ms, and still be believed: instances' clocks differ a little. */
const CLOCK_TOLERANCE = 5_000;

/** Options for {@linkcode Access}. */
export interface AccessOptions {
  readonly marks: PublicMarks;
  /** Whether a token is one that upstream's realm gave to nobody in particular. */
  readonly isAnonymousToken: (token: string) => boolean;
  readonly shared?: SharedGrants;
  /** Which of the operator's accounts to use next. @default {the first} */
  readonly chooseAccount?: (registry: Registry) => ServiceCredential | undefined;
  /** How long a proof that a repository is public holds, ms. @default {an hour} */
  readonly publicFor?: number;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** The proofs. */
export class Access {
  readonly #marks: PublicMarks;
  readonly #isAnonymousToken: (token: string) => boolean;
  readonly #shared: SharedGrants | undefined;
  readonly #chooseAccount: (registry: Registry) => ServiceCredential | undefined;
  readonly #publicFor: number;
  readonly #now: () => number;
  readonly #grants = new ByteLru<number>({ bytes: 8 * 2 ** 20 });

  constructor(options: AccessOptions) {
    this.#marks = options.marks;
    this.#isAnonymousToken = options.isAnonymousToken;
    this.#shared = options.shared;
    this.#chooseAccount = options.chooseAccount ?? (({ credential }) => credential);
    this.#publicFor = options.publicFor ?? PUBLIC_FOR;
    this.#now = options.now ?? Date.now;
  }

  /** The time by which proofs are reckoned, ms since the epoch. */
  now(): number {
    return this.#now();
  }

  /** Who `credential` is at `registry`. */
  caller(registry: Registry, credential: Credential): Caller {
    const isAnonymous = credential.kind === "anonymous" ||
      credential.kind === "bearer" && this.#isAnonymousToken(credential.token);
    if (!isAnonymous) return { id: credentialId(credential), credential, isShared: false };
    if (registry.sharePrivate && registry.credential) {
      const shared: Credential = { kind: "basic", ...registry.credential };
      return { id: credentialId(shared), credential: shared, isShared: true };
    }
    return { id: "anonymous", credential: { kind: "anonymous" }, isShared: false };
  }

  /** Whether the repository has been proved public lately. */
  async isPublic(key: RepositoryKey): Promise<boolean> {
    return this.#now() < await this.publicUntil(key);
  }

  /** Until when it counts as public, ms since the epoch; 0 where it does not. */
  async publicUntil(key: RepositoryKey): Promise<number> {
    return this.#endOf(await this.#marks.publicSince(key));
  }

  #endOf(publicSince: number | undefined): number {
    return this.#isPast(publicSince) ? publicSince + this.#publicFor : 0;
  }

  #isPast(at: number | undefined): at is number {
    return at !== undefined && isPast(at, this.#now());
  }

  /**
   * Whether `caller` may have cached content of the repository without upstream being asked; by `proofs`,
   * where they have just been looked up.
   */
  async mayRead(caller: Caller, key: RepositoryKey, proofs?: Proofs): Promise<boolean> {
    if (this.#hasGrant(caller, key)) return true;
    if (proofs) return proofs.isGranted || this.#now() < this.#endOf(proofs.publicSince);
    return await this.isPublic(key) || await this.#hasSharedGrant(caller, key);
  }

  /**
   * Until when `caller` may have it so, ms since the epoch, by `proofs` where they have just been looked up; 0 where that is
   * not known, or the caller may not.
   */
  async readableUntil(caller: Caller, key: RepositoryKey, proofs?: Proofs): Promise<number> {
    const own = this.#grants.get(grantKey(caller, key)) ?? 0;
    const shared = proofs?.grantedFor === undefined ? 0 : this.#now() + proofs.grantedFor;
    const publicUntil = proofs ? this.#endOf(proofs.publicSince) : await this.publicUntil(key);
    const until = Math.max(own, shared, publicUntil);
    return until > this.#now() ? until : 0;
  }

  /**
   * Whether upstream has lately let in this very caller, as it will be asked on its behalf. Of a public repository a
   * wrong credential may be shown what is here, and upstream still refuses it.
   */
  async wasLetIn(caller: Caller, key: RepositoryKey): Promise<boolean> {
    if (caller.credential.kind === "anonymous") return await this.isPublic(key);
    return this.#hasGrant(caller, key) || await this.#hasSharedGrant(caller, key);
  }

  /** The shared grant that would prove that `caller` may read the repository, where none is known here. */
  grantToLookFor(caller: Caller, key: RepositoryKey): string | undefined {
    if (!this.#shared || caller.credential.kind === "anonymous") return undefined;
    return this.#hasGrant(caller, key) ? undefined : this.#shared.nameOf(caller.credential, key);
  }

  /**
   * The same while upstream cannot be asked: what was public stays readable, however long ago that was
   * proved, and what the operator shares is shared. A grant does not outlive its time.
   */
  async mayReadStale(caller: Caller, key: RepositoryKey): Promise<boolean> {
    return await this.wasPublic(key) || await this.isLetIn(caller, key);
  }

  /** Whether the repository has been proved public, however long ago, and nothing has been seen since that says otherwise. */
  async wasPublic(key: RepositoryKey): Promise<boolean> {
    return this.#isPast(await this.#marks.publicSince(key));
  }

  /** Whether `caller`'s own credential was let in lately, or what the operator's account reads is shared with it. */
  async isLetIn(caller: Caller, key: RepositoryKey): Promise<boolean> {
    return caller.isShared || this.#hasGrant(caller, key) ||
      await this.#hasSharedGrant(caller, key);
  }

  #hasGrant(caller: Caller, key: RepositoryKey): boolean {
    const left = (this.#grants.get(grantKey(caller, key)) ?? 0) - this.#now();
    // More than a grant can have left: the clock was set back since.
    return left > 0 && left <= GRANT_FOR + CLOCK_TOLERANCE;
  }

  async #hasSharedGrant(caller: Caller, key: RepositoryKey): Promise<boolean> {
    if (!this.#shared || caller.credential.kind === "anonymous") return false;
    const grant = this.#shared.nameOf(caller.credential, key);
    return grant !== undefined && await this.#shared.has(grant);
  }

  /**
   * Notes that upstream let `caller` read the repository when asked with `used`, which was last found good at
   * `at`. Only for an answer that has been proved to be a registry's answer to what was asked: what follows from it ends counting from there, or a token remembered would lengthen it.
   */
  async allowed(
    caller: Caller,
    key: RepositoryKey,
    { used, at = this.#now() }: { used: Credential; at?: number },
  ): Promise<void> {
    if (used.kind === "anonymous") return await this.#marks.setPublic(key, at);
    const left = at + GRANT_FOR - this.#now();
    if (caller.credential.kind === "anonymous" || left <= 0 || !this.#isPast(at)) return;
    this.#grants.set(grantKey(caller, key), at + GRANT_FOR);
    const grant = this.#shared?.nameOf(caller.credential, key);
    if (grant !== undefined) await this.#shared?.add(grant, left);
  }

  /** Notes that upstream did not let `caller` read the repository when asked with `used`. */
  async refused(caller: Caller, key: RepositoryKey, used: Credential): Promise<void> {
    if (used.kind === "anonymous") await this.#marks.setPublic(key, undefined);
    this.#grants.delete(grantKey(caller, key));
    const grant = this.#shared?.nameOf(caller.credential, key);
    if (grant !== undefined) await this.#shared?.remove(grant);
  }

  /**
   * Notes that upstream has shown content of the repository that nobody has been shown before, when asked with
   * `used`. That everybody might read the repository was proved of what it had then, and does not cover this: while
   * upstream is away it would be served to everybody on a proof from before the repository became private.
   */
  async revokePublic(key: RepositoryKey, used: Credential): Promise<void> {
    if (used.kind === "anonymous") return;
    if (await this.#marks.publicSince(key) !== undefined) {
      await this.#marks.setPublic(key, undefined);
    }
  }

  /**
   * The credential to fetch with on behalf of `caller`: its own; for callers without one the operator's,
   * which raises rate limits, but only where everybody may read anyway.
   */
  async fetchWith(caller: Caller, registry: Registry, key: RepositoryKey): Promise<Credential> {
    const { credentials } = registry;
    // What is shared may be fetched with any of the operator's accounts; one needs no choice.
    const isOpen = caller.isShared && credentials.length > 1;
    if (caller.credential.kind !== "anonymous" && !isOpen) return caller.credential;
    if (credentials.length === 0) return caller.credential;
    if (!isOpen && !await this.isPublic(key)) return caller.credential;
    const account = this.#chooseAccount(registry);
    return account ? { kind: "basic", ...account } : caller.credential;
  }
}

/**
 * Whether something noted at `at` can have happened by `now`, both ms since the epoch. What is noted in the future
 * never happened: a clock was set back, or somebody else wrote it.
 */
export function isPast(at: number, now: number): boolean {
  return at <= now + CLOCK_TOLERANCE;
}

/** The key of a grant: one credential, one repository, one registry. */
function grantKey(caller: Caller, key: RepositoryKey): string {
  return `${caller.id} ${key.registry} ${key.repository}`;
}

/** Marks kept in memory only, for a proxy without a cache. */
export function memoryMarks(): PublicMarks {
  const marks = new ByteLru<number>({ bytes: 4 * 2 ** 20 });
  const textOf = (key: RepositoryKey) => `${key.registry} ${key.repository}`;
  return {
    publicSince: (key) => marks.get(textOf(key)),
    setPublic(key, at) {
      if (at === undefined) marks.delete(textOf(key));
      else marks.set(textOf(key), at);
    },
  };
}
