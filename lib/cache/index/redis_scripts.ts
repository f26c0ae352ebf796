/**
 * The index's scripts, and its keys, all with the prefix as hash tag and so in one slot:
 *
 * - `b:<digest>` hash `size created verified`; `u` and `v` sorted sets of digests by last use and last
 *   verification; `n` hash `bytes`
 * - `l:<digest>` hash of links, `registry repository kind` → media type; `c` hash, links by repository
 * - `t:<registry> <repository>` hash tag → `checkedAt digest`; `d:<digest>` set of the tags that mean it; `tn`
 *   sorted set of all tags in the order of their names
 * - `U<kind>:<registry> <repository>` sorted set of a repository's tags, referrers' notes or links by last use;
 *   `U<kind>` sorted set of the repositories by that; `f` hash of bytes by kind and repository, `n` hash of bytes
 *   and rows by kind
 * - `o` sorted set of digests that have links or tags and no content, by when that was last noted
 * - `P` sorted set of repositories by when they were proved public; `R` those that are no longer, by when that was noted
 * - `x` sorted set of digests whose object and row may disagree, by when that was noted
 * - `g:<grant>` a grant of `grants.ts`, which ends by itself; `secret` what grants are called by
 * - `r` hash of bytes promised by instance, `rx` sorted set of instances by when their promises end
 *
 * @module
 */
import { ROW_BYTES } from "./budgets.ts";
import { script } from "../store/redis.ts";
import { NOTES } from "./referrers_note.ts";

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

/**
 * Facts that come and go one by one, counted. What goes goes first: a script that has begun to write may go on
 * where memory is full, and what goes makes room.
 */
const FACTS = `
  local function kindOf(tag)
    if tag:sub(1, ${NOTES.length}) == '${NOTES}' then return 'referrers' end
    return 'tags'
  end
  local function tagBytes(repository, tag, digest)
    return 4 * (#repository + #tag) + 2 * #digest + 3 * ${ROW_BYTES}
  end
  local function linkBytes(digest, field, mediaType)
    return 2 * (#digest + #field) + #mediaType + 2 * ${ROW_BYTES}
  end
  local function count(kind, repository, rows, bytes)
    redis.call('HINCRBY', p .. 'n', kind, bytes)
    redis.call('HINCRBY', p .. 'n', kind .. ':rows', rows)
    local field = kind .. ' ' .. repository
    if redis.call('HINCRBY', p .. 'f', field, bytes) <= 0 then redis.call('HDEL', p .. 'f', field) end
  end
  local function use(kind, repository, member, at)
    redis.call('ZADD', p .. 'U' .. kind .. ':' .. repository, at, member)
    redis.call('ZADD', p .. 'U' .. kind, 'GT', at, repository)
  end
  local function forget(kind, repository, member)
    local key = p .. 'U' .. kind .. ':' .. repository
    local gone = redis.call('ZREM', key, member)
    if redis.call('EXISTS', key) == 0 then redis.call('ZREM', p .. 'U' .. kind, repository) end
    return gone == 1
  end
  local function dropTag(repository, tag)
    local old = redis.call('HGET', p .. 't:' .. repository, tag)
    if not old then return end
    local digest = old:match(' (%S+)$')
    redis.call('HDEL', p .. 't:' .. repository, tag)
    redis.call('SREM', p .. 'd:' .. digest, repository .. ' ' .. tag)
    redis.call('ZREM', p .. 'tn', repository .. ' ' .. tag)
    local kind = kindOf(tag)
    if forget(kind, repository, tag) then count(kind, repository, -1, -tagBytes(repository, tag, digest)) end
  end
  local function dropLink(digest, field)
    local mediaType = redis.call('HGET', p .. 'l:' .. digest, field)
    if not mediaType then return end
    local repository, kind = field:match('^(.*) (%S+)$')
    redis.call('HDEL', p .. 'l:' .. digest, field)
    if redis.call('HINCRBY', p .. 'c', repository, -1) <= 0 then redis.call('HDEL', p .. 'c', repository) end
    if forget('links', repository, digest .. ' ' .. kind) then
      count('links', repository, -1, -linkBytes(digest, field, mediaType))
    end
  end
  -- Of links and tags of a digest at most so many; returns how many, and the next cursor. With a cursor tags are
  -- taken in turn: picking some at random takes longer and longer as a large set empties.
  local function dropSome(digest, limit, cursor)
    local links = redis.call('HRANDFIELD', p .. 'l:' .. digest, limit)
    for _, field in ipairs(links) do dropLink(digest, field) end
    local entries
    if cursor then
      local page = redis.call('SSCAN', p .. 'd:' .. digest, cursor, 'COUNT', limit)
      cursor, entries = page[1], page[2]
    else entries = redis.call('SRANDMEMBER', p .. 'd:' .. digest, limit) end
    for _, entry in ipairs(entries) do
      local repository, tag = entry:match('^(.*) (%S+)$')
      local value = redis.call('HGET', p .. 't:' .. repository, tag)
      if value and value:match(' (%S+)$') == digest then dropTag(repository, tag)
      else redis.call('SREM', p .. 'd:' .. digest, entry) end
    end
    return #links + #entries, cursor
  end
  local function hasFacts(digest)
    return redis.call('EXISTS', p .. 'l:' .. digest, p .. 'd:' .. digest) > 0
  end
  -- 1: there is little room left for more of a kind, 2: there is none.
  local function crowded(kind, repository, budget, own)
    local all = tonumber(redis.call('HGET', p .. 'n', kind) or 0)
    local mine = tonumber(redis.call('HGET', p .. 'f', kind .. ' ' .. repository) or 0)
    if all >= tonumber(budget) or mine >= tonumber(own) then return 2 end
    if all > budget * 0.9 or mine > own * 0.9 then return 1 end
    return 0
  end
`;

