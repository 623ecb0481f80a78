"""The hub's address as a whole: where it can be mounted, what it answers to what, and how it ends with its server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fastapi
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from websockets.sync.client import connect

from sojourn.config import Bind, Config, Drain
from sojourn.errors import AuthenticationError, EngineUnavailable
from sojourn.guards.auth.middleware import Authenticate
from sojourn.hub.hub import Hub
from sojourn.hub.memory import MemoryEngine
from sojourn.routing.router import Router
from sojourn.scopes.context import SecurityContext
from sojourn.server.server import Server
from sojourn.sessions.cookie import SessionCookie
from sojourn.sessions.memory import MemorySessions
from sojourn.sessions.middleware import Sessions
from tests.hub.addresses import SERVERS, Host, Talk, events, hosts, hub_of, refused

host = hosts()


def of_fastapi(hub: Hub) -> Any:
    app = fastapi.FastAPI()
    app.mount("/", hub.app())
    return app


def of_router(hub: Hub) -> Any:
    app = Router()
    app.mount("/", hub.app())
    return app


def below(hub: Hub) -> Any:
    return Starlette(routes=[Mount("/deep", Starlette(routes=[Mount("/er", hub.app())]))])


MOUNTS: dict[str, tuple[Callable[[Hub], Any], str]] = {
    "alone": (lambda hub: hub.app(), ""),
    "fastapi": (of_fastapi, ""),
    "router": (of_router, ""),
    "starlette": (below, "deep/er/"),
}


@pytest.mark.parametrize("mount", sorted(MOUNTS))
def test_all_forms_come_from_one_address_wherever_it_is(host: Host, mount: str) -> None:
    hub = hub_of()
    make, path = MOUNTS[mount]
    with host.at(hub, make(hub)) as address:
        plain, talk = address.plain(f"{path}?ch=chat:a"), address.greeted(f"{path}?ch=chat:a")
        place = address.get(f"{path}?ch=chat:a&wait=0").json()["pos"]
        with address.stream(f"{path}?ch=chat:a") as events:
            next(events)
            address.wait_for(3, channels=1)
            sent = address.ask({"id": 1, "pub": {"ch": "chat:a", "d": "hi"}}, query=path)["ok"]["pos"]
            assert next(events) == {"id": sent, "data": "hi"}
        assert plain.recv(timeout=5) == "hi"
        assert talk.hear()["d"] == "hi"
        polled = address.get(f"{path}?ch=chat:a&since={place}&wait=5").json()
        assert [each["d"] for each in polled["pubs"]] == ["hi"]
        assert address.get(f"{path}sojourn.js").status_code == 200


@pytest.mark.parametrize("server", sorted(SERVERS))
def test_served_alone_the_hub_lives_as_long_as_the_server(server: str) -> None:
    hub = hub_of()
    with SERVERS[server](hub.app()) as url:
        assert hub._node is not None
        with connect(url.replace("http", "ws") + "/", subprotocols=["sojourn.v1"]) as socket:  # type: ignore[list-item]
            assert "hello" in Talk(socket).hear()
            socket.close()
    assert hub._node is None


def test_what_is_no_question_to_a_hub_gets_a_problem_document(host: Host) -> None:
    with host.at(hub_of()) as address:
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
            answer = host.client.request(method, address.url)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
            assert (answer.content == b"") is (method == "HEAD")
        answer = address.get("?ch=news")
        assert (answer.status_code, answer.headers["content-type"]) == (406, "application/problem+json")
        assert "text/event-stream" in answer.json()["detail"]
        for accept in ("text/html, text/event-stream;q=0.9", "text/event-stream"):
            with host.client.stream("GET", address.url, headers={"accept": accept}) as stream:
                assert stream.status_code == 200
        address.wait_for(0)


class _Broken(MemoryEngine):
    async def start(self, receiver: Any) -> None:
        raise EngineUnavailable("there is no such engine")


def test_a_hub_that_can_not_begin_says_so_in_every_form(host: Host) -> None:
    with host.at(hub_of(engine=_Broken())) as address:
        assert refused(address.plain)[0] == 503
        assert refused(address.talk)[0] == 503
        for answer in (
            address.get("?wait=0"),
            address.post(),
            address.get("", headers={"accept": "text/event-stream"}),
        ):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


# Who others have found out that it is


async def _header(scope: Any) -> SecurityContext | None:
    name = dict(scope["headers"]).get(b"x-user", b"").decode()
    if name == "evil":
        raise AuthenticationError("bad", "no")
    who, _, seconds = name.partition("~")
    return SecurityContext(who, expires_at=time.time() + float(seconds) if seconds else None) if who else None


def test_behind_authenticate_members_are_who_it_has_found(host: Host) -> None:
    hub = hub_of()
    with host.at(hub, Authenticate(hub.app(), by=[_header])) as address:
        talk = address.talk(additional_headers={"x-user": "ann"})
        assert talk.hear()["hello"]["user"] == "ann"
        with address.stream("?v=1", x_user="bob") as events:
            assert json.loads(next(events)["data"])["hello"]["user"] == "bob"
        assert address.get("?wait=0").status_code == 401
        ending = address.talk(additional_headers={"x-user": "eve~0.3"})
        assert ending.hear()["hello"]["user"] == "eve"
        ending.rest()
        assert ending.code == 4401
        address.wait_for(1)


def test_behind_sessions_a_member_ends_with_its_session(host: Host) -> None:
    hub = hub_of()

    async def login(request: Request) -> JSONResponse:
        request.session["user"] = request.path_params["user"]
        return JSONResponse({})

    routes = [Route("/login/{user}", login, methods=["POST"]), Mount("/hub", hub.app())]
    sessions = Sessions(Starlette(routes=routes), MemorySessions(), cookie=SessionCookie(secure=False))
    with host.at(hub, sessions) as address:
        cookies = httpx.post(address.url + "login/ann").cookies
        headers = {"cookie": f"session={cookies['session']}"}
        talk = address.talk("hub/", additional_headers=headers)
        hello = talk.hear()["hello"]
        plain = address.plain("hub/?ch=news")
        address.wait_for(2, channels=1)
        assert hello["user"] == "ann"
        address.do(sessions.revoke(user="ann"))
        talk.rest()
        assert talk.code == 4501
        address.publish("news", "still here")
        assert plain.recv(timeout=5) == "still here"


# The end of the server


def test_a_drain_tells_every_form_to_come_back_and_then_ends_it() -> None:
    hub = hub_of()

    async def main() -> None:
        drain = Drain(delay=0.0, requests=2.0, streams=2.0, sockets=0.2)
        server = Server(hub.app(), Config(bind=Bind(port=0), drain=drain))
        async with asyncio.timeout(10):
            with ThreadPoolExecutor(4) as pool:
                loop = asyncio.get_running_loop()
                async with server:
                    url = server.addresses[0]
                    work = [loop.run_in_executor(pool, call, url) for call in (_talk, _events, _lines, _poll)]
                    while len(hub.node.members if hub._node else ()) < 4:  # noqa: ASYNC110 - it has no event
                        await asyncio.sleep(0.005)
                    await asyncio.sleep(0.05)
                    began = time.monotonic()
                said = await asyncio.gather(*work)
                assert time.monotonic() - began < 2.5
        (bye, code), events, lines, polled = said
        assert (bye["code"], bye["retry"], code) == (1012, [500, 8000], 1012)
        assert (events[-1]["event"], 500 <= int(events[-1]["retry"]) <= 8000) == ("bye", True)
        assert json.loads(lines[-1]["data"])["bye"]["code"] == 1012
        assert (polled["pubs"], polled["retry"]) == ([], [500, 8000])

    asyncio.run(main())
    assert hub._node is None


def _talk(url: str) -> tuple[dict[str, Any], int | None]:
    with connect(url.replace("http", "ws") + "/", subprotocols=["sojourn.v1"]) as socket:  # type: ignore[list-item]
        talk = Talk(socket)
        return talk.rest()[-1]["bye"], talk.code


def _events(url: str, query: str = "?ch=news") -> list[dict[str, str]]:
    with httpx.stream("GET", f"{url}/{query}", headers={"accept": "text/event-stream"}, timeout=5) as answer:
        return list(events(answer))


def _lines(url: str) -> list[dict[str, str]]:
    return _events(url, "?ch=news&v=1")


def _poll(url: str) -> dict[str, Any]:
    place = httpx.get(f"{url}/?ch=news&wait=0").json()["pos"]
    found: dict[str, Any] = httpx.get(f"{url}/?ch=news&since={place}&wait=25", timeout=8).json()
    return found
