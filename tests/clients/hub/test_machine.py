"""The machine of a client against a hub without I/O: cuts, resumes, waits, at any moment."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sojourn.clients.hub import actions as do
from sojourn.clients.hub.commands import Command
from sojourn.clients.hub.events import Event, Gap, HubState, Joined, Left, Member, Message, Rejoined, Snapshot
from sojourn.clients.hub.machine import Machine, Stage
from sojourn.clients.hub.rules import ClientRules
from sojourn.clock import NEVER, ManualClock
from sojourn.errors import HubGone, HubRefused
from sojourn.wire.hub.cursor import Cursor
from tests.clients.hub.model import ModelHub, Session


class Scene:
    """A machine, its hub and the way between them; frames arrive when the test says so."""

    def __init__(self, hub: ModelHub | None = None, *, renewable: bool = False, **rules: Any) -> None:
        self.clock = ManualClock()
        self.hub = hub or ModelHub()
        self.machine = Machine(ClientRules(**rules), random.Random(1).random, renewable=renewable)
        #: The connection that is wanted or open; None for none.
        self.number: int | None = None
        self.session: Session | None = None
        self.down: list[bytes] = []
        self.up: list[bytes] = []
        self.events: dict[str, list[Event]] = {}
        self.direct: list[Message] = []
        self.done: dict[int, Any] = {}
        self.other: list[Any] = []
        self.since: dict[str, Cursor] = {}
        self.machine.start(self.now)
        self.apply()

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def apply(self) -> None:
        """Do what the machine wants, and hold it to what it promises always."""
        for action in self.machine.take():
            match action:
                case do.Connect(number):
                    assert self.number is None, "two connections at once"
                    self.number = number
                case do.Drop(number):
                    assert number == self.number
                    self.hang_up()
                case do.Send(line):
                    assert self.session is not None, "written to nobody"
                    self.up.append(line)
                case do.Deliver(channel, event, _):
                    self.events.setdefault(channel, []).append(event)
                case do.Direct(message, _):
                    self.direct.append(message)
                case do.Answer(number, result):
                    self.done[number] = result
                case do.Fail(number, error):
                    self.done[number] = error
                case _:
                    self.other.append(action)
        over = self.machine.stage in (Stage.OVER, Stage.IDLE)
        assert (self.machine.due == NEVER) is over, f"{self.machine.stage} waits without an end"
        for channel, membership in self.machine.rooms._all.items():
            before, after = self.since.get(channel), membership.since
            if before is not None and after is not None and before.epoch == after.epoch:
                assert after.seq >= before.seq, "since has moved back"
            if after is not None:
                self.since[channel] = after

    def hang_up(self) -> None:
        self.number = None
        self.down.clear()
        self.up.clear()
        if self.session is not None:
            self.session.end()
            self.session = None

    # What the world does

    def accept(self) -> None:
        """The connection is made, and the hub greets."""
        assert self.number is not None
        self.session = Session(self.hub, self.down.append)
        self.machine.opened(self.number, self.now)
        self.session.greet()
        self.settle()

    def carry(self, up: int = 1000, down: int = 1000) -> None:
        """So many lines arrive on either side."""
        for _ in range(min(up, len(self.up))):
            if self.session is not None and self.up:
                self.session.hear(self.up.pop(0))
        for _ in range(min(down, len(self.down))):
            if self.number is not None and self.down:
                self.machine.received(self.number, self.down.pop(0), self.now)
                self.apply()

    def settle(self) -> None:
        """All that is on its way arrives."""
        while self.up or self.down:
            self.carry()

    def cut(self, code: int = 1006, least: float | None = None) -> None:
        """The connection is lost, or can't be made."""
        number = self.number
        self.hang_up()
        if number is not None:
            self.machine.lost(number, code, "cut", self.now, least)
            self.apply()

    def advance(self, seconds: float) -> None:
        """Time passes; the machine is called when it is due."""
        end = self.now + seconds
        while self.machine.due <= end:
            self.clock.advance(max(0.0, self.machine.due - self.now))
            self.machine.tick(self.now)
            self.apply()
        self.clock.advance(max(0.0, end - self.now))

    def back(self) -> None:
        """Until there is a connection again."""
        for _ in range(100):
            if self.number is not None and self.session is None:
                self.accept()
            if self.machine.stage is Stage.OPEN:
                return
            self.advance(self.machine.due - self.now)
        raise AssertionError(f"it does not come back: {self.machine.stage}")

    # What the application does

    def join(self, channel: str = "a", since: str | None = None) -> None:
        self.machine.join(channel, None, None if since is None else Cursor.parse(since), self.now)
        self.apply()

    def ask(
        self, verb: str = "pub", data: Any = "x", *, uid: str = "u", repeat: bool = True, channel: str = "a"
    ) -> int:
        body = {"ch": channel, "d": data, "uid": uid} if verb == "pub" else data
        channel = channel if verb == "pub" else ""
        number = self.machine.ask(Command(verb, msgspec.json.encode(body), channel, repeat=repeat), self.now)
        self.apply()
        return number

    def got(self, channel: str = "a") -> list[Any]:
        """Data of messages; other events as they are."""
        events = self.events.pop(channel, [])
        return [event.data if isinstance(event, Message) else event for event in events]


