"""How the browser client comes back, and by which way: what a correct hub can't be made to do is scripted."""

from __future__ import annotations

import json
import time

import pytest

from tests.examples.browser import CHROMIUM, Page
from tests.hub.browser.sites import Site

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")

HELLO = {"hello": {"conn": "x", "pos": "e1.100", "ping": 25, "pong": 8, "retry": [20, 60], "max": 65536, "user": ""}}


def dial(page: Page, path: str = "/script", options: str = "{}") -> None:
    """Connect as ``a``, in the channel ``c``."""
    page.value(f"window.a = dial('{path}', {options}); window.c = enter(a, 'chat:1'); 0")


def delays(page: Page, chance: float, options: str, tries: int) -> list[float]:
    """The waits of a client that finds no server, with the dice fixed."""
    page.value(
        f"Math.random = () => {chance}; window.a = dial('http://127.0.0.1:1/', {options});"
        f"window.waits = () => a.states.filter(([state]) => state == 'waiting').map(([, why]) => why.delay); 0"
    )
    page.until(f"waits().length >= {tries}")
    found: list[float] = page.value(f"(a.close(), waits().slice(0, {tries}))")
    return found


def test_waits_grow_to_a_limit_and_are_spread_from_the_first_on(page: Page) -> None:
    options = "{minDelay: 10, maxDelay: 70, transports: ['ws']}"
    assert delays(page, 0.0, options, 5) == [10, 10, 10, 10, 10]
    assert delays(page, 0.5, options, 5) == [15, 25, 40, 40, 40]


def test_the_advice_of_the_server_counts(page: Page, app: Site) -> None:
    app.says(HELLO, {"bye": {"code": 1012, "reason": "restart", "retry": [300, 301]}}, close=1012)
    dial(page)
    page.until("a.states.some(([state]) => state == 'waiting')")
    _, why = page.value("a.states.find(([state]) => state == 'waiting')")
    assert (why["code"], 300 <= why["delay"] <= 301) == (1012, True)
    assert page.value("a.told[0]") == ["bye", {"code": 1012, "reason": "restart", "retry": [300, 301]}]
    app.says(HELLO, {"bye": {"code": 1012, "reason": "", "retry": None}}, close=1012)
    page.until("a.state == 'stopped'")


def test_codes_say_who_comes_back(page: Page, app: Site) -> None:
    final = [1000, 1002, 1003, 1007, 1008, 1009, 4500, 4501, 4502, 4503, 4504, 4999]
    back = [1001, 1011, 1012, 1013, 3000, 4000, 4008, 4011, 4012, 4029, 4401, 4408, 4499]
    found = {}
    for code in final + back:
        app.says(HELLO, close=code)
        page.value("window.a = dial('/script', {transports: ['ws']}); a.on('waiting', () => a.close()); 0")
        page.until("a.state == 'stopped'")
        found[code] = "waiting" in [state for state, _ in page.value("a.states")]
    assert found == {code: code in back for code in final + back}


def test_later_is_later(page: Page, app: Site) -> None:
    page.value("Math.random = () => 1; 0")
    app.says(HELLO, close=1013)
    dial(page)
    page.until("a.states.some(([state]) => state == 'waiting')")
    assert page.value("(a.close(), a.states.find(([state]) => state == 'waiting')[1].delay)") == 60 * 4


@pytest.mark.parametrize("event", ["online", "visibilitychange"])
def test_it_tries_at_once_when_the_network_or_the_reader_is_back(page: Page, app: Site, event: str) -> None:
    app.says(HELLO, {"bye": {"code": 1012, "reason": "", "retry": [60_000, 60_000]}}, close=1012)
    dial(page)
    page.until("a.state == 'waiting'")
    app.says(HELLO)
    page.value(f"dispatchEvent(new Event('{event}')), 0")
    page.until("a.state == 'open'")


def test_it_gives_up_after_so_many_failures_and_can_be_told_to_try_again(page: Page, app: Site) -> None:
    with app.away():
        page.value("window.a = dial('/hub', {maxAttempts: 3, minDelay: 5, maxDelay: 10}); 0")
        page.until("a.state == 'giveup'")
        assert [state for state, _ in page.value("a.states")].count("waiting") == 2
        assert page.value("a.told.map(([name]) => name)") == ["giveup"]
        assert page.value("a.send(1).catch(error => error.code)") == "closed"
    page.value("a.connect(), 0")
    page.until("a.state == 'open'")


def test_it_gives_up_after_so_long(page: Page, app: Site) -> None:
    with app.away():
        page.value("window.a = dial('/hub', {maxTime: 150, minDelay: 40, maxDelay: 40}); 0")
        page.until("a.state == 'giveup'")


def test_a_server_that_greets_nobody_is_left_in_time(page: Page, app: Site) -> None:
    app.says()
    dial(page, options="{timeout: 100}")
    page.until("a.states.some(([state, why]) => state == 'waiting' && why.code == 'timeout')")


