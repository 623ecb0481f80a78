"""A connection can end in every stage of its set-up, and then nothing is left: no socket, no task, no count."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from sojourn.asgi import http
from sojourn.config import Bind, Config, Limits, Log, Proxy, Timeouts, Tls
from sojourn.ending import Ending, How
from sojourn.events import ConnectionEnded
from sojourn.net.connection import Connection
from sojourn.server import reception
from sojourn.server.reception import Reception
from tests.server.serving import Run, Served, both_loops, serving, until

PROXY = b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n"


class Files:
    """A certificate on disk, and a context that trusts it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        leaf = authority.issue_cert("a.example")
        self.both = str(folder / "both.pem")
        leaf.private_key_and_cert_chain_pem.write_to_path(self.both)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


def settings(files: Files, *, proxy: bool, tls: bool, timeouts: Timeouts | None = None) -> Config:
    return Config(
        bind=Bind(port=0),
        log=Log(access="off"),
        limits=Limits(connections=3, connections_per_ip=2),
        proxy=Proxy(protocol="on" if proxy else "off"),
        tls=Tls(cert=files.both) if tls else Tls(),
        timeouts=timeouts or Timeouts(),
    )


class Stage:
    """How a raw client gets a connection into a stage of its set-up."""

    def __init__(self, *, proxy: bool, tls: bool, sends: bytes, phase: str) -> None:
        self.proxy, self.tls, self.sends, self.phase = proxy, tls, sends, phase


#: The first bytes of a TLS record that never becomes complete.
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01"
STAGES = {
    "plain, nothing sent": Stage(proxy=False, tls=False, sends=b"", phase="HEAD"),
    "before the PROXY header": Stage(proxy=True, tls=False, sends=b"", phase="TLS"),
    "inside the PROXY header": Stage(proxy=True, tls=False, sends=PROXY[:20], phase="TLS"),
    "after the PROXY header": Stage(proxy=True, tls=False, sends=PROXY, phase="HEAD"),
    "before the PROXY header, TLS": Stage(proxy=True, tls=True, sends=PROXY[:9], phase="TLS"),
    "before the handshake": Stage(proxy=False, tls=True, sends=b"", phase="TLS"),
    "inside the handshake": Stage(proxy=False, tls=True, sends=HELLO, phase="TLS"),
    "after the PROXY header, before the handshake": Stage(proxy=True, tls=True, sends=PROXY, phase="TLS"),
    "after the PROXY header, inside the handshake": Stage(proxy=True, tls=True, sends=PROXY + HELLO, phase="TLS"),
}
on_every_stage = pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)


async def connect(served: Served, stage: Stage) -> tuple[socket.socket, Connection]:
    """A client in that stage, and the server's side of it."""
    loop = asyncio.get_running_loop()
    known = len(served.connections)
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", served.port))
    await loop.sock_sendall(sock, stage.sends)
    await until(lambda: len(served.connections) > known)
    await asyncio.sleep(0.02)
    return sock, served.connections[-1]


async def sees_the_end(sock: socket.socket) -> bool:
    """Whether the client's socket comes to an end; a reset is one."""
    with sock:
        async with asyncio.timeout(5):
            try:
                while await asyncio.get_running_loop().sock_recv(sock, 1000):
                    pass
            except ConnectionError:
                pass
    return True


def nothing_is_left(served: Served) -> bool:
    """No connection, and the limits of the configuration are all free again."""
    return not served.connections and admission(served).open == admission(served).addresses == 0


def admission(served: Served) -> reception.Connections:
    left = served.server.runtime.registry.left
    owner: Reception = left.__self__  # type: ignore[union-attr]
    return owner._admission


@both_loops
@on_every_stage
def test_the_server_can_end_it(run: Run, files: Files, stage: Stage) -> None:
    async def main() -> None:
        async with serving(config=settings(files, proxy=stage.proxy, tls=stage.tls)) as served:
            for _ in range(4):  # more than the limit admits at once
                sock, connection = await connect(served, stage)
                assert connection.phase.name == stage.phase
                connection.end(Ending("admin_kill", connection.phase, How.LOCAL_ABORT), abort=True)
                assert await sees_the_end(sock)
                await until(lambda: nothing_is_left(served))
            assert served.ended_by == {"admin_kill": 4}

    run(main())


