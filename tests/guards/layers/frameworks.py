"""The same application in each framework, that fails in the way and at the place that a path names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path as url
from fastapi import Depends, FastAPI
from litestar import Litestar, MediaType, WebSocket, get, websocket
from litestar.background_tasks import BackgroundTask as LitestarTask
from litestar.params import FromPath
from litestar.response import Response as LitestarResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket as StarletteSocket

from tests.asgi.harness import answer

__all__ = [
    "FAILURES",
    "Dispatch",
    "Odd",
    "Steps",
    "django_settings",
    "fastapi",
    "in_django",
    "litestar",
    "plain",
    "starlette",
]


class Odd(BaseException):
    """An exception that is no Exception, as test runners and greenlets have them."""


def raises(error: Callable[[], BaseException]) -> Callable[[], None]:
    def fail() -> None:
        raise error()

    return fail


def recurses() -> None:
    recurses()


#: Ways to fail by name.
FAILURES: dict[str, Callable[[], None]] = {
    "lookup": raises(lambda: LookupError("a bug")),
    "group": raises(lambda: ExceptionGroup("several", [ValueError("a"), KeyError("b")])),
    "odd-group": raises(lambda: BaseExceptionGroup("several", [ValueError("a"), Odd("b")])),
    "exit": raises(lambda: SystemExit(3)),
    "exit-group": raises(lambda: BaseExceptionGroup("several", [SystemExit(3)])),
    "odd": raises(Odd),
    "stop-iteration": raises(StopIteration),
    "stop-async-iteration": raises(StopAsyncIteration),
    "recursion": recurses,
    "memory": raises(MemoryError),
    "cancelled": raises(lambda: asyncio.CancelledError("by itself")),
}


class Steps:
    """Plain ASGI middleware that fails before or after what is inside has answered."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        _, place, kind = f"{scope.get('path', '')}//".split("/")[:3]
        if place == "layer-before":
            FAILURES[kind]()
        await self.app(scope, receive, send)
        if place == "layer-after":
            FAILURES[kind]()


class Dispatch(BaseHTTPMiddleware):
    """The same in Starlette's own kind of middleware."""

    async def dispatch(self, request: Request, call_next: Any) -> Any:
        _, place, kind = f"{request.url.path}//".split("/")[:3]
        if place == "dispatch-before":
            FAILURES[kind]()
        response = await call_next(request)
        if place == "dispatch-after":
            FAILURES[kind]()
        return response


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """No framework at all; ``/ws/KIND`` fails in an open WebSocket, ``/handshake/KIND`` before."""
    _, place, kind = f"{scope['path']}//".split("/")[:3]
    if scope["type"] == "websocket":
        await receive()
        if place == "handshake":
            FAILURES[kind]()
        await send({"type": "websocket.accept"})
        if place == "ws":
            FAILURES[kind]()
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    if place == "endpoint":
        FAILURES[kind]()
    if place == "stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        FAILURES[kind]()
    await answer(send, b"fine")
    if place == "background":
        FAILURES[kind]()


async def pieces(kind: str) -> Any:
    yield b"half"
    FAILURES[kind]()


async def socket(socket: StarletteSocket) -> None:
    if socket.path_params.get("place") == "handshake":
        FAILURES[socket.path_params["kind"]]()
    await socket.accept()
    if socket.path_params.get("place") == "ws":
        FAILURES[socket.path_params["kind"]]()
    await socket.send_text(await socket.receive_text())


def starlette(*more: Middleware) -> Any:
    async def endpoint(request: Request) -> Any:
        FAILURES[request.path_params["kind"]]()

    def threaded(request: Request) -> Any:
        FAILURES[request.path_params["kind"]]()

    async def stream(request: Request) -> Any:
        return StreamingResponse(pieces(request.path_params["kind"]))

    async def background(request: Request) -> Any:
        return PlainTextResponse("fine", background=BackgroundTask(FAILURES[request.path_params["kind"]]))

    async def fine(request: Request) -> Any:
        return PlainTextResponse("fine")

    routes = [Route(f"/{each.__name__}/{{kind}}", each) for each in (endpoint, threaded, stream, background)]
    sockets = [WebSocketRoute("/{place}/{kind}", socket)]
    return Starlette(routes=[*routes, *sockets, Route("/{path:path}", fine)], middleware=[Middleware(Steps), *more])


