"""The heartbeat as a pure policy: silence, suspicion, death, and what excuses it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.policy.heartbeat import Beat, Heartbeat, Life

PING, END, NOTHING = Beat.PING, Beat.END, Beat.NOTHING


def run(heartbeat: Heartbeat, until: float, last_byte: float = 0.0) -> list[tuple[float, Beat]]:
    """Look whenever it is due, with nothing arriving; what was done, and when."""
    done = []
    while heartbeat.due <= until and (not done or done[-1][1] is not END):
        done.append((heartbeat.due, heartbeat.look(heartbeat.due, last_byte)))
    return done


def test_a_peer_that_vanishes_is_suspect_after_one_missed_ping_and_dead_after_the_last() -> None:
    heartbeat = Heartbeat(20.0, 10.0, 3, 0.0)
    assert heartbeat.life is Life.NORMAL
    assert heartbeat.look(20.0, 0.0) is PING
    assert heartbeat.life is Life.NORMAL
    assert heartbeat.look(30.0, 0.0) is PING
    assert heartbeat.life is Life.SUSPECT
    assert heartbeat.look(40.0, 0.0) is PING
    assert heartbeat.look(50.0, 0.0) is END
    assert heartbeat.life is Life.DEAD


@given(
    interval=st.integers(1, 100), timeout=st.integers(1, 100), misses=st.integers(1, 5), last_byte=st.integers(0, 50)
)
def test_the_end_comes_interval_and_misses_times_timeout_after_the_last_byte(
    interval: int, timeout: int, misses: int, last_byte: int
) -> None:
    heartbeat = Heartbeat(interval, timeout, misses, 0.0)
    now = 0.0
    while True:  # until the last byte it answers each ping at once
        now = heartbeat.due
        if now > last_byte:
            break
        heartbeat.look(now, now)
        heartbeat.pong(now)
    done = run(heartbeat, 1e6, last_byte)
    assert [beat for _, beat in done if beat is not NOTHING] == [PING] * misses + [END]
    assert done[-1][0] == last_byte + interval + misses * timeout


def test_any_byte_is_life_and_postpones_the_ping() -> None:
    heartbeat = Heartbeat(20.0, 10.0, 2, 0.0)
    assert heartbeat.look(20.0, 15.0) is NOTHING
    assert heartbeat.due == 35.0
    assert heartbeat.look(35.0, 15.0) is PING
    assert heartbeat.look(45.0, 40.0) is NOTHING
    assert (heartbeat.life, heartbeat.due) == (Life.NORMAL, 60.0)


def test_a_silent_peer_that_answers_pings_lives_for_ever() -> None:
    heartbeat = Heartbeat(20.0, 10.0, 1, 0.0)
    answered = 0.0
    for _ in range(100):
        now = heartbeat.due
        assert heartbeat.look(now, answered) is PING
        answered = now + 0.3
        heartbeat.pong(answered)
        assert heartbeat.due == answered + 20.0
    assert heartbeat.round_trip == pytest.approx(0.3)


def test_a_suspect_that_answers_late_is_normal_again() -> None:
    heartbeat = Heartbeat(20.0, 10.0, 2, 0.0)
    heartbeat.look(20.0, 0.0)
    heartbeat.look(30.0, 0.0)
    assert heartbeat.life is Life.SUSPECT
    heartbeat.pong(35.0)
    assert (heartbeat.life, heartbeat.due) == (Life.NORMAL, 55.0)


def test_the_first_ping_comes_earlier_by_the_jitter_and_the_others_do_not() -> None:
    heartbeat = Heartbeat(20.0, 10.0, 2, 100.0, jitter=0.25)
    assert heartbeat.due == 115.0
    assert heartbeat.look(115.0, 100.0) is PING
    heartbeat.pong(115.0)
    assert heartbeat.due == 135.0


def test_a_pong_that_nobody_asked_for_changes_nothing() -> None:
    heartbeat = Heartbeat(20.0, 10.0, 2, 0.0)
    heartbeat.pong(5.0)
    assert (heartbeat.due, heartbeat.round_trip) == (20.0, None)


def test_what_was_not_read_is_not_held_against_the_peer() -> None:
    heartbeat = Heartbeat(20.0, 10.0, 1, 0.0)
    heartbeat.look(20.0, 0.0)
    heartbeat.excuse(29.0)
    assert (heartbeat.life, heartbeat.due) == (Life.NORMAL, 49.0)
    assert heartbeat.look(49.0, 0.0) is PING
    assert heartbeat.look(59.0, 0.0) is END
