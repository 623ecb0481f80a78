"""What Redis does in one step each, by its own clock."""

from __future__ import annotations

from typing import Final

__all__ = ["CREATE", "LOAD", "OF", "REVOKE", "ROTATE", "SAVE", "TOUCH"]

#: A session is a hash that expires when it was not used for long enough. Its fields: user, data, version, created,
#: expires (at the latest), idle (seconds), read only, epoch. It counts only with the present epoch: to end all sessions
#: is to begin another one. Keys of a user are in a sorted set, by when they expire at the latest.
_COMMON: Final = """
local prefix = ARGV[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local epoch = redis.call('GET', prefix .. 'epoch') or '0'

local function name(key) return prefix .. 's:' .. key end
local function of(user) return prefix .. 'u:' .. user end
local function ms(seconds) return string.format('%.0f', math.max(1, math.ceil(seconds * 1000))) end

local function find(key)
  local found = redis.call('HMGET', name(key), 'u', 'd', 'v', 'c', 'x', 'i', 'r', 'e')
  if not found[3] or found[8] ~= epoch then return nil end
  return found
end

local function answer(key, found)
  local left = tonumber(found[5]) - now
  if found[7] == '1' then left = redis.call('PTTL', name(key)) / 1000 end
  return { key, found[1], found[2], found[3], found[4], string.format('%.17g', left), found[7] }
end

local function use(key, found, rarely)
  if found[7] == '1' then return end
  local rest = math.min(tonumber(found[6]), tonumber(found[5]) - now)
  if rarely and redis.call('PTTL', name(key)) >= rest * 750 then return end
  redis.call('PEXPIRE', name(key), ms(rest))
end

local function make(key, user, data, created, expires, idle)
  redis.call('HSET', name(key), 'u', user, 'd', data, 'v', '1', 'c', created, 'x', expires, 'i', idle, 'r', '0',
    'e', epoch)
  local found = { user, data, '1', created, expires, idle, '0', epoch }
  use(key, found)
  if user ~= '' then
    local all = of(user)
    redis.call('ZREMRANGEBYSCORE', all, '-inf', now)
    redis.call('ZADD', all, expires, key)
    local rest = tonumber(expires) - now
    if redis.call('PTTL', all) < rest * 1000 then redis.call('PEXPIRE', all, ms(rest)) end
  end
  return found
end

local function remove(key, user)
  redis.call('DEL', name(key))
  if user and user ~= '' then redis.call('ZREM', of(user), key) end
end

local function number(value) return string.format('%.17g', value) end
"""

LOAD: Final = (
    _COMMON
    + """
local found = find(ARGV[2])
if not found then return false end
use(ARGV[2], found, true)
return answer(ARGV[2], found)
"""
)

#: key, user, data, idle, absolute
CREATE: Final = (
    _COMMON
    + """
return answer(ARGV[2], make(ARGV[2], ARGV[3], ARGV[4], number(now), number(now + tonumber(ARGV[6])), ARGV[5]))
"""
)

#: key, version, data
SAVE: Final = (
    _COMMON
    + """
local key = ARGV[2]
local found = find(key)
if not found then return false end
if found[3] ~= ARGV[3] or found[7] == '1' then return { 0, answer(key, found) } end
found[2], found[3] = ARGV[4], number(tonumber(found[3]) + 1)
redis.call('HSET', name(key), 'd', found[2], 'v', found[3])
use(key, found)
return { 1, answer(key, found) }
"""
)

#: key, version, new key, user, data, idle, absolute, grace, message that it was rotated, message that it is over
ROTATE: Final = (
    _COMMON
    + """
local key, user = ARGV[2], ARGV[5]
local found = find(key)
if not found then return false end
if found[3] ~= ARGV[3] or found[7] == '1' then return { 0, answer(key, found) } end
local same = found[1] == user
local created, expires = number(now), number(now + tonumber(ARGV[8]))
if same then created, expires = found[4], found[5] end
local made = make(ARGV[4], user, ARGV[6], created, expires, ARGV[7])
if found[1] == '' or same then
  redis.call('HSET', name(key), 'r', '1')
  local grace = tonumber(ARGV[9])
  if redis.call('PTTL', name(key)) > grace * 1000 then redis.call('PEXPIRE', name(key), ms(grace)) end
  redis.call('PUBLISH', prefix .. 'revoked', ARGV[10])
else
  remove(key, found[1])
  redis.call('PUBLISH', prefix .. 'revoked', ARGV[11])
end
return { 1, answer(ARGV[4], made) }
"""
)

#: keys
TOUCH: Final = (
    _COMMON
    + """
local there = {}
for i = 2, #ARGV do
  local found = find(ARGV[i])
  if found then
    use(ARGV[i], found)
    there[#there + 1] = ARGV[i]
  end
end
return there
"""
)

#: what, name, keep, message
REVOKE: Final = (
    _COMMON
    + """
local what, whom, keep = ARGV[2], ARGV[3], ARGV[4]
if what == 'session' then
  remove(whom, redis.call('HGET', name(whom), 'u'))
elseif what == 'user' then
  for _, key in ipairs(redis.call('ZRANGE', of(whom), 0, -1)) do
    if key ~= keep then remove(key, whom) end
  end
elseif what == 'all' then
  redis.call('INCR', prefix .. 'epoch')
end
redis.call('PUBLISH', prefix .. 'revoked', ARGV[5])
return 1
"""
)

#: user
OF: Final = (
    _COMMON
    + """
local all = {}
for _, key in ipairs(redis.call('ZRANGE', of(ARGV[2]), 0, -1)) do
  local found = find(key)
  if found and found[7] ~= '1' then all[#all + 1] = answer(key, found) end
end
return all
"""
)
