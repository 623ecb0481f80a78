"""``fast_routes`` under FastAPI: dependency injection, OpenAPI, included routers; the outcome is FastAPI's own."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.routing import APIRoute
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.routing import Match, Mount, Route

from sojourn.routing.fast import fast_routes
from tests.routing.calls import ask, ask_later, talk, talk_later


def endpoint(number: int) -> Any:
    async def call(
        x: int | None = None, who: Annotated[str, Depends(lambda: "somebody")] = "", q: str = ""
    ) -> dict[str, Any]:
        return {"number": number, "x": x, "who": who, "q": q}

    return call


async def plain(request: Any) -> PlainTextResponse:
    return PlainTextResponse(f"{request.path_params} {request.scope['root_path']}")


async def echo(websocket: WebSocket, x: int) -> None:
    await websocket.accept()
    await websocket.send_text(f"x is {x}")
    await websocket.close()


SEGMENT = st.sampled_from(["a", "b", "{x}", "{x:int}", "{y:path}"])
PATTERN = st.lists(SEGMENT, min_size=1, max_size=3, unique_by=lambda part: part[:2]).map(
    lambda parts: "/" + "/".join(parts)
)
LEAF = st.tuples(st.sampled_from(["api", "api", "api", "post", "route", "socket", "mount"]), PATTERN)
TABLE = st.recursive(
    st.lists(LEAF, min_size=1, max_size=5),
    lambda inner: st.lists(
        st.one_of(LEAF, st.tuples(st.sampled_from(["include"]), st.sampled_from(["", "/a", "/b", "/{z}"]), inner)),
        min_size=1,
        max_size=5,
    ),
    max_leaves=12,
)
PATHS = st.lists(st.sampled_from(["a", "b", "1", "c", ""]), max_size=5).map(lambda parts: "/" + "/".join(parts))


def fill(router: Any, table: list[Any], depth: int = 0) -> Any:
    for number, (kind, path, *rest) in enumerate(table):
        if kind == "api":
            router.add_api_route(path, endpoint(number))
        elif kind == "post":
            router.add_api_route(path, endpoint(number), methods=["POST"])
        elif kind == "route":
            router.add_route(path, plain)
        elif kind == "socket":
            router.add_api_websocket_route(path, echo)
        elif kind == "mount":
            router.mount(path.replace("{y:path}", "m"), FastAPI(routes=[Route("/{x}", plain)]))
        elif kind == "include":
            below = fill(APIRouter(), rest[0], depth + 1)
            if path or all(entry[1] for entry in rest[0]):
                router.include_router(below, prefix=path.replace("z", f"z{depth}"))
    return router


async def outcome(app: Any, method: str, path: str) -> Any:
    got = await ask_later(app, method, path)
    names = {name: sorted(value.split(", ")) if name == "allow" else value for name, value in got.headers.items()}
    return (
        got.status,
        names,
        got.body,
        repr(got.scope.get("path_params")),
        re.sub(r"0x\w+", "", str(got.scope.get("route"))),
    )


@settings(max_examples=30, deadline=None)
@given(TABLE, st.lists(PATHS, min_size=1, max_size=6))
def test_every_outcome_is_that_of_fastapi_alone(table: list[Any], paths: list[str]) -> None:
    alone, fast = fill(FastAPI(), table), fast_routes(fill(FastAPI(), table))

    async def compare() -> None:
        for path in paths:
            for method in ("GET", "POST"):
                assert await outcome(fast, method, path) == await outcome(alone, method, path)
            assert repr(await talk_later(fast, path)) == repr(await talk_later(alone, path))

    asyncio.run(compare())


def nested(count: int) -> FastAPI:
    deep, middle, app = APIRouter(), APIRouter(prefix="/v1"), FastAPI()
    for number in range(count):
        deep.add_api_route(f"/thing{number}/{{x}}", endpoint(number))
    middle.include_router(deep, prefix="/deep")
    app.include_router(middle)
    return app


def test_only_routes_that_could_match_are_asked_in_included_routers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    matches = APIRoute.matches

    def telling(self: APIRoute, scope: Any) -> tuple[Match, Any]:
        asked.append(self.path)
        return matches(self, scope)

    monkeypatch.setattr(APIRoute, "matches", telling)
    app = fast_routes(nested(100))
    assert ask(app, "GET", "/v1/deep/thing70/5").json["number"] == 70
    assert set(asked) == {"/thing70/{x}"}
    asked.clear()
    assert ask(app, "GET", "/v1/deep/nothing/5").status == 404
    assert asked == []


def test_routes_added_to_an_included_router_count() -> None:
    late, app = APIRouter(prefix="/late"), nested(3)
    app.include_router(late)
    fast_routes(app)
    assert ask(app, "GET", "/late/x").status == 404
    late.add_api_route("/x", endpoint(7))
    assert ask(app, "GET", "/late/x").json["number"] == 7
    inner = APIRouter()
    late.include_router(inner, prefix="/inner")
    inner.add_api_route("/y", endpoint(8))
    assert ask(app, "GET", "/late/inner/y").json["number"] == 8
    inner.add_api_route("/z", endpoint(9))
    assert ask(app, "GET", "/late/inner/z").json["number"] == 9


def who() -> str:
    return "real"


def test_validation_dependencies_and_overrides_work_as_ever() -> None:
    app = FastAPI()
    users = APIRouter(dependencies=[Depends(who)])

    @users.get("/users/{id}")
    async def user(id: int, name: Annotated[str, Depends(who)]) -> dict[str, Any]:  # noqa: A002 the path says id
        return {"id": id, "name": name}

    app.include_router(users)
    fast_routes(app)
    assert ask(app, "GET", "/users/7").json == {"id": 7, "name": "real"}
    assert ask(app, "GET", "/users/x").status == 422
    app.dependency_overrides[who] = lambda: "other"
    assert ask(app, "GET", "/users/7").json == {"id": 7, "name": "other"}
    assert app.url_path_for("user", id=1) == "/users/1"
    assert ask(app, "GET", "/openapi.json").json["paths"].keys() == {"/users/{id}"}
    assert ask(app, "GET", "/docs").status == 200
    assert nested(5).openapi() == fast_routes(nested(5)).openapi()


def test_a_route_class_of_ones_own_works_as_ever() -> None:
    class Versioned(APIRoute):
        def matches(self, scope: Any) -> tuple[Match, Any]:
            if (b"x-version", b"2") not in scope["headers"]:
                return Match.NONE, {}
            return super().matches(scope)

    app, two = FastAPI(), APIRouter(route_class=Versioned)
    two.add_api_route("/thing", endpoint(2))
    app.include_router(two)
    app.add_api_route("/thing", endpoint(1))
    fast_routes(app)
    assert ask(app, "GET", "/thing").json["number"] == 1
    assert ask(app, "GET", "/thing", headers=[(b"x-version", b"2")]).json["number"] == 2


def test_websockets_in_included_routers_work_as_ever() -> None:
    app, inner = FastAPI(), APIRouter()
    inner.add_api_websocket_route("/ws/{x}", echo)
    app.include_router(inner, prefix="/in")
    assert talk(fast_routes(app), "/in/ws/3")[1]["text"] == "x is 3"


def test_a_frontend_is_served_after_all_routes(tmp_path: Any) -> None:
    if not hasattr(APIRouter, "frontend"):
        return  # of later versions
    (tmp_path / "index.html").write_text("<p>page")
    app, inner = FastAPI(), APIRouter()
    inner.add_api_route("/api", endpoint(1))
    inner.frontend("/", directory=str(tmp_path))
    app.include_router(inner, prefix="/in")
    fast_routes(app)
    assert ask(app, "GET", "/in/api").json["number"] == 1
    assert ask(app, "GET", "/in/index.html").headers["content-length"] == "7"
    assert ask(app, "GET", "/nowhere").status == 404


def test_a_mount_in_an_included_router_gets_a_tree_of_its_own() -> None:
    app, inner, below = FastAPI(), APIRouter(), nested(50)
    inner.routes.append(Mount("/m", app=below))
    app.include_router(inner, prefix="/in")
    fast_routes(app)
    assert ask(app, "GET", "/in/m/v1/deep/thing40/1").json["number"] == 40
    assert type(below.router.middleware_stack).__name__ == "_Under"


def test_an_included_router_that_can_not_be_is_fastapis_to_refuse() -> None:
    app, inner = FastAPI(), APIRouter()
    app.add_api_route("/fine", endpoint(1))
    inner.add_api_websocket_route("/{x}", echo)
    app.include_router(inner, prefix="/{x}")
    fast_routes(app)
    for _ in range(2):
        assert ask(app, "GET", "/fine").json["number"] == 1
        with pytest.raises(ValueError, match="Duplicated param name x"):
            ask(app, "GET", "/1/2")
