/**
 * A connection to Redis or Valkey (one, a cluster, or behind sentinels) that answers or fails in bounded
 * time, and knows whether the other side is there.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { createClient, createCluster, createSentinel, ErrorReply, RESP_TYPES } from "redis";
import { within } from "../../util/deadline.ts";
import type { RedisLocation } from "../../config/engine_url.ts";
import { UnreachableError } from "./blob_store.ts";

/** An argument of a command. */
export type Argument = string | Uint8Array;
/** What Redis answers: nested arrays of strings, bytes, numbers and nulls. */
export type Reply = string | number | null | Uint8Array | readonly Reply[];

/** Redis cannot be reached, or did not answer in time. */
export class RedisDownError extends UnreachableError {
  override readonly name: string = "RedisDownError";
}

/**
 * Redis is there and takes no writes now: its memory is full, it cannot write its disk, or too few replicas
 * follow it. What is in it can be read.
 */
export class RedisRefusesError extends RedisDownError {
  override readonly name = "RedisRefusesError";
  /** As a disk says it, where it is memory that is missing. */
  readonly code: "ENOSPC" | undefined;

  constructor(cause: ErrorReply) {
    super("Redis takes no writes", { cause });
    this.code = /\bOOM\b/.test(cause.message) ? "ENOSPC" : undefined;
  }
}

/** Answers that pass like an absence. Before Redis 7 a script's error has them in the middle. */
const ABSENT = /(?:^|-)(?:READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|NOAUTH|WRONGPASS)\b/;
/** Answers to writes alone. */
const REFUSED = /(?:^|-)(?:OOM|MISCONF|NOREPLICAS)\b/;

/** A Lua script; `{prefix}` keys are all in one slot, so it may touch any of ours. */
export interface Script {
  readonly lua: string;
  readonly sha: string;
}

/** A script for {@linkcode Redis.run}. */
export function script(lua: string): Script {
  return { lua, sha: createHash("sha1").update(lua).digest("hex") };
}

/** A command must be answered within this, ms. */
const COMMAND_TIMEOUT = 2_000;
/** While it is down, it is tried this often, ms. Commands fail at once meanwhile. */
const PROBE_EVERY = 1_000;

/** The commands of one connection, whatever it is behind. */
interface Driver {
  connect(): Promise<unknown>;
  command(key: string, args: Argument[]): Promise<Reply>;
  /** The same with bytes for strings in the reply. */
  bytes(key: string, args: Argument[]): Promise<Reply>;
  close(): void;
}

// The client's types want Buffer; a view of the same bytes is one.
function toArguments(args: Argument[]): (string | Buffer)[] {
  return args.map((arg) =>
    typeof arg === "string" ? arg : Buffer.from(arg.buffer, arg.byteOffset, arg.byteLength)
  );
}

function drive(location: RedisLocation, onError: (error: Error) => void): Driver {
  const { mode, hosts, tls, username, password, database } = location;
  const reconnectStrategy = (attempt: number) => Math.min(50 * 2 ** attempt, PROBE_EVERY);
  const socket = { reconnectStrategy, connectTimeout: COMMAND_TIMEOUT, ...tls && { tls: true } };
  const account = { username, password };
  const common = { ...account, socket, disableOfflineQueue: true } as const;
  const mapped = { typeMapping: { [RESP_TYPES.BLOB_STRING]: Buffer } };
  switch (mode) {
    case "single": {
      const client = createClient({
        ...common,
        RESP: 2,
        database,
        socket: { ...socket, host: hosts[0]!.host, port: hosts[0]!.port } as never,
      });
      client.on("error", onError);
      return {
        connect: () => client.connect(),
        command: (_key, args) => client.sendCommand(toArguments(args)),
        bytes: (_key, args) => client.sendCommand(toArguments(args), mapped),
        close: () => client.destroy(),
      };
    }
    case "cluster": {
      const client = createCluster({
        rootNodes: hosts.map(({ host, port }) => ({ socket: { ...socket, host, port } as never })),
        defaults: { ...common, RESP: 2 } as never,
        RESP: 2,
      });
      client.on("error", onError);
      return {
        connect: () => client.connect(),
        command: (key, args) => client.sendCommand(key, false, toArguments(args)),
        bytes: (key, args) => client.sendCommand(key, false, toArguments(args), mapped),
        close: () => client.destroy(),
      };
    }
    case "sentinel": {
      const client = createSentinel({
        name: location.master!,
        sentinelRootNodes: hosts.map((node) => ({ ...node })),
        nodeClientOptions: { ...common, database } as never,
        RESP: 2,
      });
      client.on("error", onError);
      return {
        connect: () => client.connect(),
        command: (_key, args) => client.sendCommand(false, toArguments(args)),
        bytes: (_key, args) => client.sendCommand(false, toArguments(args), mapped),
        close: () => void client.destroy(),
      };
    }
  }
}