def opened(hub: ModelHub | None = None, **rules: Any) -> Scene:
    scene = Scene(hub, **rules)
    scene.accept()
    scene.join()
    scene.settle()
    return scene


# -- coming back


def test_it_connects_greets_and_is_open() -> None:
    scene = Scene()
    assert scene.machine.state is HubState.CONNECTING
    scene.accept()
    assert scene.machine.state is HubState.OPEN
    assert scene.machine.user == "ada"


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1009, 4500, 4501, 4502, 4503, 4504, 401, 403])
def test_a_code_that_says_stay_away_is_the_end(code: int) -> None:
    scene = opened()
    number = scene.ask()
    scene.cut(code)
    assert scene.machine.state is HubState.GIVEN_UP
    assert scene.machine.ended is not None
    assert scene.machine.ended.code == code
    assert isinstance(scene.done[number], HubGone)
    with pytest.raises(HubGone, match="cut"):
        scene.ask()


@pytest.mark.parametrize("code", [0, 1001, 1005, 1006, 1011, 1012, 1013, 4008, 4011, 4012, 4029, 4408, 404, 502, 503])
def test_any_other_code_is_come_back(code: int) -> None:
    scene = opened()
    scene.cut(code)
    assert scene.machine.state is HubState.WAITING
    scene.back()


def test_a_credential_that_is_over_is_the_end_only_without_another_one() -> None:
    fixed, renewable = opened(), Scene(renewable=True)
    fixed.cut(4401)
    assert fixed.machine.state is HubState.GIVEN_UP
    renewable.accept()
    renewable.cut(4401)
    assert renewable.machine.state is HubState.WAITING


def waits(scene: Scene, code: int = 1006) -> list[float]:
    """How long it waits before each of its next tries, which fail."""
    found = []
    for _ in range(12):
        scene.cut(code)
        found.append(scene.machine.due - scene.now)
        scene.advance(found[-1])
    return found


