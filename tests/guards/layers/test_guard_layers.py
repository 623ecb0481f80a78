"""Who of the layers changes what others hold: real hazards are named, ordinary middleware is not."""

from __future__ import annotations

import asyncio
import inspect
import json
import warnings
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import httpx
import hypothesis
import pytest
from fastapi import Depends, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from sojourn.events import ApplicationFailed, RequestEnded
from sojourn.guards.layers.guard import LayerWarning, guard_layers
from sojourn.guards.layers.journal import Mutation
from tests.asgi.harness import answer, get, serving
from tests.asgi.harness import settings as config

both_modes = pytest.mark.parametrize("mode", ["report", "snapshot"])


class Layer:
    """Plain ASGI middleware that does what a test says before, while and after it calls what is inside."""

    def __init__(self, app: Any, before: Any = None, on_send: Any = None, after: Any = None, copy: Any = None) -> None:
        self.app = app
        self.before, self.on_send, self.after, self.copy = before, on_send, after, copy

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.before:
            self.before(scope)
        inside = {**scope, **self.copy(scope)} if self.copy else scope

        async def sent(message: Any) -> None:
            if self.on_send:
                self.on_send(scope)
            await send(message)

        await self.app(inside, receive, sent)
        if self.after:
            self.after(scope)


class Outer(Layer):
    """Another class, for another name."""


async def page(scope: Any, receive: Any, send: Any) -> None:
    """The innermost application of plain stacks."""
    await answer(send, json.dumps(scope["path"]).encode())


def scope(**more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": "/api/users",
        "headers": [(b"host", b"a"), (b"cookie", b"secret=1")],
        "state": {"pool": "a pool", "user": "anonymous"},
        "extensions": {"tls": {}},
        **more,
    }


def found(app: Any, mode: Any, given: dict[str, Any] | None = None, **options: Any) -> list[Mutation]:
    """What one request through an application shows."""
    mutations: list[Mutation] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        await asyncio.sleep(0)

    guarded = guard_layers(app, mode, report=mutations.append, **options)
    asyncio.run(guarded(given or scope(), receive, send))  # type: ignore[arg-type]
    return mutations


def told(mutations: list[Mutation]) -> list[tuple[str, str]]:
    return [(each.layer.name.rpartition(".")[2], each.key) for each in mutations]


def changes(key: str, value: Any) -> Any:
    return lambda scope: scope.__setitem__(key, value)


# -- hazards

HAZARDS: list[tuple[str, Any, str]] = [
    ("a key", changes("path", "/users"), "scope['path']"),
    ("a key that is deleted", lambda scope: scope.pop("method"), "scope['method']"),
    ("a header that is added to the list", lambda scope: scope["headers"].append((b"x", b"y")), "headers"),
    ("another list of headers", changes("headers", [(b"host", b"b")]), "headers"),
    ("no list of headers", changes("headers", None), "scope['headers']"),
    ("Starlette's headers", lambda scope: MutableHeaders(scope=scope).append("x", "y"), "headers"),
    ("a value in the state", lambda scope: scope["state"].__setitem__("user", "admin"), "state['user']"),
    ("another state", changes("state", {"pool": "a pool", "user": "admin"}), "state['user']"),
    ("a value lost from the state", lambda scope: scope["state"].clear(), "state['pool']"),
    ("an extension", lambda scope: scope["extensions"].clear(), "extensions['tls']"),
]


@both_modes
@pytest.mark.parametrize(("change", "key"), [row[1:] for row in HAZARDS], ids=[row[0] for row in HAZARDS])
def test_a_change_that_an_outer_layer_sees_is_found(change: Any, key: str, mode: Any) -> None:
    first, *_ = mutations = found(Outer(Layer(page, before=change)), mode)
    assert {name for name, _ in told(mutations)} == {"Layer"}
    assert first.key == key
    assert first.seen_by.name.endswith(".Outer")
    assert (first.late, first.certain) == (False, True)


