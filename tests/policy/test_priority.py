"""Each class gets its share, and what another does not use."""

from __future__ import annotations

from collections import Counter

import pytest

from sojourn.policy.priority import Priority, Turns, priority_of


def served(turns: Turns, waiting: list[int], times: int) -> Counter[int]:
    return Counter(turns.next(waiting) for _ in range(times))


def test_classes_that_all_wait_are_served_by_their_shares() -> None:
    assert served(Turns(), [0, 1, 2], 2100) == {0: 1600, 1: 400, 2: 100}


def test_what_a_class_does_not_use_goes_to_the_others() -> None:
    assert served(Turns(), [1, 2], 500) == {1: 400, 2: 100}
    assert served(Turns(), [2], 10) == {2: 10}


def test_a_class_within_its_share_is_served_at_once_whatever_the_others_do() -> None:
    turns = Turns()
    served(turns, [2], 1000)
    turns.came(1)
    delays = []
    for _ in range(100):
        turns.came(0)
        taken = [turns.next([0, 1, 2])]
        while taken[-1] != 0:
            taken.append(turns.next([0, 1, 2]))
        delays.append(len(taken))
        served(turns, [1, 2], 1)  # half of what is served: less than its share
    assert max(delays) <= 3


def test_time_in_which_a_class_asked_for_nothing_is_not_made_up() -> None:
    turns = Turns()
    served(turns, [2], 1000)
    turns.came(0)
    assert 70 <= served(turns, [0, 2], 102)[0] <= 100


@pytest.mark.parametrize(
    ("value", "priority"),
    [
        (b"high", Priority.HIGH),
        (b" Low ", Priority.LOW),
        (b"normal", Priority.NORMAL),
        (b"u=0", Priority.HIGH),
        (b"u=2, i", Priority.HIGH),
        (b"i, u=3", Priority.NORMAL),
        (b"u=4", Priority.NORMAL),
        (b"u=5;x=1", Priority.LOW),
        (b"u=7", Priority.LOW),
        (b"u=8", None),
        (b"i", None),
        (b"xu=1", None),
        (b"", None),
        (b"highest", None),
    ],
)
def test_a_header_names_a_class_or_nothing(value: bytes, priority: Priority | None) -> None:
    """RFC 9218 section 4.1."""
    assert priority_of(value) is priority