def fastapi(*more: Middleware) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> Any:
        async def work() -> None:
            raise LookupError("a task of the application's own")

        task = asyncio.create_task(work())
        yield
        await asyncio.wait((task,))
        assert isinstance(task.exception(), LookupError)

    app = FastAPI(middleware=[Middleware(Steps), *more], lifespan=lifespan)

    async def before(kind: str) -> Any:
        FAILURES[kind]()
        yield

    async def after(kind: str) -> Any:
        yield
        FAILURES[kind]()

    @app.get("/endpoint/{kind}")
    async def endpoint(kind: str) -> None:
        FAILURES[kind]()

    @app.get("/threaded/{kind}")
    def threaded(kind: str) -> None:
        FAILURES[kind]()

    @app.get("/dependency-before/{kind}")
    async def dependency_before(given: None = Depends(before)) -> None:
        pass

    @app.get("/dependency-after/{kind}")
    async def dependency_after(given: None = Depends(after)) -> Any:
        return PlainTextResponse("fine")

    @app.get("/stream/{kind}")
    async def stream(kind: str) -> Any:
        return StreamingResponse(pieces(kind))

    @app.get("/background/{kind}")
    async def background(kind: str) -> Any:
        return PlainTextResponse("fine", background=BackgroundTask(FAILURES[kind]))

    @app.get("/{path:path}")
    async def fine() -> Any:
        return PlainTextResponse("fine")

    app.add_api_websocket_route("/{place}/{kind}", socket)
    return app


def litestar() -> Any:
    @get("/endpoint/{kind:str}")
    async def endpoint(kind: FromPath[str]) -> None:
        FAILURES[kind]()

    @get("/threaded/{kind:str}", sync_to_thread=True)
    def threaded(kind: FromPath[str]) -> None:
        FAILURES[kind]()

    @get("/background/{kind:str}")
    async def background(kind: FromPath[str]) -> LitestarResponse[str]:
        async def work() -> None:
            FAILURES[kind]()

        return LitestarResponse("fine", background=LitestarTask(work))

    @get(["/fine", "/layer-after/{kind:str}"], media_type=MediaType.TEXT)
    async def fine() -> str:
        return "fine"

    @websocket("/{place:str}/{kind:str}")
    async def chat(socket: WebSocket[Any, Any, Any], place: FromPath[str], kind: FromPath[str]) -> None:
        if place == "handshake":
            FAILURES[kind]()
        await socket.accept()
        if place == "ws":
            FAILURES[kind]()
        await socket.send_text(await socket.receive_text())

    return Steps(Litestar([endpoint, threaded, background, fine, chat], logging_config=None))


class DjangoSteps:
    """Django's own kind of middleware."""

    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        return self.run(request)

    async def run(self, request: HttpRequest) -> Any:
        _, place, kind = f"{request.path}//".split("/")[:3]
        if place == "dispatch-before":
            FAILURES[kind]()
        response = await self.get_response(request)
        if place == "dispatch-after":
            FAILURES[kind]()
        return response


async def django_endpoint(request: HttpRequest, kind: str) -> HttpResponse:
    FAILURES[kind]()
    return HttpResponse()


def django_threaded(request: HttpRequest, kind: str) -> HttpResponse:
    FAILURES[kind]()
    return HttpResponse()


async def django_stream(request: HttpRequest, kind: str) -> StreamingHttpResponse:
    return StreamingHttpResponse(pieces(kind))


async def django_fine(request: HttpRequest, path: str) -> HttpResponse:
    return HttpResponse("fine")


urlpatterns = [
    url("endpoint/<kind>", django_endpoint),
    url("threaded/<kind>", django_threaded),
    url("stream/<kind>", django_stream),
    url("<path:path>", django_fine),
]


def django_settings() -> override_settings:
    """Settings that hold while this is entered: Django's are one for the process."""
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], DEBUG=False, LOGGING_CONFIG=None, SECRET_KEY="a test's")
        django.setup()
    return override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[f"{__name__}.DjangoSteps"])


def in_django() -> Any:
    """To be called, and its application served, inside of :func:`django_settings`."""
    return Steps(get_asgi_application())
