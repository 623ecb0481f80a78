"""Addresses: the longest route that fits decides, and who is in no list stays out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sojourn.errors import ConfigError
from sojourn.guards.auth.addresses import AllowAddresses

RULES = {"/admin": ["10.1.0.0/16", "::1"], "/admin/open/": ["*"], "/local": ["unix"]}


async def inner(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "inside"})


def asked(path: str, client: str | None, kind: str = "http", **more: Any) -> list[Any]:
    """What is sent to a client."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "path": path, "client": (client, 1) if client else None, "headers": [], **more}
    asyncio.run(AllowAddresses(inner, ["192.0.2.0/24"], RULES)(scope, receive, send))
    return sent


@pytest.mark.parametrize(
    ("path", "client", "allowed"),
    [
        ("/", "192.0.2.7", True),
        ("/", "::ffff:192.0.2.7", True),
        ("/", "192.0.3.7", False),
        ("/", None, False),
        ("/", "not an address", False),
        ("/admin", "10.1.2.3", True),
        ("/admin/users", "10.1.2.3", True),
        ("/admin/users", "::1", True),
        ("/admin/users", "192.0.2.7", False),
        ("/administrator", "10.1.2.3", False),
        ("/administrator", "192.0.2.7", True),
        ("/admin/open/door", "203.0.113.9", True),
        ("/local", None, True),
        ("/local", "10.1.2.3", False),
    ],
)
def test_an_address_is_let_in_or_not(path: str, client: str | None, allowed: bool) -> None:
    (first, *_) = asked(path, client)
    assert (first["type"] == "inside") is allowed


def test_a_route_is_below_the_path_the_application_is_mounted_at() -> None:
    assert asked("/api/admin", "10.1.2.3", root_path="/api")[0]["type"] == "inside"


def test_a_refusal_is_a_problem_document() -> None:
    start, body = asked("/", "203.0.113.9")
    assert start["status"] == 403
    assert b"address_not_allowed" in body["body"]


def test_a_websocket_is_refused_before_it_is_accepted() -> None:
    assert asked("/", "203.0.113.9", "websocket") == [{"type": "websocket.close", "code": 4403}]
    extensions: dict[str, Any] = {"websocket.http.response": {}}
    start, _ = asked("/", "203.0.113.9", "websocket", extensions=extensions)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 403)


def test_lifespan_goes_through() -> None:
    assert asked("/", None, "lifespan") == [{"type": "inside"}]


@pytest.mark.parametrize(
    ("networks", "routes"), [(["10.0.0.0/99"], {}), (["*"], {"admin": ["*"]}), (["*"], {"/a": ["x"]})]
)
def test_a_list_that_makes_no_sense_is_found_at_start(networks: list[str], routes: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError) as caught:
        AllowAddresses(inner, networks, routes)
    assert "proxy.trusted" not in str(caught.value)
