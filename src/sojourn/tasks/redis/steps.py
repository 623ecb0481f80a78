"""How tasks are written down and end in Redis: one script for each call."""

from __future__ import annotations

from typing import Final

from sojourn.tasks.redis.shared import SHARED, SUBMITTING

__all__ = ["APPEND", "CANCEL", "RETRY", "SETTLE", "SUBMIT", "SWEEP"]

#: Asked: tasks. Answers for each, see ``submit``.
SUBMIT: Final = (
    SHARED
    + SUBMITTING
    + """
local answer = {}
for i, new in ipairs(asked) do answer[i] = submit(new) end
return finish(answer)
"""
)

#: Asked: id, epoch, outcome (c, f, x; t: retry, h: hand-over, u: unbegun), result, error, delay, checkpoint or false,
#: then. Answers whether each counts.
SETTLE: Final = (
    SHARED
    + SUBMITTING
    + """
call('DEL', p .. '0')

local function ended(said, f)
  local id, epoch, outcome, result, why, delay, checkpoint = unpack(said, 1, 7)
  local at, kind, to = p .. 't:' .. id, f[3], outcome
  local set, gone = { 'L', outcome, 'u', now }, {}
  local function put(name, value)
    set[#set + 1] = name
    set[#set + 1] = value
  end
  rem(p .. 'w:' .. kind, id)
  if checkpoint then put('c', checkpoint) end
  if outcome == 'c' then put('r', result) end
  if outcome == 'f' or outcome == 't' then
    put('F', (f[9] or 0) + 1)
    put('E', why)
  elseif outcome == 'h' then
    put('I', (f[10] or 0) + 1)
  elseif outcome == 'u' and string.match(f[8], '^%d+') == tostring(epoch) then
    gone[1] = 'b'
  end
  if f[5] then gone[#gone + 1] = 'x' end
  if outcome ~= 'c' and outcome ~= 'f' and outcome ~= 'x' then to = f[5] and 'x' or 'p' end
  put('s', to)
  if to == 'p' then
    local moment = tonumber(f[7])
    if outcome == 't' then
      moment = now + delay
      put('d', moment)
    end
    shift(id, kind, f[12], 'r', 'p')
    wait(id, kind, tonumber(f[6] or 0), moment)
  else
    put('z', now)
    over(id, kind, f[12], 'r', to, tonumber(f[11]))
  end
  call('HSET', at, unpack(set))
  if #gone > 0 then call('HDEL', at, unpack(gone)) end
  for _, new in ipairs(said[8]) do submit(new) end
end

local answer = {}
for i, said in ipairs(asked) do
  local f = call('HMGET', p .. 't:' .. said[1], 's', 'e', 'k', 'L', 'x', 'y', 'd', 'b', 'F', 'I', 'K', 'm')
  answer[i] = false
  if f[2] and tonumber(f[2]) == said[2] then
    answer[i] = f[1] == 'r' or f[4] == said[3]
    if f[1] == 'r' then ended(said, f) end
  end
end
return finish(answer)
"""
)

#: Asked: id, epoch, data, checkpoint or false. Answers the number of each, 0 or -1.
APPEND: Final = (
    SHARED
    + """
local answer, told = {}, {}
for i, said in ipairs(asked) do
  local id = said[1]
  local at, events = p .. 't:' .. id, p .. 'e:' .. id
  local found = call('HMGET', at, 's', 'e', 'q')
  answer[i] = 0
  if found[1] == 'r' and tonumber(found[2]) == said[2] then
    local number = tonumber(found[3] or 0)
    if said[3] ~= '' then
      number = number + 1
      if call('RPUSH', events, text(now) .. ' ' .. said[3]) > 1000 then call('LTRIM', events, -1000, -1) end
      if said[4] then call('HSET', at, 'q', number, 'c', said[4]) else call('HSET', at, 'q', number) end
      if not told[id] then changed[#changed + 1] = id end
      told[id] = true
    elseif said[4] then
      call('HSET', at, 'c', said[4])
    end
    answer[i] = number == 0 and -1 or number
  end
end
return finish(answer)
"""
)

#: Asked: id. Answers the record.
CANCEL: Final = (
    SHARED
    + """
call('DEL', p .. '0')
local id = asked
local at = p .. 't:' .. id
local f = call('HMGET', at, 's', 'k', 'y', 'd', 'x', 'K', 'm')
if f[1] == 'p' then
  rem(p .. 'r:' .. f[2], place(tonumber(f[4]), id))
  rem(p .. 'w:' .. f[2], id)
  call('HSET', at, 's', 'x', 'u', now, 'z', now)
  over(id, f[2], f[7], 'p', 'x', tonumber(f[6]))
elseif f[1] == 'r' then
  if not f[5] then
    call('HSET', at, 'x', 1, 'u', now)
    changed[1] = id
  end
  cancelled[1] = id
end
flush()
return finish(whole(id))
"""
)

#: Asked: id. Answers the record.
RETRY: Final = (
    SHARED
    + """
local id = asked
local at = p .. 't:' .. id
local f = call('HMGET', at, 's', 'k', 'y', 'm')
if f[1] == 'f' or f[1] == 'x' then
  call('HSET', at, 's', 'p', 'd', now, 'u', now)
  call('HDEL', at, 'F', 'C', 'E', 'L', 'x', 'z')
  rem(p .. 'over', id)
  shift(id, f[2], f[4], f[1], 'p')
  wait(id, f[2], tonumber(f[3] or 0), now)
end
flush()
return finish(whole(id))
"""
)

#: Asked: how many. Answers how many.
SWEEP: Final = (
    SHARED
    + """
local found = call('ZRANGEBYSCORE', p .. 'over', '-inf', now, 'LIMIT', 0, asked)
for _, id in ipairs(found) do
  local f = call('HMGET', p .. 't:' .. id, 's', 'k', 'o', 'i', 'm')
  call('DEL', p .. 't:' .. id, p .. 'b:' .. id, p .. 'e:' .. id)
  if f[4] then
    local owner = f[3] or ''
    call('HDEL', p .. 'keys', #owner .. ':' .. owner .. f[4])
  end
  rem(p .. 'over', id)
  if f[1] then
    rem(p .. 'all', place(f[5], id))
    if shown[f[1]] then rem(p .. 'l:' .. f[1], place(f[5], id)) end
    count(f[2], f[1], -1)
  end
end
return finish(#found)
"""
)