def test_what_comes_twice_is_dropped_and_another_epoch_begins_anew(page: Page, app: Site) -> None:
    def message(number: int, data: object) -> dict[str, object]:
        return {"ch": "chat:1", "p": number, "d": data}

    app.says(
        HELLO,
        "\n".join(json.dumps(message(number, number)) for number in (101, 102, 101, 102, 103)),
        {"ch": "chat:1", "p": 0, "d": "without a place"},
        {"gap": {"ch": "chat:1", "pos": "e2.0"}},
        message(1, "new"),
        {"ch": "chat:2", "p": 2, "d": "of another channel"},
        {"pres": {"ch": "chat:2", "came": [], "left": []}},
        {"of tomorrow": {"ch": "chat:1"}},
    )
    dial(page)
    page.until("c.got.includes('new')")
    assert page.value("c.got") == [101, 102, 103, "without a place", "new"]
    assert page.value("c.position") == "e2.1"


def test_a_hole_of_which_only_the_answer_tells_is_told(page: Page, app: Site) -> None:
    app.says(
        HELLO,
        {"id": 1, "ok": {"pos": "e2.7", "recovered": False}},
        {"ch": "chat:1", "p": 8, "d": 8},
    )
    page.value("window.a = dial('/script'); window.c = enter(a, 'chat:1', {since: 'e1.90'}); 0")
    page.until("c.got.length")
    assert page.value("[c.told.map(([name]) => name), c.got, c.position]") == [["gap"], [8], "e2.8"]


def test_where_sockets_are_refused_a_stream_takes_their_place(page: Page, app: Site) -> None:
    dial(page, "/nows", "{minDelay: 5, maxDelay: 10}")
    page.until("c.joins.length")
    assert [kind for kind, _, _ in app.seen] == ["ws", "ws", "ws", "GET"]
    app.publish("chat:1", "down")
    page.until("c.got.includes('down')")
    assert page.value("c.publish('up')")["repeated"] is False
    page.until("c.got.includes('up')")
    page.value("window.d = enter(a, 'short:1'); 0")
    page.until("d.joins.length")
    with app.away():
        page.until("a.state != 'open'")
        app.publish("chat:1", "missed")
        app.publish("short:1", 1, 2, 3, 4, 5)
    page.until("c.got.includes('missed') && d.got.length == 3")
    assert page.value("[c.got, d.got, d.told.map(([name]) => name)]") == [["down", "up", "missed"], [3, 4, 5], ["gap"]]
    page.value("d.leave(); 0")
    page.until("a.state == 'open'")
    assert "ch=short" not in app.seen[-1][1]
    # Ten minutes later the better way gets one try, and then the one that works.
    app.seen.clear()
    page.value("window.later = 600_001; a.states.length = 0; dispatchEvent(new Event('online')); 0")
    page.until("a.state == 'open'")
    assert [kind for kind, _, _ in app.seen] == ["ws", "GET"]


def test_where_streams_do_not_flow_it_polls(page: Page, app: Site) -> None:
    dial(page, "/noflow", "{minDelay: 5, maxDelay: 10, timeout: 800}")
    page.until("c.joins.length")
    assert [kind for kind, _, _ in app.seen][:5] == ["ws", "ws", "ws", "GET", "GET"]
    assert "wait=0" in app.seen[4][1]
    app.publish("chat:1", "down")
    page.until("c.got.includes('down')")
    page.value("c.publish('up')")
    page.until("c.got.includes('up')")
    assert "wait=25" in app.seen[5][1]
    page.value("window.d = enter(a, 'short:2'); 0")
    page.until("d.joins.length")
    with app.away():
        page.until("a.state != 'open'")
        page.value("a.close(), 0")
        app.publish("chat:1", "missed")
        app.publish("short:2", 1, 2, 3, 4, 5)
    app.seen.clear()
    page.value("a.connect(), 0")
    page.until("c.got.includes('missed') && d.got.length == 3")
    assert page.value("[c.got, d.got, d.told.map(([name]) => name)]") == [["down", "up", "missed"], [3, 4, 5], ["gap"]]


def test_a_stream_that_is_refused_for_good_stops_it(page: Page, app: Site) -> None:
    page.value("window.a = dial('/secure', {token: 'bad', transports: ['sse', 'poll']}); 0")
    page.until("a.state == 'stopped'")
    assert page.value("a.states.at(-1)[1].code") == 401
    assert ("GET", "secure?v=1", "Bearer bad") in app.seen
    page.value("window.b = dial('/hub', {transports: ['sse', 'poll']}); enter(b, 'closed:1'); 0")
    page.until("b.state == 'stopped'")
    assert page.value("b.states.at(-1)[1].code") == 403


def test_a_poll_without_channels_waits(page: Page, app: Site) -> None:
    page.value("window.a = dial('/hub', {transports: ['poll']}); 0")
    page.until("a.state == 'open'")
    time.sleep(0.5)
    assert len([path for _, path, _ in app.seen if "wait" in path]) == 1
