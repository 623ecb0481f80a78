"""WebSockets of the hub: plain, with positions, and ``sojourn.v1``; what ends them, and what is left then."""

from __future__ import annotations

import json
import socket as sockets
from typing import Any
from urllib.parse import unquote

import fastapi
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from sojourn.errors import AccessDenied
from sojourn.hub.hub import Hub
from sojourn.hub.rules import HubLimits
from sojourn.scopes.pausing import pause
from tests.hub.addresses import Host, Talk, closed, hosts, hub_of, until

host = hosts()


# Plain


def test_a_plain_member_gets_payloads_as_they_were_published(host: Host) -> None:
    with host.at(hub_of()) as address:
        socket = address.plain("?ch=chat:a&ch=news")
        address.wait_for(1, channels=2)
        for data in ("text", {"a": 1}, b"\0bytes"):
            address.publish("chat:a", data)
        address.publish("news", [1])
        assert [socket.recv(timeout=5) for _ in range(4)] == ["text", '{"a":1}', b"\0bytes", "[1]"]


def test_a_stamped_member_hears_first_where_it_is_and_then_where_each_object_is(host: Host) -> None:
    with host.at(hub_of()) as address:
        first = address.plain("?ch=chat:a&since=")
        place = json.loads(first.recv(timeout=5))["_id"]
        cursor = address.publish("chat:a", {"n": 1})
        assert json.loads(first.recv(timeout=5)) == {"_id": cursor, "n": 1}
        second = address.plain(f"?ch=chat:a&since={place}")
        assert json.loads(second.recv(timeout=5)) == {"_id": place}
        assert json.loads(second.recv(timeout=5)) == {"_id": cursor, "n": 1}


def test_a_place_that_nobody_knows_is_a_gap(host: Host) -> None:
    with host.at(hub_of()) as address:
        address.ask({"id": 1, "pub": {"ch": "chat:a", "d": 1}})
        for since in ("nonsense", "gone.7", ".", "x.-1", "x." + "9" * 30, "%00", "k.%E2%82%AC"):
            socket = address.plain(f"?ch=chat:a&since={since}")
            assert "_id" in json.loads(socket.recv(timeout=5))
            assert json.loads(socket.recv(timeout=5))["_gap"] == "chat:a"
            assert address.get(f"?ch=chat:a&since={since}&wait=1").json()["gap"] == ["chat:a"]


# In a handler of the application


async def _echo(hub: Hub, websocket: Any, *channels: str, since: str | None = None) -> None:
    async with hub.connect(websocket) as member:
        await member.join(*channels, since=since)
        async for said in member:
            await member.send({"said": said.data, "id": said.id})


def handlers(hub: Hub, *channels: str, since: str | None = None) -> dict[str, Any]:
    """The same handler, for each way to write one."""

    async def of_asgi(scope: Any, receive: Any, send: Any) -> None:
        await _echo(hub, (scope, receive, send), *channels, since=since)

    async def of_framework(websocket: WebSocket) -> None:
        await _echo(hub, websocket, *channels, since=since)

    api = fastapi.FastAPI()
    api.add_api_websocket_route("/", of_framework)
    return {"asgi": of_asgi, "fastapi": api, "starlette": Starlette(routes=[WebSocketRoute("/", of_framework)])}


@pytest.mark.parametrize("kind", ["asgi", "fastapi", "starlette"])
def test_a_handler_lets_a_socket_join_and_hears_what_it_says(host: Host, kind: str) -> None:
    hub = hub_of()
    with host.at(hub, handlers(hub, "secret:a")[kind]) as address:
        plain, talk = address.plain(), address.greeted()
        address.wait_for(2, channels=1)
        address.publish("secret:a", "psst")
        assert plain.recv(timeout=5) == "psst"
        assert talk.hear()["d"] == "psst"
        plain.send("hi")
        assert json.loads(plain.recv(timeout=5)) == {"said": "hi", "id": 0}
        plain.send(b"hi")
        until(lambda: hub.stats()["received"] >= 2)
        talk.say({"id": 7, "msg": {"x": [1]}}, {"msg": "y"})
        assert talk.hear() == {"id": 7, "ok": {}}
        assert [talk.hear()["msg"] for _ in range(2)] == [{"said": {"x": [1]}, "id": 7}, {"said": "y", "id": 0}]
        for each in (plain, talk.connection):
            each.close()


