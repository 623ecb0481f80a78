"""Profiles of several workers, and equal stacks, put together."""

from __future__ import annotations

import msgspec
from hypothesis import given

from sojourn.observe.profiles.model import Profile, Sample, joined, merged
from tests.observe.profiles.samples import HANDLE, POLL, SLEEP, TASKS, WAIT, profiles


def test_equal_stacks_with_equal_labels_become_one() -> None:
    assert joined(TASKS.samples) == [
        Sample((SLEEP, HANDLE), (1, 250), (("owner", "request"), ("route", "/slow"))),
        Sample((WAIT, POLL), (4, 10_000), (("owner", "request"), ("size", 4096))),
        Sample((WAIT, POLL), (1, 61_000), (("owner", "application"),)),
    ]


@given(profiles())
def test_a_profile_travels_as_messagepack(profile: Profile) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(profile), type=Profile) == profile


@given(profiles())
def test_of_two_workers_everything_is_there_and_says_whose_it_is(profile: Profile) -> None:
    both = merged([("1", profile), ("2", profile)])
    assert len(both.samples) == 2 * len(profile.samples)
    half = len(profile.samples)
    for sample, first, second in zip(profile.samples, both.samples[:half], both.samples[half:], strict=True):
        assert (first.stack, first.values) == (second.stack, second.values) == (sample.stack, sample.values)
        assert first.labels == (*sample.labels, ("worker", "1"))
        assert second.labels == (*sample.labels, ("worker", "2"))
    assert both.units == profile.units
    assert (both.kinds, both.default, both.period) == (profile.kinds, profile.default, profile.period)
    assert both.comments == [f"worker {worker}: {comment}" for worker in "12" for comment in profile.comments]
