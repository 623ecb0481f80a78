"""Server-sent events of the hub, written straight to our connections and by a task of the stream elsewhere."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from sojourn.hub.hub import Hub
from sojourn.scopes.pausing import pause
from sojourn.testing.raw import RawHttp
from tests.hub.addresses import Host, hosts, hub_of, until

host = hosts()


def test_the_first_event_says_only_where_it_is_and_each_publication_says_its_own_place(host: Host) -> None:
    with host.at(hub_of()) as address:
        with address.stream("?ch=chat:a") as events:
            first = next(events)
            assert set(first) == {"id", "retry"}
            assert 500 <= int(first["retry"]) <= 8000
            cursors = [address.publish("chat:a", data) for data in ("two\nlines", {"a": 1}, b"\0")]
            assert [next(events) for _ in range(3)] == [
                {"id": cursors[0], "data": "two\nlines"},
                {"id": cursors[1], "data": '{"a":1}'},
                {"id": cursors[2], "event": "binary", "data": base64.b64encode(b"\0").decode()},
            ]
        with address.stream(f"?ch=chat:a&since={cursors[0]}", last_event_id=cursors[1]) as events:
            assert next(events)["id"] == cursors[1]
            assert next(events)["event"] == "binary"
        with address.stream(f"?ch=chat:a&since={cursors[0]}", last_event_id="") as events:
            assert [next(events)["id"] for _ in range(3)] == cursors


def test_lines_of_the_json_protocol_come_as_events_when_they_are_asked_for(host: Host) -> None:
    with host.at(hub_of()) as address, address.stream("?ch=room:a&v=1") as events:
        first = next(events)
        hello = json.loads(first["data"])["hello"]
        assert (first["id"], hello["conn"]) == (hello["pos"], *address.hub.node.members)
        assert "pres" in json.loads(next(events)["data"])
        cursor = address.publish("room:a", "x")
        assert next(events) == {
            "id": cursor,
            "data": json.dumps({"ch": "room:a", "p": int(cursor.split(".")[1]), "d": "x"}, separators=(",", ":")),
        }
        address.do(address.hub.send({"to": "you"}, member=hello["conn"]))
        assert json.loads(next(events)["data"]) == {"msg": {"to": "you"}}


def test_a_stream_of_no_channel_gets_a_place_and_what_is_sent_to_it(host: Host) -> None:
    with host.at(hub_of()) as address, address.stream() as events:
        assert "id" in next(events)
        (member,) = address.hub.node.members
        address.do(address.hub.send("only you", member=member))
        assert next(events) == {"data": "only you"}


def test_a_gap_is_an_event_and_a_snapshot_comes_in_its_place(host: Host) -> None:
    hub = hub_of()

    @hub.snapshot("news")
    async def state() -> dict[str, int]:
        return {"state": 1}

    with host.at(hub) as address:
        with address.stream("?ch=chat:a", last_event_id="gone.7") as events:
            assert "retry" in next(events)
            gap = next(events)
            assert (gap["event"], gap["data"]) == ("gap", "chat:a")
        with address.stream("?ch=news&v=1", last_event_id="gone.7") as events:
            assert "hello" in json.loads(next(events)["data"])
            assert json.loads(next(events)["data"])["snap"]["d"] == {"state": 1}


def test_the_hub_ends_a_stream_with_a_goodbye_and_whole(host: Host) -> None:
    with host.at(hub_of()) as address:
        for query, code in (("?ch=news", 1012), ("?ch=news&v=1", 4503)):
            with address.stream(query) as events:
                next(events)
                (member,) = address.hub.node.members
                address.do(address.hub.disconnect(member=member, code=code, reason="enough"))
                (bye,) = list(events)  # a cut in the middle would raise
                if "v=1" in query:
                    assert json.loads(bye["data"])["bye"] == {"code": 4503, "reason": "enough", "retry": None}
                    assert "retry" not in bye
                else:
                    assert (bye["event"], bye["data"]) == ("bye", "enough")
                    assert 500 <= int(bye["retry"]) <= 8000
            address.wait_for(0)


def test_a_stream_for_a_client_of_http_1_0_is_not_in_chunks(host: Host) -> None:
    async def ask(url: str, hub: Hub) -> bytes:
        async with await RawHttp.open(url) as client:
            path = "/" + url.split("/", 3)[3]
            await client.send(f"GET {path}?ch=news HTTP/1.0\r\nhost: x\r\naccept: text/event-stream\r\n\r\n".encode())
            data = b""
            while b"retry" not in data:
                data += await client.receive()
            return data

    with host.at(hub_of()) as address:
        head, _, body = asyncio.run(ask(address.url, address.hub)).partition(b"\r\n\r\n")
        assert b"200 OK" in head
        if host.name == "sojourn":
            assert b"chunked" not in head.lower()
            assert body.startswith(b":\n\nid: ")


def test_the_hub_ends_while_streams_and_polls_are_open(host: Host) -> None:
    hub = hub_of()
    with host.at(hub) as address:
        with address.stream("?ch=news") as events:
            next(events)
            address.do(hub.aclose())
            assert next(events)["event"] == "bye"
            assert list(events) == []
        until(lambda: hub._node is None)


def test_nothing_is_left_of_streams_whose_clients_leave_at_any_time(host: Host) -> None:
    hub = hub_of()

    @hub.authorize("secret:{room}")
    async def slow(asker: Any, room: str) -> bool:
        await pause(0.02)
        return True

    async def leave(url: str, query: str, seconds: float) -> None:
        path = "/" + url.split("/", 3)[3]
        async with await RawHttp.open(url) as client:
            await client.get(path + query, "accept: text/event-stream")
            await asyncio.sleep(seconds)

    with host.at(hub) as address:
        for query in ("", "?ch=news", "?ch=news&ch=chat:a&since=gone.1", "?ch=secret:a"):
            for seconds in (0.0, 0.005, 0.03):
                asyncio.run(leave(address.url, query, seconds))
        address.assert_empty()
