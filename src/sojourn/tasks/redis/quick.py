"""The most frequent call by a script of its own: one task that is due at once, without a key, for whoever claims it.

What the others have in common costs each of them more than Redis needs for such a task.
"""

from __future__ import annotations

from typing import Final

from sojourn.tasks.record import NewTask
from sojourn.tasks.redis.records import body, fields
from sojourn.tasks.redis.shared import DUE

__all__ = ["SUBMIT", "is_plain", "values"]

#: ARGV: prefix, id, kind, lowest first (what has a higher priority), body, fields. Answers 1; or 0, and has done
#: nothing: then the other script knows what to answer. Does what ``submit`` does, see `shared`.
SUBMIT: Final = """
local call, p, id, kind = redis.call, ARGV[1], ARGV[2], ARGV[3]
local at = p .. 't:' .. id
if call('EXISTS', at) == 1 then return 0 end
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local place = string.format('%016.0f%s', now, id)
call('HSET', at, 'k', kind, 's', 'p', 'd', now, 'm', now, unpack(ARGV, 6))
if ARGV[5] ~= '' then call('SET', p .. 'b:' .. id, ARGV[5]) end
call('ZADD', p .. 'r:' .. kind, ARGV[4], place)
call('ZADD', p .. 'all', 0, place)
call('HINCRBY', p .. 'n', 'p' .. kind, 1)
if call('HGET', p .. 'meta', 'hinted') ~= '1' then
  call('HSET', p .. 'meta', 'hinted', '1')
  call('PUBLISH', p .. 'DUE', '')
end
return 1
""".replace("'DUE'", f"'{DUE}'")


def is_plain(task: NewTask) -> bool:
    """Whether it is such a task."""
    return not (task.key or task.node) and task.delay <= 0.0 and task.run_at is None


def values(task: NewTask) -> list[bytes]:
    """Arguments of the script, behind the prefix."""
    of = [str(each).encode() for each in fields(task)]
    return [task.id.encode(), task.kind.encode(), b"%d" % -task.priority, body(task).encode(), *of]
