"""Django, served unchanged by its own ASGI handler."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import django
import httpx
import pytest
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path as url

import sojourn
from sojourn.config import Drain
from tests.frameworks.promises import BIG, Log, Promises, eventually
from tests.frameworks.serving import served

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATA_UPLOAD_MAX_MEMORY_SIZE=2 * BIG,
        DEBUG=False,
        LOGGING_CONFIG=None,
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="a test's",
    )
    django.setup()

#: What the pages use; Django's settings, and so its URLs, are one for the process.
HERE: dict[str, Any] = {}


async def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"hello {request.GET['name']}")


def echo(request: HttpRequest) -> HttpResponse:
    """A plain view: Django runs it in a thread."""
    return JsonResponse(json.loads(request.body))


async def upload(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"size": len(request.body)})


async def form(request: HttpRequest) -> HttpResponse:
    file = request.FILES["file"]
    return JsonResponse({"name": file.name, "size": file.size, "field": request.POST["field"]})


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * (BIG // 30)

    return StreamingHttpResponse(pieces())


async def file(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield HERE["path"].read_bytes()

    return StreamingHttpResponse(pieces(), headers={"Content-Length": HERE["path"].stat().st_size})


def plain_file(request: HttpRequest) -> FileResponse:
    return FileResponse(HERE["path"].open("rb"), as_attachment=True)


async def events(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"data: 1\n\n"
            await asyncio.sleep(3600)
        finally:
            HERE["log"].append("events ended")

    return StreamingHttpResponse(pieces(), content_type="text/event-stream")


async def goodbye(request: HttpRequest) -> StreamingHttpResponse:
    async def news() -> AsyncIterator[str]:
        try:
            yield "hello"
            await asyncio.sleep(3600)
        finally:
            HERE["log"].append("events ended")

    return StreamingHttpResponse(sojourn.event_stream(news()), content_type="text/event-stream")


async def fails(request: HttpRequest) -> HttpResponse:
    raise LookupError("a bug")


async def slow(request: HttpRequest) -> HttpResponse:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        HERE["log"].append("view cancelled")
        raise
    return HttpResponse()


urlpatterns = [
    url(name, view)
    for name, view in {
        "hello": hello,
        "echo": echo,
        "upload": upload,
        "form": form,
        "stream": stream,
        "file": file,
        "plain_file": plain_file,
        "events": events,
        "goodbye": goodbye,
        "fails": fails,
        "slow": slow,
    }.items()
]


def make(log: Log, path: Path) -> Any:
    HERE.update(log=log, path=path)
    return get_asgi_application()


@pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")
class TestDjango(Promises):
    make = staticmethod(make)
    hands_on_errors = False

    @pytest.fixture(autouse=True)
    def unclosed(self) -> Iterator[None]:
        """Django leaves a request's body file to the collector when send() raises: let it be found here."""
        yield
        gc.collect()

    def test_a_form_with_a_file(self, client: httpx.Client) -> None:
        answer = client.post("/form", files={"file": ("a.bin", b"x" * BIG)}, data={"field": "value"})
        assert answer.json() == {"name": "a.bin", "size": BIG, "field": "value"}

    @pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")
    def test_a_file_of_a_plain_view(self, client: httpx.Client, path: Path) -> None:
        answer = client.get("/plain_file")
        assert answer.content == path.read_bytes()
        assert "attachment" in answer.headers["content-disposition"]

    def test_a_view_is_cancelled_when_its_client_leaves(self, client: httpx.Client, log: Log) -> None:
        try:
            client.get("/slow", timeout=0.3)
        except httpx.ReadTimeout:
            pass  # that is how it leaves
        log.wait_for("view cancelled")

    def test_a_stream_of_events_says_goodbye_when_the_server_drains(self, log: Log, path: Path) -> None:
        received: list[str] = []

        def read(address: str) -> None:
            with httpx.stream("GET", f"{address}/goodbye", timeout=20) as answer:
                received.extend(answer.iter_lines())  # to its end: a cut would raise

        with served(make(log, path), drain=Drain(delay=0)) as site:
            reader = threading.Thread(target=read, args=(site.url,))
            reader.start()
            eventually(lambda: "data: hello" in received)
        reader.join(20)
        assert any(line.startswith("retry: ") for line in received)
        assert log == ["events ended"]