def test_waits_are_at_random_from_the_first_on_and_their_ceiling_doubles() -> None:
    firsts = set()
    for seed in range(20):
        scene = Scene(first=0.5, most=20.0)
        scene.machine._chance = random.Random(seed).random
        found = waits(scene)
        firsts.add(found[0])
        for tries, wait in enumerate(found):
            assert 0.5 <= wait <= min(20.0, 0.5 * 2 ** (tries + 1))
    assert len(firsts) == 20
    scene = Scene(first=0.5, most=20.0)
    scene.machine._chance = lambda: 1.0
    assert waits(scene)[:7] == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0])


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_the_servers_advice_is_followed(chance: float) -> None:
    scene = opened()
    scene.machine._chance = lambda: chance
    scene.cut()
    assert scene.machine.due - scene.now == pytest.approx(0.5 + chance * 7.5)  # hello.retry
    scene.back()
    assert scene.session is not None
    scene.session.say({"bye": {"code": 1012, "reason": "restart", "retry": [30000, 40000]}})
    scene.settle()
    assert scene.machine.state is HubState.OPEN  # until the server closes
    scene.cut(1012)
    assert scene.machine.due - scene.now == pytest.approx(30 + chance * 10)
    scene.advance(40)
    scene.cut()
    assert scene.machine.due - scene.now < 30  # it was for that cut


def test_a_bye_without_a_way_back_is_the_end() -> None:
    scene = opened()
    assert scene.session is not None
    scene.session.say({"bye": {"code": 4503, "reason": "no", "retry": None}})
    scene.settle()
    scene.cut(1001)
    assert scene.machine.state is HubState.GIVEN_UP


def test_retry_after_is_the_least_it_waits_within_reason() -> None:
    scene = Scene(most=20.0)
    scene.cut(503, least=45.0)
    assert 45 <= scene.machine.due - scene.now <= 90
    scene.advance(90)
    scene.cut(503, least=1e9)
    assert 200 <= scene.machine.due - scene.now <= 400


def test_overload_is_answered_with_longer_waits() -> None:
    scene = Scene()
    scene.machine._chance = lambda: 1.0
    assert waits(scene, 1013)[0] == pytest.approx(8.0)


def test_it_gives_up_when_it_was_away_for_too_long() -> None:
    scene = opened(give_up_after=60.0)
    began = scene.now
    scene.cut()
    while scene.machine.state is not HubState.GIVEN_UP:
        scene.advance(scene.machine.due - scene.now)
        scene.cut()
    assert 60 <= scene.now - began <= 90
    assert any(isinstance(action, do.Became) and action.state is HubState.GIVEN_UP for action in scene.other)
    patient = opened(give_up_after=None)
    patient.cut()
    for _ in range(500):
        patient.advance(20)
        patient.cut()
    assert patient.machine.state is HubState.WAITING


@pytest.mark.parametrize(("stage", "seconds"), [("connecting", 10.0), ("greeting", 10.0), ("open", 34.0)])
def test_a_server_that_says_nothing_is_left_in_time(stage: str, seconds: float) -> None:
    scene = Scene()
    if stage == "greeting":
        assert scene.number is not None
        scene.machine.opened(scene.number, scene.now)
    elif stage == "open":
        scene.accept()
    assert scene.machine.stage.value == stage
    scene.advance(seconds - 0.1)
    assert scene.machine.stage.value == stage
    scene.advance(0.2)
    assert scene.number is None
    assert scene.machine.state is HubState.WAITING


def test_any_frame_is_a_sign_of_life_and_a_ping_is_answered() -> None:
    scene = opened()
    for _ in range(10):
        scene.advance(30)
        assert scene.session is not None
        scene.session.say({})
        scene.settle()
    assert scene.session is not None
    assert scene.session.pongs == 10
    assert scene.machine.state is HubState.OPEN


def test_a_connection_that_is_not_read_is_not_judged() -> None:
    scene = opened()
    scene.machine.hold()
    scene.advance(300)
    assert scene.machine.state is HubState.OPEN
    scene.machine.release(scene.now)
    scene.advance(33)
    assert scene.machine.state is HubState.OPEN
    scene.advance(2)
    assert scene.machine.state is HubState.WAITING


def test_a_loop_that_stood_still_reads_before_it_judges() -> None:
    scene = opened()
    scene.clock.advance(1000)
    scene.machine.tick(scene.now)
    scene.apply()
    assert scene.machine.state is HubState.OPEN
    assert scene.session is not None
    scene.session.say({})
    scene.settle()
    scene.advance(5)
    assert scene.machine.state is HubState.OPEN


