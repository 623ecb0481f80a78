"""What the scripts in Redis have in common: names of keys, time, and changes that are made together at the end.

Keys, behind the prefix:

- ``t:`` and an id: the record, a hash. What is empty is left out, and what is long is elsewhere, so that Redis keeps it
  in one small piece. ``b:`` and an id: payload and spec (`records`). ``e:`` and an id: events, a list.
- ``r:`` and a kind: what is due, by priority, then moment, then id. ``w:`` and a kind: when something happens, that is
  when a delayed task is due or a lease runs out. ``over``: when ended records are removed.
- ``all``: moments when they were made, and ids; ``l:`` and a state: those of some states. ``keys``: ids, by owner and
  idempotency key. ``n``: how many, by state and kind. ``meta``: the layout, and whether it was told that something is
  due since the last claim.

Moments are microseconds since 1970, which numbers of Lua hold exactly.

A script of old (``EVAL``) may be refused at its first write only: for want of memory, by a replica, without a disk. So
it is done or not, all of it. A write that takes no memory, as the first, lets the others pass when memory is full: what
runs is renewed and ends then, while nothing new begins.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CHANGED", "DUE", "ENDING", "FIELDS", "LISTED", "SHARED", "STATES", "SUBMITTING"]

#: Where hints are published, behind the prefix: that something is due; ids that are to end; and with an id behind it,
#: that this task has changed.
DUE: Final = "due"
ENDING: Final = "end"
CHANGED: Final = "c:"
#: Letters of the states in Redis.
STATES: Final = {"p": "pending", "r": "running", "c": "completed", "f": "failed", "x": "cancelled"}
#: Fields of a record, as they are read. ``m``: made. ``b``: epoch and moment of the first claim. ``L``, which nobody
#: reads: how the latest run ended. ``f``, neither: the fingerprint.
FIELDS: Final = tuple("k s o i y d K F I C e n x E q m b u z r c".split())
#: Those of a record in a list.
LISTED: Final = FIELDS[:-2]

#: ARGV: prefix, what is asked (MessagePack), whether replicas are waited for.
SHARED: Final = (
    """
local p, asked, call = ARGV[1], cmsgpack.unpack(ARGV[2]), redis.call
local time = call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local adds, rems, tally, changed, cancelled, due = {}, {}, {}, {}, {}, false
local shown = { r = true, f = true, x = true }

local function text(number) return string.format('%.0f', number) end
local function place(moment, id) return string.format('%016.0f%s', moment, id) end

local function add(key, score, member)
  local list = adds[key]
  if not list then list = {}; adds[key] = list end
  list[#list + 1] = score
  list[#list + 1] = member
end

local function rem(key, member)
  local list = rems[key]
  if not list then list = {}; rems[key] = list end
  list[#list + 1] = member
end

local function count(kind, state, by)
  tally[state .. kind] = (tally[state .. kind] or 0) + by
end

local function shift(id, kind, made, from, to)
  count(kind, from, -1)
  count(kind, to, 1)
  if shown[from] then rem(p .. 'l:' .. from, place(made, id)) end
  if shown[to] then add(p .. 'l:' .. to, 0, place(made, id)) end
  changed[#changed + 1] = id
end

local function bulk(command, key, list)
  for i = 1, #list, 4000 do call(command, key, unpack(list, i, math.min(i + 3999, #list))) end
end

local function flush()
  for key, list in pairs(rems) do bulk('ZREM', key, list) end
  for key, list in pairs(adds) do bulk('ZADD', key, list) end
  for name, by in pairs(tally) do
    if by ~= 0 then call('HINCRBY', p .. 'n', name, by) end
  end
  adds, rems, tally = {}, {}, {}
end

local function wait(id, kind, priority, moment)
  if moment <= now then
    add(p .. 'r:' .. kind, -priority, place(moment, id))
  else
    add(p .. 'w:' .. kind, moment, id)
  end
  due = true
end

local function over(id, kind, made, from, to, keep)
  add(p .. 'over', now + keep, id)
  shift(id, kind, made, from, to)
end

local function whole(id)
  local found = call('HMGET', p .. 't:' .. id, FIELDS)
  if not found[1] then return false end
  local lease = found[2] == 'r' and tonumber(call('ZSCORE', p .. 'w:' .. found[1], id)) or 0
  return { id, found, lease, call('GET', p .. 'b:' .. id) or '' }
end

local function finish(answer)
  flush()
  if due and call('HGET', p .. 'meta', 'hinted') ~= '1' then
    call('HSET', p .. 'meta', 'hinted', '1')
    call('PUBLISH', p .. 'DUE', '')
  end
  for _, id in ipairs(changed) do call('PUBLISH', p .. 'CHANGED' .. id, '') end
  if #cancelled > 0 then call('PUBLISH', p .. 'ENDING', table.concat(cancelled, ' ')) end
  if ARGV[3] == '1' then call('INCR', p .. 'waits') end
  return cmsgpack.pack(answer)
end
""".replace("'DUE'", f"'{DUE}'")
    .replace("'CHANGED'", f"'{CHANGED}'")
    .replace("'ENDING'", f"'{ENDING}'")
    .replace("FIELDS", ", ".join(f"'{field}'" for field in FIELDS))
)

#: A task: id, kind, owner, key, priority, moment or false, delay, node, lease, fields, fingerprint, body. Answers: id,
#: whether it was written by this or an earlier submission of the same id, fingerprint, state.
SUBMITTING: Final = """
local last = now - 1

local function submit(new)
  local id, kind, owner, key, priority, moment, delay, node, lease, fields = unpack(new, 1, 10)
  local at = p .. 't:' .. id
  if key ~= '' or call('EXISTS', at) == 1 then
    local there = call('HMGET', at, 's', 'f')
    if there[1] then return { id, true, there[2] or '', there[1] } end
    local name = #owner .. ':' .. owner .. key
    local other = call('HGET', p .. 'keys', name)
    if other then
      there = call('HMGET', p .. 't:' .. other, 's', 'f')
      if there[1] then return { other, false, there[2] or '', there[1] } end
    end
    call('HSET', p .. 'keys', name, id)
  end
  moment = moment or now + delay
  last = last + 1  -- those of one call are in its order, too
  local state = 'p'
  if node ~= '' then
    state, moment = 'r', math.min(moment, now)
    for _, value in ipairs({ 'e', 1, 'n', node, 'b', '1:' .. text(now) }) do fields[#fields + 1] = value end
    add(p .. 'w:' .. kind, now + lease, id)
    add(p .. 'l:r', 0, place(last, id))
  else
    wait(id, kind, priority, moment)
  end
  call('HSET', at, 'k', kind, 's', state, 'd', moment, 'm', last, unpack(fields))
  if new[12] ~= '' then call('SET', p .. 'b:' .. id, new[12]) end
  add(p .. 'all', 0, place(last, id))
  count(kind, state, 1)
  return { id, true, new[11], state }
end
"""
