"""What is found out about a stall."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.policy.stall import CAUSES, Facts, cause_of

#: A stall of a second, of which the watchdog should have seen 0.75: a function that blocks.
PLAIN = Facts(1.0, 0.75, 0.001, 1, processor=0.0, process=0.01, collector=0.0, idle=False)

CASES = {
    "a function that waits, seen in time": (PLAIN, "code"),
    "a function that computes, seen in time": (PLAIN._replace(processor=1.0, process=1.0), "code"),
    "a busy machine wakes the watchdog a little late": (PLAIN._replace(late=0.018), "code"),
    "a busy machine wakes it late, and it still sees most": (PLAIN._replace(late=0.3), "code"),
    "collections took most of it": (PLAIN._replace(collector=0.6, late=0.75, waits=150), "gc"),
    "collections took a little of it": (PLAIN._replace(collector=0.2), "code"),
    "native code computes with the lock": (PLAIN._replace(late=0.75, waits=150, processor=1.0, process=1.0), "native"),
    "native code sleeps with the lock": (PLAIN._replace(late=0.75, waits=150), "native"),
    "few waits are proof on a busy machine": (PLAIN._replace(late=0.75, waits=40), "native"),
    "nobody counts waits, and somebody computes": (PLAIN._replace(late=0.75, waits=None, process=0.9), "native"),
    "nobody counts waits, and nobody computes": (PLAIN._replace(late=0.75, waits=None), "machine"),
    "the process was stopped": (PLAIN._replace(late=0.75, waits=1), "machine"),
    "the process was stopped for hardly longer than the patience": (
        PLAIN._replace(seconds=0.3, watched=0.05, late=0.05, waits=1, process=0.0),
        "machine",
    ),
    "a processor for the loop, and none for the watchdog": (
        PLAIN._replace(late=0.75, waits=2, processor=0.95, process=0.95),
        "code",
    ),
    "a loop that runs nothing and gets nothing": (PLAIN._replace(idle=True), "machine"),
    "a loop that runs nothing while another thread computes": (PLAIN._replace(idle=True, process=0.9), "code"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_cause(case: str) -> None:
    facts, cause = CASES[case]
    assert cause_of(facts) == cause


seconds = st.floats(0.0, 100.0)


@given(
    st.builds(
        Facts, seconds, seconds, seconds, st.none() | st.integers(0, 10_000), seconds, seconds, seconds, st.booleans()
    )
)
def test_whatever_was_measured_there_is_one_cause(facts: Facts) -> None:
    assert cause_of(facts) in CAUSES
