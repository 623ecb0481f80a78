"""The hubs of a worker: counted each second, and shown to who asks.

Hubs make themselves known (``scopes.hubs``); this does not know what a hub is made of. To the metrics all hubs of a
process are one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec

from sojourn.asgi.site import Site
from sojourn.errors import ErrandError
from sojourn.observe.answers import Answers
from sojourn.observe.metrics.families import PREFIX, TABLE, Join
from sojourn.observe.metrics.meter import Meter
from sojourn.scopes.hubs import HUBS, Figures, HubInfo, Hubs, Key, Shown
from sojourn.wire.websocket_frames import is_close_code

__all__ = ["HubWatch"]

#: Seconds between two looks.
_SECOND: Final = 1.0
#: Channels and slow members of a hub that are shown, unless somebody asks for more.
_SHOWN: Final = 20
#: An operator ended it, as with connections: do not come back.
_KILLED: Final = 4503
_ROUND_TRIP: Final = "hub_round_trip_seconds"


class _Look(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of ``hub``."""

    name: str = ""
    limit: int = _SHOWN


class _Disconnect(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of ``hub_disconnect``."""

    user: str = ""
    member: str = ""
    name: str = ""
    code: int | None = None


class HubWatch:
    """Looks at the hubs of a worker.

    Args:
        site: What the worker serves; its hubs are known in the context of everything it runs from now on.
        meter: Counts; None when nobody does.

    Attributes:
        hubs: Those that were used.
        answers: The errands it does.
    """

    def __init__(self, site: Site, meter: Meter | None) -> None:
        self.hubs = Hubs()
        site.runtime.context.run(HUBS.set, self.hubs)
        self.answers: Answers = {"hub": self.look, "hub_disconnect": self.disconnect}
        self._ticker = site.ticker
        self._meter = meter
        #: What was counted of each hub so far.
        self._told: WeakKeyDictionary[Shown, Figures] = WeakKeyDictionary()
        #: Gauges that were set: what no hub tells of any more is zero.
        self._known: set[Key] = set()
        if meter is not None:
            self._call = self._ticker.call_together(_SECOND, self._each_second)

    def close(self) -> None:
        """Look a last time, and then no more; calling it twice does nothing."""
        if self._meter is not None:
            self._call.cancel()
            self.sample(self._meter)
            self._meter = None

    def _each_second(self) -> None:
        self._call = self._ticker.call_together(_SECOND, self._each_second)
        if self._meter is not None:
            self.sample(self._meter)

    def sample(self, meter: Meter) -> None:
        """Bring what all hubs count to the metrics."""
        levels = dict.fromkeys(self._known, 0.0)
        for hub in self.hubs:
            figures, before = hub.figures(), self._told.get(hub, Figures({}, {}))
            self._told[hub] = figures
            for key, number in figures.counts.items():
                if number > (told := before.counts.get(key, 0.0)):
                    meter.count(key[0], number - told, **_labels(key))
            for key, level in figures.levels.items():
                known = levels.get(key, 0.0)
                levels[key] = max(known, level) if TABLE[PREFIX + key[0]].join is Join.MAX else known + level
            _add_round_trips(meter, figures, before)
        self._known.update(levels)
        for key, level in levels.items():
            meter.gauge(key[0], level, **_labels(key))

    async def look(self, arguments: Mapping[str, Any]) -> list[HubInfo]:
        """How the hubs stand.

        Args:
            arguments: ``name``: only hubs of this name; ``limit``: so many channels and slow members of each.

        Raises:
            ErrandError: An argument is no good.

        Cancel: safe.
        """
        given = _read(_Look, arguments)
        return [await hub.look(given.limit) for hub in self._named(given.name)]

    async def disconnect(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """End members because an operator wants it.

        Args:
            arguments: ``user``: all of this user; ``member``: this one; ``name``: only in hubs of this name; ``code``:
                of the close frame, 4503 without it.

        Returns:
            How many were ``ended``.

        Raises:
            ErrandError: Nobody is named, or the code can't be sent.
        """
        given = _read(_Disconnect, arguments)
        if not given.user and not given.member:
            raise ErrandError(400, "bad_argument", "say who: user or member")
        code = _KILLED if given.code is None else given.code
        if not is_close_code(code):
            raise ErrandError(400, "bad_argument", f"{code} can't be sent in a close frame (RFC 6455 section 7.4)")
        return {"ended": sum(hub.disconnect_here(given.user, given.member, code) for hub in self._named(given.name))}

    def _named(self, name: str) -> Sequence[Shown]:
        return sorted((hub for hub in self.hubs if name in ("", hub.name)), key=lambda hub: hub.name)


def _labels(key: Key) -> dict[str, str]:
    """The label of a series; its name is the table's."""
    name, value = key
    return {TABLE[PREFIX + name].labels[0]: value} if value else {}


def _add_round_trips(meter: Meter, figures: Figures, before: Figures) -> None:
    total = figures.round_trip_sum - before.round_trip_sum
    old = before.round_trips or (0,) * len(figures.round_trips)
    if figures.round_trips != old:
        at, values = meter.place(_ROUND_TRIP), meter.values
        for index, (now, then) in enumerate(zip(figures.round_trips, old, strict=True)):
            values[at + index] += now - then
        values[at + len(figures.round_trips)] += total


def _read(kind: type[Any], arguments: Mapping[str, Any]) -> Any:
    try:
        return msgspec.convert(dict(arguments), kind)
    except msgspec.ValidationError as error:
        raise ErrandError(400, "bad_argument", str(error)) from error
