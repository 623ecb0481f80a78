"""The hubs of a worker: counted each second, and shown to who asks.

Hubs make themselves known (``scopes.hubs``); this does not know what a hub is made of. To the metrics all hubs of a
process are one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from sojourn.asgi.site import Site
from sojourn.errors import ErrandError
from sojourn.observe.answers import Answers, read
from sojourn.observe.metrics.meter import Meter
from sojourn.observe.sampling import Sampler
from sojourn.scopes.hubs import HUBS, HubInfo, Hubs, Shown
from sojourn.wire.websocket_frames import is_close_code

__all__ = ["HubWatch"]

#: Seconds between two looks.
_SECOND: Final = 1.0
#: Channels and slow members of a hub that are shown, unless somebody asks for more.
_SHOWN: Final = 20
#: An operator ended it, as with connections: do not come back.
_KILLED: Final = 4503


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
        self.hubs = Hubs(site.runtime.bus)
        site.runtime.context.run(HUBS.set, self.hubs)
        self.answers: Answers = {"hub": self.look, "hub_disconnect": self.disconnect}
        self._ticker = site.ticker
        self._meter = meter
        self._sampler = Sampler()
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
        self._sampler.sample(self.hubs, meter)

    async def look(self, arguments: Mapping[str, Any]) -> list[HubInfo]:
        """How the hubs stand.

        Args:
            arguments: ``name``: only hubs of this name; ``limit``: so many channels and slow members of each.

        Raises:
            ErrandError: An argument is no good.

        Cancel: safe.
        """
        given = read(_Look, arguments)
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
        given = read(_Disconnect, arguments)
        if not given.user and not given.member:
            raise ErrandError(400, "bad_argument", "say who: user or member")
        code = _KILLED if given.code is None else given.code
        if not is_close_code(code):
            raise ErrandError(400, "bad_argument", f"{code} can't be sent in a close frame (RFC 6455 section 7.4)")
        return {"ended": sum(hub.disconnect_here(given.user, given.member, code) for hub in self._named(given.name))}

    def _named(self, name: str) -> Sequence[Shown]:
        return sorted((hub for hub in self.hubs if name in ("", hub.name)), key=lambda hub: hub.name)