@both_modes
@pytest.mark.parametrize("moment", ["before", "on_send", "after"])
def test_it_is_named_whenever_it_comes(moment: str, mode: Any) -> None:
    app = Outer(Layer(page, **{moment: changes("path", "/users")}))
    assert told(found(app, mode)) == [("Layer", "scope['path']")]


@both_modes
def test_a_change_after_the_request_was_handed_on_is_found_while_somebody_inside_still_runs(mode: Any) -> None:
    (late,) = found(Outer(Layer(page), on_send=changes("path", "/users")), mode)
    assert (late.layer.name.rpartition(".")[2], late.late) == ("Outer", True)
    assert late.seen_by.name.endswith(".Layer") or late.seen_by.name.endswith(".page")
    assert found(Outer(Layer(page), after=changes("path", "/users")), mode) == []


@both_modes
def test_a_copy_of_the_scope_still_shares_its_headers_and_that_is_found(mode: Any) -> None:
    def inner(scope: Any) -> None:
        scope["headers"].append((b"x-user", b"admin"))

    app = Outer(Layer(Layer(page, before=inner), copy=lambda scope: {"path": "/users"}))
    (mutation,) = found(app, mode)
    assert mutation.key == "headers"
    assert mutation.layer.depth == 2
    assert mutation.after == "[(b'x-user', b'admin')]"


@both_modes
def test_the_report_has_class_file_line_values_and_no_secret(mode: Any) -> None:
    def change(scope: Any) -> None:
        scope["headers"][:] = [(b"host", b"b"), (b"cookie", b"secret=2")]

    (mutation,) = found(Outer(Layer(page, before=change)), mode)
    text = str(mutation)
    line = inspect.getsourcelines(Layer)[1]
    assert f"test_guard_layers.Layer (tests/guards/layers/test_guard_layers.py:{line})" in text
    assert "from [(b'host', b'a'), (b'cookie', b'...')] to [(b'host', b'b'), (b'cookie', b'...')]" in text
    assert "shared with" in text
    assert "test_guard_layers.Outer" in text
    assert "secret" not in text


def test_in_report_mode_the_layers_share_and_in_snapshot_mode_nothing_travels_outwards() -> None:
    after: list[Any] = []

    def look(scope: Any) -> None:
        after.append((scope["path"], len(scope["headers"]), scope["state"]["user"]))

    def change(scope: Any) -> None:
        scope["path"] = "/users"
        scope["headers"].append((b"x", b"y"))
        scope["state"]["user"] = "admin"

    for mode in ("report", "snapshot"):
        assert len(found(Outer(Layer(page, before=change), after=look), mode)) == 3
    assert after == [("/users", 3, "admin"), ("/api/users", 2, "anonymous")]


def test_what_routers_write_travels_outwards_in_both_modes() -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = "/users/{id}"
        await answer(send)
        scope["path_params"] = {"id": 7}

    for mode in ("report", "snapshot"):
        given = scope(path_params={})
        assert found(Outer(Layer(endpoint)), mode, given) == []
        assert (given["route"], given["path_params"]) == ("/users/{id}", {"id": 7})


# -- what is allowed

LEGAL: list[tuple[str, Any]] = [
    ("a new key", changes("session", {})),
    ("a new key that changes again", lambda scope: [changes("user", n)(scope) for n in range(3)]),
    ("a new value in the state", lambda scope: scope["state"].__setitem__("trace", 1)),
    ("a new extension", lambda scope: scope["extensions"].__setitem__("http.response.push", {})),
    ("an equal value", changes("path", "/api/" + "users")),
    ("an equal list of headers", lambda scope: changes("headers", list(scope["headers"]))(scope)),
    ("an equal state", lambda scope: changes("state", {**scope["state"], "more": 1})(scope)),
    ("what is inside of a value", lambda scope: scope["extensions"]["tls"].update(version=3)),
]


