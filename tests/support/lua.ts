/**
 * Lua scripts as Redis runs them.
 *
 * @module
 */
import { LuaFactory } from "wasmoon";

/** A reply of Redis; strings hold one byte per character. */
export type LuaReply =
  | string
  | number
  | null
  | { readonly ok: string }
  | { readonly err: string }
  | readonly LuaReply[];

/** What `redis.call` does: returns a reply, and an error as `{ err }`. */
export type Call = (args: readonly string[]) => LuaReply;

/** What EVAL gives a script, and what turns its result into a value or an error. */
const PRELUDE = `
  redis = {
    pcall = function(...) return call(...) end,
    call = function(...)
      local reply = call(...)
      if type(reply) == 'table' and reply.err then error(reply, 0) end
      return reply
    end,
  }
  unpack = table.unpack
  -- The Lua of Redis, 5.1, reads these as C does; later ones do not.
  local infinities = { ['inf'] = math.huge, ['Infinity'] = math.huge, ['-inf'] = -math.huge, ['-Infinity'] = -math.huge }
  local parse = tonumber
  tonumber = function(text, ...) return infinities[text] or parse(text, ...) end
  function run(script)
    local isGood, value = pcall(script)
    if isGood then return { value = value } end
    return { err = type(value) == 'table' and value.err or 'ERR ' .. tostring(value) }
  end
`;

/** Runs scripts; the state is shared by all, as in one Redis. */
export class Lua {
  readonly #engine: Awaited<ReturnType<LuaFactory["createEngine"]>>;

  private constructor(engine: Awaited<ReturnType<LuaFactory["createEngine"]>>) {
    this.#engine = engine;
  }

  /** Starts an interpreter. */
  static async start(): Promise<Lua> {
    const engine = await new LuaFactory().createEngine({ enableProxy: false });
    engine.doStringSync(PRELUDE);
    return new Lua(engine);
  }

  /** Runs a script as EVAL does (Redis' "Lua API reference", "Data type conversion"). */
  run(
    code: string,
    { keys, args, call }: {
      readonly keys: readonly string[];
      readonly args: readonly string[];
      readonly call: Call;
    },
  ): LuaReply {
    const { global } = this.#engine;
    global.set("KEYS", keys);
    global.set("ARGV", args);
    global.set("call", (...words: unknown[]) => toLua(call(words.map(String))));
    const done = this.#engine.doStringSync(`return run(function() ${code}\nend)`);
    return done.err === undefined ? toReply(done.value) : { err: done.err };
  }
}

/** Redis gives a script false for what is absent, and its own false is null again. */
function toLua(reply: LuaReply): unknown {
  if (reply === null) return false;
  return Array.isArray(reply) ? reply.map(toLua) : reply;
}

/** Fractions are cut, true is 1, false is null, and a list ends at its first nil. */
function toReply(value: unknown): LuaReply {
  if (typeof value === "string") return value;
  if (typeof value === "number") return Math.trunc(value);
  if (value === true) return 1;
  if (typeof value !== "object" || value === null) return null;
  if ("err" in value) return { err: String(value.err) };
  if ("ok" in value) return { ok: String(value.ok) };
  // A table with a gap comes as an object with its places as names.
  const first = Array.isArray(value) ? 0 : 1;
  const places = value as Readonly<Record<number, unknown>>;
  const items: LuaReply[] = [];
  for (let at = first; places[at] !== undefined && places[at] !== null; at++) {
    items.push(toReply(places[at]));
  }
  return items;
}
