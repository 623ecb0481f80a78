"""Deadlines in headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.policy.caller import RejectCap, budget_of


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        (b"request-timeout-ms", b"1500", 1.5),
        (b"request-timeout-ms", b"0", 0.0),
        (b"x-envoy-expected-rq-timeout-ms", b"250", 0.25),
        (b"grpc-timeout", b"2H", 7200.0),
        (b"grpc-timeout", b"3M", 180.0),
        (b"grpc-timeout", b"4S", 4.0),
        (b"grpc-timeout", b"500m", 0.5),
        (b"grpc-timeout", b"250000u", 0.25),
        (b"grpc-timeout", b"99999999n", 0.099999999),
        (b"grpc-timeout", b"0n", 0.0),
    ],
)
def test_each_header_is_read_as_its_makers_write_it(name: bytes, value: bytes, seconds: float) -> None:
    assert budget_of(name, value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"request-timeout-ms", b""),
        (b"request-timeout-ms", b"-1"),
        (b"request-timeout-ms", b"1.5"),
        (b"request-timeout-ms", b"1500ms"),
        (b"request-timeout-ms", b"\xb2"),
        (b"request-timeout-ms", b"9" * 13),
        (b"grpc-timeout", b"1"),
        (b"grpc-timeout", b"123456789S"),
        (b"grpc-timeout", b"1x"),
        (b"grpc-timeout", b"1 S"),
    ],
)
def test_what_can_not_be_read_is_no_deadline(name: bytes, value: bytes) -> None:
    assert budget_of(name, value) is None


def test_late_requests_are_refused_up_to_a_share_and_the_rest_is_let_through() -> None:
    cap = RejectCap(0.2)
    refused = sum(cap.came("a", 0.0, late=True) for _ in range(1000))
    assert refused == 200


def test_the_first_late_requests_are_refused_whatever_the_share() -> None:
    cap = RejectCap(0.2)
    assert [cap.came("a", 0.0, late=True) for _ in range(6)] == [True] * 5 + [False]


def test_one_caller_does_not_use_up_the_share_of_another() -> None:
    cap = RejectCap(0.2)
    for _ in range(100):
        cap.came("a", 0.0, late=True)
    assert cap.came("b", 0.0, late=True)


def test_nobody_is_refused_when_the_share_is_none_and_everybody_when_it_is_all() -> None:
    assert not any(RejectCap(0.0).came("a", 0.0, late=True) for _ in range(20))
    everybody = RejectCap(1.0)
    assert all(everybody.came("a", 0.0, late=True) for _ in range(20))


@given(st.lists(st.tuples(st.floats(0, 2), st.booleans()), max_size=200), st.floats(0, 1))
def test_who_is_in_time_is_never_refused(requests: list[tuple[float, bool]], share: float) -> None:
    cap, now = RejectCap(share), 0.0
    for step, late in requests:
        now += step
        assert late or not cap.came("a", now, late=False)