@pytest.mark.parametrize(
    "line",
    [b"{", b"\xff", b"[]", b'{"ch":"a"}', b'{"gap":{"ch":"a","pos":"nowhere"}}', b'{"hello":{}}', b'{"msg":nothing}'],
)
def test_a_server_that_speaks_something_else_is_left(line: bytes) -> None:
    scene = opened()
    assert scene.number is not None
    scene.machine.received(scene.number, line, scene.now)
    scene.apply()
    assert scene.machine.state is HubState.WAITING
    assert scene.number is None


def test_pushes_of_a_later_version_are_not_heard() -> None:
    scene = opened()
    assert scene.session is not None
    scene.session.say({"news": {"from": "tomorrow"}})
    scene.settle()
    assert scene.machine.state is HubState.OPEN


def test_what_is_told_of_an_earlier_connection_is_not_heard() -> None:
    scene = opened()
    first = scene.number
    assert first is not None
    scene.cut()
    scene.back()
    scene.machine.received(first, b"{", scene.now)
    scene.machine.lost(first, 4503, "late", scene.now)
    scene.machine.opened(first, scene.now)
    scene.apply()
    assert scene.machine.state is HubState.OPEN


def test_stopping_closes_and_fails_what_waits() -> None:
    scene = opened()
    number = scene.ask()
    scene.machine.stop()
    scene.apply()
    assert (scene.machine.state, scene.number) == (HubState.STOPPED, None)
    assert isinstance(scene.done[number], HubGone)
    scene.machine.stop()
    scene.apply()


def test_a_credential_that_ends_is_renewed_on_the_same_connection() -> None:
    scene = Scene(renewable=True)
    scene.accept()
    assert scene.session is not None
    scene.session.say({"expiring": {"in": 60}})
    scene.settle()
    assert do.Renew() in scene.other
    scene.machine.renew("t-2", scene.now)
    scene.apply()
    scene.settle()
    assert scene.session.heard[-1] == {"refresh": {"token": "t-2"}}


# -- channels


def test_what_was_missed_follows_and_nothing_comes_twice() -> None:
    scene = opened()
    scene.hub.publish("a", 1)
    scene.settle()
    scene.hub.publish("a", 2)  # on its way when the connection is cut
    scene.cut()
    scene.hub.publish("a", 3)
    scene.back()
    assert scene.got() == [1, Rejoined("a", "e0.3"), 2, 3]
    assert scene.session is not None
    scene.session.say({"ch": "a", "p": 3, "d": 3})
    scene.settle()
    assert scene.got() == []


def test_a_client_that_has_received_nothing_resumes_all_the_same() -> None:
    scene = opened()
    scene.cut()
    scene.hub.publish("a", 1)
    scene.back()
    assert scene.got() == [Rejoined("a", "e0.1"), 1]


def test_an_application_resumes_where_an_earlier_one_was() -> None:
    hub = ModelHub()
    for number in range(4):
        hub.publish("a", number)
    scene = Scene(hub)
    scene.accept()
    scene.join(since="e0.2")
    scene.settle()
    assert scene.got() == [2, 3]


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("kept", [Gap("a", "e0.3"), 4, 5, 6, 7, 8]),
        ("latest", [Gap("a", "e0.8")]),
        ("snap", [Snapshot("a", [4, 5, 6, 7, 8], "e0.8")]),
    ],
)
def test_what_is_missing_is_told_once(way: str, expected: list[Any]) -> None:
    scene = opened(ModelHub(gap=way))
    scene.cut()
    for number in range(1, 9):
        scene.hub.publish("a", number)
    scene.back()
    assert scene.got() == [Rejoined("a", "e0.8"), *expected]
    scene.advance(5)
    scene.hub.publish("a", 9)
    scene.settle()
    assert scene.got() == [9]