@pytest.mark.parametrize("kind", ["asgi", "fastapi"])
def test_a_plain_member_without_words_for_a_gap_is_closed_instead(host: Host, kind: str) -> None:
    hub = hub_of()
    with host.at(hub, handlers(hub, "chat:a", since="gone.7")[kind], fails=True) as address:
        assert closed(address.plain())[0] == 4011


@pytest.mark.parametrize("kind", ["asgi", "fastapi"])
def test_a_failure_of_the_handler_ends_the_socket_with_1011(host: Host, kind: str) -> None:
    hub = hub_of()
    with host.at(hub, handlers(hub, "no such channel")[kind], fails=True) as address:
        assert closed(address.plain())[0] == 1011
        until(lambda: host.failures)
        assert isinstance(host.failures[0], AccessDenied)


@pytest.mark.parametrize("kind", ["asgi", "fastapi"])
def test_the_hub_can_end_a_socket_with_any_reason(host: Host, kind: str) -> None:
    hub = hub_of()
    with host.at(hub, handlers(hub, "news")[kind]) as address:
        for _ in range(2):
            talk = address.plain()
            address.wait_for(1)
            (member,) = hub.node.members
            address.do(hub.disconnect(member=member, code=4600, reason="ü" * 100))
            code, reason = closed(talk)
            assert code == 4600
            assert reason is not None
            assert reason.strip("ü") == ""
            address.wait_for(0)


# sojourn.v1


def test_the_first_line_says_who_and_where_and_what_to_keep_to(host: Host) -> None:
    with host.at(hub_of(limits=HubLimits(message=1000))) as address:
        talk = address.talk()
        assert talk.connection.subprotocol == "sojourn.v1"
        hello = talk.hear()["hello"]
        assert hello["conn"] in address.hub.node.members
        assert "." in hello["pos"]
        assert (hello["ping"], hello["pong"], hello["retry"], hello["max"]) == (25, 8, [500, 8000], 1000)
        talk.say({})
        assert talk.ask(join={"ch": "news"})["ok"]["pos"] == hello["pos"]


def test_another_subprotocol_gets_the_plain_form(host: Host) -> None:
    with host.at(hub_of()) as address:
        socket = address.plain("?ch=news", subprotocols=["graphql-ws"])
        address.wait_for(1, channels=1)
        address.publish("news", "x")
        assert (socket.subprotocol, socket.recv(timeout=5)) == (None, "x")
        both = address.talk("?ch=news", ["graphql-ws", "sojourn.v1"])
        assert "hello" in both.hear()


def test_channels_of_the_address_are_joined_with_and_without_resume(host: Host) -> None:
    with host.at(hub_of()) as address:
        place = address.ask({"id": 1, "pub": {"ch": "chat:a", "d": 0}})["ok"]["pos"]
        address.publish("chat:a", 1)
        address.publish("chat:b", 1)
        talk = address.greeted(f"?ch=chat:a&new=chat:b&since={place}")
        assert talk.hear() == {"ch": "chat:a", "p": int(place.split(".")[1]) + 1, "d": 1}
        address.wait_for(1, channels=2)
        address.publish("chat:b", 2)
        assert talk.hear()["d"] == 2


def test_names_of_channels_are_percent_encoded_in_addresses(host: Host) -> None:
    name = "chat%3A%61-b%2Fc%2Bd"
    channel = unquote(name)
    with host.at(hub_of()) as address:
        for kind in (address.plain, address.greeted):
            opened = kind(f"?ch={name}")
            socket = opened.connection if isinstance(opened, Talk) else opened
            address.wait_for(1, channels=1)
            address.publish(channel, "x")
            assert "x" in socket.recv(timeout=5)
            socket.close()
            address.wait_for(0)
        assert address.get(f"?ch={name}&wait=0").status_code == 200


