/**
 * The index's scripts, and its keys, all with the prefix as hash tag and so in one slot:
 *
 * - `b:<digest>` hash `size created verified`; `u` and `v` sorted sets of digests by last use and last
 *   verification; `n` hash `bytes`
 * - `l:<digest>` hash of links, `registry repository kind` → media type; `c` hash, links by repository
 * - `t:<registry> <repository>` hash tag → `checkedAt digest`; `d:<digest>` set of the tags that mean it; `T`
 *   set of the repositories with tags
 * - `o` sorted set of digests that have links or tags and no content, by when that was last noted
 * - `P` sorted set of repositories by when they were proved public
 * - `x` sorted set of digests whose object and row may disagree, by when that was noted
 * - `g:<grant>` a grant of `grants.ts`, which ends by itself; `secret` what grants are called by
 * - `r` hash of bytes promised by instance, `rx` sorted set of instances by when their promises end
 *
 * @module
 */
import { script } from "./redis.ts";

/** Redis' own clock: the instances' may differ. */
const NOW = `
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
`;

const ADD = `
  local function add(digest, size, created, verified, used)
    redis.call('HSET', p .. 'b:' .. digest, 'size', size, 'created', created, 'verified', verified)
    redis.call('HINCRBY', p .. 'n', 'bytes', size)
    redis.call('ZADD', p .. 'u', used, digest)
    redis.call('ZADD', p .. 'v', verified, digest)
    redis.call('ZREM', p .. 'o', digest)
  end
`;

/** repository kind digest tag grant (of digest and tag one is empty) → tag link row public, ms that the grant holds */
export const LOOK = script(`
  local p, repository, kind, digest, tag, grant = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
  local meaning, link, row, public, granted = false, false, false, false, 0
  if tag ~= '' then
    meaning = redis.call('HGET', p .. 't:' .. repository, tag)
    if meaning then digest = meaning:match(' (%S+)$') end
  end
  if digest ~= '' then link = redis.call('HGET', p .. 'l:' .. digest, repository .. ' ' .. kind) end
  if link then
    row = redis.call('HMGET', p .. 'b:' .. digest, 'size', 'created', 'verified')
    public = redis.call('ZSCORE', p .. 'P', repository)
    if grant ~= '' then granted = redis.call('PTTL', p .. 'g:' .. grant) end
  end
  return { meaning, link, row, public, granted }
`);

/** digest size created verified used */
export const ADD_BLOB = script(`
  local p = KEYS[1]
  ${ADD}
  local old = redis.call('HGET', p .. 'b:' .. ARGV[1], 'size')
  if old then redis.call('HINCRBY', p .. 'n', 'bytes', 0 - old) end
  add(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5])
  redis.call('ZREM', p .. 'x', ARGV[1])
`);

/** (digest size created verified used)… */
export const RESTORE_BLOBS = script(`
  local p = KEYS[1]
  ${ADD}
  for i = 1, #ARGV, 5 do
    if redis.call('EXISTS', p .. 'b:' .. ARGV[i]) == 0 then
      add(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
    end
  end
`);

const DROP_LINKS = `
  local function dropLinks(digest)
    for _, field in ipairs(redis.call('HKEYS', p .. 'l:' .. digest)) do
      local repository = field:match('^(.*) %S+$')
      if redis.call('HINCRBY', p .. 'c', repository, -1) <= 0 then redis.call('HDEL', p .. 'c', repository) end
    end
    redis.call('DEL', p .. 'l:' .. digest)
  end
`;

const DROP_TAG = `
  local function dropTag(repository, tag)
    redis.call('HDEL', p .. 't:' .. repository, tag)
    if redis.call('EXISTS', p .. 't:' .. repository) == 0 then redis.call('SREM', p .. 'T', repository) end
  end
`;

/** digest */
export const REMOVE_BLOB = script(`
  local p, digest = KEYS[1], ARGV[1]
  ${DROP_LINKS} ${DROP_TAG}
  local size = redis.call('HGET', p .. 'b:' .. digest, 'size')
  -- First: a script that has begun to write may go on where memory is full, and this makes room.
  redis.call('DEL', p .. 'b:' .. digest)
  if size then redis.call('HINCRBY', p .. 'n', 'bytes', 0 - size) end
  redis.call('ZREM', p .. 'u', digest)
  redis.call('ZREM', p .. 'v', digest)
  redis.call('ZREM', p .. 'o', digest)
  dropLinks(digest)
  for _, entry in ipairs(redis.call('SMEMBERS', p .. 'd:' .. digest)) do
    local repository, tag = entry:match('^(.*) (%S+)$')
    dropTag(repository, tag)
  end
  redis.call('DEL', p .. 'd:' .. digest)
`);

/** digest at */
export const SET_VERIFIED = script(`
  local p, digest, at = KEYS[1], ARGV[1], ARGV[2]
  if redis.call('EXISTS', p .. 'b:' .. digest) == 0 then return end
  redis.call('HSET', p .. 'b:' .. digest, 'verified', at)
  redis.call('ZADD', p .. 'v', at, digest)
`);

