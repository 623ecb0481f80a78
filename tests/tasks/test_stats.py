"""What a service of durable tasks counts, under the names of its metrics."""

from __future__ import annotations

import pytest

from sojourn.clock import ManualClock
from sojourn.observe.metrics.families import PREFIX, TABLE
from sojourn.tasks.stats import RUN, WAITED, Stats


def test_all_that_is_counted_is_a_family_with_as_many_labels_and_these_buckets() -> None:
    stats = Stats()
    stats.submitted("export")
    stats.call_failed("claim")
    counts, levels, times = stats.figures()
    for key in (*counts, *levels, *times):
        assert len(TABLE[PREFIX + key[0]].labels) == len(key) - 1, key
    assert TABLE[PREFIX + "journal_wait_seconds"].buckets == WAITED
    assert TABLE[PREFIX + "journal_run_seconds"].buckets == RUN


def test_what_happens_to_a_kind_is_counted_for_it_alone() -> None:
    stats = Stats()
    stats.submitted("export", 3)
    stats.submitted("mail")
    stats.began("export", 0.02)
    stats.ended("export", "completed", 0.5)
    stats.ended("export", "retry", 0.5)
    for count in (stats.lost, stats.fenced, stats.crashed, stats.crashed, stats.handed_over):
        count("export")
    counts, _, times = stats.figures()
    assert counts["journal_submitted_total", "export"] == 3.0
    assert counts["journal_submitted_total", "mail"] == 1.0
    assert counts["journal_runs_total", "export", "completed"] == 1.0
    assert counts["journal_runs_total", "export", "retry"] == 1.0
    assert counts["journal_runs_total", "mail", "completed"] == 0.0
    assert counts["journal_lost_total", "export"] == counts["journal_fenced_total", "export"] == 1.0
    assert counts["journal_interruptions_total", "export", "crash"] == 2.0
    assert counts["journal_interruptions_total", "export", "drain"] == 1.0
    assert (sum(times["journal_wait_seconds", "export"].buckets), times["journal_wait_seconds", "export"].total) == (
        1,
        0.02,
    )
    assert (sum(times["journal_run_seconds", "export"].buckets), times["journal_run_seconds", "export"].total) == (
        2,
        1.0,
    )
    assert stats.total("submitted") == 4
    assert stats.outcomes()["completed"] == 1


@pytest.mark.parametrize(
    ("seconds", "bucket", "total"),
    [(-0.5, 0, 0.0), (0.0, 0, 0.0), (0.001, 0, 0.001), (0.0011, 1, 0.0011), (1e6, len(WAITED), 1e6)],
)
def test_a_wait_is_in_the_bucket_up_to_which_it_was_and_a_clock_that_went_back_makes_none(
    seconds: float, bucket: int, total: float
) -> None:
    stats = Stats()
    stats.began("export", seconds)
    waited = stats.figures().times["journal_wait_seconds", "export"]
    assert waited.buckets[bucket] == 1
    assert waited.total == total


def test_how_long_the_journal_was_away_is_measured_once_for_each_time() -> None:
    clock = ManualClock()
    stats = Stats(clock)
    assert stats.away_for is None
    stats.away(True)
    clock.advance(3.0)
    stats.away(True)
    assert stats.away_for == 3.0
    counts, levels, _ = stats.figures()
    assert counts["journal_away_seconds_total",] == levels["journal_away_for_seconds",] == 3.0
    stats.away(False)
    stats.away(False)
    clock.advance(5.0)
    counts, levels, _ = stats.figures()
    assert counts["journal_away_seconds_total",] == 3.0
    assert levels["journal_away_for_seconds",] == 0.0
    assert counts["journal_losses_total",] == 1.0