NOT_TO_BE_JOINED = [
    "?ch=",
    "?ch=nowhere",
    "?ch=chat:",
    "?ch=chat:a:b",
    "?ch=secret:a",
    "?new=secret:a",
    "?ch=news&ch=%00",
    "?ch=%FF",
    "?ch=chat:%C3%BC",
    "?ch=chat:a%20b",
    "?ch=chat:a+b",
    "?ch=chat:%0A",
    "?ch=" + "%E2%82%AC" * 200,
    "?ch=chat:" + "x" * 300,
]


def test_a_channel_of_the_address_that_may_not_be_joined_ends_it_all(host: Host) -> None:
    with host.at(hub_of()) as address:
        for query in NOT_TO_BE_JOINED:
            code, reason = closed(address.plain(query))
            assert (code, (reason or "")[:8]) == (4501, "join in ")
            talk = address.greeted(query)
            bye = talk.rest()[-1]["bye"]
            assert (bye["code"], bye["retry"], talk.code) == (4501, None, 4501)
            for answer in (address.get(query, headers={"accept": "text/event-stream"}), address.get(query + "&wait=0")):
                assert answer.status_code == 403
                assert "is not allowed" in answer.text


def test_too_many_channels_in_the_address_are_refused(host: Host) -> None:
    with host.at(hub_of(limits=HubLimits(channels=2))) as address:
        query = "?ch=chat:a&ch=chat:b&ch=chat:c"
        assert closed(address.plain(query)) == (4501, "2 channels at most")
        assert address.get(query + "&wait=0").status_code == 400
        assert address.get(query, headers={"accept": "text/event-stream"}).status_code == 400
        assert address.get("?ch=chat:a&ch=chat:a&ch=chat:a&wait=0").status_code == 200


# What is wrong, and what is too much


WRONG = [
    ("nonsense", "", 0),
    ("[]", "", 0),
    ("1", "", 0),
    ('"text"', "", 0),
    ('{"id":', "", 0),
    ('{"id":5}', "no command", 5),
    ('{"id":5,"dance":{}}', "no such command: 'dance'", 5),
    ('{"id":5,"join":{}}', "ch", 5),
    ('{"id":5,"join":{"ch":7}}', "", 5),
    ('{"id":5,"join":{"ch":"news"},"leave":{"ch":"news"}}', "one command", 5),
    ('{"id":-5,"join":{"ch":"news"}}', "", 0),
    ('{"id":"5","join":{"ch":"news"}}', "", 0),
    ('{"id":5,"pub":{"ch":"chat:a"}}', "d, or b", 5),
    ('{"id":5,"pub":{"ch":"chat:a","b":"no base64!"}}', "", 5),
    ('{"id":5,"hist":{"ch":"news","limit":0}}', "", 5),
    ('{"id":5,"refresh":{"token":"x"}}', "nothing to refresh", 5),
    ('{"id":5,"auth":{"token":"x"}}', "known already", 5),
    ("[" * 40_000, "", 0),
    ('{"id":5,"msg":' + "[" * 100 + "]" * 100 + "}", "deep", 5),
]


def test_a_wrong_line_gets_an_error_and_the_next_line_counts(host: Host) -> None:
    with host.at(hub_of()) as address:
        talk = address.greeted()
        for line, message, number in WRONG:
            talk.say(line, {"id": 99, "leave": {"ch": "news"}})
            refused = talk.hear()
            assert (refused["error"]["code"], refused["error"]["retry"]) == ("bad_request", False)
            assert message in refused["error"]["message"]
            assert refused.get("id", 0) == number
            assert talk.hear() == {"id": 99, "ok": {}}
            answers = address.post(line, {"id": 99, "count": {"ch": "chat:a"}}).text.split("\n")
            assert json.loads(answers[0])["error"]["code"] == "bad_request"
            assert json.loads(answers[1]) == {"id": 99, "ok": {"members": 0, "users": 0}}


