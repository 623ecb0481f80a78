"""Who may do what in which channel, as the application says."""

from __future__ import annotations

from typing import Any

import pytest

from sojourn.errors import ConfigError
from sojourn.hub.access import Access, Asker
from sojourn.hub.hub import Hub
from sojourn.hub.identity import Caller, Identity
from sojourn.hub.rules import Channel, History, Presence
from tests.hub.addresses import Host, hosts
from tests.hub.stand_ins import in_a_loop

host = hosts()
ANN = Asker("ann", "m1")


@in_a_loop
async def test_without_a_function_only_what_rules_allow_may_be_done() -> None:
    access = Access()
    closed, open_ = Channel("a:{x}"), Channel("a:{x}", public=True, publish=True)
    for action in ("join", "publish", "presence", "history"):
        assert not await access.may(ANN, "a:1", closed, action, inside=False)  # type: ignore[arg-type]
        assert await access.may(ANN, "a:1", open_, action, inside=False)  # type: ignore[arg-type]
        assert await access.may(ANN, "a:1", closed, action, inside=True) is (action in ("presence", "history"))  # type: ignore[arg-type]
    assert await access.may(ANN, "a:1", Channel("a:{x}", publish=True), "publish", inside=True)
    assert not await access.may(ANN, "a:1", Channel("a:{x}", publish=True), "publish", inside=False)
    assert not await access.may(ANN, "a:1", Channel("a:{x}", public=True), "publish", inside=True)


@in_a_loop
async def test_a_function_without_action_decides_who_joins_and_that_lets_them_look() -> None:
    access, asked = Access(), []

    async def call(asker: Asker, x: str) -> bool:
        asked.append((asker.user, x))
        return x == "1"

    access.add("a:{x}", call)
    rule = Channel("a:{x}")
    for action, allowed in (("join", True), ("presence", True), ("history", True), ("publish", False)):
        assert await access.may(ANN, "a:1", rule, action, inside=False) is allowed  # type: ignore[arg-type]
        assert not await access.may(ANN, "a:2", rule, action, inside=False)  # type: ignore[arg-type]
    assert await access.may(ANN, "a:1", Channel("a:{x}", publish=True), "publish", inside=False)
    assert set(asked) == {("ann", "1"), ("ann", "2")}


@in_a_loop
async def test_no_function_is_asked_about_what_can_be_no_channel() -> None:
    access = Access()

    async def call(asker: Asker, x: str) -> bool:
        raise AssertionError("it was asked")

    access.add("a:{x}", call)
    for name in ("a:ü", "a:b c", "a:\n", "a:" + "x" * 254):
        assert not await access.may(ANN, name, Channel("a:{x}", public=True), "join", inside=False)


def test_a_function_that_does_not_take_what_it_is_called_with_is_refused() -> None:
    async def too_few(asker: Asker) -> bool:
        return True

    async def too_many(asker: Asker, x: str, y: str) -> bool:
        return True

    for call in (too_few, too_many):
        with pytest.raises(ConfigError, match="is called with"):
            Access().add("a:{x}", call)


def test_a_function_with_action_decides_about_everything(host: Host) -> None:
    hub = Hub(channels=[Channel("doc:{name}", history=History(size=5), presence=Presence())])
    asked: list[tuple[Any, ...]] = []

    @hub.authenticate
    async def who(caller: Caller) -> Identity | None:
        return Identity(caller.token, info={"role": caller.token})

    @hub.authorize("doc:{name}")
    async def may(asker: Asker, action: str, name: str) -> bool:
        asked.append((asker.user, bool(asker.member), asker.info, action, name))
        return {"reader": action != "publish", "writer": True, "pusher": action == "publish"}.get(asker.user, False)

    body = {"ch": "doc:a"}
    commands = {"publish": {"pub": {**body, "d": 1}}, "presence": {"who": body}, "history": {"hist": body}}
    with host.at(hub) as address:
        for user, allowed in (
            ("reader", {"presence", "history", "join"}),
            ("writer", {"publish", "presence", "history", "join"}),
            ("pusher", {"publish"}),
            ("nobody", set()),
        ):
            query = f"?token={user}"
            found = {name for name, line in commands.items() if "ok" in address.ask({"id": 1, **line}, query=query)}
            talk = address.greeted(query)
            assert {name for name, line in commands.items() if "ok" in talk.ask(**line)} == found
            if "ok" in talk.ask(join=body):
                found.add("join")
            assert found == allowed
            assert address.get(f"{query}&ch=doc:a&wait=0").status_code == (200 if "join" in allowed else 403)
            # Whoever is in it may look; what it may publish is asked each time.
            assert ("ok" in talk.ask(pub={**body, "d": 2})) is ("publish" in allowed)
        assert ("writer", True, {"role": "writer"}, "publish", "a") in asked
        assert ("writer", False, {"role": "writer"}, "publish", "a") in asked
