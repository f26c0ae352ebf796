/**
 * A Redis in memory that speaks RESP2 on a port: the commands that the proxy uses, scripts included, for tests on
 * machines without one. `tests/support/redis_contract.ts` holds it against a real one.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { Lua, type LuaReply as Reply } from "./lua.ts";

type Entry = string | Map<string, string> | Set<string> | SortedSet;

/** Members with their scores. */
class SortedSet extends Map<string, number> {
  ordered(): [string, number][] {
    return [...this].sort(([a, x], [b, y]) => x - y || (a < b ? -1 : a > b ? 1 : 0));
  }
}

/** An error reply. */
class CommandError extends Error {}

/** What a fake can be told to do wrong. */
export interface RedisFaults {
  /** The error that every write is answered with, such as `OOM command not allowed`. */
  refuseWrites?: string;
  /** Answers nothing, as a stopped process. */
  isStopped?: boolean;
}

type Command = (key: string, ...args: string[]) => Reply;

const OK = { ok: "OK" } as const;

/** Commands that change nothing, and so are answered where memory is full. */
const READS = new Set(
  ("PING SELECT CLIENT TIME INFO GET EXISTS GETRANGE STRLEN PTTL TYPE HGET HMGET HGETALL HKEYS HVALS HLEN HEXISTS HSCAN HRANDFIELD " +
    "SRANDMEMBER SMEMBERS SCARD SISMEMBER SSCAN ZSCORE ZCARD ZCOUNT ZRANGE ZSCAN SCAN DBSIZE")
    .split(" "),
);
/** Commands that free memory, and so are let through too. */
const FREES = new Set(
  "DEL UNLINK HDEL SREM ZREM ZREMRANGEBYSCORE ZREMRANGEBYRANK FLUSHALL PERSIST PEXPIRE EXPIRE RENAME"
    .split(" "),
);

/** The server. */
export class FakeRedis implements Disposable {
  readonly faults: RedisFaults = {};
  /** How many commands clients have sent, those of scripts not counted. */
  commands = 0;
  readonly #listener: Deno.Listener;
  readonly #connections = new Set<Deno.Conn>();
  readonly #entries = new Map<string, Entry>();
  readonly #ends = new Map<string, number>();
  readonly #scripts = new Map<string, string>();
  readonly #lua: Lua;
  /** Whether a script runs that has written: then it may go on where memory is full. */
  #hasWritten = false;

  private constructor(lua: Lua) {
    this.#lua = lua;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    void this.#accept();
  }

  /** Starts a server with nothing in it. */
  static async start(): Promise<FakeRedis> {
    return new FakeRedis(await Lua.start());
  }

  get port(): number {
    return (this.#listener.addr as Deno.NetAddr).port;
  }

  /** For `CACHE_STORE` or `CACHE_INDEX`. */
  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }

  [Symbol.dispose](): void {
    this.#listener.close();
    for (const connection of this.#connections) connection.close();
  }

  /** The reply to one command; strings hold one byte per character. */
  run(name: string, ...args: string[]): Reply {
    try {
      return this.#call([name, ...args]);
    } catch (error) {
      if (error instanceof CommandError) return { err: error.message };
      throw error;
    }
  }

  #call([word = "", ...args]: readonly string[]): Reply {
    const name = word.toUpperCase();
    const { refuseWrites } = this.faults;
    const isWrite = !READS.has(name) && !name.startsWith("EVAL") && name !== "SCRIPT";
    if (isWrite && !FREES.has(name) && refuseWrites && !this.#hasWritten) {
      throw new CommandError(refuseWrites);
    }
    const command = this.#table[name];
    if (!command) throw new CommandError(`ERR unknown command '${word}'`);
    const reply = command(args[0] ?? "", ...args.slice(1));
    if (isWrite) this.#hasWritten = this.#isInScript;
    return reply;
  }

  #isInScript = false;