@both_modes
@pytest.mark.parametrize("change", [row[1] for row in LEGAL], ids=[row[0] for row in LEGAL])
@pytest.mark.parametrize("moment", ["before", "on_send"])
def test_what_harms_nobody_is_not_told(change: Any, moment: str, mode: Any) -> None:
    assert found(Outer(Layer(page, **{moment: change})), mode) == []


@both_modes
def test_a_changed_copy_passed_inside_is_how_it_is_done(mode: Any) -> None:
    def copy(scope: Any) -> Any:
        return {
            "path": "/users",
            "headers": [*scope["headers"], (b"x-user", b"admin")],
            "state": {**scope["state"], "user": "admin"},
        }

    assert found(Outer(Layer(Layer(page), copy=copy)), mode) == []


@both_modes
def test_what_only_the_server_holds_too_may_be_changed(mode: Any) -> None:
    """As proxy headers middleware does with ``client`` and ``scheme``."""
    assert found(Layer(page, before=changes("client", ("192.0.2.1", 1))), mode) == []


@both_modes
@pytest.mark.parametrize(("change", "key"), [row[1:] for row in HAZARDS if "lost" not in row[0]][:1])
def test_what_is_allowed_by_name_is_not_told(change: Any, key: str, mode: Any) -> None:
    def state(scope: Any) -> None:
        change(scope)
        scope["state"]["user"] = "admin"
        scope["headers"].append((b"x", b"y"))

    app = Outer(Layer(page, before=state))
    assert found(app, mode, allow=("path", "state.user", "headers")) == []


# -- finding layers


def test_layers_in_closures_in_attributes_and_in_slots_are_found() -> None:
    def closure(app: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            scope["path"] = "/users"
            await app(scope, receive, send)

        return wrapped

    class Slotted:
        __slots__ = ("inner",)

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.inner(scope, receive, send)

    (mutation,) = found(Slotted(closure(page)), "report")
    assert mutation.layer.name.endswith("closure.<locals>.wrapped")
    assert mutation.layer.where.startswith("tests/guards/layers/test_guard_layers.py:")
    assert mutation.seen_by.name.endswith("Slotted")


def test_who_refers_to_itself_or_is_guarded_twice_is_no_endless_chain() -> None:
    app = Layer(page)
    app.app = app
    guarded = guard_layers(app)
    assert guard_layers(guarded) is guarded


def test_lifespan_and_what_layers_offer_pass_through() -> None:
    started: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> Any:
        started.append("started")
        yield {"pool": "a pool"}
        started.append("stopped")

    async def home(request: Request) -> Any:
        return PlainTextResponse(request.state.pool)

    app: Any = guard_layers(Starlette(routes=[Route("/", home, name="home")], lifespan=lifespan))
    assert app.url_path_for("home") == "/"
    with serving(app, config(app={"lifespan": "on"})) as served:
        assert served.connect().send(get("/")).answer().body == b"a pool"
    assert started == ["started", "stopped"]


def test_a_wrong_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="'report' or 'snapshot'"):
        guard_layers(page, "strict")  # type: ignore[arg-type]


# -- warnings


