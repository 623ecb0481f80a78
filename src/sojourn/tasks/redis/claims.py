"""How tasks are claimed and held in Redis: one script for each call."""

from __future__ import annotations

from typing import Final

from sojourn.tasks.redis.shared import SHARED

__all__ = ["BEAT", "CLAIM"]

#: Asked: node, lease, wants: n, kinds. Answers: microseconds until there is more, or -1, and claims.
CLAIM: Final = (
    SHARED
    + """
local node, lease, wants = asked[1], asked[2], asked[3]
local claims, bodies, after, writing = {}, {}, -1, false

local function write()
  if not writing then call('HSET', p .. 'meta', 'hinted', '0') end  -- the one that is refused when memory is full
  writing = true
end

-- From here on it is to be told anew when something is due: whoever was told so far has this before it, or will claim.
if call('HGET', p .. 'meta', 'hinted') == '1' then write() end

local function before(a, b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  return a[2] < b[2]
end

-- What is due by now becomes ready, and what is lost is found.
local function look(kind, n, lost)
  local when = p .. 'w:' .. kind
  for _, id in ipairs(call('ZRANGEBYSCORE', when, '-inf', now, 'LIMIT', 0, n + 64)) do
    local at = p .. 't:' .. id
    local found = call('HMGET', at, 's', 'y', 'd', 'x', 'K', 'I', 'C', 'm')
    local priority = tonumber(found[2] or 0)
    if found[1] == 'r' and not found[4] then
      lost[#lost + 1] = { -priority, place(tonumber(found[3]), id), kind, id, true }
    else
      write()
      rem(when, id)
      if found[1] == 'p' then
        add(p .. 'r:' .. kind, -priority, place(tonumber(found[3]), id))
      elseif found[1] == 'r' then  -- it was to end, and nobody is left to say that it has
        call('HSET', at, 's', 'x', 'L', '', 'u', now, 'z', now, 'I', (found[6] or 0) + 1, 'C', (found[7] or 0) + 1)
        call('HDEL', at, 'x')
        over(id, kind, found[8], 'r', 'x', tonumber(found[5]))
      end
    end
  end
end

local function head(source)
  local item = source.items[source.at]
  if item or source.read < source.step * source.turns then return item end
  source.items, source.at, source.turns = {}, 1, source.turns + 1
  local found = call('ZRANGE', source.key, source.read, source.read + source.step - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    source.items[#source.items + 1] = { tonumber(found[i + 1]), found[i], source.kind, string.sub(found[i], 17) }
  end
  source.read = source.read + #source.items
  return source.items[1]
end

local function take(item)
  local id, kind, lost = item[4], item[3], item[5]
  local at = p .. 't:' .. id
  local f = call('HMGET', at, 'e', 'o', 'c', 'F', 'I', 'C', 'd', 'm', 'b', 'L')
  local epoch, interruptions, crashes = (f[1] or 0) + 1, tonumber(f[5] or 0), tonumber(f[6] or 0)
  local set = { 's', 'r', 'e', epoch, 'n', node, 'u', now }
  local function put(name, value)
    set[#set + 1] = name
    set[#set + 1] = value
  end
  if not f[9] then put('b', epoch .. ':' .. text(now)) end
  if f[10] and f[10] ~= '' then put('L', '') end
  if lost then
    interruptions, crashes = interruptions + 1, crashes + 1
    put('I', interruptions)
    put('C', crashes)
    changed[#changed + 1] = id
  else
    rem(p .. 'r:' .. kind, item[2])
    shift(id, kind, f[8], 'p', 'r')
  end
  call('HSET', at, unpack(set))
  add(p .. 'w:' .. kind, now + lease, id)
  claims[#claims + 1] = { id, kind, epoch, '', f[2] or '', f[3] or '', tonumber(f[4] or 0), interruptions, crashes,
    math.max(0, now - f[7]), math.max(0, now - f[8]) }
  bodies[#bodies + 1] = p .. 'b:' .. id
end

for _, want in ipairs(wants) do
  local n, kinds = want[1], want[2]
  local lost, sources = {}, {}
  for i, kind in ipairs(kinds) do
    look(kind, n, lost)
    sources[i] = { key = p .. 'r:' .. kind, kind = kind, items = {}, at = 1, read = 0, turns = 0,
      step = #kinds == 1 and n + 1 or math.min(n + 1, 16) }
  end
  flush()
  table.sort(lost, before)
  sources[#sources + 1] = { items = lost, at = 1, read = 0, step = 1, turns = 1 }
  while true do
    local best, from
    for _, source in ipairs(sources) do
      local item = head(source)
      if item and (not best or before(item, best)) then best, from = item, source end
    end
    if not best then break end
    if n == 0 then after = 0; break end
    write()
    take(best)
    from.at, n = from.at + 1, n - 1
  end
  flush()
end
for i = 1, #bodies, 4000 do
  for j, body in ipairs(call('MGET', unpack(bodies, i, math.min(i + 3999, #bodies)))) do
    claims[i + j - 1][4] = body or ''
  end
end
if after ~= 0 then
  for _, want in ipairs(wants) do
    for _, kind in ipairs(want[2]) do
      local first = call('ZRANGE', p .. 'w:' .. kind, 0, 0, 'WITHSCORES')[2]
      if first then
        local left = math.max(0, first - now)
        if after < 0 or left < after then after = left end
      end
    end
  end
end
return finish({ after, claims })
"""
)

#: Asked: node, lease, then id and epoch of each. Answers: what is lost, what is to end.
BEAT: Final = (
    SHARED
    + """
call('DEL', p .. '0')
local lost, ending = {}, {}
for _, held in ipairs(asked[3]) do
  local found = call('HMGET', p .. 't:' .. held[1], 's', 'e', 'k', 'x', 'n')
  if found[1] == 'r' and tonumber(found[2]) == held[2] and found[5] == asked[1] then
    add(p .. 'w:' .. found[3], now + asked[2], held[1])
    if found[4] then ending[#ending + 1] = held[1] end
  else
    lost[#lost + 1] = held[1]
  end
end
return finish({ lost, ending })
"""
)
