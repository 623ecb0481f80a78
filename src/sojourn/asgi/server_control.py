"""What an application may ask of the server as a whole: whether it is about to stop, and to take part in that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Final, Literal, NamedTuple

from sojourn.config import Drain

__all__ = ["CURRENT_SERVER", "Participant", "ServerControl", "current_server", "draining"]

#: The server that serves in the present context.
CURRENT_SERVER: Final[ContextVar[ServerControl]] = ContextVar("sojourn_server")

#: What takes part may say what it did: numbers by its own words.
DrainCall = Callable[[], Awaitable[None]] | Callable[[], Awaitable[Mapping[str, int]]]
PhaseName = Literal["notice", "finish", "persist"]


class Participant(NamedTuple):
    """Something that takes part in the drain.

    Attributes:
        name: What reports call it.
        phase: When it is called.
        call: What is called, without arguments, and awaited.
        timeout: Seconds it has; then it is cancelled.
    """

    name: str
    phase: PhaseName
    call: DrainCall
    timeout: float


class ServerControl:
    """The server's side of the whole, as its application sees it. Get it from :func:`sojourn.current_server`.

    Args:
        drain: Settings of the drain, for what participants leave out.

    Attributes:
        settings: Of the drain; may be changed at any time.
        notice: Set when a drain begins. The server still serves, but readiness says no.
        draining: Set when nobody new comes any more and streams should end; the same as that of each request.
        participants: Who takes part, in the order they asked.
    """

    __slots__ = ("draining", "notice", "participants", "settings")

    def __init__(self, drain: Drain) -> None:
        self.settings = drain
        self.notice = asyncio.Event()
        self.draining = asyncio.Event()
        self.participants: list[Participant] = []

    def on_drain(
        self, call: DrainCall, *, phase: PhaseName = "persist", timeout: float | None = None, name: str = ""
    ) -> Callable[[], None]:
        """Take part in the drain: the phase ends when all who take part in it are done or had their time.

        Args:
            call: Called without arguments and awaited, once; all of a phase run at the same time. It may return numbers
                by words of its own, such as ``{"saved": 3}``: the drain report and the log show them. Any that are
                ``lost`` in ``persist`` mean exit code 6.
            phase: ``notice``: at the beginning, while serving goes on. ``finish``: when nobody new comes and streams
                are told. ``persist``: when no request runs any more and before the application's own shutdown.
            timeout: Seconds it has; then it is cancelled. None takes ``drain.delay``, ``drain.requests`` or
                ``drain.persist``. A ``persist`` participant that fails or is cancelled means exit code 6.
            name: What reports call it; the function's name when empty.

        Returns:
            A function that takes the participation back.

        Raises:
            ValueError: There is no such phase, the timeout is not above zero, or that phase is over already.
        """
        default = {
            "notice": max(self.settings.delay, self.settings.persist),
            "finish": self.settings.requests,
            "persist": self.settings.persist,
        }
        if phase not in default:
            raise ValueError(f"{phase!r} is no phase of a drain; there are {', '.join(default)}")
        if timeout is not None and not timeout > 0:
            raise ValueError(f"a timeout is above zero, not {timeout!r}")
        if (phase == "notice" and self.notice.is_set()) or (phase == "finish" and self.draining.is_set()):
            raise ValueError(f"the drain is past the beginning of its phase {phase}")
        name = name or getattr(call, "__qualname__", "") or repr(call)
        participant = Participant(name, phase, call, default[phase] if timeout is None else timeout)
        self.participants.append(participant)

        def forget() -> None:
            if participant in self.participants:
                self.participants.remove(participant)

        return forget


def current_server() -> ServerControl:
    """The server that runs the present code: in the lifespan, a request, a WebSocket, or a task or thread of theirs.

    Raises:
        LookupError: No Sojourn server does.
    """
    try:
        return CURRENT_SERVER.get()
    except LookupError:
        raise LookupError("this code is not run by a Sojourn server") from None


def draining() -> bool:
    """Whether the server is about to stop: its drain has begun. False where no Sojourn server runs the code."""
    control = CURRENT_SERVER.get(None)
    return control is not None and control.notice.is_set()
