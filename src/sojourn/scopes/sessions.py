"""Who has sessions in the present context tells there that their store can't be reached.

Without a server of Sojourn's around it, nobody is told.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from sojourn.scopes.used import Used

__all__ = ["SESSIONS"]

#: The stores that were used by what the server of the present context runs; None when no server runs it.
SESSIONS: Final[ContextVar[Used[object] | None]] = ContextVar("sojourn_sessions", default=None)