def test_a_hub_that_does_not_say_where_it_goes_on_is_told_as_a_gap() -> None:
    scene = opened(ModelHub(gap="silent"))
    for quiet in (True, False):
        scene.cut()
        for number in range(9):
            scene.hub.publish("a", number)
        scene.back()
        gap = Gap("a", scene.hub.position)
        if quiet:
            assert [type(event) for event in scene.got()] == [Rejoined]
            scene.advance(1.1)
            assert scene.got() == [gap]
        else:
            scene.hub.publish("a", "next")
            scene.settle()
            assert scene.got()[1:] == [gap, "next"]
            scene.advance(5)
            assert scene.got() == []


def test_a_gap_that_was_not_told_before_a_cut_is_found_again() -> None:
    scene = opened(ModelHub(gap="silent"))
    scene.cut()
    for number in range(9):
        scene.hub.publish("a", number)
    scene.back()
    scene.cut()
    scene.hub.gap = "latest"
    scene.back()
    assert [type(event) for event in scene.got()] == [Rejoined, Rejoined, Gap]


def test_another_epoch_is_a_gap_and_its_smaller_numbers_are_new() -> None:
    scene = opened()
    for number in range(5):
        scene.hub.publish("a", number)
    scene.settle()
    scene.cut()
    scene.hub.forget()
    scene.hub.publish("a", "new")
    scene.back()
    assert scene.got() == [0, 1, 2, 3, 4, Rejoined("a", "e1.1"), Gap("a", "e1.0"), "new"]
    scene.hub.forget()  # while connected
    scene.hub.publish("a", "newer")
    scene.settle()
    assert scene.got() == [Gap("a", "e2.0"), "newer"]


def test_a_hub_that_can_not_resume_is_joined_afresh_and_that_is_a_gap() -> None:
    scene = opened()
    scene.hub.publish("a", 1)
    scene.settle()
    scene.cut(4011)
    scene.hub.publish("a", 2)
    scene.back()
    assert scene.got() == [1, Rejoined("a", "e0.2"), Gap("a", "e0.2")]


def test_publications_without_a_number_are_handed_over_each_time() -> None:
    scene = opened()
    assert scene.session is not None
    for _ in range(2):
        scene.session.say({"ch": "a", "d": "away"})
    scene.settle()
    assert scene.events["a"] == [Message("a", "away"), Message("a", "away")]


def test_bytes_keys_presence_and_direct_messages_come_as_they_are() -> None:
    scene = opened()
    scene.hub.publish("a", b"\x00\x01", "k")
    assert scene.session is not None
    came = {"member": "m1", "user": "bob", "state": "suspect", "info": {"n": 1}}
    scene.session.say({"pres": {"ch": "a", "came": [came], "left": ["m0"]}})
    scene.session.say({"msg": {"hello": 1}})
    scene.session.say({"bin": "AAE="})
    scene.settle()
    joined = Joined("a", Member("m1", "bob", "suspect", {"n": 1}))
    assert scene.events["a"] == [Message("a", b"\x00\x01", "e0.1", "k"), joined, Left("a", "m0")]
    assert scene.direct == [Message("", {"hello": 1}), Message("", b"\x00\x01")]


def test_a_channel_that_is_left_is_silent_and_can_be_joined_again() -> None:
    scene = opened()
    scene.machine.leave("a", scene.now)
    scene.join()
    assert [next(iter(set(msgspec.json.decode(sent)) - {"id"})) for sent in scene.up] == ["leave", "join"]
    scene.hub.publish("a", "before")  # of the time before it was left
    scene.settle()
    scene.hub.publish("a", 1)
    scene.settle()
    assert scene.got() == [1]
    scene.machine.leave("a", scene.now)
    scene.apply()
    scene.settle()
    scene.cut()
    scene.back()
    assert scene.session is not None
    assert scene.session.channels == {}


