"""Where spans go: an application's own provider stays, otherwise the OTEL_* variables decide."""

from __future__ import annotations

import asyncio
import builtins
import http.server
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from sojourn.config import App, Config
from sojourn.errors import ConfigError
from sojourn.events import ServerStarted
from sojourn.observe.traces import open_traces
from sojourn.observe.traces.provider import Provider
from sojourn.testing.server import MemoryServer


class Process:
    """Stands for the one provider that a process can set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.provider: Any = trace.ProxyTracerProvider()
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)  # what tracers made before look at
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: self.provider)
        monkeypatch.setattr(trace, "set_tracer_provider", self.set)

    def set(self, provider: Any) -> None:
        self.provider = provider
        self._monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    made = Process(monkeypatch)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    yield made
    if isinstance(made.provider, TracerProvider):
        made.provider.shutdown()


class Collector:
    """An OTLP endpoint that counts what it gets."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """It has nothing to say."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def serve_one() -> None:
    async with MemoryServer(hello, Config(app=App(lifespan="off"))) as server:
        traces = open_traces(server.site)
        server.bus.emit(ServerStarted(()))
        server.connect().get("/orders")
        await server.settle()
        traces.close()


def test_without_a_provider_of_the_application_spans_go_where_otel_variables_say(
    process: Process, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server.server_port}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    asyncio.run(serve_one())
    (body,) = collector.bodies
    assert b"/orders" in body
    assert b"shop" in body


def test_a_provider_that_the_application_sets_up_while_it_starts_is_kept(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    provider = Provider()
    theirs = TracerProvider(shutdown_on_exit=False)
    process.set(theirs)
    provider.ensure()
    assert process.provider is theirs
    provider.close()


def test_none_sets_up_nothing(process: Process) -> None:
    provider = Provider()
    provider.ensure()
    provider.close()
    assert not provider.is_set


def test_an_unknown_exporter_is_refused_at_the_start(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(ConfigError, match="'zipkin'; there are otlp, console and none"):
        Provider()
    process.set(TracerProvider(shutdown_on_exit=False))
    Provider()  # what it says does not matter then


def test_an_exporter_that_is_not_installed_is_named(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    _forbid(monkeypatch, "opentelemetry.exporter.otlp.proto.http.trace_exporter")
    with pytest.raises(ConfigError, match="opentelemetry-exporter-otlp-proto-http"):
        Provider()


def test_without_opentelemetry_the_configuration_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "sojourn.observe.traces.traces", raising=False)
    _forbid(monkeypatch, "opentelemetry")
    with pytest.raises(ConfigError, match=r"pip install 'sojourn\[traces\]'"):
        open_traces(None)  # type: ignore[arg-type]


def _forbid(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Pretend that a package is not installed."""
    real = builtins.__import__

    def importing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == package or name.startswith(f"{package}."):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", importing)
