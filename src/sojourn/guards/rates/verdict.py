"""What a limiter says to a request, and how that is written in an answer.

The fields are those of draft-ietf-httpapi-ratelimit-headers-11.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from sojourn.asgi.problem import problem
from sojourn.errors import RateLimited, RateLimitsUnavailable
from sojourn.guards.rates.quota import Quota
from sojourn.policy.rate import Standing
from sojourn.typing import Headers

__all__ = ["Verdict", "unavailable"]

#: Section 5.1.
_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
#: Section 5.2.
_REDUCED: Final = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"


class Verdict:
    """Whether a request may go on. True as a condition when it may.

    Args:
        quotas: Those that count it.
        standings: How the bucket of each stands now.

    Attributes:
        allowed: Whether it may: no quota refuses it.
    """

    __slots__ = ("allowed", "quotas", "standings")

    def __init__(self, quotas: Sequence[Quota], standings: Sequence[Standing]) -> None:
        self.quotas = quotas
        self.standings = standings
        self.allowed = True
        for _, wait, _ in standings:
            if wait > 0.0:
                self.allowed = False

    def __bool__(self) -> bool:
        return self.allowed

    def __repr__(self) -> str:
        return f"<Verdict {'allowed' if self.allowed else 'refused'}, {self.remaining:g} left>"

    @property
    def remaining(self) -> float:
        """Tokens that are left, of the quota that has fewest; infinite when none counts."""
        return min((standing.left for standing in self.standings), default=math.inf)

    @property
    def retry_after(self) -> float:
        """Seconds until the same would be allowed; 0.0 when it is, infinite when it costs more than a burst."""
        return max((standing.wait for standing in self.standings), default=0.0)

    @property
    def violated(self) -> list[str]:
        """Names of the quotas that refuse it."""
        return [quota.name for quota, each in zip(self.quotas, self.standings, strict=True) if each.wait > 0.0]

    def headers(self) -> Headers:
        """``RateLimit-Policy`` and ``RateLimit``; of a refusal also ``Retry-After``.

        ``t`` is when the quota is back. In a refusal only the quotas that refuse are named, so that none of them has a
        longer ``t`` than ``Retry-After`` (section 6).
        """
        if not self.quotas:
            return []
        items = [
            _item(quota.name, each, self.allowed)
            for quota, each in zip(self.quotas, self.standings, strict=True)
            if self.allowed or each.wait > 0.0
        ]
        policies = tuple((quota.name, quota.size, quota.per_second) for quota in self.quotas)
        fields = [(b"ratelimit-policy", _policies(policies)), (b"ratelimit", ", ".join(items).encode())]
        if not self.allowed and self.retry_after < math.inf:
            fields.append((b"retry-after", b"%d" % math.ceil(self.retry_after)))
        return fields

    def answer(self) -> tuple[Headers, bytes]:
        """Headers and body of the 429."""
        after = self.retry_after
        then = f"try again in {math.ceil(after)} s" if after < math.inf else "it asks for more than there ever is"
        violated = self.violated
        members = {"type": _EXCEEDED, "violated-policies": violated}
        detail = f"more than {' and '.join(violated)} allows; {then}"
        return problem(429, "rate_limited", detail, self.headers(), **members)

    def error(self) -> RateLimited:
        """The refusal as an error."""
        headers, body = self.answer()
        texts = {name.decode(): value.decode() for name, value in headers}
        return RateLimited(self.violated, self.retry_after, texts, body)


def unavailable(error: RateLimitsUnavailable) -> tuple[Headers, bytes]:
    """Headers and body of the 503 when nobody can say whether a request is within its limits."""
    extra = [(b"retry-after", b"%d" % math.ceil(error.retry_after))]
    members = {"type": _REDUCED}
    return problem(503, "rate_limits_unavailable", "rate limits can't be looked up at present", extra, **members)


def _item(name: str, standing: Standing, allowed: bool) -> str:
    """Section 4.1: what is left, in whole requests, and for how long it has to do."""
    seconds = standing.full if allowed else standing.wait
    window = f";t={math.ceil(seconds)}" if seconds < math.inf else ""
    return f'"{name}";r={int(standing.left + 1e-6)}{window}'


@lru_cache(maxsize=256)
def _policies(quotas: tuple[tuple[str, float, float], ...]) -> bytes:
    """Section 3.1: a burst, and the time in which it comes back."""
    each = (f'"{name}";q={int(size)};w={max(1, math.ceil(size / rate - 1e-6))}' for name, size, rate in quotas)
    return ", ".join(each).encode()