def test_without_a_report_each_layer_and_key_is_warned_of_once_at_its_place() -> None:
    app = guard_layers(Starlette(routes=[Route("/{path:path}", hello)], middleware=[Middleware(Layer, before=strip)]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with serving(app, config()) as served:
            client = served.connect()
            for _ in range(3):
                assert client.send(get("/api/x")).answer().status == 200
    (warning,) = [each for each in caught if each.category is LayerWarning]
    assert warning.filename == "tests/guards/layers/test_guard_layers.py"
    assert warning.lineno == inspect.getsourcelines(Layer)[1]


def test_a_warning_that_is_an_error_fails_the_request_in_tests() -> None:
    app = guard_layers(Starlette(routes=[Route("/{path:path}", hello)], middleware=[Middleware(Layer, before=strip)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", LayerWarning)
        with serving(app, config()) as served:
            assert served.connect().send(get("/api/x")).answer().status == 500
            (failed,) = served.wait(ApplicationFailed)
    assert isinstance(failed.error, LayerWarning)
    assert "scope['path']" in str(failed.error)


def strip(scope: Any) -> None:
    if scope["type"] == "http":
        scope["path"] = scope["path"].removeprefix("/api")


async def hello(request: Request) -> Any:
    return PlainTextResponse("hello " * 200)


@pytest.mark.parametrize("mode", ["off", "report", "snapshot"])
def test_the_server_watches_what_it_serves_when_its_configuration_says_so(mode: str) -> None:
    app = Starlette(routes=[Route("/{path:path}", hello)], middleware=[Middleware(Layer, before=strip)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LayerWarning)
        with serving(app, config(app={"check_layers": mode})) as served:
            assert served.server._app is app if mode == "off" else served.server._app is not app
            assert served.connect().send(get("/api/x")).answer().status == 200
    assert len([each for each in caught if each.category is LayerWarning]) == (mode != "off")


# -- any layers

WRITES = st.tuples(
    st.sampled_from(["before", "on_send", "after"]),
    st.sampled_from(["path", "state.user", "headers", "new"]),
    st.integers(0, 2),
)


KEYS = {"scope['path']": "path", "scope['new']": "new", "state['user']": "state.user", "headers": "headers"}


class Recorded:
    """A layer that writes what it is told to, and notes all that it sees."""

    def __init__(self, app: Any, number: int, writes: list[Any], copies: bool, trace: list[Any]) -> None:
        self.app, self.number, self.writes, self.copies, self.trace = app, number, writes, copies, trace

    def step(self, moment: str, scope: Any) -> None:
        self.trace.append((self.number, moment, scope["path"], dict(scope["state"]), list(scope["headers"])))
        for when, what, value in self.writes:
            if when != moment:
                continue
            if what == "headers":
                scope["headers"].append((b"x", b"%d" % value))
            elif what == "state.user":
                scope["state"]["user"] = value
            else:
                scope[what] = value
        self.trace.append((self.number, moment, scope["path"], dict(scope["state"]), list(scope["headers"])))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.step("before", scope)

        async def sent(message: Any) -> None:
            self.step("on_send", scope)
            await send(message)

        await self.app(dict(scope) if self.copies else scope, receive, sent)
        self.step("after", scope)


@hypothesis.settings(max_examples=80, deadline=None)
@given(layers=st.lists(st.tuples(st.lists(WRITES, max_size=3), st.booleans()), min_size=1, max_size=4))
def test_any_layers_see_the_same_as_unwatched_and_only_who_wrote_is_blamed(layers: Any) -> None:
    def build(trace: list[Any]) -> Any:
        app: Any = page
        for number, (writes, copies) in reversed(list(enumerate(layers))):
            app = Recorded(app, number, writes, copies, trace)
        return app

    async def send(message: Any) -> None:
        pass

    async def main() -> None:
        plain: list[Any] = []
        await build(plain)(fresh(), send, send)
        for mode in ("report", "snapshot"):
            trace: list[Any] = []
            mutations: list[Mutation] = []
            await guard_layers(build(trace), mode, report=mutations.append)(fresh(), send, send)  # type: ignore[arg-type]
            assert mode == "snapshot" or trace == plain
            for mutation in mutations:
                assert mutation.certain
                assert KEYS[mutation.key] in {what for _, what, _ in layers[mutation.layer.depth][0]}
                assert mutation.seen_by.depth != mutation.layer.depth
            if mode == "snapshot":  # what one layer sees is what came in, and what it wrote itself
                for number in range(len(layers)):
                    own = [each for each in trace if each[0] == number]
                    for earlier, later in pairwise(own[1:]):
                        assert later[2:] == earlier[2:] or later[1] == earlier[1]

    asyncio.run(main())


def fresh() -> dict[str, Any]:
    return {"type": "http", "path": "/", "headers": [(b"host", b"a")], "state": {"user": 9}}


# -- real middleware


class Backend(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> Any:
        return AuthCredentials(["authenticated"]), SimpleUser(conn.headers.get("x-user", "nobody"))


class Session:
    """What Starlette's SessionMiddleware does with the scope, which needs itsdangerous."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        connection = HTTPConnection(scope)
        scope["session"] = {"cookies": dict(connection.cookies)}

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("set-cookie", json.dumps(scope["session"]))
            await send(message)

        await self.app(scope, receive, sent)


class Timer(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        request.state.began = 1.0
        response = await call_next(request)
        request.state.took = 2.0
        response.headers["x-user"] = getattr(request.state, "user_seen", "")
        return response


class Thief(BaseHTTPMiddleware):
    """Badly written: after the answer began it changes what the others still use."""

    async def dispatch(self, request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        request.scope["path"] = "/elsewhere"
        request.state.began = 9.0
        return response


GOOD = [
    Middleware(TrustedHostMiddleware, allowed_hosts=["*"]),
    Middleware(CORSMiddleware, allow_origins=["*"], allow_credentials=True),
    Middleware(GZipMiddleware, minimum_size=100),
    Middleware(Session),
    Middleware(AuthenticationMiddleware, backend=Backend()),
    Middleware(Timer),
]


async def home(request: Request) -> Any:
    request.session["seen"] = True
    request.state.user_seen = request.user.display_name
    return JSONResponse({"path": request.url.path, "big": "x" * 500})


async def streamed(request: Request) -> Any:
    request.state.user_seen = "streamed"

    async def pieces() -> Any:
        for _ in range(5):
            yield b"x" * 100
            await asyncio.sleep(0)

    return StreamingResponse(pieces())


async def chat(socket: WebSocket) -> None:
    await socket.accept()
    socket.session["seen"] = True
    for _ in range(50):
        assert socket.headers["host"]
        await socket.send_text(await socket.receive_text())
    await socket.close()


def starlette(*more: Middleware) -> Any:
    sub = Starlette(routes=[Route("/home", home)], middleware=[Middleware(GZipMiddleware)])
    return Starlette(
        routes=[
            Route("/home", home),
            Route("/streamed", streamed),
            WebSocketRoute("/chat", chat),
            Mount("/sub", app=sub, middleware=[Middleware(Layer)]),
            Mount("/router", app=Router(routes=[Route("/home", home)], middleware=[Middleware(Layer)])),
        ],
        middleware=[*GOOD, *more],
    )


def fastapi(*more: Middleware) -> Any:
    app = FastAPI(middleware=[*GOOD, *more])
    sub = FastAPI()

    async def user(request: Request) -> Any:
        yield request.user.display_name

    @app.get("/home")
    @sub.get("/home")
    async def page(request: Request, name: str = Depends(user)) -> Any:
        request.session["seen"] = name
        request.state.user_seen = name
        return {"path": request.url.path, "big": "x" * 500}

    app.add_api_route("/streamed", streamed)
    app.add_api_websocket_route("/chat", chat)
    app.mount("/sub", sub)
    app.mount("/router", sub)
    return app


@both_modes
@pytest.mark.parametrize("make", [starlette, fastapi])
def test_ordinary_middleware_of_starlette_and_fastapi_is_never_blamed(make: Any, mode: Any) -> None:
    mutations: list[Mutation] = []
    apps = make(), guard_layers(make(), mode, report=mutations.append)
    headers = ("x-user: ann", "origin: https://a.example", "cookie: a=b", "accept-encoding: gzip")
    answers: list[list[Any]] = []
    for app in apps:
        with serving(app, config()) as served:
            client = served.connect()
            # A snapshot shows that Timer depends on what an endpoint puts into the state.
            pages = ("/home", "/streamed", "/nowhere", "/sub/home", "/router/home")[: 5 if mode == "report" else 0]
            seen = [client.send(get(path, *headers)).answer() for path in pages]
            answers.append([(each.status, each.body[:4], each.all("x-user")) for each in seen])
            with connect(f"ws://127.0.0.1:{served.port}/chat", proxy=None) as socket:
                for number in range(50):
                    socket.send(str(number))
                    assert socket.recv(10) == str(number)
    assert answers[0] == answers[1]
    assert [str(each) for each in mutations] == []


def test_a_session_inside_of_a_session_takes_the_outer_one_away_and_is_named() -> None:
    mutations: list[Mutation] = []
    inner = Mount("/sub", routes=[Route("/", hello)], middleware=[Middleware(Session)])
    app = guard_layers(Starlette(routes=[inner], middleware=[Middleware(Session)]), report=mutations.append)
    with serving(app, config()) as served:
        assert served.connect().send(get("/sub/")).answer().status == 200
    (mutation,) = mutations
    assert told(mutations) == [("Session", "scope['session']")]
    assert mutation.seen_by.depth < mutation.layer.depth


def test_a_long_websocket_does_not_make_the_journal_grow() -> None:
    sizes: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        journal = next(cell.cell_contents for cell in send.__closure__ if hasattr(cell.cell_contents, "found"))
        for _ in range(100):
            scope["headers"] = list(scope["headers"])
            await send({"type": "websocket.send", "text": "x"})
            sizes.append(len(journal._watched))

    assert found(Outer(Layer(app)), "report", scope(type="websocket")) == []
    assert max(sizes) == sizes[0]


@both_modes
@pytest.mark.parametrize("make", [starlette, fastapi])
def test_badly_written_middleware_is_named_in_a_stack_of_good_ones(make: Any, mode: Any) -> None:
    mutations: list[Mutation] = []

    class Names(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            request.state.user_seen = "set for the layers around"
            return await call_next(request)

    app = guard_layers(make(Middleware(Names), Middleware(Thief)), mode, report=mutations.append)
    with serving(app, config()) as served:
        client = served.connect()
        assert client.send(get("/streamed")).answer().status == 200
        mutations.clear()  # the endpoint overwrites user_seen
        assert client.send(get("/streamed")).answer().status == 200
    blamed = {key: (each.layer.name.rpartition(".")[2], each.certain) for each in mutations for key in [each.key]}
    assert blamed["scope['path']"][0] == "Thief"
    assert blamed["state['began']"][0] == "Thief"
    if mode == "snapshot":
        assert blamed["scope['path']"][1]


def test_the_route_reaches_the_metrics_of_the_server_in_both_modes() -> None:
    for mode in ("report", "snapshot"):
        app = FastAPI()

        @app.get("/users/{number}")
        async def user(number: int) -> int:
            return number

        with serving(guard_layers(app, mode), config()) as served:  # type: ignore[arg-type]
            assert served.connect().send(get("/users/7")).answer().body == b"7"
            (ended,) = served.wait(RequestEnded)
        assert ended.route == "/users/{number}"


def test_an_error_passes_through_and_the_next_request_is_watched_anew() -> None:
    async def fails(request: Request) -> Any:
        raise LookupError("a bug")

    app = guard_layers(Starlette(routes=[Route("/fails", fails), Route("/{p:path}", hello)]))
    with serving(app, config()) as served:
        client = served.connect()
        assert client.send(get("/fails")).answer().status == 500
        assert client.send(get("/")).answer().status == 200
        (failed,) = served.wait(ApplicationFailed)
    assert isinstance(failed.error, LookupError)


def test_httpx_gets_the_same_from_a_guarded_application_over_a_socket() -> None:
    with serving(guard_layers(starlette(), "report"), config()) as served:
        answer = httpx.get(f"http://127.0.0.1:{served.port}/home", headers={"x-user": "ann"}, trust_env=False)
    assert (answer.status_code, answer.headers["x-user"]) == (200, "ann")
