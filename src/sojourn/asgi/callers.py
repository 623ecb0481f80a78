"""Deadlines that come with a request: whose are believed, and what the application is bound by."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sojourn.clock import NEVER
from sojourn.config import Config
from sojourn.events import CallerDeadline
from sojourn.policy.caller import HEADERS, RejectCap, budget_of
from sojourn.policy.trust import TrustList
from sojourn.typing import Headers

if TYPE_CHECKING:
    from sojourn.asgi.inbound import Inbound
    from sojourn.net.connection import Connection

__all__ = ["Callers", "RequestLimit"]


class Callers:
    """What trusted callers say of how long they wait.

    Args:
        config: Settings; those of the group ``deadlines`` and ``proxy.trusted``.
    """

    __slots__ = ("_cap", "_dark", "_trust")

    def __init__(self, config: Config) -> None:
        self._trust = TrustList(config.proxy.trusted)
        self._cap = RejectCap(config.deadlines.reject_share)
        self._dark = config.deadlines.dark

    def judge(self, connection: Connection, headers: Headers) -> tuple[str, float]:
        """How long the caller of a request waits.

        Args:
            connection: Where the request came from.
            headers: Its headers, one of which is a deadline.

        Returns:
            Name of the header and seconds: 0.0 means that it is not to be begun, NEVER that nothing is to be bound.
        """
        host = connection.peer[0] if connection.peer is not None else "unix"
        if not self._trust.trusts(host):
            return "", NEVER
        sent = dict(reversed(headers))  # of two that say the same, the first counts
        for name in HEADERS:
            if name in sent and (seconds := budget_of(name, sent[name])) is not None:
                break
        else:
            return "", NEVER
        runtime = connection.runtime
        refuse = self._cap.came(host, runtime.ticker.now, late=seconds <= 0.0)
        outcome = "dark" if self._dark else "refused" if refuse else "bound" if seconds > 0.0 else "let_through"
        if CallerDeadline in runtime.bus.observers:
            runtime.bus.emit(CallerDeadline(connection.id, name.decode(), seconds, outcome))
        return name.decode(), seconds if outcome in ("bound", "refused") else NEVER


class RequestLimit(NamedTuple):
    """What bounds a request, as ``scopes.deadline`` sees it.

    Attributes:
        moment: When, in seconds of the monotonic clock.
        name: Which deadline: ``handler``, ``response_start``, or the header it came with.
        seconds: Its length.
        request: Whose it is.
    """

    moment: float
    name: str
    seconds: float
    request: Inbound

    @property
    def where(self) -> str:
        """Where it was set: the request."""
        return self.request.title
