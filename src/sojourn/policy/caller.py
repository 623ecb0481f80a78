"""The deadline that a caller brings: how it is written in headers, and what is done with requests that come too late.

A duration is sent, never a moment, so that nobody's clock matters. It can only tighten what the server allows itself.
A caller with a broken clock or a budget of zero must not make a service refuse everything: only a share of its requests
is refused for that reason, the others run as if they had come without a deadline.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["HEADERS", "RejectCap", "budget_of"]

#: Names of the headers, in lower case, in the order in which they are believed when several are there.
HEADERS: Final = (b"request-timeout-ms", b"grpc-timeout", b"x-envoy-expected-rq-timeout-ms")

_WINDOW: Final = 10.0
#: So many of a window are refused in any case, unless none is to be.
_FEW: Final = 5.0
#: Callers whose requests are counted; beyond them all counts are forgotten.
_CALLERS: Final = 1024
#: Seconds of each unit of grpc-timeout.
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MILLISECONDS: Final = re.compile(rb"[0-9]{1,12}")
_GRPC: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")


def budget_of(name: bytes, value: bytes) -> float | None:
    """How long the caller will wait.

    Args:
        name: One of :data:`HEADERS`.
        value: Milliseconds, or as gRPC writes it.

    Returns:
        Seconds; 0.0 when nothing is left. None for what means nothing: a header that can't be read sets no deadline.

    Source: gRPC over HTTP2, "Timeout"; Envoy, x-envoy-expected-rq-timeout-ms.
    """
    if name == b"grpc-timeout":
        match = _GRPC.fullmatch(value)
        return None if match is None else int(match[1]) * _UNITS[match[2]]
    return int(value) / 1000.0 if _MILLISECONDS.fullmatch(value) else None


class RejectCap:
    """Of a caller's requests, only so large a share is refused because they came too late.

    Args:
        share: The largest share, from 0.0 (refuse none) to 1.0 (refuse all), of the requests of ten seconds.
    """

    __slots__ = ("_counts", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        #: Address -> when its window began, requests with a deadline in it, refused ones.
        self._counts: dict[str, list[float]] = {}

    def came(self, caller: str, now: float, *, late: bool) -> bool:
        """A request with a deadline came.

        Args:
            caller: Address of who sent it.
            now: Monotonic seconds.
            late: Whether nothing is left of its time.

        Returns:
            Whether it is to be refused; False when it is not late, or too many were.
        """
        counts = self._counts.get(caller)
        if counts is None:
            if len(self._counts) >= _CALLERS:
                self._counts.clear()
            counts = self._counts[caller] = [now, 0.0, 0.0]
        elif now - counts[0] >= _WINDOW:
            # Half of what was seen is remembered, so that a new window does not begin with a refusal of its first.
            counts[:] = now, counts[1] / 2, counts[2] / 2
        counts[1] += 1.0
        if not late or counts[2] + 1.0 > max(self.share * counts[1], _FEW if self.share else 0.0):
            return False
        counts[2] += 1.0
        return True
