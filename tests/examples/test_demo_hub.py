"""The demo's hub, over real sockets: chat, prices, and what happens to clients that are cut off, silent or slow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from examples.demo import absence, channels, market, panel
from examples.demo.app import Demo
from sojourn import HubPing
from sojourn.config import Config, Limits
from tests.examples.serving import serving


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The demo in a hurry: what takes seconds there takes a tenth of that here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(absence, "_PAUSE", 0.03)
        patch.setattr(market, "_PAUSE", 0.005)
        patch.setattr(panel, "_EVERY", 0.1)
        patch.setattr(channels, "PING", HubPing(every=0.4, pong_within=0.4, misses=3))
        with serving(Demo(), Config(limits=Limits(write_buffer=4096))) as served:
            yield served


@contextmanager
def coming(url: str) -> Iterator[Client]:
    """A member of the demo's hub."""
    address = url.replace("http", "ws", 1) + "/hub"
    with connect(address, subprotocols=[Subprotocol("sojourn.v1")]) as socket:
        yield Client(socket)


class Client:
    """Says and hears ``sojourn.v1``."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._lines: list[Any] = []
        self.id: str = self.hear("hello")["hello"]["conn"]

    def say(self, **command: Any) -> None:
        self._socket.send(json.dumps(command))

    def ask(self, **command: Any) -> Any:
        """What it is answered."""
        self.say(id=7, **command)
        answer = self.hear("id")
        return answer.get("ok") or answer["error"]["code"]

    def hear(self, kind: str, wanted: Callable[[Any], object] = bool) -> Any:
        """The next object that has this member, and is what is wanted."""
        while True:
            while self._lines:
                told = self._lines.pop(0)
                if not told:
                    self._socket.send("{}")
                elif kind in told and wanted(told):
                    return told
            self._lines = [json.loads(line) for line in str(self._socket.recv(timeout=10)).split("\n")]


def shown(client: Client, wanted: Callable[[Any], object]) -> Any:
    """What the panel shows when it shows what is wanted."""
    return client.hear("ch", lambda told: told["ch"] == "panel" and wanted(told["d"]))["d"]


def test_members_of_a_room_hear_each_other_see_who_is_there_and_read_what_was_said(url: str) -> None:
    with coming(url) as one, coming(url) as two:
        one.ask(join={"ch": "chat:garden", "info": {"name": "Ada"}})
        two.ask(join={"ch": "chat:garden", "info": {"name": "Grace"}})
        came = [
            member["info"]["name"] for member in one.hear("pres", lambda told: told["pres"]["came"])["pres"]["came"]
        ]
        assert set(came) <= {"Ada", "Grace"}
        one.say(id=2, pub={"ch": "chat:garden", "d": {"name": "Ada", "text": "hello"}})
        assert two.hear("ch")["d"] == {"name": "Ada", "text": "hello"}
        assert {member["info"]["name"] for member in two.ask(who={"ch": "chat:garden"})["members"]} == {"Ada", "Grace"}
    with coming(url) as late:
        late.ask(join={"ch": "chat:garden"})
        assert [pub["d"]["text"] for pub in late.ask(hist={"ch": "chat:garden"})["pubs"]] == ["hello"]


def test_nobody_makes_up_rooms_or_prices(url: str) -> None:
    with coming(url) as client:
        assert client.ask(join={"ch": "chat:cellar"}) == "forbidden"
        assert client.ask(join={"ch": "price:ACORN"})["pos"]
        assert client.ask(pub={"ch": "price:ACORN", "d": {"price": 1}}) == "forbidden"


def test_who_was_cut_off_gets_all_that_was_said_meanwhile(url: str) -> None:
    with coming(url) as client:
        place = client.ask(join={"ch": "chat:attic"})["pos"]
        answer = httpx.post(f"{url}/cut?member={client.id}&room=attic")
        assert answer.json() == {"lines": 10}
        with pytest.raises(ConnectionClosedError) as cut:
            client.hear("never")
        assert cut.value.rcvd is None  # no close frame: it was cut
    with coming(url) as again:
        assert again.ask(join={"ch": "chat:attic", "since": place})["recovered"] is True
        said = [again.hear("ch")["d"]["text"] for _ in range(10)]
        assert [text.split(" of ")[0] for text in said] == [f"{number}" for number in range(1, 11)]


@pytest.mark.parametrize(
    ("query", "status"), [("", 400), ("member=x", 400), ("member=x&room=cellar", 400), ("member=x&room=lobby", 404)]
)
def test_only_a_member_can_be_cut_off(url: str, query: str, status: int) -> None:
    assert httpx.post(f"{url}/cut?{query}").status_code == status


def test_a_ghost_is_suspect_before_it_is_gone_and_there_are_three_at_most(url: str) -> None:
    with coming(url) as client:
        client.ask(join={"ch": "chat:lobby"})
        assert httpx.post(f"{url}/ghost?room=cellar").status_code == 400
        answers = [httpx.post(f"{url}/ghost?room=lobby").status_code for _ in range(4)]
        assert answers == [200, 200, 200, 409]
        suspects: dict[str, str] = {}
        while len(suspects) < 3:
            came = client.hear("pres")["pres"]["came"]
            suspects |= {each["member"]: each["info"]["name"] for each in came if each["state"] == "suspect"}
        assert set(suspects.values()) == {"Ghost"}
        left: set[str] = set()
        while left < set(suspects):
            left |= set(client.hear("pres")["pres"]["left"])


def test_what_a_stalled_client_did_not_get_gave_way_to_later_prices_and_all_of_it_is_accounted_for(url: str) -> None:
    with coming(url) as client:
        client.ask(join={"ch": "panel"})
        assert shown(client, lambda told: told["late"])["measuring"] == 20
        assert httpx.delete(f"{url}/stall").status_code == 409
        assert httpx.post(f"{url}/stall").json() == {"stalls": True}
        assert httpx.post(f"{url}/stall").status_code == 409
        stalls = shown(client, lambda told: told["slow"] and told["stalled"]["conflated"] > 100)
        assert stalls["stalled"]["messages"] <= 5  # one price of each symbol
        assert stalls["buffered"] == stalls["stalled"]["bytes"] < 1000
        assert stalls["late"][0] < 500  # milliseconds until half of the prices were with the others
        assert httpx.delete(f"{url}/stall").json() == {"stalls": False}
        reads = shown(client, lambda told: told["stalled"]["state"] == "reads" and not told["slow"])
        stalled = reads["stalled"]
        assert 0 < stalled["got"] < stalled["published"]
        assert stalled["got"] + stalled["conflated"] == pytest.approx(stalled["published"], abs=50)
        assert reads["dropped"] == 0


def test_nobody_measures_before_somebody_looks() -> None:
    with serving(Demo()) as url:
        assert httpx.get(f"{url}/slow?seconds=0.1").status_code == 200
        with httpx.stream("GET", f"{url}/connections") as answer:
            line = next(line for line in answer.iter_lines() if line.startswith("data"))
        assert json.loads(line.removeprefix("data: "))["measuring"] == 0
