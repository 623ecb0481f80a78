"""Who comes in: limits, origins, credentials, and how long they last."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from sojourn.errors import AuthenticationError
from sojourn.hub.identity import Caller, Identity
from sojourn.hub.rules import HubLimits
from sojourn.scopes.pausing import pause
from tests.hub.addresses import Host, closed, cut_in_opening, hosts, hub_of, refused

host = hosts()
STREAM = {"accept": "text/event-stream"}


def guarded(**settings: Any) -> Any:
    """A hub that knows tokens: a name, ``name until seconds``, and words that go wrong."""
    hub = hub_of(**settings)

    @hub.authenticate
    async def who(caller: Caller) -> Identity | None:
        name, _, seconds = caller.token.partition("~")
        if name in ("", "wrong"):
            raise AuthenticationError("bad_token", "this token does not count")
        if name == "unknown":
            return None
        if name == "away":
            raise AuthenticationError("unavailable", "the keys can't be fetched", 503)
        if name == "old":
            raise AuthenticationError("token_expired", "the token is over")
        if name == "slow":
            await pause(5)
        return Identity(name, time.time() + float(seconds) if seconds else None)

    return hub


# Limits


def test_one_address_has_so_many_members_and_their_commands_still_come_through(host: Host) -> None:
    with host.at(hub_of(limits=HubLimits(per_ip=2))) as address, ExitStack() as stack:
        talk = address.greeted()
        events = stack.enter_context(address.stream("?ch=news"))
        next(events)
        assert refused(address.plain) == (429, "too many connections of this address", None)
        assert address.get("?ch=news", headers=STREAM).status_code == 429
        assert address.get("?wait=1").status_code == 429
        assert "ok" in address.ask({"id": 1, "pub": {"ch": "chat:a", "d": 1}})
        talk.connection.close()
        address.wait_for(1)
        assert address.greeted().ask(leave={"ch": "x"})
        assert address.hub.stats()["refused"]["per_ip"] == 3


def test_a_process_has_so_many_members(host: Host) -> None:
    with host.at(hub_of(limits=HubLimits(total=1))) as address:
        address.greeted()
        status, text, retry = refused(address.plain)
        assert (status, text) == (503, "there is no room")
        assert int(retry or 0) > 0
        answer = address.get("?wait=0")
        assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True)
        assert "ok" in address.ask({"id": 1, "pub": {"ch": "chat:a", "d": 1}})


def test_one_user_has_so_many_members_however_it_says_who_it_is(host: Host) -> None:
    with host.at(guarded(limits=HubLimits(per_user=1))) as address:
        address.greeted("?token=ann")
        assert refused(lambda: address.talk("?token=ann"))[0] == 429
        late = address.talk()
        late.say({"id": 1, "auth": {"token": "ann"}})
        assert (late.rest(), late.code) == ([], 4504)
        assert address.get("?token=ann&wait=0").status_code == 429
        assert address.get("?token=ann", headers=STREAM).status_code == 429
        assert "ok" in address.ask({"id": 1, "pub": {"ch": "chat:a", "d": 1}}, query="?token=ann")
        address.greeted("?token=bob")


def test_only_so_many_come_in_a_second(host: Host) -> None:
    with host.at(hub_of(limits=HubLimits(connect_rate=2))) as address:
        codes = [address.get("?wait=0").status_code for _ in range(6)]
        assert codes[:4] == [200] * 4
        assert codes[-1] == 503
        assert refused(address.plain)[1:] == ("too many come at once", "1")


# Origins


def test_browsers_come_from_origins_that_may(host: Host) -> None:
    with host.at(hub_of(origins=["https://ours.example", "same-origin"])) as address:
        own = address.url.rsplit("/", 2)[0]
        for origin in (None, "https://ours.example", own):
            address.plain(origin=origin).close()
            headers = {} if origin is None else {"origin": origin}
            assert address.get("?wait=0", headers=headers).status_code == 200
            assert address.post(headers=headers).status_code == 200
        for origin in ("https://theirs.example", "http://ours.example", "https://ours.example.evil.example", "null"):
            assert refused(partial(address.plain, origin=origin))[:2] == (
                403,
                "this origin may not connect",
            )
            for answer in (
                address.get("?wait=0", headers={"origin": origin}),
                address.get("", headers={"origin": origin, **STREAM}),
                address.post(headers={"origin": origin}),
            ):
                assert answer.status_code == 403


# Who it is


@pytest.mark.parametrize("where", ["query", "header"])
def test_a_credential_of_the_request_says_who_it_is(host: Host, where: str) -> None:
    with host.at(guarded()) as address:
        query = "?token=ann" if where == "query" else ""
        headers = {} if query else {"authorization": "bEARER ann"}
        assert address.talk(query, additional_headers=headers).hear()["hello"]["user"] == "ann"
        plain = address.plain(query, additional_headers=headers)
        address.wait_for(2)
        address.do(address.hub.send("dear ann", user="ann"))
        assert plain.recv(timeout=5) == "dear ann"
        assert address.get(query + ("&" if query else "?") + "wait=0", headers=headers).status_code == 200
        assert address.post(query=query, headers=headers).status_code == 200


REFUSED = [
    ("wrong", 401, "this token does not count"),
    ("unknown", 401, "the application does not know who this is"),
    ("old", 401, "the token is over"),
    ("ann~-1", 401, "the credential is over"),
    ("away", 503, "the keys can't be fetched"),
    ("slow", 503, "it could not be found out in time"),
]


def test_a_credential_that_does_not_count_is_refused(host: Host) -> None:
    with host.at(guarded(limits=HubLimits(auth_within=0.05))) as address:
        for token, status, text in REFUSED:
            for opening in (address.plain, address.talk):
                found = refused(partial(opening, f"?token={token}"))
                assert found[0] == status
                assert text in found[1]
            for answer in (address.get(f"?token={token}&wait=0"), address.post(query=f"?token={token}")):
                assert answer.status_code == status
                assert text in answer.json()["detail"]
                assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
        assert refused(address.plain)[0] == 401


def test_the_first_message_says_who_it_is_and_what_stands_behind_it_counts(host: Host) -> None:
    with host.at(guarded()) as address:
        talk = address.talk()
        talk.say(
            {"id": 7, "auth": {"token": "ann"}}, {"id": 8, "join": {"ch": "chat:a"}}, {"id": 9, "leave": {"ch": "x"}}
        )
        assert talk.hear() == {"id": 7, "ok": {}}
        assert talk.hear()["hello"]["user"] == "ann"
        assert [talk.hear()["id"] for _ in range(2)] == [8, 9]
        quiet = address.talk()
        quiet.say({"auth": {"token": "bob"}})
        assert quiet.hear()["hello"]["user"] == "bob"


FIRST = [
    ('{"id":3,"auth":{"token":"wrong"}}', 4501, 3),
    ('{"auth":{"token":"wrong"}}', 4501, 0),
    ('{"id":3,"auth":{"token":"old"}}', 4401, 3),
    ('{"id":3,"auth":{"token":"ann~-1"}}', 4401, 3),
    ('{"id":3,"auth":{"token":"away"}}', 1013, 3),
    ('{"id":3,"auth":{}}', 4501, 3),
    ('{"id":3,"join":{"ch":"news"}}', 4501, 3),
    ("nonsense", 4501, 0),
    ("", 4501, 0),
    (b"\xff", 4501, 0),
    ("{}", 4501, 0),
]


def test_a_first_message_that_does_not_prove_it_is_the_last(host: Host) -> None:
    with host.at(guarded()) as address:
        for first, code, number in FIRST:
            talk = address.talk()
            talk.connection.send(first)
            (answer,) = talk.rest()
            assert (answer["error"]["code"], answer.get("id", 0)) == ("unauthenticated", number)
            assert answer["error"]["retry"] is (code == 1013)
            assert talk.code == code
            assert not address.members


def test_who_does_not_say_it_in_time_is_closed(host: Host) -> None:
    with host.at(guarded(limits=HubLimits(auth_within=0.1, message=1000))) as address:
        silent, slow, large = address.talk(), address.talk(), address.talk()
        slow.say({"id": 1, "auth": {"token": "slow"}})
        large.say({"id": 1, "auth": {"token": "x" * 1000}})
        assert (large.rest(), large.code) == ([], 1009)
        assert (silent.rest(), silent.code) == ([], 4408)
        slow.rest()
        assert slow.code in (4408, 1013)
        gone = address.talk()
        gone.connection.close()
        assert address.hub.stats()["closes"][4408] >= 1


# Until when


def test_a_member_is_warned_and_ends_with_its_credential(host: Host) -> None:
    with host.at(guarded()) as address, ExitStack() as stack:
        plain, talk = address.plain("?token=ann~0.4"), address.greeted("?token=bob~0.4")
        lines = stack.enter_context(address.stream("?token=eve~0.4&v=1"))
        said = talk.rest()
        assert 0 <= said[0]["expiring"]["in"] <= 0.4
        assert said[1]["bye"]["code"] == 4401
        assert said[1]["bye"]["retry"] == [500, 8000]
        assert talk.code == 4401
        assert closed(plain)[0] == 4401
        events = [each["data"] for each in lines]
        assert ["hello" in events[0], "expiring" in events[1], "4401" in events[2]] == [True] * 3


def test_a_new_credential_of_the_same_user_keeps_the_member(host: Host) -> None:
    with host.at(guarded()) as address:
        talk = address.greeted("?token=ann~0.4")
        other = talk.ask(refresh={"token": "bob"})["error"]
        assert (other["code"], other["message"]) == ("unauthenticated", "the new credential is somebody else's")
        assert talk.ask(refresh={"token": "wrong"})["error"]["code"] == "unauthenticated"
        assert talk.ask(refresh={"token": "away"})["error"]["retry"] is True
        assert talk.ask(refresh={"token": "ann"}) == {"id": 4, "ok": {}}
        time.sleep(0.5)
        assert talk.ask(leave={"ch": "x"})["ok"] == {}
        talk.ask(refresh={"token": "ann~0.1"})
        assert talk.rest()[-1]["bye"]["code"] == 4401


def test_nothing_is_left_of_those_who_leave_at_the_door(host: Host) -> None:
    hub = guarded(limits=HubLimits(auth_within=0.05))
    with host.at(hub) as address:
        address.do(hub.start())
        for query in ("", "?token=slow", "?token=ann"):
            cut_in_opening(address, query)
        address.assert_empty()
