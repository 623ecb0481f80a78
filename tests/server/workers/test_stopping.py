"""The end of several workers as one: codes, times, the merged report; and settings on their way to another process."""

from __future__ import annotations

import msgspec
import pytest

from sojourn.clock import NEVER
from sojourn.config import App, Config, Drain, Proxy, Route, Timeouts
from sojourn.server.settings.portable import from_plain, to_plain
from sojourn.server.workers.stopping import code_word, longest_drain, lost, merged, worst


@pytest.mark.parametrize(
    ("codes", "code"),
    [((), 0), ((0, 0), 0), ((0, 1), 1), ((1, 5, 0), 5), ((5, 6, 1), 6), ((-9,), 5), ((3,), 5), ((0, -11, 6), 6)],
)
def test_the_worst_code_counts_and_a_crash_is_a_cut(codes: tuple[int, ...], code: int) -> None:
    assert worst(codes) == code


def test_codes_have_names() -> None:
    assert [code_word(code) for code in (0, 9, -9, -45)] == ["code 0", "code 9", "SIGKILL", "signal 45"]


def test_a_drain_has_an_end_unless_the_application_has_none() -> None:
    config = Config(drain=Drain(delay=5, total=90, persist=10), timeouts=Timeouts(lifespan_shutdown=30))
    assert longest_drain(config, None) == 10 + 90 + 10 + 30 + 20
    assert longest_drain(config, 60.0) == 60 + 90 + 10 + 30 + 20
    assert longest_drain(Config(timeouts=Timeouts(lifespan_shutdown=None)), 0.0) == NEVER


def test_reports_add_up() -> None:
    one = {
        "instance": "a/1",
        "exit_code": 5,
        "finished": 3,
        "cut": 1,
        "unanswered": 2,
        "kinds": {"requests": {"open": 4, "told": 0, "finished": 3, "cut": 1}},
        "cuts": [{"what": "request"}],
        "participants": [{"name": "save"}],
        "counts": {"tasks": {"finished": 2, "lost": 1}},
        "problem": None,
    }
    two = one | {"instance": "a/2", "problem": "it raised", "kinds": {"sockets": {"open": 1}}}
    report = merged("a", 5, 1.23456, [one, two, lost("a/3", -9)])
    assert (report["instance"], report["exit_code"], report["seconds"]) == ("a", 5, 1.235)
    assert (report["finished"], report["cut"], report["unanswered"]) == (6, 2, 4)
    assert report["kinds"] == {"requests": {"open": 4, "told": 0, "finished": 3, "cut": 1}, "sockets": {"open": 1}}
    assert report["cuts"] == [{"instance": "a/1", "what": "request"}, {"instance": "a/2", "what": "request"}]
    assert report["participants"] == [{"instance": "a/1", "name": "save"}, {"instance": "a/2", "name": "save"}]
    assert report["counts"] == {"tasks": {"finished": 4, "lost": 2}}
    assert report["problem"] == "a/2: it raised; a/3: it ended with SIGKILL"
    assert [worker["instance"] for worker in report["workers"]] == ["a/1", "a/2", "a/3"]


def test_settings_are_the_same_on_the_other_side() -> None:
    route = Route(path="/a/*", methods=("PUT",), timeouts={"handler": "none"}, limits={"body": 5.0})
    config = Config(
        app=App(target="a:b", reload_dirs=("x", "y")), proxy=Proxy(trusted=("*",)), routes=(route, Route(path="/"))
    )
    for each in (Config(), config):
        data = msgspec.json.decode(msgspec.json.encode(to_plain(each)))
        assert from_plain(data) == each


def test_settings_of_another_version_are_read_as_far_as_they_are_known() -> None:
    plain = to_plain(Config(app=App(target="a:b")))
    plain["app"]["invented_later"] = 1
    plain["invented_later"] = {"x": 1}
    del plain["drain"], plain["app"]["factory"]
    assert from_plain(plain) == Config(app=App(target="a:b"))
