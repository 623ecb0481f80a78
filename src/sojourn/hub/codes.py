"""Close codes of the hub: below 4500 a client comes back, from there on it does not."""

from __future__ import annotations

from typing import Final

__all__ = ["TERMINAL", "comes_back", "reason_of"]

#: From this one on, a client does not come back.
TERMINAL: Final = 4500
#: Of the standard codes (RFC 6455 section 7.4.1), those after which it would be wrong to come back.
_FINAL: Final = frozenset((1000, 1002, 1003, 1007, 1008, 1009, 1010))
#: The word of ``ending.REASONS`` for each code; any other was chosen by the application.
_REASONS: Final = {
    4008: "hub_slow",
    4011: "hub_gap",
    4012: "hub_silent",
    4029: "hub_rate",
    4401: "credentials_expired",
    4408: "hub_unidentified",
    4501: "hub_unauthenticated",
    4502: "access_withdrawn",
    4503: "hub_disconnected",
    4504: "hub_member_limit",
}


def comes_back(code: int) -> bool:
    """Whether a client that was closed with a code should come back."""
    return code < TERMINAL and code not in _FINAL


def reason_of(code: int) -> str:
    """The word for the log."""
    return _REASONS.get(code, "ws_closed_by_app")
