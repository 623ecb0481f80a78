"""Which requests begin, which wait and which are sent away, where ``admission.mode`` is ``adaptive``.

Most requests are not asked anything: ``HttpHandler`` takes a slot by itself while some are free and nobody waits. Those
that come here have found none, or come under pressure.

The measure of overload is taken by requests too: one in 32, one in eight when it begins to show, and each that finds no
slot, leaves a call with the event loop that comes after two turns, as late as the request would have begun. Event
streams and WebSockets, which last for long and wait for something else, take no part in it and hold no slot.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from sojourn.clock import NEVER
from sojourn.config import Config, Limits
from sojourn.ending import Ending, How, Phase
from sojourn.policy.codel import Waits
from sojourn.policy.concurrency import AdaptiveLimit
from sojourn.policy.priority import Priority, priority_of
from sojourn.policy.shedding import AdaptiveSlots
from sojourn.policy.trust import TrustList
from sojourn.typing import Headers

if TYPE_CHECKING:
    from sojourn.asgi.cycle import HttpCycle
    from sojourn.asgi.http import HttpHandler
    from sojourn.asgi.site import Site

__all__ = ["Admission"]

#: Where there is no ``limits.requests``: where the limit begins, and ends.
_MANY: Final = 10_000
#: Which bits of a request's number spare it from measuring: one in 32 does it, or one in eight.
_SELDOM: Final = 31
_OFTEN: Final = 7
_STREAM: Final = b"text/event-stream"


class Admission:
    """Lets requests in, on one worker.

    Args:
        site: What is served.
        config: Settings; those of the groups ``admission`` and ``limits``, and ``proxy.trusted``.

    Attributes:
        slots: Who runs, and who waits.
        limit: How many may run.
        no_keep_alive: Whether connections close after their answer.
        no_streams: Whether new event streams and WebSockets are refused.
        shed_low: Whether low priority is refused.
        spared: Requests whose number has one of these bits measure nothing.
    """

    __slots__ = (
        "_context",
        "_header",
        "_loop",
        "_site",
        "_trust",
        "limit",
        "no_keep_alive",
        "no_streams",
        "shed_low",
        "slots",
        "spared",
    )

    def __init__(self, site: Site, config: Config) -> None:
        settings, limits = config.admission, config.limits
        self._site = site
        self._context = site.runtime.context.copy()
        self._loop = site.runtime.loop
        self._trust = TrustList(config.proxy.trusted)
        header = settings.priority_header
        self._header = header.lower().encode("latin-1") if header is not None else None
        self.limit = AdaptiveLimit(
            settings.target, minimum=settings.minimum, maximum=limits.requests if limits.requests is not None else _MANY
        )
        self.slots: AdaptiveSlots[HttpCycle] = AdaptiveSlots(self.limit.limit, limits.queue, _waits(config, limits))
        self.no_keep_alive = self.no_streams = self.shed_low = False
        self.spared = _SELDOM

    def adopt(self, config: Config) -> None:
        """Follow changed settings; who waits stays in line."""
        limits = config.limits
        self._trust = TrustList(config.proxy.trusted)
        self.limit.bound(limits.requests if limits.requests is not None else _MANY)
        self.slots.limit = self.limit.limit
        self.slots.reline(self.limit.maximum, limits.queue, _waits(config, limits))
        if self._site.draining:
            self.begin_drain()
        self.go_on()

    def begin_drain(self) -> None:
        """Nobody new comes any more: who waits has no reason to be sent away before its time."""
        longest = self._site.config.limits.queue_wait
        self.slots.reline(self.slots.maximum, self.slots.queue, Waits(longest, longest, NEVER))

    def measures(self, *, no_keep_alive: bool, no_streams: bool, shed_low: bool) -> None:
        """What is done against pressure from now on."""
        self.no_keep_alive, self.no_streams, self.shed_low = no_keep_alive, no_streams, shed_low
        self.slots.closed = no_keep_alive or no_streams or shed_low

    def admit(self, handler: HttpHandler, cycle: HttpCycle) -> None:
        """A request that was not let in without a look."""
        site, slots = self._site, self.slots
        if site.probes is not None and site.probes.asked(cycle.scope):
            handler.start(cycle)  # never sent away
            return
        if self.no_keep_alive:
            handler.closing = True
            handler.farewell = "keep_alive_rotated"
        headers = cycle.scope["headers"]
        if self.no_streams and _asks_for_stream(headers):
            self._refuse(cycle, "shed", "no new streams under pressure")
            return
        priority = self._priority(cycle, headers)
        if self.shed_low and priority is Priority.LOW:
            self._refuse(cycle, "shed", "low priority is not served under pressure")
            return
        now = site.monotonic()
        self.measure(now)
        verdict = slots.enter(now, cycle, priority)
        if verdict == "run":
            cycle.has_slot = True
            handler.start(cycle)
        elif verdict == "queued":
            handler.connection.phase = Phase.QUEUED
            handler.connection.arm("queue", site.config.limits.queue_wait)
        else:
            self._refuse(cycle, verdict)
        self._clear()

    def go_on(self) -> None:
        """A slot may be free, and somebody waits."""
        slots, now = self.slots, self._site.monotonic()
        while (cycle := slots.next(now)) is not None:
            cycle.begin_queued()
        self._clear()

    def release(self, cycle: HttpCycle) -> None:
        """A request gives its slot back."""
        cycle.has_slot = False
        self.slots.running -= 1
        if self.slots.waits:
            self.go_on()

    def give_up(self, cycle: HttpCycle) -> None:
        """A request has waited for too long."""
        self.slots.forget(cycle)
        self._refuse(cycle, "queue_timeout")

    def measure(self, now: float) -> None:
        """See how long the event loop lets wait what is ready now, in seconds of the site's ``monotonic``."""
        self._loop.call_soon(self._turned, now, self.slots.running, context=self._context)

    def retry_after(self) -> int:
        """Seconds for a Retry-After: spread, so that those who were sent away together do not come back together."""
        least = self._site.config.limits.retry_after
        return random.randint(least, 2 * least)

    def _turned(self, asked: float, running: int) -> None:
        # Once more around: a handler in a thread does not keep the loop's turn long, but the interpreter from the loop
        # when it comes back from waiting for the kernel.
        self._loop.call_soon(self._measured, asked, running, context=self._context)

    def _measured(self, asked: float, running: int) -> None:
        slots, now = self.slots, self._site.monotonic()
        wait = (now - asked) / 2
        self.spared = _OFTEN if wait > self.limit.target / 4 else _SELDOM
        if self.limit.sample(now, wait, running):
            slots.limit = self.limit.limit
            if slots.waits:
                self.go_on()

    def _priority(self, cycle: HttpCycle, headers: Headers) -> Priority:
        if self._site.draining:
            return Priority.HIGH  # what is in hand is finished first, and nobody new comes
        connection = cycle.connection
        if self._header is not None and self._trust.trusts(connection.peer[0] if connection.peer else "unix"):
            for name, value in headers:
                if name == self._header and (said := priority_of(value)) is not None:
                    return said
        return cycle.overrides.priority if cycle.overrides is not None else Priority.NORMAL

    def _clear(self) -> None:
        """Answer those whom the lines have dropped."""
        dropped = self.slots.dropped
        while dropped:
            self._refuse(*dropped.pop())

    def _refuse(self, cycle: HttpCycle, word: str, detail: str = "") -> None:
        site = self._site
        if site.meter is not None:
            site.meter.shed(self._priority(cycle, cycle.scope["headers"]).name.lower(), word)
        connection, ending = cycle.connection, Ending(word, Phase.QUEUED, None, detail)
        connection.due.queue = NEVER
        if word == "queue_timeout":
            ending = ending._replace(how=How.TIMEOUT, detail="queue_wait")
            connection.missed(ending)  # the connection may stay, so its end will not tell
        cycle.fail(ending, 503)


def _waits(config: Config, limits: Limits) -> Waits:
    return Waits(limits.queue_wait, config.admission.patience, config.admission.standing)


def _asks_for_stream(headers: Headers) -> bool:
    return any(name == b"accept" and _STREAM in value for name, value in headers)
