"""Buckets in Redis: one count for all workers and machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, Protocol

from sojourn.clock import NEVER, Clock, SystemClock
from sojourn.errors import DeadlineExceeded, RateLimitsUnavailable
from sojourn.events import CircuitChanged
from sojourn.guards.rates.memory import MemoryRates
from sojourn.guards.registry import GUARDS
from sojourn.policy.rate import SLACK, Demand, Standing, standing
from sojourn.scopes.budget import budget
from sojourn.stores.redis import Scripts, connected, failures

__all__ = ["RedisRates"]

#: What errors, events and ``deadlines.budgets`` call it.
BUDGET: Final = "rate_limits"
#: Seconds of counting elsewhere after Redis did not answer, before one request tries again.
PAUSE: Final = 1.0
#: Failures in a row after which it pauses: one lost packet, or one stall of our own event loop, is no outage.
ROW: Final = 3
#: Connections to Redis; who finds none free waits for one within the budget.
_CONNECTIONS: Final = 16

#: All buckets of a request in one step, by the clock of Redis. The arithmetic is that of ``policy/rate.py``: what is
#: changed there is changed here. A bucket is "used at"; its key is gone when it is full.
SCRIPT: Final = """
local now = tonumber(ARGV[1])
if now == nil then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local taken, gone, back = true, {}, {}
for i, key in ipairs(KEYS) do
  local rate, burst, cost = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
  local used, found = 0, redis.call('GET', key)
  if found then
    local before, at = string.match(found, '^(%S+) (%S+)$')
    used, at = tonumber(before), tonumber(at)
    if now > at then
      used = used - (now - at) * rate
      if used < 0 then used = 0 end
    end
    back[i] = now < at
  end
  gone[i] = used
  if not (used + cost <= burst + burst * SLACK) then taken = false end
end
local answer = { taken and 1 or 0 }
for i, key in ipairs(KEYS) do
  answer[i + 1] = string.format('%.17g', gone[i])
  if taken or back[i] then
    local used = gone[i]
    if taken then used = used + tonumber(ARGV[3 * i + 1]) end
    if used > 0 then
      local ms = math.ceil(used / tonumber(ARGV[3 * i - 1]) * 1000) + 1
      redis.call('SET', key, string.format('%.17g %.17g', used, now), 'PX', string.format('%.0f', ms))
    end
  end
end
return answer
""".replace("SLACK", repr(SLACK))


class RedisClient(Protocol):
    """What is used of ``redis.asyncio.Redis``."""

    def execute_command(self, *args: Any, **options: Any) -> Any: ...

    def aclose(self) -> Any: ...


class RedisRates:
    """Counts in Redis (the extra ``redis``); all buckets of a request in one atomic step, by the clock of Redis.

    Redis has 50 ms to answer, or what ``deadlines.budgets`` says for ``rate_limits``. A request that gets no answer is
    counted in the memory of its process. After three in a row all are, for a second, and then one request tries again;
    that is told once for each outage.

    Args:
        redis: A ``redis.asyncio.Redis``, which stays yours, or a URL such as ``redis://localhost:6379/0``.
        prefix: Begins all keys. The braces put them in one slot of a Redis Cluster, as a script needs it.
        on_failure: ``open`` counts in memory where Redis does not answer, ``closed`` allows nothing.
        local: Where it counts meanwhile; None makes a :class:`MemoryRates`.
        clock: Times the pauses; None takes the machine's.

    Attributes:
        failures: Times that Redis did not answer as it should.
        degraded: Whether it counts without Redis at present.

    Raises:
        ConfigError: The URL is none, or the package ``redis`` is missing.

    Example:
        >>> rates = RedisRates("redis://localhost:6379/0", on_failure="open")
        >>> rates.degraded
        False
    """

    def __init__(
        self,
        redis: RedisClient | str,
        *,
        prefix: str = "{sojourn:rate}:",
        on_failure: Literal["open", "closed"] = "open",
        local: MemoryRates | None = None,
        clock: Clock | None = None,
    ) -> None:
        if on_failure not in ("open", "closed"):
            raise ValueError(f"on_failure is open or closed, not {on_failure!r}")
        self._client, self._own = connected(redis, "rate limits in Redis need", _CONNECTIONS)
        self._scripts = Scripts(self._client)
        self._prefix = prefix
        self._closed = on_failure == "closed"
        self._local = MemoryRates(clock=clock) if local is None else local
        self._clock = clock or SystemClock()
        #: When Redis is tried again; NEVER while one request does so.
        self._again = 0.0
        self._since = 0.0
        #: Failures in a row, and when the last of them was.
        self._row = 0
        self._failed_at = -NEVER
        self.failures = 0
        self.degraded = False

    async def take(self, demands: Sequence[Demand]) -> Sequence[Standing]:
        """Take from all buckets, or from none.

        Raises:
            RateLimitsUnavailable: Redis does not answer, and ``on_failure`` is ``closed``.
            DeadlineExceeded: The caller's own deadline has passed.

        Cancel: safe; the tokens may be gone.
        """
        if self.degraded:
            if self._clock.monotonic() < self._again:
                return await self._without(demands)
            self._again = NEVER  # one tries; the others go on without
        began = self._clock.monotonic()
        try:
            async with budget(BUDGET, default=0.05):
                reply = await self._ask(demands)
        except DeadlineExceeded as error:
            if error.deadline != BUDGET:
                self._undecided()
                raise
            self._failed(error, began)
        except failures() as error:
            self._failed(error, began)
        except BaseException:
            self._undecided()
            raise
        else:
            self._row = 0
            if self.degraded:
                self._recovered()
            taken = bool(reply[0])
            return [standing(float(used), demand, taken) for used, demand in zip(reply[1:], demands, strict=True)]
        return await self._without(demands)

    async def aclose(self) -> None:
        """Close the connections that it opened itself."""
        if self._own:
            await self._client.aclose()

    async def _ask(self, demands: Sequence[Demand], now: str = "") -> list[Any]:
        keys = [self._prefix + demand.key for demand in demands]
        numbers = [repr(float(number)) for demand in demands for number in demand[1:]]
        return list(await self._scripts.run(SCRIPT, keys, now, *numbers))

    async def _without(self, demands: Sequence[Demand]) -> Sequence[Standing]:
        if self._closed:
            raise RateLimitsUnavailable(PAUSE)
        return await self._local.take(demands)

    def _undecided(self) -> None:
        """The caller did not wait for the answer. If it was the one that tried, the next one does."""
        if self._again == NEVER:
            self._again = self._clock.monotonic()

    def _failed(self, error: Exception, began: float) -> None:
        now = self._clock.monotonic()
        self.failures += 1
        if began >= self._failed_at:  # what was on its way together fails together, and counts once
            self._row += 1
            self._failed_at = now
        self._again = now + PAUSE
        if self.degraded or self._row < ROW:
            return
        self.degraded, self._since = True, now
        then = "nothing that is limited is allowed" if self._closed else "each worker counts for itself"
        _tell(CircuitChanged(BUDGET, True, f"{type(error).__name__}: {error}; meanwhile {then}"))

    def _recovered(self) -> None:
        self.degraded = False
        seconds = self._clock.monotonic() - self._since
        _tell(CircuitChanged(BUDGET, False, f"Redis answers again, after {seconds:.1f} s"))


def _tell(event: CircuitChanged) -> None:
    """Tell who watches the server, if one runs this code."""
    guards = GUARDS.get()
    if guards is not None:
        guards.bus.emit(event)
