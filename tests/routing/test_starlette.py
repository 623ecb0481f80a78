"""``fast_routes`` under Starlette: whatever the routes and the path are, the outcome is Starlette's own."""

from __future__ import annotations

import asyncio
import copy
import random
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.convertors import CONVERTOR_TYPES, Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket

from sojourn.errors import RouteError
from sojourn.routing.fast import fast_routes
from sojourn.routing.noticed import Changes, Noticed
from sojourn.routing.proposals import ALWAYS, outline
from sojourn.routing.router import Router as OwnRouter
from tests.routing.calls import ask, ask_later, talk_later

Outcome = tuple[Any, ...]


class Tail(Convertor[str]):
    """A type of ones own that takes slashes, or nothing."""

    regex = "[a-z/]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


@pytest.fixture(autouse=True, scope="module")
def _a_type_of_ones_own() -> Any:
    register_url_convertor("tail", Tail())
    yield
    del CONVERTOR_TYPES["tail"]


async def answer(request: Request) -> JSONResponse:
    return JSONResponse(
        [shown(request.scope.get("route")), repr(request.path_params), request.scope["root_path"], request.method]
    )


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(f"{websocket.scope.get('route')} {websocket.path_params} {websocket.scope['root_path']}")
    await websocket.close()


class Odd(Route):
    """A route that matches as it likes."""

    def matches(self, scope: Any) -> tuple[Match, Any]:
        if scope["type"] == "http" and len(scope["path"]) % 3 == 0:
            return Match.FULL, {"endpoint": self.endpoint, "path_params": {"odd": True}}
        return Match.NONE, {}


SEGMENTS = st.sampled_from(
    ["a", "b", "1", "{%s}", "{%s:int}", "{%s:float}", "{%s:uuid}", "{%s:path}", "{%s:tail}", "a{%s}", "{%s}-{%s}", ""]
)
PATTERNS = st.lists(SEGMENTS, min_size=1, max_size=4).map(
    lambda parts: "".join(
        "/" + part.replace("%s", f"p{at}", 1).replace("%s", f"q{at}") for at, part in enumerate(parts)
    )
)
METHODS = st.sampled_from([["GET"], ["POST"], ["GET", "POST"], None])
HTTP = st.builds(lambda path, methods: ("route", path, methods), PATTERNS, METHODS)
SOCKETS = st.builds(lambda path: ("socket", path), PATTERNS)
ODD = st.builds(lambda path: ("odd", path), PATTERNS)
LEAVES = st.one_of(HTTP, HTTP, HTTP, SOCKETS, ODD)


def _mounts(inner: Any) -> Any:
    return st.builds(
        lambda path, routes, how: (how, path.rstrip("/"), routes),
        st.one_of(st.just(""), st.sampled_from(["/a", "/{m}", "/a/{m:int}", "/b/"])),
        st.lists(inner, max_size=4),
        st.sampled_from(["mount", "app", "middleware", "host"]),
    )


TABLES = st.lists(st.recursive(LEAVES, _mounts, max_leaves=6), min_size=1, max_size=10)
TEXTS = st.sampled_from(
    ["a", "b", "1", "1.5", "ax", "a-b", "", "", "7d3f6c2e-1c4b-4b56-9d6e-0a1b2c3d4e5f", "a\n", "\n", "Ä"]
)
PATHS = st.lists(TEXTS, max_size=6).map(lambda parts: "/" + "/".join(parts))