/** order until skip limit → rows */
export const LEAST = script(`
  local p, order, before, skip, limit = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
  if before ~= '+inf' then before = '(' .. before end
  local digests = redis.call('ZRANGE', p .. order, '-inf', before, 'BYSCORE', 'LIMIT', skip, limit)
  local found = {}
  for _, digest in ipairs(digests) do
    local row = redis.call('HMGET', p .. 'b:' .. digest, 'size', 'created', 'verified')
    if row[1] then
      found[#found + 1] = { digest, row[1], row[2], row[3], redis.call('ZSCORE', p .. 'u', digest) }
    end
  end
  return found
`);

/** → seconds microseconds */
export const CLOCK = script(`
  return redis.call('TIME')
`);

/** → what Redis does when its memory is full, where it tells */
export const POLICY = script(`
  return redis.call('INFO', 'memory'):match('maxmemory_policy:(%S+)')
`);

/** Sums what is promised, without the promises of instances that gave no sign of life. */
const PROMISED = `
  for _, instance in ipairs(redis.call('ZRANGE', p .. 'rx', '-inf', now, 'BYSCORE')) do
    redis.call('HDEL', p .. 'r', instance)
    redis.call('ZREM', p .. 'rx', instance)
  end
  local promised = 0
  for _, bytes in ipairs(redis.call('HVALS', p .. 'r')) do promised = promised + bytes end
`;

/** → bytes entries promised */
export const TOTALS = script(`
  local p = KEYS[1]
  ${NOW} ${PROMISED}
  return { tonumber(redis.call('HGET', p .. 'n', 'bytes') or 0), redis.call('ZCARD', p .. 'u'), promised }
`);

/**
 * instance total limit life → whether it fits (limit -1: anything does). The instance says its whole
 * promise each time, so that one whose promises had ended, or that Redis forgot, is right again.
 */
export const PROMISE = script(`
  local p, instance, total, limit, life = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
  ${NOW} ${PROMISED}
  local mine = redis.call('HGET', p .. 'r', instance) or 0
  local stored = tonumber(redis.call('HGET', p .. 'n', 'bytes') or 0)
  if tonumber(limit) >= 0 and stored + promised - mine + total > tonumber(limit) then return 0 end
  if tonumber(total) > 0 then
    redis.call('HSET', p .. 'r', instance, total)
    redis.call('ZADD', p .. 'rx', now + life, instance)
  else
    redis.call('HDEL', p .. 'r', instance)
    redis.call('ZREM', p .. 'rx', instance)
  end
  return 1
`);

/** digest field mediaType repository now */
export const ADD_LINK = script(`
  local p, digest = KEYS[1], ARGV[1]
  if redis.call('HSET', p .. 'l:' .. digest, ARGV[2], ARGV[3]) == 1 then
    redis.call('HINCRBY', p .. 'c', ARGV[4], 1)
  end
  if redis.call('EXISTS', p .. 'b:' .. digest) == 0 then redis.call('ZADD', p .. 'o', ARGV[5], digest) end
`);

/** repository tag digest at */
export const SET_TAG = script(`
  local p, repository, tag, digest, at = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
  local old = redis.call('HGET', p .. 't:' .. repository, tag)
  if old then redis.call('SREM', p .. 'd:' .. old:match(' (%S+)$'), repository .. ' ' .. tag) end
  redis.call('HSET', p .. 't:' .. repository, tag, at .. ' ' .. digest)
  redis.call('SADD', p .. 'd:' .. digest, repository .. ' ' .. tag)
  redis.call('SADD', p .. 'T', repository)
  if redis.call('EXISTS', p .. 'b:' .. digest) == 0 then redis.call('ZADD', p .. 'o', at, digest) end
`);

/** repository tag */
export const REMOVE_TAG = script(`
  local p, repository, tag = KEYS[1], ARGV[1], ARGV[2]
  ${DROP_TAG}
  local old = redis.call('HGET', p .. 't:' .. repository, tag)
  if not old then return end
  redis.call('SREM', p .. 'd:' .. old:match(' (%S+)$'), repository .. ' ' .. tag)
  dropTag(repository, tag)
`);

/** before limit skip → where to go on among the public marks, or -1 */
export const PRUNE = script(`
  local p, before, limit, skip = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
  ${DROP_LINKS} ${DROP_TAG}
  local orphans = redis.call('ZRANGE', p .. 'o', '-inf', '(' .. before, 'BYSCORE', 'LIMIT', 0, limit)
  for _, digest in ipairs(orphans) do
    dropLinks(digest)
    for _, entry in ipairs(redis.call('SMEMBERS', p .. 'd:' .. digest)) do
      local repository, tag = entry:match('^(.*) (%S+)$')
      dropTag(repository, tag)
    end
    redis.call('DEL', p .. 'd:' .. digest)
    redis.call('ZREM', p .. 'o', digest)
  end
  if #orphans == limit then return skip end
  local marks = redis.call('ZRANGE', p .. 'P', '-inf', '(' .. before, 'BYSCORE', 'LIMIT', skip, limit)
  local kept = 0
  for _, repository in ipairs(marks) do
    if redis.call('HEXISTS', p .. 'c', repository) == 0 then redis.call('ZREM', p .. 'P', repository)
    else kept = kept + 1 end
  end
  if #marks == limit then return skip + kept end
  return -1
`);
