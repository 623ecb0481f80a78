"""What a hub counts of itself, and under which names it is told."""

from __future__ import annotations

from sojourn.hub.stats import ROUND_TRIPS, TRANSPORTS, Stats
from sojourn.observe.metrics.families import PREFIX, TABLE, Kind


def counted() -> Stats:
    """Stats in which every slot is something."""
    stats = Stats()
    for transport in TRANSPORTS:
        stats.members[transport] += 2
    stats.channels, stats.present, stats.suspect, stats.slow = 3, 4, 1, 1
    stats.wait(500)
    stats.wait(-200)
    stats.published, stats.received, stats.deliveries, stats.bytes_out = 5, 6, 7, 800
    stats.conflated, stats.gaps, stats.holes, stats.repositioned = 9, 10, 11, 12
    stats.dropped["drop_oldest"] += 13
    stats.resumes["gap"] += 14
    stats.refused["per_ip"] += 15
    stats.closed(4008)
    stats.engine_lag = 0.25
    stats.engine_gone(100.0)
    stats.round_trip(0.03)
    return stats


def test_every_number_has_a_metric_of_its_kind_and_label() -> None:
    figures = counted().figures(101.0)
    for kind, told in ((Kind.COUNTER, figures.counts), (Kind.GAUGE, figures.levels)):
        for name, *labels in told:
            family = TABLE[PREFIX + name]
            assert family.kind is kind, name
            assert len(family.labels) == len(labels), name


def test_every_metric_of_hubs_is_told_by_one() -> None:
    figures = counted().figures(101.0)
    told = {PREFIX + key[0] for key in (*figures.counts, *figures.levels, *figures.times)}
    assert told == {name for name in TABLE if name.startswith(PREFIX + "hub_")}


def test_labels_that_are_there_from_the_beginning_are_those_that_a_hub_has() -> None:
    figures = Stats().figures(0.0)
    for name in ("hub_dropped_total", "hub_resumes_total"):
        known = {label for (label,) in TABLE[PREFIX + name].known}
        assert known == {key[1] for key in figures.counts if key[0] == name}


def test_round_trips_have_the_buckets_of_their_metric() -> None:
    assert TABLE[PREFIX + "hub_round_trip_seconds"].buckets == ROUND_TRIPS
    stats = Stats()
    for seconds in (0.001, 0.0011, 30.0):
        stats.round_trip(seconds)
    assert [stats.round_trips[index] for index in (0, 1, -1)] == [1, 1, 1]
    buckets, total = stats.figures(0.0).times["hub_round_trip_seconds",]
    assert (sum(buckets), total) == (3, 30.0021)


def test_the_highest_of_what_waits_begins_anew_when_it_was_looked_at() -> None:
    stats = Stats()
    stats.wait(500)
    stats.wait(-450)
    high = ("hub_buffered_high_bytes",)
    assert stats.snapshot(0.0)["buffered_high"] == 500, "who asks the hub changes nothing"
    assert [stats.figures(0.0).levels[high] for _ in range(2)] == [500.0, 50.0]


def test_time_without_the_engine_is_counted_while_it_lasts_and_after() -> None:
    stats = Stats()
    stats.engine_gone(10.0)
    stats.engine_gone(12.0)
    assert stats.away(15.0) == 5.0
    assert stats.figures(15.0).counts["hub_engine_away_seconds_total",] == 5.0
    stats.engine_back(20.0)
    stats.engine_back(21.0)
    assert stats.away(30.0) is None
    stats.engine_gone(30.0)
    figures = stats.figures(31.0)
    assert figures.counts["hub_engine_away_seconds_total",] == 11.0
    assert figures.counts["hub_engine_losses_total",] == 2.0
    assert figures.levels["hub_engine_away_for_seconds",] == 1.0


def test_however_many_close_codes_an_application_uses_they_are_few_series() -> None:
    stats = Stats()
    for code in range(4000, 4999):
        stats.closed(code)
    stats.closed(4000)
    codes = {key[1]: number for key, number in stats.figures(0.0).counts.items() if key[0] == "hub_closes_total"}
    assert len(codes) == 65
    assert codes["4000"] == 2.0
    assert sum(codes.values()) == 1000.0


def test_a_snapshot_holds_every_slot_as_plain_values_and_follows_nothing() -> None:
    stats = counted()
    shown = stats.snapshot(103.0)
    assert {name for name in Stats.__slots__ if not name.startswith("_")} <= set(shown)
    assert (shown["engine_away"], shown["engine_away_seconds"]) == (3.0, 3.0)
    assert shown["refused"] == {"per_ip": 15}
    assert stats.total == 8
    stats.members["sse"] += 1
    stats.round_trip(1.0)
    assert (shown["members"]["sse"], sum(shown["round_trips"])) == (2, 1)