/** Options for {@linkcode Redis}. */
export interface RedisOptions {
  readonly location: RedisLocation;
  /** Called once each time it goes. */
  readonly onDown: (cause: unknown) => void;
  /** Called once each time it begins to refuse writes. */
  readonly onRefused?: (cause: unknown) => void;
  /** Called once each time it comes back, or takes writes again. */
  readonly onUp: (from: "down" | "refusing") => void;
}

/** The connection. */
export class Redis {
  readonly #driver: Driver;
  readonly #options: RedisOptions;
  readonly #prefix: string;
  #isUp = true;
  #isRefusing = false;
  #prober: ReturnType<typeof setInterval> | undefined;
  #lastError: Error | undefined;

  private constructor(options: RedisOptions) {
    this.#options = options;
    this.#prefix = `{${options.location.prefix}}:`;
    this.#driver = drive(options.location, (error) => this.#lastError = error);
  }

  /** Connects; returns also when the other side is not there yet: see `isUp`. */
  static async connect(options: RedisOptions): Promise<Redis> {
    const redis = new Redis(options);
    const connected = redis.#driver.connect();
    connected.catch((error) => redis.#lastError = error);
    try {
      await within(connected, { ms: COMMAND_TIMEOUT, what: "Redis" });
    } catch (error) {
      redis.#down(redis.#lastError ?? error);
    }
    return redis;
  }

  /** Whether it answered when it was last asked. */
  get isUp(): boolean {
    return this.#isUp;
  }

  /** The full name of `name`: every key of ours has the prefix as its hash tag, and so the same slot. */
  key(name: string): string {
    return this.#prefix + name;
  }

  /** The reply to a command on `key`. Throws a {@linkcode RedisDownError}, or what Redis says. */
  async command(command: string, key: string, ...args: Argument[]): Promise<Reply> {
    return await this.#ask(() => this.#driver.command(key, [command, key, ...args]));
  }

  /** The same with the reply's strings as bytes. */
  async bytes(command: string, key: string, ...args: Argument[]): Promise<Reply> {
    return await this.#ask(() => this.#driver.bytes(key, [command, key, ...args]));
  }

  /** What `script` returns. */
  async run({ lua, sha }: Script, ...args: Argument[]): Promise<Reply> {
    const key = this.#prefix;
    try {
      return await this.#ask(() => this.#driver.command(key, ["EVALSHA", sha, "1", key, ...args]));
    } catch (error) {
      if (!(error instanceof ErrorReply) || !error.message.startsWith("NOSCRIPT")) throw error;
      return await this.#ask(() => this.#driver.command(key, ["EVAL", lua, "1", key, ...args]));
    }
  }

  async #ask(work: () => Promise<Reply>): Promise<Reply> {
    if (!this.#isUp) throw new RedisDownError("Redis is down", { cause: this.#lastError });
    try {
      return await within(work(), { ms: COMMAND_TIMEOUT, what: "Redis" });
    } catch (error) {
      // An answer, if not the one hoped for: it is there.
      if (error instanceof ErrorReply && !ABSENT.test(error.message)) {
        if (!REFUSED.test(error.message)) throw error;
        this.#refused(error);
        throw new RedisRefusesError(error);
      }
      this.#down(error);
      throw new RedisDownError("Redis is down", { cause: error });
    }
  }

  #down(cause: unknown): void {
    this.#lastError = cause instanceof Error ? cause : undefined;
    if (!this.#isUp) return;
    this.#isUp = false;
    this.#options.onDown(cause);
    this.#watch();
  }

  #refused(cause: unknown): void {
    if (this.#isRefusing || !this.#isUp) return;
    this.#isRefusing = true;
    this.#options.onRefused?.(cause);
    this.#watch();
  }

  #watch(): void {
    clearInterval(this.#prober);
    this.#prober = setInterval(() => this.#probe(), PROBE_EVERY);
  }

  async #probe(): Promise<void> {
    try {
      // A write: a replica that has lost its master would answer a PING.
      const key = this.key("probe");
      const probe = this.#driver.command(key, ["SET", key, "1", "PX", "1000"]);
      await within(probe, { ms: COMMAND_TIMEOUT, what: "Redis" });
    } catch (error) {
      this.#lastError = error as Error;
      return;
    }
    const before = [!this.#isUp && "down", this.#isRefusing && "refusing"] as const;
    clearInterval(this.#prober);
    this.#isUp = true;
    this.#isRefusing = false;
    for (const from of before) if (from) this.#options.onUp(from);
  }

  close(): void {
    clearInterval(this.#prober);
    this.#isUp = false;
    this.#driver.close();
  }
}

/** A lease ends this long after its last heartbeat, ms. */
export const LEASE_LIFE = 10_000;
