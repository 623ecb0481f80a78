"""Sentences where the evidence is clear, and silence where it is not."""

from __future__ import annotations

import pytest

from sojourn.observe.endings.reading import Peak, Row, Settings, peak, sentences

SETTINGS = Settings(keep_alive=75.0, response_start=60.0, ping_interval=20.0)
#: A balancer that closes after a minute, some late, and clients that left at once.
BALANCER = [(0.0, 500), (60.0, 180), (61.0, 60), (12.0, 20)]


def closed(ages: list[tuple[float, int]], reason: str = "keep_alive_closed_by_client", phase: str = "idle") -> Row:
    return ("http", reason, phase, ages)


def test_a_peak_is_the_age_that_most_have_in_common() -> None:
    assert peak(BALANCER) == Peak(60.0, 240, 260)


@pytest.mark.parametrize(
    "ages",
    [
        [],
        [(60.0, 19)],
        [(0.0, 1000), (2.0, 1000)],
        [(float(age), 10) for age in range(10, 100)],
        [(30.0, 50), (60.0, 50)],
    ],
)
def test_few_or_scattered_endings_have_no_peak(ages: list[tuple[float, int]]) -> None:
    assert peak(ages) is None
    assert sentences([closed(ages)], SETTINGS) == []


def test_a_balancer_that_closes_before_us_is_as_it_should_be() -> None:
    (text,) = sentences([closed(BALANCER)], SETTINGS)
    assert text.startswith("240 of 260 idle HTTP connections were closed by the other side after about 60 s")
    assert "timeouts.keep_alive is 75 s: longer, as it should be" in text
    (text,) = sentences([closed(BALANCER)], SETTINGS._replace(keep_alive=None))
    assert "has no limit: longer" in text


def test_a_balancer_that_closes_when_we_do_is_a_race() -> None:
    (text,) = sentences([closed(BALANCER)], SETTINGS._replace(keep_alive=60.0))
    assert "both close at about the same time" in text
    assert "such as 75 s" in text


def test_that_we_close_first_is_told() -> None:
    rows = [closed([(75.0, 100)], "keep_alive_idle"), closed([(3.0, 10)])]
    (text,) = sentences(rows, SETTINGS)
    assert text.startswith("100 idle HTTP connections were closed by us after timeouts.keep_alive (75 s), 10 by")


@pytest.mark.parametrize("reason", ["ws_eof_no_close", "client_reset"])
def test_a_proxy_that_cuts_silent_websockets_is_found(reason: str) -> None:
    (text,) = sentences([("websocket", reason, "websocket", [(60.0, 40)])], SETTINGS._replace(ping_interval=None))
    assert "40 of 40 WebSockets that were cut without a close frame had been silent for about 60 s" in text
    assert "No pings are sent" in text


def test_a_proxy_that_cuts_silent_streams_is_found() -> None:
    (text,) = sentences([closed([(60.0, 40)], "client_closed_mid_response", "response")], SETTINGS)
    assert "answers that were cut had been silent for about 60 s" in text


def test_clients_that_give_up_at_one_age_show_their_timeout() -> None:
    rows = [closed([(30.0, 25)], "client_closed_request", "handler"), closed([(30.0, 5)], "client_reset", "handler")]
    (text,) = sentences(rows, SETTINGS)
    assert text.startswith("30 of 30 clients that left before their answer began gave up after about 30 s")
    assert "timeouts.response_start is 60 s; less than 30 s saves the work" in text


def test_connections_that_said_nothing_are_port_checks() -> None:
    rows: list[Row] = [("", "connected_no_data", "head", [(0.0, 90)]), closed([(0.0, 10)])]
    (text,) = sentences(rows, SETTINGS)
    assert text.startswith("90 of 100 connections were closed by the other side before a byte was sent")
