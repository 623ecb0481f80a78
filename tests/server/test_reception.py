"""What may come in, by what way, and what the application is told of it."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import ssl
import stat
import struct
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
import websockets

from sojourn.config import Bind, Config, Limits, Log, Proxy, Timeouts, Tls
from sojourn.events import ConnectionEnded, RequestEnded
from tests.server.serving import Client, Run, Served, both_loops, hello, serving, until


async def mirror(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what it was told."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    told = {name: scope[name] for name in ("client", "server", "scheme", "path")}
    told["tls"] = scope["extensions"].get("tls")
    body = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def told(answer: bytes) -> Any:
    """What the application was told."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer
    return json.loads(body)


async def talk(run_in: Any, data: bytes) -> bytes:
    """Send something over a socket made by ``run_in``; what comes back."""
    reader, writer = await run_in
    client = Client(reader, writer)
    client.send(data)
    return await client.rest()


GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


# -- TLS


class Files(NamedTuple):
    cert: str
    ca: str
    authority: trustme.CA
    clients: trustme.CA
    #: An authority nobody trusts.
    strangers: trustme.CA


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    authority, clients, strangers = trustme.CA(), trustme.CA(), trustme.CA()
    cert, ca = str(folder / "both.pem"), str(folder / "ca.pem")
    authority.issue_cert("a.example").private_key_and_cert_chain_pem.write_to_path(cert)
    clients.cert_pem.write_to_path(ca)
    return Files(cert, ca, authority, clients, strangers)


