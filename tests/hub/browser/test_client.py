"""The browser client in a real browser, against a real hub."""

from __future__ import annotations

import json
import re
import time

import pytest

from sojourn.hub.identity import Identity
from tests.examples.browser import CHROMIUM, Page
from tests.hub.browser.sites import SOURCE, Site

PAGE = SOURCE.parents[3] / "docs" / "how-to" / "browser-client.md"
EXAMPLES = dict(re.findall(r"<!-- browser: (\w+) -->\n```js\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")


def start(page: Page, channel: str = "chat:1", path: str = "/hub", options: str = "{}") -> None:
    """Connect as ``a`` and join as ``c``, and wait until that is done."""
    page.value(f"window.a = dial('{path}', {options}); window.c = enter(a, '{channel}'); 0")
    page.until("c.joins.length")


def states(page: Page, name: str = "a") -> list[str]:
    """The states that a client has had."""
    return [state for state, _ in page.value(f"{name}.states")]


def test_what_is_published_comes_with_the_place_from_which_to_resume(page: Page, app: Site) -> None:
    page.value("window.infos = []")
    start(page)
    page.value("c.on('message', (data, info) => infos.push(info)); 0")
    app.publish("chat:1", {"n": 1}, "text \u2028 and \U0001f44b", b"\x00\xff", None, 0)
    page.until("c.got.length == 5")
    assert page.value("[c.got[0], c.got[1], [...c.got[2]], c.got[3], c.got[4]]") == [
        {"n": 1},
        "text \u2028 and \U0001f44b",
        [0, 255],
        None,
        0,
    ]
    assert page.value("infos.at(-1).position == c.position")
    assert states(page) == ["open"]


def test_a_page_publishes_json_and_bytes_with_a_key(page: Page, app: Site) -> None:
    start(page, "chat:publish")
    page.value("Promise.all([c.publish({n: 1}, {key: 'k'}), c.publish(new Uint8Array([0, 255]))])")
    page.until("c.got.length == 2")
    assert page.value("[c.got[0], [...c.got[1]]]") == [{"n": 1}, [0, 255]]
    (first, second) = page.value("c.history()")["pubs"]
    assert (first["d"], first["k"], second["b"]) == ({"n": 1}, "k", "AP8=")


def test_pages_see_who_is_there_who_comes_and_who_leaves(page: Page, app: Site) -> None:
    start(page, "chat:presence")
    page.value("window.b = dial('/hub'); window.d = enter(b, 'chat:presence', {info: {name: 'ada'}}); 0")
    page.until("c.told.some(([name, what]) => name == 'presence' && what.came.some(m => m.info?.name == 'ada'))")
    assert page.value("c.count()")["members"] == 2
    assert {"name": "ada"} in [member["info"] for member in page.value("c.who()")["members"]]
    page.value("d.leave(); 0")
    page.until("c.told.some(([name, what]) => name == 'presence' && what.left.length)")
    page.until("c.count().then(({members}) => members == 1)")
    page.value("d.leave(), b.join('chat:presence') == d")
    page.until("c.count().then(({members}) => members == 2)")


def test_after_a_cut_everything_missed_comes_once_and_in_order(page: Page, app: Site) -> None:
    start(page, "chat:cut")
    app.publish("chat:cut", 1, 2)
    page.until("c.got.length == 2")
    for round_ in (1, 2):
        with app.away():
            page.until("a.state != 'open'")
            app.publish("chat:cut", 10 * round_, 10 * round_ + 1)
        page.until(f"c.joins.length == {round_ + 1}")
        app.publish("chat:cut", 10 * round_ + 2)
        page.until(f"c.got.length == {2 + 3 * round_}")
    assert page.value("c.got") == [1, 2, 10, 11, 12, 20, 21, 22]
    assert page.value("c.joins") == [None, True, True]
    assert page.value("c.told.filter(([name]) => name == 'gap')") == []


def test_whenever_it_is_cut_nothing_is_lost_doubled_or_out_of_order(page: Page, app: Site) -> None:
    start(page, "chat:often")
    for number in range(90):
        app.publish("chat:often", number)
        if number % 9 == 4:
            app.do(app.proxy.cut)
        elif number % 9 == 7:
            page.until("a.state == 'open'")
    page.until("c.got.length >= 90")
    assert page.value("c.got") == list(range(90))
    assert page.value("c.told.filter(([name]) => name != 'presence')") == []


def test_who_has_received_nothing_yet_resumes_too(page: Page, app: Site) -> None:
    start(page, "chat:nothing")
    with app.away():
        page.until("a.state != 'open'")
        app.publish("chat:nothing", 1)
    page.until("c.got.length == 1")


def test_a_gap_is_told_before_what_comes_after_it(page: Page, app: Site) -> None:
    start(page, "short:1")
    page.value("window.order = []; c.on('gap', () => order.push('gap')); c.on('message', d => order.push(d)); 0")
    with app.away():
        page.until("a.state != 'open'")
        app.publish("short:1", 1, 2, 3, 4, 5)
    page.until("order.length == 4")
    assert page.value("order") == ["gap", 3, 4, 5]
    with app.away():
        page.until("a.state != 'open'")
        app.publish("short:1", 6)
    page.until("c.joins.length == 3")
    page.until("order.at(-1) == 6")
    assert page.value("order.filter(each => each == 'gap').length") == 1


def test_the_state_of_a_channel_comes_in_place_of_a_gap(page: Page, app: Site) -> None:
    start(page, "state:1")
    with app.away():
        page.until("a.state != 'open'")
        app.publish("state:1", 1, 2, 3, 4)
    page.until("c.told.length")
    app.publish("state:1", 5)
    page.until("c.got.length")
    assert page.value("[c.told, c.got]") == [[["snapshot", {"whole": "1"}]], [5]]


def test_who_joins_a_channel_of_latest_values_gets_the_latest(page: Page, app: Site) -> None:
    app.publish("price:1", {"p": 1}, {"p": 2})
    start(page, "price:1")
    page.until("c.got.length")
    assert page.value("c.got") == [{"p": 2}]


def test_a_link_that_says_nothing_any_more_is_given_up_and_resumed(page: Page, app: Site) -> None:
    start(page, "chat:silent")
    with app.away(silent=True):
        began = time.monotonic()
        page.until("a.state != 'open'")
        assert time.monotonic() - began < 6.0  # 1 s without a frame, and a second look 1 s later
        app.do(app.proxy.cut)
    app.publish("chat:silent", 1)
    page.until("c.got.length == 1")
    assert page.value("a.states.find(([state]) => state == 'waiting')[1].code") == "dead"


def test_a_link_with_nothing_but_pings_lives(page: Page, app: Site) -> None:
    start(page, "chat:quiet")
    time.sleep(3.0)  # three times what it survives without a frame
    assert states(page) == ["open"]


def test_what_is_published_while_away_waits_and_is_sent_once(page: Page, app: Site) -> None:
    start(page, "chat:queue", options="{pending: 3}")
    with app.away():
        page.until("a.state != 'open'")
        page.value("window.sent = [1, 2, 3, 4].map(n => c.publish(n).then(() => 'ok', error => error.code)); 0")
    assert page.value("Promise.all(sent)") == ["ok", "ok", "ok", "limit"]
    assert [pub["d"] for pub in page.value("c.history()")["pubs"]] == [1, 2, 3]
    assert page.value("c.got") == [1, 2, 3]


def test_a_publication_whose_answer_was_lost_is_not_published_twice(page: Page, app: Site) -> None:
    start(page, "chat:twice")
    lost = app.do(lambda: app.proxy.timeout(direction="down"))
    page.value("window.sent = c.publish('once'); window.said = a.send('hello').catch(error => error.code); 0")
    end = time.monotonic() + 5
    while not app.run(app.hub.history("chat:twice")).publications:
        assert time.monotonic() < end
        time.sleep(0.02)
    app.do(app.proxy.cut)
    app.do(lost.remove)
    assert page.value("sent")["repeated"] is True
    assert page.value("said") == "lost"
    assert len(page.value("c.history()")["pubs"]) == 1


def test_a_message_that_is_too_large_fails_and_the_connection_stays(page: Page, app: Site) -> None:
    start(page, "chat:large")
    assert page.value("c.publish('x'.repeat(3000)).catch(error => error.code)") == "limit"
    assert page.value("a.send('hello')") == {}
    assert states(page) == ["open"]


def test_a_channel_that_may_not_be_joined_says_so(page: Page, app: Site) -> None:
    page.value("window.a = dial('/hub'); window.c = enter(a, 'closed:1'); 0")
    page.until("c.told.length")
    name, error = page.value("c.told[0]")
    assert (name, error["code"]) == ("error", "forbidden")


def test_messages_to_one_connection_are_the_clients_own(page: Page, app: Site) -> None:
    page.value("window.a = dial('/hub'); a.on('open', hello => window.conn = hello.conn); 0")
    conn = page.until("window.conn")
    app.run(app.hub.send({"ch": "chat:1"}, member=conn))
    app.run(app.hub.send(b"\x01", member=conn))
    page.until("a.got.length == 2")
    assert page.value("[a.got[0], [...a.got[1]]]") == [{"ch": "chat:1"}, [1]]


def test_who_was_sent_away_for_good_stays_away_until_told_otherwise(page: Page, app: Site) -> None:
    page.value("window.a = dial('/hub'); window.c = enter(a, 'chat:1'); a.on('open', h => window.conn = h.conn); 0")
    app.run(app.hub.disconnect(member=page.until("window.conn"), code=4503))
    page.until("a.state == 'stopped'")
    assert page.value("a.states.at(-1)[1].code") == 4503
    assert page.value("c.publish(1).catch(error => error.code)") == "closed"
    page.value("a.connect(), 0")
    page.until("a.state == 'open'")


def test_close_ends_it_and_nothing_is_left_waiting(page: Page, app: Site) -> None:
    start(page, "chat:close")
    with app.away():
        page.until("a.state != 'open'")
        page.value("window.sent = c.publish(1).catch(error => error.code); a.close(); 0")
        assert page.value("sent") == "closed"
    time.sleep(0.2)
    assert states(page)[-1] == "stopped"
    assert app.do(lambda: len(app.hub.node.members)) == 0


def test_the_credential_is_said_in_the_first_message_and_never_in_the_address(page: Page, app: Site) -> None:
    app.tokens["good"] = Identity("ada")
    start(page, path="/secure", options="{token: () => Promise.resolve('good')}")
    page.value("window.b = dial('/secure', {token: 'bad'}); 0")
    page.until("b.state == 'stopped'")
    assert page.value("b.states.at(-1)[1].code") == 4501
    assert app.seen == [("ws", "secure?", "")] * 2


def test_a_credential_that_ends_is_renewed_on_the_same_connection(page: Page, app: Site) -> None:
    over = time.time() + 4.0
    app.tokens["first"] = Identity("ada", over)
    app.tokens["second"] = Identity("ada", time.time() + 60.0)
    start(page, path="/secure", options="{token: renew => (window.renewed = renew) ? 'second' : 'first'}")
    page.until("a.told.some(([name]) => name == 'expiring')")
    time.sleep(over + 0.2 - time.time())
    assert page.value("renewed")
    assert states(page) == ["open"], page.value("JSON.stringify(a.states)")


def test_a_credential_that_was_over_is_asked_for_anew(page: Page, app: Site) -> None:
    app.tokens["short"] = Identity("ada", time.time() + 1.5)
    app.tokens["long"] = Identity("ada", time.time() + 60.0)
    options = "{token: renew => renew && a.states.some(([state]) => state == 'waiting') ? 'long' : 'short'}"
    start(page, path="/secure", options=options)
    page.until("c.joins.length == 2")
    assert page.value("a.states.find(([state]) => state == 'waiting')[1].code") == 4401


def test_the_classic_script_sets_a_global(loaded: Page, app: Site) -> None:
    loaded.value("window.z = new classic('/hub'); window.c = z.join('chat:1'); c.on('joined', () => window.in = 1); 0")
    loaded.until("window.in")
    loaded.value("z.close(), 0")


def test_the_source_does_what_was_built_from_it(loaded: Page, app: Site) -> None:
    loaded.value(
        "import('/files/source.js').then(({ Sojourn }) => { window.z = new Sojourn('/hub'); z.join('chat:source') })"
    )
    assert loaded.value("z.join('chat:source').publish(1)")["repeated"] is False
    assert loaded.value("(z.close(), z.state)") == "stopped"


def test_the_example_of_the_page_runs(loaded: Page, app: Site) -> None:
    loaded.value(
        "window.shown = []; window.show = d => shown.push(d); window.people = (came, left) => came.map(m => m.info)"
    )
    code = json.dumps(EXAMPLES["module"] + "window.done = document.title;")
    loaded.value(
        f"document.head.append(Object.assign(document.createElement('script'), {{type: 'module', text: {code}}}))"
    )
    assert loaded.until("window.done") == "open"
    loaded.until("shown.length")
    assert loaded.value("shown") == [{"text": "hello"}]


def test_the_example_with_credentials_runs(loaded: Page, app: Site) -> None:
    loaded.value(f"{{ const Sojourn = classic; {EXAMPLES['token']}; window.a = hub; }} 0")
    loaded.until("a.state == 'open'")
    loaded.value("a.close(), 0")


def test_the_example_without_the_client_resumes(loaded: Page, app: Site) -> None:
    loaded.value("window.shown = []; window.show = d => shown.push(d); Math.random = () => -0.06; 0")
    loaded.value(f"{{ {EXAMPLES['plain']}; window.place = () => since; }} 0")
    loaded.until("place()")
    app.publish("chat:1", {"n": 1})
    loaded.until("shown.length == 1")
    app.do(app.proxy.cut)
    app.publish("chat:1", {"n": 2})
    loaded.until("shown.length == 2")
    assert loaded.value("shown") == [{"n": 1}, {"n": 2}]


def test_a_handler_that_fails_stops_nobody(page: Page, app: Site) -> None:
    page.value(
        "window.a = dial('/hub'); window.c = a.join('chat:fail'); c.on('message', () => { throw Error('mine') }); 0"
    )
    page.value("window.c = enter(a, 'chat:fail'); 0")
    page.until("c.joins.length")
    app.publish("chat:fail", 1)
    page.until("c.got.length")
    page.complaints.clear()