class Passing:
    """A middleware of a router that does nothing."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def routes_of(table: list[Any]) -> list[Any]:
    return [_route(entry) for entry in table]


def _route(entry: Any) -> Any:
    kind, path, *rest = entry
    if kind == "route":
        return Route(path, answer, methods=rest[0])
    if kind == "socket":
        return WebSocketRoute(path, socket)
    if kind == "odd":
        return Odd(path, answer)
    routes = routes_of(rest[0])
    if kind == "mount":
        return Mount(path, routes=routes)
    if kind == "app":
        return Mount(path, app=Starlette(routes=routes))
    if kind == "middleware":
        return Mount(path, routes=routes, middleware=[Middleware(Passing)])
    return Host("{sub}.example", app=Router(routes=routes))


async def http_outcome(app: Any, method: str, path: str, **more: Any) -> Outcome:
    try:
        got = await ask_later(app, method, path, **more)
    except HTTPException as error:
        return ("raised", error.status_code)
    except (ValueError, AssertionError) as error:  # what a type raises
        return (type(error).__name__, str(error))
    headers = {name: sorted(value.split(", ")) if name == "allow" else value for name, value in got.headers.items()}
    return got.status, headers, got.body, _keys(got.scope)


def shown(route: Any) -> str:
    """A route without the addresses of what it refers to."""
    return re.sub(r"0x\w+", "", str(route))


def _keys(scope: dict[str, Any]) -> list[Any]:
    names = ("path_params", "root_path", "app_root_path", "path")
    return [shown(scope.get("route")), type(scope.get("router")).__name__, *(scope.get(name) for name in names)]


async def socket_outcome(app: Any, path: str) -> Outcome:
    try:
        return tuple(map(repr, await talk_later(app, path)))
    except (ValueError, AssertionError) as error:
        return (type(error).__name__, str(error))


@settings(max_examples=150, deadline=None)
@given(TABLES, st.lists(PATHS, min_size=1, max_size=6), st.sampled_from(["GET", "POST", "HEAD"]), st.booleans())
@example([("route", "/a//{p:path}", ["GET"])], ["/a//", "/a/", "/a"], "GET", True)
@example([("route", "/{x}", ["GET"]), ("route", "/", ["GET"])], ["/\n", "\n", "//"], "GET", True)
@example([("route", "/{x:tail}", ["GET"])], ["/", "", "/a/b/"], "GET", True)
def test_every_outcome_is_that_of_starlette_alone(
    table: list[Any], paths: list[str], method: str, redirects: bool
) -> None:
    plain, fast = Starlette(routes=routes_of(table)), Starlette(routes=routes_of(table))
    plain.router.redirect_slashes = fast.router.redirect_slashes = redirects
    assert fast_routes(fast) is fast

    async def compare() -> None:
        for path in [*paths, *(entry[1] for entry in table)]:
            for root in ("", "/a", "/a/"):
                expected = await http_outcome(plain, method, path, root_path=root)
                assert await http_outcome(fast, method, path, root_path=root) == expected
            assert await socket_outcome(fast, path) == await socket_outcome(plain, path)

    asyncio.run(compare())


@settings(max_examples=15, deadline=None)
@given(st.lists(LEAVES, min_size=200, max_size=200), st.lists(PATHS, min_size=20, max_size=20))
def test_so_it_is_with_many_routes(table: list[Any], paths: list[str]) -> None:
    plain, fast = Router(routes=routes_of(table)), fast_routes(Router(routes=routes_of(table)))

    async def compare() -> None:
        for path in paths:
            assert await http_outcome(fast, "GET", path) == await http_outcome(plain, "GET", path)

    asyncio.run(compare())


def many(count: int) -> list[Any]:
    return [Route(f"/users/{{id}}/thing{number}", answer) for number in range(count)]


def test_only_routes_that_could_match_are_asked() -> None:
    asked: list[str] = []

    class Telling(Route):
        def __init__(self, path: str, endpoint: Any) -> None:
            super().__init__(path, endpoint)
            regex = self.path_regex

            class Regex:
                pattern, flags = regex.pattern, regex.flags

                def match(self, text: str) -> Any:
                    asked.append(path)
                    return regex.match(text)

            self.path_regex = Regex()  # type: ignore[assignment]

    app = fast_routes(Starlette(routes=[Telling(f"/users/{{id}}/thing{number}", answer) for number in range(1000)]))
    assert ask(app, "GET", "/users/1/thing900").status == 200
    assert asked == ["/users/{id}/thing900"]
    assert ask(app, "GET", "/users/1/nothing").status == 404
    assert len(asked) == 1


# -- routes that change


@pytest.mark.parametrize(
    "change",
    [
        lambda routes, route: routes.append(route),
        lambda routes, route: routes.extend([route]),
        lambda routes, route: routes.insert(0, route),
        lambda routes, route: routes.__setitem__(0, route),
        lambda routes, route: routes.__setitem__(slice(0, 1), [route]),
        lambda routes, route: routes.__iadd__([route]),
        lambda routes, route: (routes.pop(), routes.append(route)),
        lambda routes, route: (routes.remove(routes[0]), routes.append(route)),
        lambda routes, route: (routes.clear(), routes.append(route)),
        lambda routes, route: (routes.__delitem__(0), routes.append(route)),
        lambda routes, route: (routes.append(route), routes.reverse()),
        lambda routes, route: (routes.append(route), routes.sort(key=str)),
        lambda routes, route: (routes.append(route), routes.__imul__(2)),
    ],
)
def test_any_change_of_the_list_of_routes_counts(change: Any) -> None:
    app = fast_routes(Starlette(routes=many(5)))
    assert ask(app, "GET", "/late").status == 404
    change(app.routes, Route("/late", answer))
    assert ask(app, "GET", "/late").status == 200


def test_another_list_of_routes_counts() -> None:
    app = fast_routes(Starlette(routes=many(5)))
    assert ask(app, "GET", "/late").status == 404
    app.router.routes = [Route("/late", answer)]
    assert ask(app, "GET", "/late").status == 200
    list.append(app.router.routes, Route("/behind", answer))
    assert ask(app, "GET", "/behind").status == 200


def test_a_change_below_a_mount_counts() -> None:
    inner = Router(routes=many(3))
    app = fast_routes(Starlette(routes=[Mount("/in", app=inner)]))
    assert ask(app, "GET", "/in/late").status == 404
    inner.add_route("/late", answer)
    assert ask(app, "GET", "/in/late").status == 200
    app.mount("/more", Starlette(routes=many(3)))
    assert ask(app, "GET", "/more/users/1/thing2").status == 200


def test_asking_twice_changes_nothing_and_looks_again() -> None:
    app = fast_routes(Starlette(routes=many(5)))
    route: Any = app.routes[0]
    stack = app.router.middleware_stack
    assert ask(app, "GET", "/users/1/thing0").status == 200
    route.path = "/moved"
    route.path_regex, route.path_format, route.param_convertors = Route("/moved", answer).__dict__.copy(), "", {}
    route.__dict__.update(Route("/moved", answer).__dict__)
    fast_routes(app)
    assert app.router.middleware_stack is stack
    assert ask(app, "GET", "/moved").status == 200


def test_one_router_can_be_below_two_applications() -> None:
    inner = Router(routes=many(3))
    one, two = (fast_routes(Starlette(routes=[Mount("/in", app=inner)])) for _ in range(2))
    for app in (one, two):
        assert ask(app, "GET", "/in/users/1/thing2").status == 200
    inner.add_route("/late", answer)
    for app in (one, two):
        assert ask(app, "GET", "/in/late").status == 200


# -- what else works as ever


def test_names_lifespan_and_middleware_work_as_ever() -> None:
    app = fast_routes(Starlette(routes=[*many(3), Mount("/m", routes=[Route("/{x}", answer, name="x")], name="m")]))
    assert app.url_path_for("m:x", x="1") == "/m/1"
    sent: list[str] = []
    inbox = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        return inbox.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(app({"type": "lifespan", "state": {}}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_router_with_middleware_is_covered() -> None:
    router = fast_routes(Router(routes=many(5), middleware=[Middleware(Passing), Middleware(Passing)]))
    assert ask(router, "GET", "/users/1/thing4").status == 200
    assert isinstance(router.routes, Noticed)


def test_the_router_in_the_scope_is_the_real_one() -> None:
    router = fast_routes(Router(routes=many(5)))
    assert ask(router, "GET", "/users/1/thing4").scope["router"] is router


def test_what_is_no_starlette_is_refused() -> None:
    with pytest.raises(RouteError, match="Router is neither"):
        fast_routes(OwnRouter())

    class Looping(Router):
        async def app(self, scope: Any, receive: Any, send: Any) -> None:
            raise NotImplementedError

    with pytest.raises(RouteError, match="the loop over routes of Looping is its own"):
        fast_routes(Looping())


def test_a_router_of_ones_own_below_a_mount_is_left_alone() -> None:
    class Looping(Router):
        async def app(self, scope: Any, receive: Any, send: Any) -> None:
            await JSONResponse("own")(scope, receive, send)

    app = fast_routes(Starlette(routes=[Mount("/in", app=Looping(routes=many(3)))]))
    assert ask(app, "GET", "/in/x").json == "own"


def test_requests_at_the_same_time_see_their_own_routes() -> None:
    app = fast_routes(Starlette(routes=many(200)))

    async def one(number: int) -> None:
        got = await ask_later(app, "GET", f"/users/{number}/thing{number}")
        assert got.json[1] == f"{{'id': '{number}'}}"

    async def main() -> None:
        await asyncio.gather(*(one(number) for number in random.Random(1).sample(range(200), 200)))

    asyncio.run(main())


# -- the parts


@pytest.mark.parametrize(
    ("path", "segments", "opened"),
    [
        ("/", (), False),
        ("/a/b", ("a", "b"), False),
        ("/a/b/", ("a", "b"), False),
        ("/a/{x}", ("a", None), False),
        ("/a/{x:int}-{y}/c", ("a", None, "c"), False),
        ("/a/{x:path}", ("a",), True),
        ("/a//{x:path}", ("a",), True),
        ("/a/b{x:path}/c", ("a",), True),
        ("/a/{x:tail}", ("a",), True),
        ("/{x}/{y:path}", (None,), True),
        ("/a{}b", (None,), False),
    ],
)
def test_an_outline_says_only_what_is_certain(path: str, segments: Any, opened: bool) -> None:
    route = Route(path, answer)
    types = {name: convertor.regex for name, convertor in route.param_convertors.items()}
    assert outline(path, route.path_regex, types) == (segments, opened)


def test_a_pattern_that_is_not_what_it_says_is_always_proposed() -> None:
    route, another = Route("/a/{x}", answer), Route("/b", answer)
    assert outline("/a/{x}", another.path_regex, {"x": "[^/]+"}) == ALWAYS
    assert outline("/a/{x}", route.path_regex, {}) == ALWAYS
    assert outline("/a/{x}", route.path_regex, {"x": "a)|(b"}) == ALWAYS


def test_a_list_that_is_noticed_is_a_list() -> None:
    changes = Changes()
    noticed = Noticed([1, 2], [changes])
    assert noticed == [1, 2]
    assert isinstance(noticed, list)
    assert type(copy.deepcopy(noticed)) is list
    noticed.append(3)
    assert changes.number == 1


def test_a_list_of_routes_that_is_a_property_is_left_alone() -> None:
    class Computed(Router):
        @property
        def routes(self) -> Any:
            return many(3)

        @routes.setter
        def routes(self, routes: Any) -> None:
            pass

    with pytest.raises(RouteError, match="its own"):
        fast_routes(Computed())