def test_a_join_that_is_refused_is_told_and_not_repeated() -> None:
    scene = Scene()
    scene.hub.refusals["join"] = [("forbidden", False)]
    scene.join()
    number = scene.ask()
    scene.accept()
    assert isinstance(scene.done[number], HubRefused)
    (refused,) = [action for action in scene.other if isinstance(action, do.Refuse)]
    assert (refused.channel, refused.error.code, refused.error.retry) == ("a", "forbidden", False)
    scene.cut()
    scene.back()
    assert scene.session is not None
    assert scene.session.heard == []


def test_who_was_in_is_let_in_again_when_the_hub_has_time() -> None:
    scene = opened()
    scene.cut()
    scene.hub.publish("a", 1)
    scene.hub.refusals["join"] = [("unavailable", True), ("rate", True)]
    scene.back()
    assert scene.got() == []
    for _ in range(2):
        scene.advance(5)
        scene.settle()
    assert scene.got() == [Rejoined("a", "e0.1"), 1]


# -- commands


def test_a_publication_whose_answer_was_lost_is_published_once() -> None:
    scene = opened()
    number = scene.ask(data="once")
    scene.carry(down=0)  # published, and the answer is on its way
    assert scene.hub.published == ["once"]
    scene.cut()
    scene.back()
    assert scene.hub.published == ["once"]
    assert msgspec.json.decode(scene.done[number]) == {"pos": "e0.1", "repeated": True}


def test_what_was_asked_while_away_is_done_in_order_when_it_is_back() -> None:
    scene = opened()
    scene.cut()
    for number in range(40):
        scene.ask(data=number, uid=f"u{number}")
    scene.back()
    assert scene.hub.published == list(range(40))


def test_a_cut_in_the_middle_of_many_keeps_their_order() -> None:
    scene = opened(in_flight=4)
    for number in range(30):
        scene.ask(data=number, uid=f"u{number}")
    for _ in range(5):
        scene.carry(up=2, down=3)
        scene.cut()
        scene.back()
    assert scene.hub.published == list(range(30))
    assert len(scene.done) == 30


def test_no_more_waits_than_may() -> None:
    scene = Scene(queued=3, queued_bytes=1000)
    for number in range(3):
        scene.ask(uid=f"u{number}")
    with pytest.raises(HubRefused, match="queue_full") as raised:
        scene.ask()
    assert raised.value.retry
    small = Scene(queued_bytes=1000)
    small.ask(data="x" * 600)
    with pytest.raises(HubRefused, match="queue_full"):
        small.ask(data="x" * 600)


def test_a_message_that_is_not_repeated_is_lost_with_its_connection() -> None:
    scene = opened()
    scene.hub.mute.add("msg")
    sent = scene.ask("msg", "sent", repeat=False)
    scene.settle()
    scene.cut()
    waiting = scene.ask("msg", "waits", repeat=False)
    assert isinstance(scene.done[sent], HubGone)
    scene.hub.mute.clear()
    scene.back()
    assert bytes(scene.done[waiting]) == b"{}"
    assert scene.hub.said == ["sent", "waits"]


def test_nobody_publishes_to_a_channel_before_it_is_joined_again() -> None:
    scene = opened()
    scene.cut()
    scene.ask(data=1)
    scene.back()
    assert scene.session is not None
    assert [next(iter(said)) for said in scene.session.heard] == ["join", "pub"]


def test_what_is_too_large_is_not_sent() -> None:
    scene = Scene()
    early = scene.ask(data="x" * 100_000)  # before the hub has said how much it takes
    scene.accept()
    assert isinstance(scene.done[early], HubRefused)
    with pytest.raises(HubRefused, match=r"too_large.*65536"):
        scene.ask(data="x" * 100_000)
    assert scene.up == []