@both_loops
@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize(("proxy", "tls"), [(False, False), (True, False), (False, True), (True, True)])
def test_it_can_end_in_any_of_its_first_turns(run: Run, files: Files, turns: int, proxy: bool, tls: bool) -> None:
    """Right at its acceptance, before the task that sets it up has run, and in the turns of the loop after that."""

    async def main() -> None:
        async with serving(config=settings(files, proxy=proxy, tls=tls)) as served:
            registry = served.server.runtime.registry
            enter = registry.enter

            def kill(number: int, left: int) -> None:
                connection = registry.get(number)
                if connection is None:
                    return
                if left:
                    asyncio.get_running_loop().call_soon(kill, number, left - 1)
                else:
                    connection.end(Ending("admin_kill", connection.phase, How.LOCAL_ABORT), abort=True)

            def enter_and_kill(connection: Connection) -> int:
                number = enter(connection)
                asyncio.get_running_loop().call_soon(kill, number, turns)
                return number

            type(registry).enter, original = (  # slots: an instance can't have a method of its own
                lambda self, connection: enter_and_kill(connection),
                type(registry).enter,
            )
            try:
                loop = asyncio.get_running_loop()
                sock = socket.socket()
                sock.setblocking(False)
                await loop.sock_connect(sock, ("127.0.0.1", served.port))
                await loop.sock_sendall(sock, PROXY * proxy)
                assert await sees_the_end(sock)
            finally:
                type(registry).enter = original  # type: ignore[method-assign]
            await until(lambda: nothing_is_left(served))
            assert served.ended_by == {"admin_kill": 1}

    run(main())


@both_loops
@on_every_stage
@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
def test_the_client_can_end_it(run: Run, files: Files, stage: Stage, reset: bool) -> None:
    async def main() -> None:
        async with serving(config=settings(files, proxy=stage.proxy, tls=stage.tls)) as served:
            for _ in range(4):
                sock, _ = await connect(served, stage)
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
                await until(lambda: nothing_is_left(served))
            (word,) = served.ended_by
            assert word in {"connected_no_data", "invalid_proxy_header", "tls_handshake_failed", "client_reset"}

    run(main())


SHORT = Timeouts(header=0.2, proxy=0.2, tls=0.2)
DEADLINES = {
    "plain, nothing sent": "request_headers_timeout",
    "before the PROXY header": "proxy_header_timeout",
    "inside the PROXY header": "proxy_header_timeout",
    "after the PROXY header": "request_headers_timeout",
    "before the PROXY header, TLS": "proxy_header_timeout",
}


@both_loops
@pytest.mark.parametrize("name", STAGES)
def test_its_deadline_can_end_it(run: Run, files: Files, name: str) -> None:
    async def main() -> None:
        stage = STAGES[name]
        async with serving(config=settings(files, proxy=stage.proxy, tls=stage.tls, timeouts=SHORT)) as served:
            sock, _ = await connect(served, stage)
            assert await sees_the_end(sock)
            await until(lambda: nothing_is_left(served))
            (ended,) = served.of(ConnectionEnded)
            assert ended.ending.reason == DEADLINES.get(name, "tls_timeout")
            assert ended.ending.how is How.TIMEOUT

    run(main())


@both_loops
@on_every_stage
def test_a_shutdown_can_end_it(run: Run, files: Files, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_FIRST_REQUEST", 0.2)

    async def main() -> None:
        async with serving(config=settings(files, proxy=stage.proxy, tls=stage.tls)) as served:
            sock, _ = await connect(served, stage)
            served.server.stop()
            assert await sees_the_end(sock)
            report = await served.server.wait_stopped()
            assert report.cut == 0
            assert served.ended_by == {"drain_goodbye": 1}

    run(main())


@both_loops
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_it_can_end_between_the_proxy_header_and_what_follows(
    run: Run, files: Files, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Callable[..., object] = Reception._read_preface

    async def read_and_end(self: Reception, connection: Connection, *more: object) -> bool:
        goes_on = await read(self, connection, *more)  # type: ignore[misc]
        connection.end(Ending("admin_kill", connection.phase, How.LOCAL_ABORT))
        return bool(goes_on)

    async def main() -> None:
        async with serving(config=settings(files, proxy=True, tls=tls)) as served:
            sock, _ = await connect_and_forget(served, PROXY)
            assert await sees_the_end(sock)
            await until(lambda: nothing_is_left(served))
            assert served.ended_by == {"admin_kill": 1}

    monkeypatch.setattr(Reception, "_read_preface", read_and_end)
    run(main())


async def connect_and_forget(served: Served, data: bytes) -> tuple[socket.socket, None]:
    sock = socket.socket()
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", served.port))
    await loop.sock_sendall(sock, data)
    return sock, None


@both_loops
def test_a_bug_in_the_set_up_ends_its_connection_and_is_told(
    run: Run, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Reception, *more: object) -> bool:
        raise LookupError("a bug")

    async def main() -> None:
        told: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with serving(config=settings(files, proxy=True, tls=False)) as served:
            sock, _ = await connect_and_forget(served, PROXY)
            assert await sees_the_end(sock)
            await until(lambda: nothing_is_left(served))
            assert served.ended_by == {"internal_error": 1}
            assert isinstance(told[0]["exception"], LookupError)

    monkeypatch.setattr(Reception, "_read_preface", broken)
    run(main())
