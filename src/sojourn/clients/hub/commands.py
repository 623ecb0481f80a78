"""Commands of a client on their way to the server: bounded, in order, and repeated after a cut where that is harmless.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sojourn.clients.hub.rules import ClientRules
from sojourn.errors import HubRefused
from sojourn.policy.rate import leaked

__all__ = ["Command", "Commands", "Pace"]

#: Bytes of a line beside its command: braces, the id, quotes.
_AROUND: Final = 32
#: More than rounding, so that the moment that was given is enough.
_SLACK: Final = 1e-6


class Command:
    """One command.

    Args:
        verb: What it is on the wire.
        body: Its JSON.
        channel: Of which channel; "" for none. It waits until the client is in it.
        repeat: Whether it is harmless twice, and sent again when the connection was lost before the answer.

    Attributes:
        number: Its id; 0 before it is queued.
        body: Its JSON.
    """

    __slots__ = ("body", "channel", "number", "repeat", "verb")

    def __init__(self, verb: str, body: bytes, channel: str = "", *, repeat: bool = True) -> None:
        self.number = 0
        self.verb = verb
        self.body = body
        self.channel = channel
        self.repeat = repeat

    @property
    def size(self) -> int:
        """Bytes of its line, or a few more."""
        return len(self.body) + _AROUND

    @property
    def line(self) -> bytes:
        """As it is written."""
        return b'{"id":%d,"%b":%b}' % (self.number, self.verb.encode(), self.body)


class Pace:
    """How fast commands may go out, so that the server's limit on them is not reached.

    Args:
        rate: In a second, on average.
        burst: At once.
    """

    __slots__ = ("_at", "_burst", "_rate", "_used")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._used = 0.0
        self._at = 0.0

    def take(self, now: float) -> float:
        """Take one. Returns 0.0, or the moment when the next one is there."""
        used = leaked(self._used, self._at, now, self._rate)
        if used + 1.0 > self._burst + _SLACK:
            return now + (used + 1.0 - self._burst) / self._rate
        self._used, self._at = used + 1.0, now
        return 0.0

    def force(self, now: float) -> None:
        """Take one, whether it is there or not."""
        self._used, self._at = leaked(self._used, self._at, now, self._rate) + 1.0, now

    def exhaust(self, now: float) -> None:
        """The server says that it was too fast: it has less left than was thought."""
        self._used, self._at = float(self._burst), now


class Commands:
    """The queue.

    Args:
        rules: How much of it there may be.
    """

    __slots__ = ("_bytes", "_flying", "_number", "_rules", "_waiting")

    def __init__(self, rules: ClientRules) -> None:
        self._rules = rules
        self._waiting: dict[int, Command] = {}
        self._flying: dict[int, Command] = {}
        self._bytes = 0
        self._number = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._flying)

    @property
    def flying(self) -> int:
        """How many wait for their answer."""
        return len(self._flying)

    def number(self) -> int:
        """The next id."""
        self._number += 1
        return self._number

    def push(self, command: Command) -> int:
        """Queue a command. Returns its id.

        Raises:
            HubRefused: As many wait as may.
        """
        rules = self._rules
        if len(self) >= rules.queued or self._bytes + command.size > rules.queued_bytes:
            raise HubRefused("queue_full", f"{len(self)} commands wait already, of {self._bytes} bytes", True)
        command.number = self.number()
        self._waiting[command.number] = command
        self._bytes += command.size
        return command.number

    def next(self, may: Callable[[str], bool]) -> Command | None:
        """The first that can be sent now; None when there is none, or enough are on their way.

        Args:
            may: Whether the client is in a channel.
        """
        if len(self._flying) >= self._rules.in_flight:
            return None
        return next(
            (command for command in self._waiting.values() if not command.channel or may(command.channel)), None
        )

    def sent(self, command: Command) -> None:
        """It is on its way."""
        self._flying[command.number] = self._waiting.pop(command.number)

    def answered(self, number: int) -> Command | None:
        """Its answer is here, or nobody waits for it any more. None when it is not known."""
        command = self._flying.pop(number, None) or self._waiting.pop(number, None)
        if command is not None:
            self._bytes -= command.size
        return command

    def again(self, number: int) -> bool:
        """Send it once more, before those that were queued after it. False when it is not known."""
        command = self._flying.pop(number, None)
        if command is not None:
            self._wait([command])
        return command is not None

    def cut(self) -> list[Command]:
        """The connection is lost. Returns those that are not sent again."""
        flying, self._flying = self._flying, {}
        self._wait([command for command in flying.values() if command.repeat])
        over = [command for command in flying.values() if not command.repeat]
        self._bytes -= sum(command.size for command in over)
        return over

    def take(self, channel: str | None = None) -> list[Command]:
        """Take all away, or all of a channel."""
        every = [*self._flying.values(), *self._waiting.values()]
        found = [command for command in every if channel is None or command.channel == channel]
        for command in found:
            self.answered(command.number)
        return found

    def _wait(self, commands: list[Command]) -> None:
        for command in commands:
            self._waiting[command.number] = command
        self._waiting = dict(sorted(self._waiting.items()))