def test_commands_keep_to_the_pace_of_the_hub() -> None:
    scene = opened(rate=10.0, burst=5, in_flight=100)
    scene.advance(10)
    for number in range(25):
        scene.ask(data=number, uid=f"u{number}")
    scene.settle()
    assert len(scene.hub.published) == 5
    for _ in range(100):
        scene.advance(0.01)
        scene.settle()
    assert len(scene.hub.published) in (14, 15)
    for _ in range(150):
        scene.advance(0.01)
        scene.settle()
    assert scene.hub.published == list(range(25))


def test_a_command_that_came_too_fast_is_sent_again_later() -> None:
    scene = opened()
    scene.hub.refusals["pub"] = [("rate", True), ("rate", True)]
    number = scene.ask(data=1)
    scene.settle()
    assert number not in scene.done
    for _ in range(100):
        scene.advance(0.1)
        scene.settle()
    assert scene.hub.published == [1]
    scene.hub.refusals["pub"] = [("unavailable", True)]
    refused = scene.ask(data=2, uid="u2")
    scene.settle()
    assert scene.done[refused].retry


def test_what_nobody_waits_for_is_not_sent() -> None:
    scene = opened()
    scene.cut()
    number = scene.ask(data="never")
    scene.machine.forget(number, scene.now)
    scene.back()
    assert scene.hub.published == []
    assert not scene.machine.asking


# -- all of it, at random

OPS = (
    "publish",
    "other",
    "skip",
    "carry",
    "cut",
    "advance",
    "accept",
    "fail",
    "ask",
    "forget",
    "way",
    "twice",
    "settle",
)


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=10, max_size=80))
def test_across_any_cuts_nothing_is_missing_without_a_word_and_nothing_comes_twice(chance: bytes) -> None:
    ops = [(OPS[byte % len(OPS)], byte // len(OPS) % 6) for byte in chance]
    scene = opened(ModelHub(size=3))
    asked: list[str] = []
    for op, size in ops:
        match op:
            case "publish":
                for _ in range(size):
                    scene.hub.publish("a", None)
            case "other":
                scene.hub.publish("b", None)
            case "skip":
                scene.hub.publish("a", None, skip=True)
            case "carry":
                scene.carry(up=size, down=size)
            case "cut":
                scene.cut((1006, 1012, 4008, 4012, 1001, 4011)[size])
            case "advance":
                scene.advance(size * 2.0)
            case "accept" if scene.number is not None and scene.session is None:
                scene.accept()
            case "fail" if scene.number is not None and scene.session is None:
                scene.cut(0)
            case "ask":
                asked.append(f"mine-{len(asked)}")
                scene.ask(data=asked[-1], uid=asked[-1])
            case "forget" if size == 0:
                scene.hub.forget()
            case "way":
                scene.hub.gap = ("kept", "latest", "snap", "silent")[size % 4]
            case "twice" if scene.session is not None:
                for said in scene.session.said[-size:]:
                    scene.session.say(said)
            case "settle":
                scene.settle()
        scene.apply()
    for _ in range(3):  # slow ones catch up by the next publication
        scene.settle()
        scene.back()
        scene.settle()
        scene.advance(1.5)
        scene.hub.publish("a", None)
        scene.settle()
    judge(scene)
    assert [data for data in scene.hub.published if data is not None] == asked


def judge(scene: Scene) -> None:
    """Each message follows the one before it in the hub's log, or something was told between them."""
    known: tuple[str, int] | None = ("e0", 0)
    for event in scene.events["a"]:
        if isinstance(event, Rejoined):
            continue
        assert isinstance(event, Message | Gap | Snapshot)
        epoch, _, text = event.position.partition(".")
        seq = int(text)
        if isinstance(event, Message):
            log = scene.hub.log[epoch, "a"]
            assert known is not None
            assert known[0] == epoch, "an epoch began without a word"
            assert [number for number in log if known[1] < number <= seq] == [seq], "a hole, or it came twice"
        known = (epoch, seq)
    assert known == (scene.hub.epoch, scene.hub.log[scene.hub.epoch, "a"][-1]), "the end is missing"