/** digest limit cursor → the cursor to go on with, or -1: it goes on while the content does not come back */
export const REMOVE_BLOB = script(`
  local p, digest, limit, cursor = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
  ${FACTS}
  local size = redis.call('HGET', p .. 'b:' .. digest, 'size')
  if cursor ~= '' and size then return '-1' end
  redis.call('DEL', p .. 'b:' .. digest)
  if size then redis.call('HINCRBY', p .. 'n', 'bytes', 0 - size) end
  redis.call('ZREM', p .. 'u', digest)
  redis.call('ZREM', p .. 'v', digest)
  redis.call('ZREM', p .. 'o', digest)
  local _, after = dropSome(digest, limit, cursor == '' and '0' or cursor)
  if not hasFacts(digest) then return '-1' end
  redis.call('ZADD', p .. 'o', 1, digest) -- tidied as the oldest, should nobody go on
  return after
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

/** digest field mediaType repository now budget own → how crowded: with 2 it is not noted, unless it was */
export const ADD_LINK = script(`
  local p, digest, field, mediaType, repository, now = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
  ${FACTS}
  local old = redis.call('HGET', p .. 'l:' .. digest, field)
  local room = crowded('links', repository, ARGV[6], ARGV[7])
  if not old and room == 2 then return 2 end
  redis.call('HSET', p .. 'l:' .. digest, field, mediaType)
  if not old then redis.call('HINCRBY', p .. 'c', repository, 1) end
  local member = digest .. ' ' .. field:match('(%S+)$')
  local isCounted = redis.call('ZSCORE', p .. 'Ulinks:' .. repository, member)
  use('links', repository, member, now)
  if not isCounted then count('links', repository, 1, linkBytes(digest, field, mediaType))
  elseif #mediaType ~= #old then count('links', repository, 0, #mediaType - #old) end
  if redis.call('EXISTS', p .. 'b:' .. digest) == 0 then redis.call('ZADD', p .. 'o', now, digest) end
  return crowded('links', repository, ARGV[6], ARGV[7])
`);

/** repository tag digest at now budget own → how crowded: with 2 it is not noted, unless it was */
export const SET_TAG = script(`
  local p, repository, tag, digest, at, now = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
  ${FACTS}
  local kind = kindOf(tag)
  local room = crowded(kind, repository, ARGV[6], ARGV[7])
  if room == 2 and redis.call('HEXISTS', p .. 't:' .. repository, tag) == 0 then return 2 end
  dropTag(repository, tag)
  redis.call('HSET', p .. 't:' .. repository, tag, at .. ' ' .. digest)
  redis.call('SADD', p .. 'd:' .. digest, repository .. ' ' .. tag)
  redis.call('ZADD', p .. 'tn', 0, repository .. ' ' .. tag)
  use(kind, repository, tag, now)
  count(kind, repository, 1, tagBytes(repository, tag, digest))
  if redis.call('EXISTS', p .. 'b:' .. digest) == 0 then redis.call('ZADD', p .. 'o', at, digest) end
  return crowded(kind, repository, ARGV[6], ARGV[7])
`);

/** (repository tag)… */
export const REMOVE_TAGS = script(`
  local p = KEYS[1]
  ${FACTS}
  for i = 1, #ARGV, 2 do dropTag(ARGV[i], ARGV[i + 1]) end
`);

/** from to limit → (name value)… */
export const TAG_PAGE = script(`
  local p, found = KEYS[1], {}
  for _, name in ipairs(redis.call('ZRANGE', p .. 'tn', ARGV[1], ARGV[2], 'BYLEX', 'LIMIT', 0, ARGV[3])) do
    local repository, tag = name:match('^(.*) (%S+)$')
    found[#found + 1] = name
    found[#found + 1] = redis.call('HGET', p .. 't:' .. repository, tag) or ''
  end
  return found
`);

/** repository at limit bytes → how crowded, as before */
export const SET_PUBLIC = script(`
  local p, repository, at, rows = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
  local room = redis.call('ZCARD', p .. 'P') >= rows and 2 or redis.call('ZCARD', p .. 'P') > rows * 0.9 and 1 or 0
  if room == 2 and not redis.call('ZSCORE', p .. 'P', repository) then return 2 end
  redis.call('ZADD', p .. 'P', at, repository)
  return room
`);

/** now (kind repository member)… */
export const TOUCH_FACTS = script(`
  local p, at = KEYS[1], ARGV[1]
  for i = 2, #ARGV, 3 do
    redis.call('ZADD', p .. 'U' .. ARGV[i] .. ':' .. ARGV[i + 1], 'XX', 'GT', at, ARGV[i + 2])
    redis.call('ZADD', p .. 'U' .. ARGV[i], 'XX', 'GT', at, ARGV[i + 1])
  end
`);

/**
 * kind repository bytes limit → how many left: of those of a repository, or of the repository used longest ago,
 * those used longest ago, until at most so many bytes are left. Of marks rows are counted.
 */
export const TRIM = script(`
  local p, kind, repository, target, limit = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
  ${FACTS}
  if kind == 'marks' then
    local rows = math.min(limit, redis.call('ZCARD', p .. 'P') - target)
    if rows <= 0 then return 0 end
    return redis.call('ZREMRANGEBYRANK', p .. 'P', 0, rows - 1)
  end
  local left = 0
  while left < limit do
    local whose = repository
    local bytes
    if repository == '' then
      bytes = redis.call('HGET', p .. 'n', kind)
      whose = redis.call('ZRANGE', p .. 'U' .. kind, 0, 0)[1]
    else bytes = redis.call('HGET', p .. 'f', kind .. ' ' .. repository) end
    if not whose or tonumber(bytes or 0) <= target then return left end
    local members = redis.call('ZRANGE', p .. 'U' .. kind .. ':' .. whose, 0, 9)
    if #members == 0 then
      redis.call('ZREM', p .. 'U' .. kind, whose)
      if repository ~= '' then return left end
    end
    for _, member in ipairs(members) do
      if kind == 'links' then
        local digest, what = member:match('^(%S+) (%S+)$')
        dropLink(digest, whose .. ' ' .. what)
      else dropTag(whose, member) end
      -- Where the fact itself has gone.
      forget(kind, whose, member)
    end
    left = left + math.max(1, #members)
  end
  return left
`);

/** kind key now member… → facts from before they were counted, entered: tags of a repository, links of a digest */
export const ADOPT = script(`
  local p, kind, owner, now = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
  ${FACTS}
  for i = 4, #ARGV do
    if kind == 'links' then
      local mediaType = redis.call('HGET', p .. 'l:' .. owner, ARGV[i])
      local repository, what = ARGV[i]:match('^(.*) (%S+)$')
      local member = owner .. ' ' .. what
      if mediaType and not redis.call('ZSCORE', p .. 'Ulinks:' .. repository, member) then
        use('links', repository, member, now)
        count('links', repository, 1, linkBytes(owner, ARGV[i], mediaType))
      end
    else
      local value = redis.call('HGET', p .. 't:' .. owner, ARGV[i])
      if value and redis.call('ZADD', p .. 'tn', 0, owner .. ' ' .. ARGV[i]) == 1 then
        local at, digest = value:match('^(%S+) (%S+)$')
        use(kindOf(ARGV[i]), owner, ARGV[i], at)
        count(kindOf(ARGV[i]), owner, 1, tagBytes(owner, ARGV[i], digest))
      end
    end
  end
`);

/** before limit skip → where to go on among the public marks, or -1 */
export const PRUNE = script(`
  local p, before, limit, skip = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
  ${FACTS}
  local orphans = redis.call('ZRANGE', p .. 'o', '-inf', '(' .. before, 'BYSCORE', 'LIMIT', 0, limit)
  local work = 0
  for _, digest in ipairs(orphans) do
    if work >= limit then return skip end
    work = work + 1 + dropSome(digest, limit)
    if not hasFacts(digest) then redis.call('ZREM', p .. 'o', digest) end
  end
  if #orphans > 0 then return skip end
  local marks = redis.call('ZRANGE', p .. 'P', '-inf', '(' .. before, 'BYSCORE', 'LIMIT', skip, limit)
  local kept = 0
  for _, repository in ipairs(marks) do
    if redis.call('HEXISTS', p .. 'c', repository) == 0 then redis.call('ZREM', p .. 'P', repository)
    else kept = kept + 1 end
  end
  if #marks == limit then return skip + kept end
  return -1
`);

/** For how long others can learn that a mark was removed, ms: as long as they would believe it. */
const REVOKED_FOR = 60 * 60_000;

/** repository */
export const REVOKE = script(`
  local p, repository = KEYS[1], ARGV[1]
  ${NOW}
  redis.call('ZREM', p .. 'P', repository)
  redis.call('ZADD', p .. 'RP', now, repository)
  redis.call('ZREMRANGEBYSCORE', p .. 'RP', '-inf', now - ${REVOKED_FOR})
  redis.call('ZREMRANGEBYRANK', p .. 'RP', 0, -10001)
`);

/** since limit → now repository… */
export const REVOKED = script(`
  local p, since, limit = KEYS[1], ARGV[1], ARGV[2]
  ${NOW}
  local revoked = redis.call('ZRANGE', p .. 'RP', since, '+inf', 'BYSCORE', 'LIMIT', 0, limit)
  table.insert(revoked, 1, string.format('%.0f', now))
  return revoked
`);