def test_bytes_are_read_as_text_when_they_are_and_refused_when_not(host: Host) -> None:
    with host.at(hub_of()) as address:
        talk = address.greeted()
        talk.connection.send(b'{"id":1,"join":{"ch":"news"}}')
        assert "ok" in talk.hear()
        talk.connection.send(b"\xff\xfe")
        assert "UTF-8" in talk.hear()["error"]["message"]
        assert "ok" in talk.ask(leave={"ch": "news"})


def test_a_message_of_too_many_bytes_ends_the_socket(host: Host) -> None:
    with host.at(hub_of(limits=HubLimits(message=1000))) as address:
        for data in ("x" * 1001, b"x" * 1001, "ü" * 501, "🎉" * 300):
            for socket in (address.greeted().connection, address.plain()):
                socket.send(data)
                assert closed(socket) == (1009, "message too large")


def test_a_message_of_as_many_bytes_as_may_be_is_heard(host: Host) -> None:
    with host.at(hub_of(limits=HubLimits(message=1000))) as address:
        talk = address.greeted()
        talk.say('{"id":1,"msg":"' + "ü" * 491 + '"}')
        assert talk.hear() == {"id": 1, "ok": {}}


def test_who_says_too_much_is_read_more_slowly(host: Host) -> None:
    limits = HubLimits(inbound_rate=200, inbound_burst=5)
    with host.at(hub_of(limits=limits)) as address:
        talk = address.greeted()
        for number in range(1, 26):
            talk.say({"id": number, "msg": 1})
        assert [talk.hear()["id"] for _ in range(25)] == list(range(1, 26))
        assert address.hub.stats()["refused"]["inbound"] >= 10


def test_who_says_too_much_is_ended_when_that_is_the_rule(host: Host) -> None:
    with host.at(hub_of(limits=HubLimits(inbound_rate=1, inbound_burst=3, on_rate="close"))) as address:
        talk = address.greeted()
        talk.say(*({"id": number, "msg": 1} for number in range(1, 10)))
        rest = talk.rest()
        assert [each["id"] for each in rest if "id" in each] == [1, 2, 3]
        assert rest[-1]["bye"] == {"code": 4029, "reason": "too many messages", "retry": [500, 8000]}
        assert talk.code == 4029


# Whoever leaves


def test_nothing_is_left_of_a_client_that_is_cut(host: Host) -> None:
    with host.at(hub_of()) as address:
        for query in ("", "?ch=chat:a&ch=news", "?ch=news&since="):
            for v1 in (True, False):
                socket = address.talk(query).connection if v1 else address.plain(query)
                socket.socket.shutdown(sockets.SHUT_RDWR)
                socket.socket.close()
        address.assert_empty()


def test_nothing_is_left_of_a_client_that_leaves_while_it_joins(host: Host) -> None:
    hub = hub_of()

    @hub.authorize("secret:{room}")
    async def slow(asker: Any, room: str) -> bool:
        await pause(0.05)
        return True

    with host.at(hub) as address:
        plain = address.plain("?ch=secret:a")
        talk = address.greeted()
        talk.say({"id": 1, "join": {"ch": "secret:a"}})
        address.wait_for(2)
        for each in (plain, talk.connection):
            each.close()
        address.assert_empty()


def test_a_failure_of_the_application_that_decides_ends_the_socket_and_is_told(host: Host) -> None:
    hub = hub_of()

    @hub.authorize("secret:{room}")
    async def broken(asker: Any, room: str) -> bool:
        raise KeyError("boom")

    with host.at(hub, fails=True) as address:
        assert closed(address.plain("?ch=secret:a"))[0] == 1011
        until(lambda: host.failures)
        talk = address.greeted()
        talk.say({"id": 1, "join": {"ch": "secret:a"}})
        assert closed(talk.connection)[0] == 1011
        assert all(isinstance(each, KeyError) for each in host.failures)
