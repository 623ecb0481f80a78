"""Long poll of the hub: it holds nothing between two polls, and no server resource but its connection during one."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from sojourn.hub.rules import HubLimits
from sojourn.testing.raw import RawHttp
from tests.hub.addresses import Address, Host, hosts, hub_of, until

host = hosts()


def test_the_first_poll_answers_at_once_with_a_place(host: Host) -> None:
    with host.at(hub_of()) as address:
        for query in ("?wait=25", "?ch=news&wait=25", "?ch=news&since=&wait=25", "?new=news&since=x.1&wait=25"):
            answer = address.get(query)
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["cache-control"] == "no-store"
            assert set(answer.json()) == {"pos", "pubs", "gap", "retry"}
            assert (answer.json()["pubs"], answer.json()["gap"]) == ([], [])


def test_a_poll_answers_with_what_came_meanwhile_and_with_what_comes(host: Host) -> None:
    with host.at(hub_of()) as address, ThreadPoolExecutor(1) as pool:
        place = address.get("?ch=chat:a&wait=0").json()["pos"]
        cursor = address.publish("chat:a", {"n": 1})
        address.publish("chat:b", "not asked for")
        answer = address.get(f"?ch=chat:a&since={place}&wait=25").json()
        assert answer["pubs"] == [{"ch": "chat:a", "p": int(cursor.split(".")[1]), "d": {"n": 1}}]
        waiting = pool.submit(address.get, f"?ch=chat:a&since={answer['pos']}&wait=25")
        address.wait_for(1, channels=1)
        address.publish("chat:a", b"\0")
        found = waiting.result(5).json()
        assert [each["b"] for each in found["pubs"]] == ["AA=="]
        assert address.get(f"?ch=chat:a&since={found['pos']}&wait=0").json()["pubs"] == []


def test_a_poll_that_hears_nothing_answers_with_no_publications(host: Host) -> None:
    with host.at(hub_of()) as address:
        place = address.get("?ch=news&wait=0").json()["pos"]
        before = time.monotonic()
        assert address.get(f"?ch=news&since={place}&wait=0.05").json()["pubs"] == []
        assert time.monotonic() - before < 2
        for wait in ("-5", "nan"):
            assert address.get(f"?ch=news&since={place}&wait={wait}").status_code == 200


def test_a_wait_that_is_no_number_is_refused(host: Host) -> None:
    with host.at(hub_of()) as address:
        for wait in ("", "soon", "1,5", "0x1"):
            answer = address.get(f"?ch=news&wait={wait}")
            assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
            assert answer.json()["detail"] == "wait is a number of seconds"


def test_polls_count_as_members_while_they_wait(host: Host) -> None:
    with host.at(hub_of(limits=HubLimits(per_ip=1))) as address, ThreadPoolExecutor(1) as pool:
        place = address.get("?ch=news&wait=0").json()["pos"]
        waiting = pool.submit(address.get, f"?ch=news&since={place}&wait=25")
        address.wait_for(1, channels=1)
        assert address.get("?ch=news&wait=0").status_code == 429
        assert address.ask({"id": 1, "count": {"ch": "news"}})["ok"] == {"members": 0, "users": 0}
        address.publish("news", 1)
        assert len(waiting.result(5).json()["pubs"]) == 1
        address.wait_for(0)
        assert address.get("?ch=news&wait=0").status_code == 200


def test_a_poll_ends_when_its_client_has_left(host: Host) -> None:
    with host.at(hub_of()) as address:
        place = address.get("?ch=news&wait=0").json()["pos"]

        async def leave() -> None:
            async with await RawHttp.open(address.url) as client:
                await client.get(f"/{address.url.split('/', 3)[3]}?ch=news&since={place}&wait=25")
                await asyncio.to_thread(address.wait_for, 1, 1)

        asyncio.run(leave())
        address.assert_empty()


def test_a_poll_is_answered_when_the_hub_ends(host: Host) -> None:
    with host.at(hub_of()) as address, ThreadPoolExecutor(1) as pool:
        place = address.get("?ch=news&wait=0").json()["pos"]
        waiting = pool.submit(address.get, f"?ch=news&since={place}&wait=25")
        address.wait_for(1, channels=1)
        address.do(address.hub.aclose())
        assert waiting.result(5).json()["pubs"] == []


def test_nothing_is_lost_between_two_polls(host: Host) -> None:
    with host.at(hub_of()) as address:
        place = address.get("?ch=news&wait=0").json()["pos"]
        writer = threading.Thread(target=_publish, args=(address, 40))
        writer.start()
        seen: list[int] = []
        while len(seen) < 40:
            answer = address.get(f"?ch=news&since={place}&wait=5").json()
            assert answer["gap"] == []
            seen += [each["d"] for each in answer["pubs"]]
            place = answer["pos"]
        writer.join()
        assert seen == list(range(40))
        until(lambda: not address.members)


def _publish(address: Address, count: int) -> None:
    for number in range(count):
        address.publish("news", json.loads(str(number)))
