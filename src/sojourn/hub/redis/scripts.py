"""What is done in Redis in one step. Time is that of Redis.

Each script is told the life of the store, and answers 0 when it is another one: its keys are then named anew. Each has
the prefix of its hub in its text, so that a Redis which knows it has been greeted by this hub since it was started: one
that was restarted, or has taken over from another, does not know it, and is looked at before anything else is done.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from sojourn.hub.engine import REMEMBERED

__all__ = ["REMEMBER", "Script", "Scripts"]

#: Seconds for which the number of a channel's last publication is known at least, after the channel was last used.
REMEMBER: Final = 3600.0
#: Milliseconds between two marks of how far the numbers were, and for which the answer to a batch is kept.
_MARK: Final = 60_000
_ANSWER: Final = 600_000
#: Entries after which a stream is looked at for old ones.
_STEP: Final = 32

#: What several use. ``forgotten``: the number up to which a channel may have had publications that nobody remembers.
#: It is where the numbers were when the oldest that is remembered was published.
_COMMON: Final = """
local function n(number) return string.format('%d', number) end
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local function forgotten(marks, at, seq)
  local found = redis.call('ZRANGEBYSCORE', marks, n(at - REMEMBER), '+inf', 'LIMIT', 0, 1)
  return found[1] or n(seq)
end
local function trim(stream, oldest)
  while true do
    local some, from = redis.call('XRANGE', stream, '-', '+', 'COUNT', 16), nil
    for i, entry in ipairs(some) do
      local seq, at = string.match(entry[1], '^(%d+)-(%d+)$')
      if tonumber(at) > oldest then
        if i > 1 then redis.call('XTRIM', stream, 'MINID', entry[1]) end
        return
      end
      from = tonumber(seq) + 1
    end
    if #some == 0 then return end
    redis.call('XTRIM', stream, 'MINID', n(from))
  end
end
"""

#: KEYS: meta, marks. ARGV: a new word for epoch and life. Answers: life, epoch, number, version of Redis.
#: Another process (``run_id``) may have forgotten what this one had acknowledged, so it begins another epoch; its data
#: is kept. The life is another one when all is gone.
_GREET: Final = """
local info = redis.call('INFO', 'server')
local run, version = string.match(info, 'run_id:(%w+)'), string.match(info, 'redis_version:([%d.]+)')
local meta = redis.call('HMGET', KEYS[1], 'life', 'epoch', 'run')
if not meta[1] then
  local at = n(now())
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'life', ARGV[1], 'epoch', ARGV[1], 'run', run, 'seq', '0', 'mark', at)
  redis.call('ZADD', KEYS[2], at, '0')
elseif meta[3] ~= run then
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'run', run)
end
local answer = redis.call('HMGET', KEYS[1], 'life', 'epoch', 'seq')
answer[4] = version
return answer
"""

#: KEYS: meta, marks, node; four of each publication: last, stream or order, values, id. ARGV: life, number of the
#: batch; seven of each publication: where it is published, its tail, size and ttl (ms) of the history, mode, key, id.
#: Answers: the epoch and the number of each, separated by spaces, with a minus before those that are repeated.
#: A stream's entry has the id ``number-milliseconds``; its field is the number before it, its value the tail.
_PUBLISH: Final = """
local meta = redis.call('HMGET', KEYS[1], 'life', 'epoch', 'seq', 'mark')
if meta[1] ~= ARGV[1] then return 0 end
local done = redis.call('GET', KEYS[3])
if done then
  local number, answer = string.match(done, '^(%d+) (.*)$')
  if tonumber(number) >= tonumber(ARGV[2]) then return answer end
end
local at, epoch, first, begun, count = now(), meta[2], {}, tonumber(meta[3]), 0
for i = 4, #KEYS, 4 do
  local id, known = KEYS[i + 3], false
  if ARGV[(i - 4) / 4 * 7 + 9] ~= '' then
    known = first[id] or redis.call('GET', id)
    if not known then first[id] = n(begun + count + 1) end
  end
  first[i] = known
  if not known then count = count + 1 end
end
if count > 0 then redis.call('HINCRBY', KEYS[1], 'seq', count) end
if at - tonumber(meta[4]) >= MARK then
  redis.call('HSET', KEYS[1], 'mark', n(at))
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. n(at - REMEMBER))
  redis.call('ZADD', KEYS[2], n(at), n(begun))
