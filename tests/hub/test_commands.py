"""Commands of ``sojourn.v1``: by WebSocket, and by POST for those who have none."""

from __future__ import annotations

import base64

from sojourn.hub.rules import HubLimits
from tests.hub.addresses import Host, hosts, hub_of

host = hosts()


def number(cursor: str) -> int:
    return int(cursor.split(".")[1])


def test_members_join_publish_look_and_leave(host: Host) -> None:
    with host.at(hub_of()) as address:
        ann, bob = address.greeted(), address.greeted()
        joined = ann.ask(join={"ch": "chat:a"})["ok"]
        assert "recovered" not in joined
        bob.ask(join={"ch": "chat:a"})
        sent = ann.ask(pub={"ch": "chat:a", "d": {"x": [1]}, "key": "k"})
        assert sent["ok"]["repeated"] is False
        place = number(sent["ok"]["pos"])
        assert bob.hear() == {"ch": "chat:a", "p": place, "k": "k", "d": {"x": [1]}}
        ann.ask(pub={"ch": "chat:a", "b": base64.b64encode(b"\0").decode()})
        assert bob.hear() == {"ch": "chat:a", "p": place + 1, "b": "AA=="}
        page = bob.ask(hist={"ch": "chat:a", "limit": 1})["ok"]
        assert ([each["p"] for each in page["pubs"]], page["more"], page["gap"]) == ([place], True, False)
        page = bob.ask(hist={"ch": "chat:a", "since": page["pos"]})["ok"]
        assert ([each["p"] for each in page["pubs"]], page["more"]) == ([place + 1], False)
        assert bob.ask(hist={"ch": "chat:a", "since": "gone.1"})["ok"]["gap"] is True
        assert bob.ask(leave={"ch": "chat:a"})["ok"] == {}
        assert bob.ask(leave={"ch": "chat:a"})["ok"] == {}
        assert bob.ask(join={"ch": "chat:a", "since": sent["ok"]["pos"]})["ok"]["recovered"] is True
        assert bob.hear()["b"] == "AA=="


def test_a_repetition_is_published_once(host: Host) -> None:
    with host.at(hub_of()) as address:
        talk = address.greeted("?ch=chat:a")
        first = talk.ask(pub={"ch": "chat:a", "d": 1, "uid": "u1"})["ok"]
        again = talk.ask(pub={"ch": "chat:a", "d": 1, "uid": "u1"})["ok"]
        assert again == {"pos": first["pos"], "repeated": True}
        assert address.ask({"id": 1, "hist": {"ch": "chat:a"}})["ok"]["pubs"].__len__() == 1


def test_those_who_are_there_are_shown(host: Host) -> None:
    with host.at(hub_of()) as address:
        ann = address.greeted()
        ann.ask(join={"ch": "room:a", "info": {"name": "Ann"}})
        bob = address.greeted("?ch=room:a")
        members = bob.ask(who={"ch": "room:a"})["ok"]
        assert sorted((each["state"], bool(each["info"])) for each in members["members"]) == [
            ("normal", False),
            ("normal", True),
        ]
        assert bob.ask(count={"ch": "room:a"})["ok"] == {"members": 2, "users": 0}


def test_a_second_join_and_one_too_many_are_refused(host: Host) -> None:
    with host.at(hub_of(limits=HubLimits(channels=2))) as address:
        talk = address.greeted("?ch=chat:a")
        assert talk.ask(join={"ch": "chat:b"})["ok"]
        assert talk.ask(join={"ch": "chat:b"})["error"]["code"] == "bad_request"
        assert talk.ask(join={"ch": "chat:c"})["error"]["code"] == "limit"
        talk.ask(leave={"ch": "chat:b"})
        assert talk.ask(join={"ch": "chat:c"})["ok"]
        assert address.hub.stats()["refused"]["channels"] == 1


def test_there_is_no_such_channel_for_anybody(host: Host) -> None:
    names = ["", "nowhere", "chat:", "chat:a:b", "chat:ü", "chat: ", "chat:\n", "chat:" + "x" * 300]
    with host.at(hub_of(limits=HubLimits(inbound_burst=1000))) as address:
        talk = address.greeted()
        for command in ("join", "pub", "who", "count", "hist"):
            bodies = [{"ch": name} | ({"d": 1} if command == "pub" else {}) for name in names]
            refused = [talk.ask(**{command: body})["error"] for body in bodies]
            assert [(each["code"], each["retry"]) for each in refused] == [("forbidden", False)] * len(names)
            for line in address.post(*({"id": 1, command: body} for body in bodies)).text.split("\n"):
                assert ('"bad_request"' if command == "join" else '"forbidden"') in line


def test_commands_without_a_number_get_no_answer_but_what_is_wrong_is_told(host: Host) -> None:
    with host.at(hub_of()) as address:
        talk = address.greeted()
        talk.say({"join": {"ch": "chat:a"}}, {"pub": {"ch": "chat:a", "d": "x"}})
        assert talk.hear()["d"] == "x"
        talk.say({"leave": {"ch": "chat:a"}}, {"pub": {"ch": "news", "d": "x"}})
        assert talk.hear()["error"]["code"] == "forbidden"


def test_a_request_carries_several_commands_and_gets_the_answers_in_order(host: Host) -> None:
    with host.at(hub_of()) as address:
        lines = [{"id": each, "pub": {"ch": "chat:a", "d": each}} for each in (3, 1, 2)]
        answer = address.post(*lines, "", "{}", {"pub": {"ch": "chat:a", "d": "quiet"}})
        assert answer.headers["content-type"] == "application/json"
        assert [line[:8] for line in answer.text.split("\n")] == ['{"id":3,', '{"id":1,', '{"id":2,']
        page = address.ask({"id": 1, "hist": {"ch": "chat:a"}})["ok"]
        assert [each["d"] for each in page["pubs"]] == [3, 1, 2, "quiet"]
        assert address.post().text == ""


def test_what_only_a_member_can_do_is_refused_to_a_request(host: Host) -> None:
    refused = [
        ({"join": {"ch": "news"}}, "a single request can't join"),
        ({"leave": {"ch": "news"}}, "there is nothing to leave for a single request"),
        ({"msg": "hello"}, "a single request can't say anything to the application"),
        ({"refresh": {"token": "x"}}, "there is nothing to refresh here"),
        ({"auth": {"token": "x"}}, "it is known already who this is; send refresh for a new credential"),
    ]
    with host.at(hub_of()) as address:
        for command, message in refused:
            answer = address.ask({"id": 4, **command})
            assert answer == {"id": 4, "error": {"code": "bad_request", "message": message, "retry": False}}


def test_a_request_that_is_too_large_or_no_text_is_refused(host: Host) -> None:
    with host.at(hub_of(limits=HubLimits(message=1000))) as address:
        assert address.post("x" * 1001).status_code == 413
        assert address.post("x" * 1000).status_code == 200
        answer = address._host.client.post(address.url, content=b"\xff")
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
        assert "UTF-8" in answer.json()["detail"]
