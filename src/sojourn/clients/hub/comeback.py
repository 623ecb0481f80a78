"""When a client comes back after a cut, and whether it does at all. Pure."""

from __future__ import annotations

from typing import Final

from sojourn.clients.hub.rules import ClientRules

__all__ = ["TERMINAL_STATUSES", "Comeback"]

#: Close codes below 4500 after which coming back would only fail again.
_FINAL: Final = frozenset({1000, 1002, 1003, 1007, 1009})
#: From here on all are.
_FINAL_FROM: Final = 4500
#: "Later": they are answered with the wait of the third failure.
_LATER: Final = frozenset({1013, 4029, 429, 503})
_THIRD: Final = 3
#: Doublings beyond which every wait is at its ceiling.
_DOUBLINGS: Final = 60
#: A server that asks for more patience than so many of the longest waits is asked again nevertheless.
_PATIENCE: Final = 10
#: HTTP statuses of a refused handshake that stay what they are.
TERMINAL_STATUSES: Final = frozenset({401, 403})

Range = tuple[int, int]


class Comeback:
    """The waits of one client.

    Args:
        rules: Their ceilings, and when it gives up.

    Attributes:
        tries: How many have failed since the last connection.
        usual: What the server says about everyday cuts, in milliseconds; None before it has said anything.
        advised: What it says about the cut to come; None when nothing.
        refused: Whether it has said that the client must not come back.
    """

    __slots__ = ("_down", "_rules", "advised", "refused", "tries", "usual")

    def __init__(self, rules: ClientRules) -> None:
        self._rules = rules
        #: Since when there is no connection.
        self._down: float | None = None
        self.tries = 0
        self.usual: Range | None = None
        self.advised: Range | None = None
        self.refused = False

    def down(self, now: float) -> None:
        """There is no connection from now on, if there was one."""
        if self._down is None:
            self._down = now

    def up(self, usual: Range) -> None:
        """The server has greeted."""
        self._down, self.tries, self.usual, self.advised, self.refused = None, 0, usual, None, False

    def bye(self, retry: Range | None) -> None:
        """The server is about to close the connection."""
        self.advised, self.refused = retry, retry is None

    def final(self, code: int, renewable: bool) -> bool:
        """Whether a close code or status means not to come back.

        Args:
            code: Which.
            renewable: Whether there may be another credential than the last one.
        """
        if self.refused or code in _FINAL or code >= _FINAL_FROM or code in TERMINAL_STATUSES:
            return True
        return code == 4401 and not renewable

    def wearied(self, now: float) -> bool:
        """Whether it has gone on for too long."""
        limit = self._rules.give_up_after
        return limit is not None and self._down is not None and now - self._down >= limit

    def wait(self, code: int, least: float | None, chance: float) -> float:
        """Seconds until the next try: at random in a range, from the first on.

        The range is the server's own advice for this cut. Without one it is what the server has said in its greeting,
        or ``first`` to twice that, and its end doubles with each try up to ``most``.

        Args:
            code: How the last one ended.
            least: Seconds that the server asks for (``Retry-After``); None when it does not.
            chance: A random number from 0 to 1.
        """
        rules, advised = self._rules, self.advised
        self.advised = None
        if advised is not None:
            low, high = advised[0] / 1000.0, advised[1] / 1000.0
        else:
            usual = self.usual
            low, high = (usual[0] / 1000.0, usual[1] / 1000.0) if usual else (rules.first, 2 * rules.first)
            failed = max(self.tries - 1, _THIRD if code in _LATER else 0, 0)
            high = max(high, min(rules.most, high * 2.0 ** min(failed, _DOUBLINGS)))
        if least is not None:
            least = min(least, _PATIENCE * rules.most)
            low, high = max(low, least), max(high, 2 * least)
        return low + chance * (high - low)
