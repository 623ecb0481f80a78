"""What is asked of the journal in Redis, and changes nothing."""

from __future__ import annotations

from typing import Final

from sojourn.tasks.redis.shared import LISTED, SHARED

__all__ = ["COUNTS", "GET", "GREET", "LIST", "READ"]

#: Answers: what INFO says of the server and of memory, and the layout of the keys.
GREET: Final = """
local layout = redis.call('HGET', ARGV[1] .. 'meta', 'layout')
if not layout then redis.call('HSET', ARGV[1] .. 'meta', 'layout', ARGV[2]) end
return { redis.call('INFO', 'server'), redis.call('INFO', 'memory'), layout or ARGV[2] }
"""

#: Asked: id. Answers the record.
GET: Final = (
    SHARED
    + """
return cmsgpack.pack(whole(asked))
"""
)

#: Asked: id, after, limit. Answers the record, the number of the first event, and events.
READ: Final = (
    SHARED
    + """
local id, after, limit = asked[1], asked[2], asked[3]
local found = whole(id)
if not found then return cmsgpack.pack({ false, 0, {} }) end
local events = p .. 'e:' .. id
local latest, kept = tonumber(call('HGET', p .. 't:' .. id, 'q') or 0), call('LLEN', events)
local first = math.max(after, latest - kept) + 1
local from = first - 1 - (latest - kept)
if first > latest or limit < 1 then return cmsgpack.pack({ found, first, {} }) end
return cmsgpack.pack({ found, first, call('LRANGE', events, from, from + limit - 1) })
"""
)

#: Asked: letters of states, kind, owner or false, id before which to begin or "", place to go on from or "", limit,
#: steps. Answers: place after which to go on, or "", and ids and fields of those that are asked for. Looks at no more
#: than ``steps``.
LIST: Final = (
    SHARED
    + """
local states, kind, owner, before, bound, limit, steps = unpack(asked, 1, 7)
if before ~= '' and bound == '' then
  local made = call('HGET', p .. 't:' .. before, 'm')
  if not made then return cmsgpack.pack({ '', {} }) end
  bound = place(made, before)
end
local from = { p .. 'all' }
if states ~= '' and not string.find(states, '[pc]') then
  from = {}
  for letter in string.gmatch(states, '.') do from[#from + 1] = p .. 'l:' .. letter end
end
local places = {}
for _, key in ipairs(from) do
  for _, item in ipairs(call('ZREVRANGEBYLEX', key, bound == '' and '+' or '(' .. bound, '-', 'LIMIT', 0, steps)) do
    places[#places + 1] = item
  end
end
if #from > 1 then table.sort(places, function(a, b) return a > b end) end
local rows, last = {}, ''
for i = 1, math.min(#places, steps) do
  local id = string.sub(places[i], 17)
  local f = call('HMGET', p .. 't:' .. id, FIELDS)
  if f[1] and (kind == '' or f[1] == kind) and (not owner or (f[3] or '') == owner)
    and (states == '' or string.find(states, f[2], 1, true)) then
    local body = call('GET', p .. 'b:' .. id) or ''
    local length = string.match(body, '^%d+')
    local lease = f[2] == 'r' and tonumber(call('ZSCORE', p .. 'w:' .. f[1], id)) or 0
    rows[#rows + 1] = { id, f, lease, length and '0:' .. string.sub(body, #length + 2 + length) or '' }
  end
  last = places[i]
  if #rows == limit then break end
end
if #rows == limit or #places < steps then last = '' end
return cmsgpack.pack({ last, rows })
""".replace("FIELDS", ", ".join(f"'{field}'" for field in LISTED))
)

#: Asked: kinds, none for all. Answers: state and kind, and how many; kind, and microseconds that the oldest has waited.
COUNTS: Final = (
    SHARED
    + """
local names, numbers, wanted, any = {}, {}, {}, #asked == 0
for _, kind in ipairs(asked) do wanted[kind] = true end
local all = call('HGETALL', p .. 'n')
local waiting = {}
for i = 1, #all, 2 do
  local kind = string.sub(all[i], 2)
  if (any or wanted[kind]) and all[i + 1] ~= '0' then
    names[#names + 1] = all[i]
    numbers[#numbers + 1] = tonumber(all[i + 1])
    if string.sub(all[i], 1, 1) == 'p' then waiting[#waiting + 1] = kind end
  end
end

local function oldest(kind)
  local first = nil
  local function see(moment)
    if moment <= now and (not first or moment < first) then first = moment end
  end
  local below = '-inf'
  for _ = 1, 100 do  -- the first of each priority
    local found = call('ZRANGEBYSCORE', p .. 'r:' .. kind, below, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not found[1] then break end
    see(tonumber(string.sub(found[1], 1, 16)))
    below = '(' .. found[2]
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', p .. 'w:' .. kind, '-inf', now, 'LIMIT', 0, 100)) do
    local found = call('HMGET', p .. 't:' .. id, 's', 'd')
    if found[1] == 'p' then
      see(tonumber(found[2]))
      break
    end
  end
  return first
end

local kinds, waits = {}, {}
for _, kind in ipairs(waiting) do
  local first = oldest(kind)
  if first then
    kinds[#kinds + 1] = kind
    waits[#waits + 1] = now - first
  end
end
return cmsgpack.pack({ names, numbers, kinds, waits })
"""
)
