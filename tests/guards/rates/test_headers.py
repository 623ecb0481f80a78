"""What an answer says of limits: draft-ietf-httpapi-ratelimit-headers-11 and RFC 9457."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sojourn.clock import ManualClock
from sojourn.errors import RateLimitsUnavailable
from sojourn.guards.rates.limiter import RateLimiter
from sojourn.guards.rates.memory import MemoryRates
from sojourn.guards.rates.quota import Quota
from sojourn.guards.rates.verdict import Verdict, unavailable
from sojourn.policy.rate import Standing

REQUEST: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "client": ("192.0.2.1", 1)}


def judged(*quotas: Quota, times: int) -> Verdict:
    async def main() -> Verdict:
        limiter = RateLimiter(quotas, engine=MemoryRates(clock=ManualClock()))
        for _ in range(times - 1):
            await limiter.judge(REQUEST)
        return await limiter.judge(REQUEST)

    return asyncio.run(main())


def test_sections_3_and_4_an_allowed_answer_says_what_is_left_and_when_all_is_back() -> None:
    assert dict(judged(Quota("100/minute"), times=50).headers()) == {
        b"ratelimit-policy": b'"default";q=100;w=60',
        b"ratelimit": b'"default";r=50;t=30',
    }


def test_section_3_a_policy_is_a_burst_and_the_time_in_which_it_comes_back() -> None:
    verdict = judged(Quota("100/minute", name="permin", burst=20), Quota("1000/h", name="perhr", per="all"), times=1)
    assert dict(verdict.headers()) == {
        b"ratelimit-policy": b'"permin";q=20;w=12, "perhr";q=1000;w=3600',
        b"ratelimit": b'"permin";r=19;t=1, "perhr";r=999;t=4',
    }


def test_section_6_a_refusal_has_no_window_beyond_retry_after() -> None:
    verdict = judged(Quota("1/minute", name="permin"), Quota("100/day", name="perday"), times=2)
    assert dict(verdict.headers()) == {
        b"ratelimit-policy": b'"permin";q=1;w=60, "perday";q=100;w=86400',
        b"ratelimit": b'"permin";r=0;t=60',
        b"retry-after": b"60",
    }


def test_section_5_1_a_refusal_is_a_problem_that_names_the_policies() -> None:
    headers, body = judged(Quota("1/minute", name="permin"), times=2).answer()
    assert (b"content-type", b"application/problem+json") in headers
    assert (b"content-length", b"%d" % len(body)) in headers
    assert json.loads(body) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "more than permin allows; try again in 60 s",
        "reason": "rate_limited",
        "violated-policies": ["permin"],
    }


def test_section_5_2_when_nobody_can_tell_capacity_is_reduced() -> None:
    headers, body = unavailable(RateLimitsUnavailable(1.0))
    assert (b"retry-after", b"1") in headers
    assert json.loads(body)["type"].endswith("#temporary-reduced-capacity")
    assert json.loads(body)["status"] == 503


_ITEM = re.compile(rb'"default";r=(\d+)(?:;t=(\d+))?')


waits = st.one_of(st.just(0.0), st.just(float("inf")), st.floats(1e-9, 1e6))


@given(left=st.floats(0, 1e9), wait=waits, full=st.floats(0, 1e6))
def test_whatever_the_numbers_are_the_fields_are_whole_and_never_promise_too_much(
    left: float, wait: float, full: float
) -> None:
    fields = dict(Verdict([Quota("5/s")], [Standing(left, wait, full)]).headers())
    match = _ITEM.fullmatch(fields[b"ratelimit"])
    assert match is not None
    assert int(match[1]) <= left + 1e-6
    if 0.0 < wait < float("inf"):
        assert int(fields[b"retry-after"]) >= wait
        assert int(match[2]) <= int(fields[b"retry-after"])
    else:
        assert b"retry-after" not in fields
