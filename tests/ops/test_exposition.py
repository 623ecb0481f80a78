"""Reading a page of metrics."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.ops.exposition import parse

BUCKETS = """# HELP lag How late.
# TYPE lag histogram
lag_bucket{{worker="1",le="0.01"}} {0}
lag_bucket{{worker="1",le="0.1"}} {1}
lag_bucket{{worker="1",le="+Inf"}} {2}
lag_sum{{worker="1"}} 3.5
lag_count{{worker="1"}} {2}
"""


def test_values_are_found_by_name_and_labels() -> None:
    page = parse('c{protocol="http",state="open"} 3\nc{protocol="websocket",state="open"} 4.5\nfds 7 1700000000\n')
    assert page.total("c") == 7.5
    assert page.total("c", protocol="http") == 3
    assert page.total("c", protocol="sip") is None
    assert page.by("c", "protocol") == {"http": 3, "websocket": 4.5}
    assert page.total("fds") == page.highest("fds") == 7
    assert page.highest("c") == 4.5
    assert page.total("absent") is None
    assert page.highest("absent") is None
    assert "fds" in page
    assert "absent" not in page


def test_openmetrics_with_an_exemplar_and_an_end_is_read_too() -> None:
    page = parse('a_total{route="/x"} 5 # {trace_id="ab"} 0.3\n# EOF\n')
    assert [(name, series.labels, series.value) for name, series in page] == [("a_total", {"route": "/x"}, 5.0)]


@pytest.mark.parametrize("line", ["", "# a comment", "a", "a{b 1", 'a{b="} 1', "a one", "{} 1", "a {} x"])
def test_a_line_that_means_nothing_is_left_out(line: str) -> None:
    assert list(parse(line)) == []


def test_infinite_and_absent_numbers_are_values() -> None:
    page = parse("up +Inf\ndown -Inf\nwhat NaN\n")
    assert page.total("up") == math.inf
    assert page.highest("down") == -math.inf
    assert math.isnan(next(series.value for name, series in page if name == "what"))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_label_comes_back_as_it_was(said: str) -> None:
    escaped = said.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    [(_, series)] = parse(f'a{{x="1",route="{escaped}",}} 1')
    assert series.labels == {"x": "1", "route": said}


def test_a_counter_that_fell_has_begun_anew() -> None:
    before, now = (
        parse('e{reason="a"} 10\ne{reason="b"} 7\n'),
        parse('e{reason="a"} 12\ne{reason="b"} 3\ne{reason="c"} 1\n'),
    )
    assert now.gained(before, "e", "reason") == {"a": 2, "b": 3, "c": 1}
    assert now.gained(None, "e", "reason") == {"a": 12, "b": 3, "c": 1}
    assert now.grown(before, "absent") is None


def test_a_quantile_is_of_what_came_since() -> None:
    before, now = parse(BUCKETS.format(100, 100, 100)), parse(BUCKETS.format(100, 200, 200))
    assert now.quantile(before, "lag", 0.5) == pytest.approx(0.055)
    assert now.quantile(None, "lag", 0.5) == pytest.approx(0.01)
    assert before.quantile(before, "lag", 0.5) is None
    assert before.quantile(None, "absent", 0.5) is None


def test_a_quantile_above_all_bounds_is_the_largest_bound() -> None:
    assert parse(BUCKETS.format(0, 0, 5)).quantile(None, "lag", 0.99) == 0.1