end
local answer, seq, before = { epoch }, begun, nil
for i = 4, #KEYS, 4 do
  if first[i] then
    answer[#answer + 1] = '-' .. first[i]
  else
    local a = (i - 4) / 4 * 7
    local tail, size, ttl, key = ARGV[a + 4], tonumber(ARGV[a + 5]), tonumber(ARGV[a + 6]), ARGV[a + 8]
    seq = seq + 1
    local number = n(seq)
    local prev = redis.call('SET', KEYS[i], number, 'PX', n(math.max(ttl, REMEMBER)), 'GET')
    if not prev then
      before = before or forgotten(KEYS[2], at, begun)
      prev = before
    end
    if size > 0 and ARGV[a + 7] == 'stream' then
      redis.call('XADD', KEYS[i + 1], 'MAXLEN', n(size), number .. '-' .. n(at), prev, tail)
      redis.call('PEXPIRE', KEYS[i + 1], n(ttl))
      if redis.call('XLEN', KEYS[i + 1]) % STEP == 0 then trim(KEYS[i + 1], at - ttl) end
    elseif size > 0 then
      redis.call('ZADD', KEYS[i + 1], number, key)
      redis.call('HSET', KEYS[i + 2], key, number .. ' ' .. prev .. ' ' .. n(at) .. ' ' .. tail)
      local over = redis.call('ZCARD', KEYS[i + 1]) - size
      if over > 0 then
        local gone = redis.call('ZPOPMIN', KEYS[i + 1], n(over))
        for j = 1, #gone, 2 do redis.call('HDEL', KEYS[i + 2], gone[j]) end
      end
      redis.call('PEXPIRE', KEYS[i + 1], n(ttl))
      redis.call('PEXPIRE', KEYS[i + 2], n(ttl))
    end
    if ARGV[a + 9] ~= '' then redis.call('SET', KEYS[i + 3], number, 'PX', REMEMBERED) end
    redis.call('PUBLISH', ARGV[a + 3], 'p' .. epoch .. ' ' .. number .. ' ' .. prev .. ' ' .. tail)
    answer[#answer + 1] = number
  end
end
answer = table.concat(answer, ' ')
redis.call('SET', KEYS[3], ARGV[2] .. ' ' .. answer, 'PX', ANSWER)
return answer
"""

#: KEYS: meta, marks; three of each channel: last, stream or order, values. ARGV: life, limit; four of each channel:
#: epoch and number to begin after (epoch "": from the first), ttl (ms), mode. Answers: epoch, number, more; channels
#: (counted from 0) of which something is lost, each with the number of the last; of each channel with publications a
#: list: the channel, and number, number before it and tail of each. The chain of numbers says what is missing: whatever
#: has taken an entry away, the one behind it names it. What is behind the limit of all that was found so far is not
#: read: ``bound`` is the first of these.
_HISTORY: Final = """
local meta = redis.call('HMGET', KEYS[1], 'life', 'epoch', 'seq')
if meta[1] ~= ARGV[1] then return 0 end
local at, seq, limit = now(), tonumber(meta[3]), tonumber(ARGV[2])
local found, lost, bound = {}, {}, nil
local function bind()
  if #found <= limit then return end
  local numbers, first = {}, {}
  for i, each in ipairs(found) do numbers[i] = each[5] end
  table.sort(numbers)
  for _, each in ipairs(found) do
    if each[5] <= numbers[limit + 1] then first[#first + 1] = each end
  end
  found, bound = first, n(numbers[limit + 1])
end
for k = 3, #KEYS, 3 do
  local c = (k - 3) / 3
  local a, channel = c * 4 + 3, n(c)
  local oldest, known, start = at - tonumber(ARGV[a + 2]), false, 0
  if ARGV[a] == meta[2] and tonumber(ARGV[a + 1]) <= seq then known, start = true, tonumber(ARGV[a + 1]) end
  if ARGV[a + 3] == 'stream' then
    trim(KEYS[k + 1], oldest)
    local some = redis.call('XRANGE', KEYS[k + 1], n(start + 1), bound or '+', 'COUNT', n(limit + 1))
    for _, entry in ipairs(some) do
      local number = string.match(entry[1], '^%d+')
      found[#found + 1] = { channel, number, entry[2][1], entry[2][2], tonumber(number) }
    end
    if ARGV[a] ~= '' then
      local first = some[1] or bound and redis.call('XRANGE', KEYS[k + 1], n(start + 1), '+', 'COUNT', 1)[1]
      local before = first and first[2][1] or redis.call('GET', KEYS[k]) or forgotten(KEYS[2], at, seq)
      if not known or tonumber(before) > start then lost[#lost + 1] = channel; lost[#lost + 1] = before end
    end
  else
    local old = true
    while old do
      local key = redis.call('ZRANGE', KEYS[k + 1], 0, 0)[1]
      local value = key and redis.call('HGET', KEYS[k + 2], key)
      old = key and (not value or tonumber(string.match(value, '^%d+ %d+ (%d+) ')) <= oldest)
      if old then
        redis.call('ZREM', KEYS[k + 1], key)
        redis.call('HDEL', KEYS[k + 2], key)
      end
    end
    local some = redis.call('ZRANGEBYSCORE', KEYS[k + 1], '(' .. n(start), bound or '+inf', 'LIMIT', 0, n(limit + 1))
    for _, key in ipairs(some) do
      local value = redis.call('HGET', KEYS[k + 2], key)
      if value then
        local number, prev, from = string.match(value, '^(%d+) (%d+) %d+ ()')
        found[#found + 1] = { channel, number, prev, string.sub(value, from), tonumber(number) }
      end
    end
    if ARGV[a] ~= '' and not known and redis.call('ZCARD', KEYS[k + 1]) == 0 then
      lost[#lost + 1] = channel
      lost[#lost + 1] = redis.call('GET', KEYS[k]) or forgotten(KEYS[2], at, seq)
    end
  end
  if #found > 1.25 * limit then bind() end
end
bind()
local answer, some = { meta[2], meta[3], bound and '1' or '', lost }, { '' }
for _, each in ipairs(found) do
  if each[2] ~= bound then
    if each[1] ~= some[1] then
      some = { each[1] }
      answer[#answer + 1] = some
    end
    local at = #some
    some[at + 1], some[at + 2], some[at + 3] = each[2], each[3], each[4]
  end
end
return answer
"""

#: KEYS: meta, marks, and the last of each channel that is in use. ARGV: life. Answers: epoch, number. A channel that is
#: in use is remembered, and one that was not known is from now on.
_TOUCH: Final = """
local meta = redis.call('HMGET', KEYS[1], 'life', 'epoch', 'seq')
if meta[1] ~= ARGV[1] then return 0 end
local before
for i = 3, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    redis.call('PEXPIRE', KEYS[i], REMEMBER, 'GT')
  else
    before = before or forgotten(KEYS[2], now(), tonumber(meta[3]))
    redis.call('SET', KEYS[i], before, 'PX', REMEMBER)
  end
end
return { meta[2], meta[3] }
"""

#: What the scripts of presence use. KEYS: meta, due; members, times and users of each channel, from ``k`` on.
_PRESENCE: Final = """
local function count(users, value, step)
  local size, from = string.match(value, '^(%d+):()')
  if size == '0' then return end
  local user = string.sub(value, from, from + tonumber(size) - 1)
  if redis.call('HINCRBY', users, user, step) <= 0 then redis.call('HDEL', users, user) end
end
local function remove(k, member)
  local value = redis.call('HGET', KEYS[k], member)
  redis.call('ZREM', KEYS[k + 1], member)
  if not value then return false end
  redis.call('HDEL', KEYS[k], member)
  count(KEYS[k + 2], value, -1)
  return true
end
local function expire(k, channel, at)
  local late = redis.call('ZRANGEBYSCORE', KEYS[k + 1], '-inf', n(at))
  for _, member in ipairs(late) do remove(k, member) end
  if #late > 0 then redis.call('PUBLISH', channel, 'x' .. cmsgpack.pack(late)) end
end
local function keep(k, ttl)
  for i = k, k + 2 do redis.call('PEXPIRE', KEYS[i], n(2 * ttl), 'GT') end
  for i = k, k + 2 do redis.call('PEXPIRE', KEYS[i], n(2 * ttl), 'NX') end
end
if redis.call('HGET', KEYS[1], 'life') ~= ARGV[1] then return 0 end
local at = now()
"""

#: KEYS: one channel. ARGV: life, where the channel is published, message, ttl (ms), channel; id and value of each.
#: ``due`` has the moment from which on somebody of a channel may be late.
_ENTER: Final = """
local changed, late = false, n(at + tonumber(ARGV[4]))
expire(3, ARGV[2], at)
for i = 6, #ARGV, 2 do
  local before = redis.call('HGET', KEYS[3], ARGV[i])
  if before ~= ARGV[i + 1] then
    changed = true
    if before then count(KEYS[5], before, -1) end
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
    count(KEYS[5], ARGV[i + 1], 1)
  end
  redis.call('ZADD', KEYS[4], late, ARGV[i])
end
redis.call('ZADD', KEYS[2], 'LT', late, ARGV[5])
keep(3, tonumber(ARGV[4]))
if changed then redis.call('PUBLISH', ARGV[2], ARGV[3]) end
return 1
"""

#: KEYS: one channel. ARGV: life, where the channel is published, message; ids.
_LEAVE: Final = """
local changed = false
for i = 4, #ARGV do changed = remove(3, ARGV[i]) or changed end
expire(3, ARGV[2], at)
if changed then redis.call('PUBLISH', ARGV[2], ARGV[3]) end
return 1
"""

#: KEYS: some channels. ARGV: life, ttl (ms); of each channel: where it is published, how many ids, ids. Answers: the
#: position of each id that is not there, counted from 0 over all.
_REFRESH: Final = """
local a, seen, missing, ttl = 3, 0, {}, tonumber(ARGV[2])
for k = 3, #KEYS, 3 do
  expire(k, ARGV[a], at)
  local last = a + 1 + tonumber(ARGV[a + 1])
  for i = a + 2, last do
    if redis.call('HEXISTS', KEYS[k], ARGV[i]) == 1 then
      redis.call('ZADD', KEYS[k + 1], n(at + ttl), ARGV[i])
    else
      missing[#missing + 1] = seen
    end
    seen = seen + 1
  end
  keep(k, ttl)
  a = last + 1
end
return missing
"""

#: KEYS: one channel. ARGV: life, where the channel is published, limit. Answers: the values of members.
_WHO: Final = """
expire(3, ARGV[2], at)
local members = redis.call('ZRANGE', KEYS[4], 0, n(tonumber(ARGV[3]) - 1))
local values = {}
for i, member in ipairs(members) do values[i] = redis.call('HGET', KEYS[3], member) end
return values
"""

#: KEYS: one channel. ARGV: life, where the channel is published. Answers: how many members, how many users.
_COUNT: Final = """
expire(3, ARGV[2], at)
return { redis.call('HLEN', KEYS[3]), redis.call('HLEN', KEYS[5]) }
"""

#: KEYS: no channel. ARGV: life, limit. Answers: channels in which somebody may be late.
_DUE: Final = """
return redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', n(at), 'LIMIT', 0, ARGV[2])
"""

#: KEYS: some channels. ARGV: life; of each channel: where it is published, its name. Who is late is gone, which is
#: told.
_SWEEP: Final = """
for k = 3, #KEYS, 3 do
  local a = (k - 3) / 3 * 2 + 2
  expire(k, ARGV[a], at)
  local next = redis.call('ZRANGE', KEYS[k + 1], 0, 0, 'WITHSCORES')[2]
  if next then redis.call('ZADD', KEYS[2], next, ARGV[a + 1]) else redis.call('ZREM', KEYS[2], ARGV[a + 1]) end
end
return 1
"""


class Script(NamedTuple):
    """A script, and the name by which Redis knows it.

    Attributes:
        sha: Its hash.
        text: Its Lua.
    """

    sha: str
    text: str


class Scripts:
    """The scripts of one hub.

    Args:
        prefix: Of its keys.
    """

    __slots__ = ("count", "due", "enter", "greet", "history", "leave", "publish", "refresh", "sweep", "touch", "who")

    def __init__(self, prefix: str) -> None:
        numbers = {
            "REMEMBERED": int(REMEMBERED * 1000), "REMEMBER": int(REMEMBER * 1000), "MARK": _MARK, "ANSWER": _ANSWER,
            "STEP": _STEP,
        }  # fmt: skip

        def script(*parts: str) -> Script:
            text = f"-- {prefix}\n" + "".join((_COMMON, *parts))
            for name, number in numbers.items():
                text = text.replace(name, str(number))
            return Script(hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), text)

        self.greet = script(_GREET)
        self.publish = script(_PUBLISH)
        self.history = script(_HISTORY)
        self.touch = script(_TOUCH)
        self.enter = script(_PRESENCE, _ENTER)
        self.leave = script(_PRESENCE, _LEAVE)
        self.refresh = script(_PRESENCE, _REFRESH)
        self.who = script(_PRESENCE, _WHO)
        self.count = script(_PRESENCE, _COUNT)
        self.due = script(_PRESENCE, _DUE)
        self.sweep = script(_PRESENCE, _SWEEP)

    @property
    def known(self) -> list[Script]:
        """Those that Redis is to know by name: all but the greeting, which tells it the others."""
        return [getattr(self, name) for name in self.__slots__ if name != "greet"]