  #script(code: string, [count = "0", ...words]: readonly string[]): Reply {
    const keys = words.slice(0, Number(count));
    const args = words.slice(Number(count));
    this.#isInScript = true;
    this.#hasWritten = false;
    try {
      return this.#lua.run(code, {
        keys,
        args,
        call: ([name = "", ...rest]) => this.run(name, ...rest),
      });
    } finally {
      this.#isInScript = false;
      this.#hasWritten = false;
    }
  }

  #entry<T extends Entry>(key: string, isKind: (entry: Entry) => entry is T): T | undefined {
    if ((this.#ends.get(key) ?? Infinity) <= Date.now()) this.#delete(key);
    const entry = this.#entries.get(key);
    if (entry === undefined || isKind(entry)) return entry;
    throw new CommandError("WRONGTYPE Operation against a key holding the wrong kind of value");
  }

  #delete(key: string): boolean {
    this.#ends.delete(key);
    return this.#entries.delete(key);
  }

  #text(key: string): string | undefined {
    return this.#entry(key, (entry) => typeof entry === "string");
  }

  #hash(key: string): Map<string, string> | undefined {
    return this.#entry(
      key,
      (entry): entry is Map<string, string> =>
        entry instanceof Map && !(entry instanceof SortedSet),
    );
  }

  #set(key: string): Set<string> | undefined {
    return this.#entry(key, (entry) => entry instanceof Set);
  }

  #sorted(key: string): SortedSet | undefined {
    return this.#entry(key, (entry) => entry instanceof SortedSet);
  }

  /** The entry of `key`, made where there is none. */
  #made<T extends Entry>(key: string, found: T | undefined, make: () => T): T {
    if (found) return found;
    const made = make();
    this.#entries.set(key, made);
    return made;
  }

  /** Removes `key` where nothing is left in it, as Redis does, and returns `reply`. */
  #tidied(key: string, reply: Reply): Reply {
    const entry = this.#entries.get(key);
    if (typeof entry === "object" && entry.size === 0) this.#delete(key);
    return reply;
  }

  #expire(key: string, at: number): number {
    if (this.#entry(key, (entry): entry is Entry => entry !== undefined) === undefined) return 0;
    this.#ends.set(key, at);
    return 1;
  }

  #exists(key: string): boolean {
    return this.#entry(key, (entry): entry is Entry => entry !== undefined) !== undefined;
  }

  readonly #table: Readonly<Record<string, Command>> = {
    PING: () => ({ ok: "PONG" }),
    SELECT: () => OK,
    CLIENT: () => OK,
    INFO: () => "maxmemory_policy:noeviction\r\n",
    TIME: () => {
      const now = Date.now();
      return [String(Math.floor(now / 1000)), String(Math.floor(now % 1000) * 1000)];
    },
    DBSIZE: () => this.#entries.size,
    FLUSHALL: () => {
      this.#entries.clear();
      this.#ends.clear();
      return OK;
    },
    SCRIPT: (_load, code = "") => {
      const sha = createHash("sha1").update(code, "latin1").digest("hex");
      this.#scripts.set(sha, code);
      return sha;
    },
    EVAL: (code, ...args) => {
      this.#table["SCRIPT"]!("LOAD", code);
      return this.#script(code, args);
    },
    EVALSHA: (sha, ...args) => {
      const code = this.#scripts.get(sha);
      if (code === undefined) throw new CommandError("NOSCRIPT No matching script.");
      return this.#script(code, args);
    },

    GET: (key) => this.#text(key) ?? null,
    SET: (key, value = "", ...options) => {
      const words = options.map((option) => option.toUpperCase());
      const isThere = this.#exists(key);
      if (words.includes("NX") && isThere || words.includes("XX") && !isThere) return null;
      this.#delete(key);
      this.#entries.set(key, value);
      for (const [unit, ms] of [["EX", 1000], ["PX", 1]] as const) {
        const at = words.indexOf(unit);
        if (at >= 0) this.#ends.set(key, Date.now() + Number(options[at + 1]) * ms);
      }
      return OK;
    },
    GETRANGE: (key, start, end) => {
      const text = this.#text(key) ?? "";
      const place = (at: string | undefined) =>
        Number(at) < 0 ? text.length + Number(at) : Number(at);
      return text.slice(Math.max(0, place(start)), place(end) + 1);
    },
    STRLEN: (key) => this.#text(key)?.length ?? 0,
    INCR: (key) => {
      const value = Number(this.#text(key) ?? "0") + 1;
      this.#entries.set(key, String(value));
      return value;
    },
    DEL: (...keys) => keys.filter((key) => this.#exists(key) && this.#delete(key)).length,
    UNLINK: (...keys) => keys.filter((key) => this.#exists(key) && this.#delete(key)).length,
    EXISTS: (...keys) => keys.filter((key) => this.#exists(key)).length,
    EXPIRE: (key, seconds) => this.#expire(key, Date.now() + Number(seconds) * 1000),
    PEXPIRE: (key, ms) => this.#expire(key, Date.now() + Number(ms)),
    PERSIST: (key) => this.#exists(key) && this.#ends.delete(key) ? 1 : 0,
    PTTL: (key) => {
      if (!this.#exists(key)) return -2;
      const end = this.#ends.get(key);
      return end === undefined ? -1 : Math.ceil(end - Date.now());
    },
    RENAME: (from, to = "") => {
      if (!this.#exists(from)) throw new CommandError("ERR no such key");
      const entry = this.#entries.get(from)!;
      const end = this.#ends.get(from);
      this.#delete(from);
      this.#delete(to);
      this.#entries.set(to, entry);
      if (end !== undefined) this.#ends.set(to, end);
      return OK;
    },
    SCAN: (_cursor, ...options) => {
      const at = options.findIndex((option) => option.toUpperCase() === "MATCH");
      const pattern = at < 0 ? "*" : options[at + 1]!;
      const matches = globToRegExp(pattern);
      return [
        "0",
        [...this.#entries.keys()].filter((key) => this.#exists(key) && matches.test(key)),
      ];
    },

    HSET: (key, ...pairs) => {
      const hash = this.#made(key, this.#hash(key), () => new Map<string, string>());
      let added = 0;
      for (let i = 0; i < pairs.length; i += 2) {
        if (!hash.has(pairs[i]!)) added++;
        hash.set(pairs[i]!, pairs[i + 1] ?? "");
      }
      return added;
    },
    HGET: (key, field = "") => this.#hash(key)?.get(field) ?? null,
    HMGET: (key, ...fields) => fields.map((field) => this.#hash(key)?.get(field) ?? null),
    HGETALL: (key) => [...this.#hash(key) ?? []].flat(),
    HKEYS: (key) => [...this.#hash(key)?.keys() ?? []],
    HVALS: (key) => [...this.#hash(key)?.values() ?? []],
    HLEN: (key) => this.#hash(key)?.size ?? 0,
    HEXISTS: (key, field = "") => this.#hash(key)?.has(field) ? 1 : 0,
    HDEL: (key, ...fields) =>
      this.#tidied(key, fields.filter((field) => this.#hash(key)?.delete(field)).length),
    HINCRBY: (key, field = "", by) => {
      const hash = this.#made(key, this.#hash(key), () => new Map<string, string>());
      const value = Number(hash.get(field) ?? "0") + Number(by);
      if (!Number.isInteger(value)) {
        throw new CommandError("ERR value is not an integer or out of range");
      }
      hash.set(field, String(value));
      return value;
    },
    HRANDFIELD: (key, count) => [...this.#hash(key)?.keys() ?? []].slice(0, Number(count)),
    HSCAN: (key) => ["0", [...this.#hash(key) ?? []].flat()],

    SADD: (key, ...members) => {
      const set = this.#made(key, this.#set(key), () => new Set<string>());
      const before = set.size;
      for (const member of members) set.add(member);
      return set.size - before;
    },
    SREM: (key, ...members) =>
      this.#tidied(key, members.filter((member) => this.#set(key)?.delete(member)).length),
    SMEMBERS: (key) => [...this.#set(key) ?? []],
    SCARD: (key) => this.#set(key)?.size ?? 0,
    SISMEMBER: (key, member = "") => this.#set(key)?.has(member) ? 1 : 0,
    SRANDMEMBER: (key, count) => [...this.#set(key) ?? []].slice(0, Number(count)),
    SSCAN: (key) => ["0", [...this.#set(key) ?? []]],

    ZADD: (key, ...args) => {
      const flags = new Set<string>();
      while (["NX", "XX", "GT", "LT", "CH"].includes(args[0]?.toUpperCase() ?? "")) {
        flags.add(args.shift()!.toUpperCase());
      }
      const sorted = this.#made(key, this.#sorted(key), () => new SortedSet());
      let added = 0;
      let changed = 0;
      for (let i = 0; i < args.length; i += 2) {
        const [score, member] = [toScore(args[i]), args[i + 1]!];
        const old = sorted.get(member);
        if (old === undefined ? flags.has("XX") : flags.has("NX")) continue;
        if (
          old !== undefined && (flags.has("GT") && score <= old || flags.has("LT") && score >= old)
        ) {
          continue;
        }
        if (old === undefined) added++;
        else if (old !== score) changed++;
        sorted.set(member, score);
      }
      return this.#tidied(key, flags.has("CH") ? added + changed : added);
    },
    ZREM: (key, ...members) =>
      this.#tidied(key, members.filter((member) => this.#sorted(key)?.delete(member)).length),
    ZSCORE: (key, member = "") => {
      const score = this.#sorted(key)?.get(member);
      return score === undefined ? null : String(score);
    },
    ZCARD: (key) => this.#sorted(key)?.size ?? 0,
    ZCOUNT: (key, min, max) => this.#between(key, min, max).length,
    ZRANGE: (key, start, stop, ...options) => {
      const words = options.map((option) => option.toUpperCase());
      const isReversed = words.includes("REV");
      let found: [string, number][];
      if (words.includes("BYSCORE")) {
        found = isReversed
          ? this.#between(key, stop, start).reverse()
          : this.#between(key, start, stop);
      } else if (words.includes("BYLEX")) {
        const all = this.#sorted(key)?.ordered() ?? [];
        found = all.filter(([member]) => isAfter(member, start) && isBefore(member, stop));
      } else {
        const all = this.#sorted(key)?.ordered() ?? [];
        if (isReversed) all.reverse();
        const place = (at: string | undefined) =>
          Number(at) < 0 ? all.length + Number(at) : Number(at);
        found = all.slice(Math.max(0, place(start)), place(stop) + 1);
      }
      const at = words.indexOf("LIMIT");
      if (at >= 0) {
        const [skip, count] = [Number(options[at + 1]), Number(options[at + 2])];
        found = found.slice(skip, count < 0 ? undefined : skip + count);
      }
      return words.includes("WITHSCORES")
        ? found.flatMap(([member, score]) => [member, String(score)])
        : found.map(([member]) => member);
    },
    ZREMRANGEBYSCORE: (key, min, max) => {
      const found = this.#between(key, min, max);
      for (const [member] of found) this.#sorted(key)?.delete(member);
      return this.#tidied(key, found.length);
    },
    ZREMRANGEBYRANK: (key, start, stop) => {
      const found = (this.#sorted(key)?.ordered() ?? []).slice(Number(start), Number(stop) + 1);
      for (const [member] of found) this.#sorted(key)?.delete(member);
      return this.#tidied(key, found.length);
    },
    ZSCAN: (key) => [
      "0",
      (this.#sorted(key)?.ordered() ?? []).flatMap(([member, score]) => [member, String(score)]),
    ],
  };

  /** The names of the commands that it knows. */
  get names(): readonly string[] {
    return Object.keys(this.#table);
  }

  #between(key: string, min: string | undefined, max: string | undefined): [string, number][] {
    const isOver = (score: number, limit = "") =>
      limit.startsWith("(") ? score > toScore(limit.slice(1)) : score >= toScore(limit);
    const isUnder = (score: number, limit = "") =>
      limit.startsWith("(") ? score < toScore(limit.slice(1)) : score <= toScore(limit);
    const all = this.#sorted(key)?.ordered() ?? [];
    return all.filter(([, score]) => isOver(score, min) && isUnder(score, max));
  }

  async #accept(): Promise<void> {
    for await (const connection of this.#listener) {
      this.#connections.add(connection);
      this.#serve(connection).catch(() => {}).finally(() => { // the client has left
        this.#connections.delete(connection);
        try {
          connection.close();
        } catch {
          // closed with the server
        }
      });
    }
  }

  async #serve(connection: Deno.Conn): Promise<void> {
    let text = "";
    const buffer = new Uint8Array(64 * 1024);
    for (let n = await connection.read(buffer); n !== null; n = await connection.read(buffer)) {
      text += binary(buffer.subarray(0, n));
      let answer = "";
      for (let parsed = parseCommand(text); parsed; parsed = parseCommand(text)) {
        text = text.slice(parsed.length);
        if (this.faults.isStopped) continue;
        this.commands++;
        answer += encode(this.run(...parsed.words as [string, ...string[]]));
      }
      const bytes = Uint8Array.from(answer, (char) => char.charCodeAt(0));
      for (let at = 0; at < bytes.byteLength;) at += await connection.write(bytes.subarray(at));
    }
  }
}

/** The bytes as characters of the same numbers. `TextDecoder`'s latin1 is windows-1252, which is not that. */
function binary(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) {
    text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return text;
}

/** The first whole command in `text`, as a RESP array of bulk strings. */
function parseCommand(text: string): { words: string[]; length: number } | undefined {
  if (text === "") return undefined;
  let at = 0;
  const line = () => {
    const end = text.indexOf("\r\n", at);
    if (end < 0) return undefined;
    const found = text.slice(at, end);
    at = end + 2;
    return found;
  };
  const head = line();
  if (head === undefined) return undefined;
  if (!head.startsWith("*")) return { words: head.split(" "), length: at };
  const words: string[] = [];
  for (let i = 0; i < Number(head.slice(1)); i++) {
    const size = line();
    if (size === undefined) return undefined;
    const length = Number(size.slice(1));
    if (text.length < at + length + 2) return undefined;
    words.push(text.slice(at, at + length));
    at += length + 2;
  }
  return { words, length: at };
}

function encode(reply: Reply): string {
  if (reply === null) return "$-1\r\n";
  if (typeof reply === "number") return `:${reply}\r\n`;
  if (typeof reply === "string") return `$${reply.length}\r\n${reply}\r\n`;
  if ("ok" in reply) return `+${reply.ok}\r\n`;
  if ("err" in reply) return `-${reply.err}\r\n`;
  return `*${reply.length}\r\n${reply.map(encode).join("")}`;
}

/** Whether `member` comes after the lower limit of a range by name. */
function isAfter(member: string, limit = "-"): boolean {
  if (limit === "-") return true;
  return limit.startsWith("(") ? member > limit.slice(1) : member >= limit.slice(1);
}

/** Whether `member` comes before the upper limit of a range by name. */
function isBefore(member: string, limit = "+"): boolean {
  if (limit === "+") return true;
  return limit.startsWith("(") ? member < limit.slice(1) : member <= limit.slice(1);
}

function toScore(text: string | undefined): number {
  if (text === "+inf" || text === "inf") return Infinity;
  if (text === "-inf") return -Infinity;
  const score = Number(text);
  if (text === undefined || text === "" || Number.isNaN(score)) {
    throw new CommandError("ERR value is not a valid float");
  }
  return score;
}

/** A pattern of SCAN, of which only `*` is special here. */
function globToRegExp(pattern: string): RegExp {
  const escaped = pattern.split("*").map((part) => part.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
  return new RegExp(`^${escaped.join(".*")}$`, "s");
}
