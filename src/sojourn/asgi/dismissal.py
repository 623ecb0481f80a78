"""How a request ends whose credential does not count any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.ending import REASONS, Ending, Phase

if TYPE_CHECKING:
    from sojourn.asgi.cycle import HttpCycle

__all__ = ["dismiss"]


def dismiss(cycle: HttpCycle, reason: str, detail: str, challenge: bytes) -> None:
    """End a request here and now; the arguments are those of ``RequestControl.dismiss``."""
    if cycle.stage == 4:
        return
    if cycle.event_stream:
        # Whoever is between the server and the application can still say why, in an event of its own, when the
        # application has let itself be cancelled; if it does not, the stream ends without after disconnect_grace.
        cycle.goodbye(reason)
    else:
        cycle.challenge = challenge
        phase = Phase.RESPONSE if cycle.streaming else Phase.HANDLER
        cycle.fail(Ending(reason, phase, None, detail), REASONS[reason].status or 403)
    cycle.cancel(reason)