def trusting(files: Files, shows: trustme.CA | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client's context; it shows a certificate of that authority."""
    context = ssl.create_default_context()
    files.authority.configure_trust(context)
    if shows is not None:
        shows.issue_cert("client@a.example", common_name="a client").configure_cert(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def tls(files: Files, client_cert: Any = "none", **more: Any) -> Tls:
    return Tls(cert=files.cert, ca=files.ca if client_cert != "none" else None, client_cert=client_cert, **more)


@both_loops
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_application_is_told_of_tls_and_of_the_clients_certificate(
    run: Run, files: Files, version: ssl.TLSVersion
) -> None:
    certificate = Path(files.cert).read_text()

    async def main() -> None:
        async with serving(mirror, tls=tls(files, "optional")) as served:
            answer = told(await served.get(tls=trusting(files, files.clients, version)))
            assert answer["scheme"] == "https"
            assert "CN=a client" in answer["tls"]["client_cert_name"]
            assert answer["tls"]["client_cert_chain"][0].startswith("-----BEGIN CERTIFICATE-----")
            assert answer["tls"]["tls_version"] == {"TLSv1_2": 0x0303, "TLSv1_3": 0x0304}[version.name]
            assert answer["tls"]["server_cert"] in certificate

    run(main())


@both_loops
def test_a_client_certificate_is_optional_or_required_as_configured(run: Run, files: Files) -> None:
    async def main() -> None:
        async with serving(mirror, tls=tls(files, "optional")) as served:
            assert told(await served.get(tls=trusting(files)))["tls"]["client_cert_name"] is None
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            async with serving(mirror, tls=tls(files, "required")) as served:
                assert told(await served.get(tls=trusting(files, files.clients, version)))["tls"]["client_cert_name"]
                answer = b""
                try:
                    answer = await served.get(tls=trusting(files, version=version))
                except OSError:
                    pass  # TLS 1.2 refuses inside the handshake, TLS 1.3 after the client has begun to send
                assert answer == b""
                await until(lambda: served.ended_by["tls_handshake_failed"] == 1)
                assert "showed no certificate" in served.of(ConnectionEnded)[-1].ending.detail

    run(main())


@both_loops
def test_a_failed_handshake_says_why(run: Run, files: Files) -> None:
    async def main() -> None:
        async with serving(mirror, tls=tls(files, "optional", min_version="1.3")) as served:

            def shake_hands(context: ssl.SSLContext) -> None:
                with (
                    suppress(OSError),
                    socket.create_connection(("127.0.0.1", served.port), timeout=5) as sock,
                    context.wrap_socket(sock, server_hostname="a.example") as client,
                ):
                    client.recv(1)  # with TLS 1.3 the server may refuse after the client's handshake is complete

            async def fails(context: ssl.SSLContext) -> str:
                before = len(served.of(ConnectionEnded))
                await asyncio.to_thread(shake_hands, context)  # asyncio's own client does not send its alerts
                await until(lambda: len(served.of(ConnectionEnded)) > before)
                ending = served.of(ConnectionEnded)[-1].ending
                assert ending.reason == "tls_handshake_failed"
                return str(ending.detail)

            assert "not acceptable" in await fails(trusting(files, files.strangers))
            assert "does not know the authority" in await fails(ssl.create_default_context())
            assert "older than tls.min_version" in await fails(trusting(files, version=ssl.TLSVersion.TLSv1_2))
            told(await served.get(tls=trusting(files)))  # and it goes on serving

    run(main())


@both_loops
def test_plain_http_on_a_tls_port_is_named(run: Run, files: Files) -> None:
    async def main() -> None:
        async with serving(mirror, tls=tls(files)) as served:
            assert b"hello" not in await served.get()
            await until(lambda: served.ended_by["plain_on_tls"] == 1)

    run(main())


@both_loops
@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_tls_client_that_leaves_in_the_middle_of_its_request_is_noticed(run: Run, files: Files, how: str) -> None:
    gone = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        while (message := await receive())["type"] != "http.disconnect":
            pass
        gone.append(message)

    async def main() -> None:
        async with serving(app, tls=tls(files)) as served:
            client = await served.connect(trusting(files))
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
            await until(lambda: served.connections[0].requests)
            if how == "closes":
                await client.close()
            else:
                client.abort()
            await until(lambda: gone)
            await until(lambda: served.of(RequestEnded))
            assert served.of(RequestEnded)[0].ending.reason in (
                "unexpected_end_of_request_content",
                "client_reset",
            )
            assert not served.connections

    run(main())


# -- PROXY protocol and forwarded headers

V1 = b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n"
V2 = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
    + socket.inet_aton("203.0.113.9")
    + socket.inet_aton("198.51.100.1")
    + struct.pack("!HH", 4711, 443)
)
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"


@both_loops
@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_a_trusted_proxy_says_whose_connection_it_is(run: Run, files: Files, header: bytes) -> None:
    async def main() -> None:
        async with serving(mirror, proxy=Proxy(protocol="on")) as served:
            answer = told(await served.get(before=header))
            assert (answer["client"], answer["server"]) == (["203.0.113.9", 4711], ["198.51.100.1", 443])
            assert served.of(ConnectionEnded)[0].peer == "203.0.113.9:4711"
            own = told(await served.get(before=LOCAL))
            assert own["client"][0] == "127.0.0.1"

    run(main())


@both_loops
def test_the_proxy_header_comes_before_tls(run: Run, files: Files) -> None:
    async def main() -> None:
        async with serving(mirror, proxy=Proxy(protocol="on"), tls=tls(files)) as served:
            loop = asyncio.get_running_loop()
            sock = socket.socket()
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", served.port))
            await loop.sock_sendall(sock, V2)
            opening = asyncio.open_connection(sock=sock, ssl=trusting(files), server_hostname="a.example")
            answer = told(await talk(opening, GET))
            assert answer["client"] == ["203.0.113.9", 4711]
            assert answer["scheme"] == "https"

    run(main())


@both_loops
def test_a_peer_that_is_not_trusted_can_claim_nothing(run: Run) -> None:
    async def main() -> None:
        proxy = Proxy(protocol="on", trusted=("192.0.2.0/24",))
        async with serving(mirror, proxy=proxy) as served:
            assert (await served.get(before=V1)).startswith(b"HTTP/1.1 400")
            client = await served.connect()
            client.get("/", "Connection: close", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
            answer = told(await client.rest())
            assert answer["client"][0] == "127.0.0.1"
            assert answer["scheme"] == "http"

    run(main())


@both_loops
@pytest.mark.parametrize(
    "header",
    ["Forwarded: for=203.0.113.9;proto=https", "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https"],
)
def test_a_trusted_proxys_headers_are_believed_unless_switched_off(run: Run, header: str) -> None:
    async def main() -> None:
        for switched, expected in ((True, ("203.0.113.9", "https")), (False, ("127.0.0.1", "http"))):
            async with serving(mirror, proxy=Proxy(headers=switched)) as served:
                client = await served.connect()
                client.get("/", "Connection: close", header)
                answer = told(await client.rest())
                assert (answer["client"][0], answer["scheme"]) == expected

    run(main())


# -- ways in


@both_loops
def test_a_unix_socket_has_its_mode_and_a_client_without_address(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "s")

    async def main() -> None:
        config = Config(bind=Bind(uds=path, uds_mode="640"), log=Log(access="off"))
        async with serving(mirror, config) as served:
            assert served.server.addresses == (f"unix:{path}",)
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
            answer = told(await talk(asyncio.open_unix_connection(path), GET))
            assert answer["client"] is None
            assert answer["server"] == [path, None]
            assert served.of(RequestEnded)[0].peer == "unix"

    run(main())
    assert not os.path.exists(path)


@both_loops
def test_a_unix_socket_speaks_plain_http_where_tls_is_on(run: Run, files: Files, tmp_path: Path) -> None:
    path = str(tmp_path / "s")

    async def main() -> None:
        config = Config(bind=Bind(uds=path), log=Log(access="off"), tls=tls(files))
        async with serving(mirror, config):
            assert told(await talk(asyncio.open_unix_connection(path), GET))["scheme"] == "http"

    run(main())


@both_loops
def test_ipv6_and_several_addresses_are_listened_on(run: Run) -> None:
    async def main() -> None:
        bind = Bind(host="127.0.0.1,::1", port=0)
        async with serving(mirror, bind=bind) as served:
            first, second = served.server.addresses
            assert second == f"http://[::1]:{served.port}"
            assert first == f"http://127.0.0.1:{served.port}"
            answer = told(await talk(asyncio.open_connection("::1", served.port), GET))
            assert answer["client"][0] == answer["server"][0] == "::1"
            assert served.of(RequestEnded)[0].peer.startswith("::1")

    run(main())


@both_loops
def test_sockets_that_are_given_stay_open(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            async with serving(mirror, sockets=[sock]) as served:
                told(await served.get())
            with socket.create_connection(sock.getsockname()):  # nobody serves it, but it listens
                assert sock.fileno() > 0

    run(main())


INHERITED = """
    import os, sys
    if sys.argv[1] == "systemd":
        os.dup2(int(sys.argv[2]), 3)
        os.environ["LISTEN_PID"] = str(os.getpid())
    import asyncio
    sys.path.insert(0, os.getcwd())
    from sojourn.config import Bind, Config, Log
    from sojourn.server.server import Server
    from tests.server.serving import hello

    async def main():
        bind = Bind() if sys.argv[1] == "systemd" else Bind(fd=int(sys.argv[2]))
        async with Server(hello, Config(bind=bind, log=Log(access="off"))) as server:
            assert "LISTEN_FDS" not in os.environ
            print(*server.addresses, flush=True)
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())
"""


@pytest.mark.parametrize("way", ["fd", "systemd"])
def test_an_inherited_socket_is_served(way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(INHERITED), way, str(sock.fileno())],
            pass_fds=[sock.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ({"LISTEN_FDS": "1"} if way == "systemd" else {}),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            port = sock.getsockname()[1]
            assert process.stdout.readline() == f"http://127.0.0.1:{port}\n"
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(GET)
                assert b"".join(iter(lambda: client.recv(1000), b"")).endswith(b"hello")
        assert process.returncode == 0


# -- limits


def refused(answer: bytes, reason: str) -> bool:
    """Whether it is the answer to a connection over a limit."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"http/1.1 503 service unavailable", answer
    assert b"retry-after: 7" in lines
    assert b"connection: close" in lines
    assert json.loads(body)["reason"] == reason
    return True


@both_loops
@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(connections=2, retry_after=7), "connection_limit"),
        (Limits(connections_per_ip=2, retry_after=7), "address_limit"),
    ],
)
def test_a_connection_over_the_limit_gets_a_503_and_room_is_made_by_an_end(
    run: Run, limits: Limits, reason: str
) -> None:
    async def main() -> None:
        async with serving(mirror, limits=limits) as served:
            first, second = await served.connect(), await served.connect()
            for client in (first, second):
                client.get()
                await client.head()
            for _ in range(5):  # refused ones take no place
                assert refused(await served.get(), reason)
            await until(lambda: served.ended_by == {reason: 5})
            await first.close()
            await until(lambda: len(served.connections) == 1)
            told(await served.get())

    run(main())


@both_loops
def test_a_refused_upload_is_read_so_that_the_answer_arrives(run: Run) -> None:
    async def main() -> None:
        async with serving(mirror, limits=Limits(connections=1, retry_after=7)) as served:
            await served.connect()
            client = await served.connect()
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000)
            assert refused(await client.rest(), "connection_limit")

    run(main())


@both_loops
def test_a_refused_client_that_neither_reads_nor_leaves_is_gone_after_the_linger_time(run: Run) -> None:
    async def main() -> None:
        timeouts = Timeouts(linger=0.2, close=0.2)
        async with serving(mirror, limits=Limits(connections=1), timeouts=timeouts) as served:
            await served.connect()
            await served.connect()
            await until(lambda: served.ended_by["connection_limit"] == 1, seconds=2)

    run(main())


@both_loops
def test_websockets_count_and_can_be_refused(run: Run) -> None:
    async def main() -> None:
        async with serving(mirror, limits=Limits(connections=2, retry_after=7)) as served:
            url = f"ws://127.0.0.1:{served.port}/"
            async with websockets.connect(url, proxy=None), websockets.connect(url, proxy=None):
                with pytest.raises(websockets.InvalidStatus) as caught:
                    async with websockets.connect(url, proxy=None):
                        pass
                assert caught.value.response.status_code == 503
                assert caught.value.response.headers["retry-after"] == "7"
                assert refused(await served.get(), "connection_limit")
            await until(lambda: not served.connections)
            async with websockets.connect(url, proxy=None):
                pass

    run(main())


@both_loops
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_addresses_that_a_proxy_announces_are_limited_and_the_proxys_own_is_not(
    run: Run, files: Files, secure: bool
) -> None:
    def client(number: int) -> bytes:
        return b"PROXY TCP4 203.0.113.%d 127.0.0.1 1 80\r\n" % number

    async def main() -> None:
        config = {"limits": Limits(connections_per_ip=1, retry_after=7), "proxy": Proxy(protocol="on")}
        async with serving(mirror, **config, tls=tls(files) if secure else Tls()) as served:
            clients = []
            for number in (1, 2, 3):
                clients.append(await served.connect())
                clients[-1].send(client(number))
            await until(lambda: {c.peer[0] for c in served.connections} == {f"203.0.113.{n}" for n in (1, 2, 3)})  # type: ignore[index]
            again = await served.connect()
            again.send(client(2) + GET)
            answer = await again.rest()
            assert answer == b"" if secure else refused(answer, "address_limit")
            await until(lambda: served.ended_by["address_limit"] == 1)
            await clients[1].close()
            await until(lambda: len(served.connections) == 2)
            fifth = await served.connect()
            fifth.send(client(2))
            await until(lambda: len(served.connections) == 3 and all(c.admitted != "unix" for c in served.connections))
            health = await served.connect()  # the proxy's own connection, as its health checks are
            health.send(LOCAL)
            await until(lambda: len(served.connections) == 4)

    run(main())


@both_loops
def test_over_tls_a_connection_over_the_limit_is_just_closed(run: Run, files: Files) -> None:
    async def main() -> None:
        async with serving(mirror, limits=Limits(connections=1), tls=tls(files)) as served:
            await served.connect(trusting(files))
            with pytest.raises(OSError):  # noqa: PT011 - a reset, or an end inside the handshake
                await served.connect(trusting(files))
            assert served.of(ConnectionEnded)[0].ending.reason == "connection_limit"

    run(main())


EXHAUSTED = """
    import asyncio, json, os, resource, sys
    sys.path.insert(0, os.getcwd())
    from sojourn.bus import Bus
    from sojourn.config import Bind, Config, Log
    from sojourn.events import AcceptPaused, AcceptResumed
    from sojourn.server.server import Server
    from tests.server.serving import hello
    import uvloop

    def say(*words):
        print(*words, flush=True)

    async def main():
        bus = Bus()
        bus.observe(AcceptPaused, lambda event: say("paused", event.cause))
        bus.observe(AcceptResumed, lambda event: say("resumed"))
        async with Server(hello, Config(bind=Bind(port=0), log=Log(access="off")), bus=bus) as server:
            used = len(os.listdir("/proc/self/fd")) - 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, used + 20))
            say(server.addresses[0].rpartition(":")[2])
            await asyncio.to_thread(sys.stdin.read)
            registry = server.runtime.registry
            say("open", len(registry), "balance", registry.accepted - registry.ended - len(registry))

    (uvloop.run if sys.argv[1] == "uvloop" else asyncio.run)(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_out_of_file_descriptors_it_serves_whom_it_has_and_recovers(loop: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(EXHAUSTED), loop],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        port = int(process.stdout.readline())
        clients = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(30)]
        assert process.stdout.readline() == "paused fd_exhausted\n"
        for client in clients[:15]:
            for _ in range(2):
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = client.recv(1000)
                assert answer.endswith(b"hello")
        for client in clients:
            client.close()
        assert process.stdout.readline() == "resumed\n"  # one report for the whole shortage
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(GET)
            assert b"".join(iter(lambda: client.recv(1000), b"")).endswith(b"hello")
        process.stdin.close()
        assert process.stdout.read() == "open 0 balance 0\n"
    assert process.returncode == 0


# -- everything at once


@both_loops
def test_after_a_storm_of_clients_every_connection_is_accounted_for(run: Run, files: Files) -> None:
    context = trusting(files)

    async def one(served: Served, number: int) -> None:
        try:
            client = await served.connect(context if number % 2 else None)
        except OSError:
            return  # refused
        match number % 5:
            case 0:
                client.abort()
            case 1:
                client.send(b"GET / HTT")
                client.writer.close()
            case 2:
                client.get()
                await client.close()
            case 3:
                client.send(b"nonsense\r\n\r\n")
                await client.rest()
            case _:
                client.send(GET)
                await client.rest()

    async def main() -> None:
        async with serving(hello, tls=tls(files), limits=Limits(connections=40, connections_per_ip=40)) as served:
            plain = asyncio.gather(*(one(served, number) for number in range(150)))
            await plain
            await until(lambda: not served.connections)
            registry = served.server.runtime.registry
            assert registry.accepted == registry.ended == sum(registry.ended_by.values()) > 100

    run(main())


def test_the_limit_of_descriptors_is_that_of_the_machine() -> None:
    """The subprocess above lowers its own limit only."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 100
