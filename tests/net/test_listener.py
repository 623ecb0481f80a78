"""Accepting: in batches, in clean contexts, without busy loops, with one report for each shortage."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import select
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, ContextVar
from typing import Any

import pytest
import uvloop

from sojourn.bus import Bus
from sojourn.clock import ManualClock
from sojourn.config import Bind
from sojourn.events import AcceptPaused, AcceptResumed
from sojourn.net import listener as listener_module
from sojourn.net.listener import ASIDE, BATCH, LEFT, Listener, tune

Run = Callable[[Coroutine[Any, Any, None]], None]
on_both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class Scene:
    """A listener on a real port inside a running loop."""

    def __init__(
        self,
        accepted: Callable[[socket.socket, Any], None] | None = None,
        settings: Bind | None = None,
        ahead: Callable[[], bool] | None = None,
        server: socket.socket | None = None,
    ) -> None:
        self.server = server or socket.create_server(("127.0.0.1", 0), backlog=500)
        self.clients: list[socket.socket] = []
        self.taken: list[tuple[socket.socket, Any]] = []
        self.events: list[AcceptPaused | AcceptResumed] = []
        bus, loop = Bus(), asyncio.get_running_loop()
        self.now = loop.time
        bus.observe(AcceptPaused, self.events.append)
        bus.observe(AcceptResumed, self.events.append)
        self.listener = Listener(
            loop,
            self.server,
            name="http://test",
            settings=settings or Bind(),
            accepted=accepted or (lambda sock, address: self.taken.append((sock, address))),
            bus=bus,
            call_later=loop.call_later,
            now=loop.time,
            ahead=ahead,
        )

    def connect(self, number: int = 1) -> None:
        for _ in range(number):
            self.clients.append(socket.create_connection(self.server.getsockname(), timeout=5))

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        for sock in (*self.clients, *(sock for sock, _ in self.taken)):
            sock.close()


async def turns(number: int = 5) -> None:
    """Some turns of the loop, a millisecond each; 0 for one without a wait."""
    loop = asyncio.get_running_loop()
    if number == 0:
        await asyncio.sleep(0)
    for _ in range(number):
        turn = loop.create_future()
        loop.call_later(0.001, turn.set_result, None)
        await turn


@on_both_loops
def test_all_that_connect_are_accepted_in_batches(run: Run) -> None:
    async def main() -> None:
        sizes: list[int] = []

        def accepted(sock: socket.socket, address: Any) -> None:
            if sum(sizes) == len(scene.taken):  # the first of a batch; call_soon runs before sockets are polled again
                asyncio.get_running_loop().call_soon(lambda: sizes.append(len(scene.taken) - sum(sizes)))
            scene.taken.append((sock, address))

        with Scene(accepted) as scene:
            scene.connect(BATCH * 2 + 5)
            scene.listener.start()
            assert scene.listener.accepting
            await turns()
            assert sizes == [BATCH, BATCH, 5]
            peers = {client.getsockname() for client in scene.clients}
            assert {address for _, address in scene.taken} == peers
            assert scene.listener.accepts == len(peers)
            assert scene.events == []

    run(main())


@on_both_loops
def test_accepted_sockets_are_non_blocking_and_inherit_the_listeners_options(run: Run) -> None:
    async def main() -> None:
        settings = Bind(tcp_keepalive_idle=33, tcp_keepalive_interval=7, tcp_keepalive_probes=4, tcp_user_timeout=4.321)
        with Scene(settings=settings) as scene:
            scene.listener.start()
            scene.connect()
            await turns()
            tune(scene.server, Bind(tcp_keepalive_idle=None, tcp_user_timeout=None))
            scene.connect()
            await turns()
            (first, _), (second, _) = scene.taken
            assert first.getblocking() is False
            assert not first.get_inheritable()
            tcp = socket.IPPROTO_TCP
            assert first.getsockopt(tcp, socket.TCP_NODELAY)
            assert first.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            assert [first.getsockopt(tcp, option) for option in options] == [33, 7, 4, 4321]
            assert not second.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert second.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 0

    run(main())


@on_both_loops
def test_a_unix_socket_is_accepted_from_as_well(run: Run, tmp_path: Any) -> None:
    async def main() -> None:
        with Scene() as scene:
            unix = socket.socket(socket.AF_UNIX)
            unix.bind(str(tmp_path / "a.sock"))
            unix.listen()
            loop = asyncio.get_running_loop()
            listener = Listener(
                loop, unix, name="unix:a", settings=Bind(), bus=Bus(), call_later=loop.call_later, now=loop.time,
                accepted=lambda sock, address: scene.taken.append((sock, address)),
            )  # fmt: skip
            listener.start()
            scene.clients.append(socket.socket(socket.AF_UNIX))
            scene.clients[0].connect(str(tmp_path / "a.sock"))
            await turns()
            listener.close()
            assert scene.taken[0][1] in ("", b"")

    run(main())


@on_both_loops
def test_each_connection_has_a_context_of_its_own(run: Run) -> None:
    async def main() -> None:
        seen: list[str] = []

        def accepted(sock: socket.socket, address: Any) -> None:
            seen.append(WHO.get())
            WHO.set("a client")  # as code behind the callback would
            sock.close()

        with Scene(accepted) as scene:
            WHO.set("the starter")
            scene.listener.start()
            scene.connect(3)
            await turns()
            scene.listener.pause("test")
            WHO.set("the resumer")
            scene.listener.resume()
            scene.connect(2)
            await turns()
        assert seen == ["nobody"] * 5

    run(main())


@on_both_loops
def test_a_callback_that_raises_loses_its_connection_only(run: Run) -> None:
    async def main() -> None:
        taken: list[socket.socket] = []

        def accepted(sock: socket.socket, address: Any) -> None:
            if len(taken) < 1:
                taken.append(sock)
                raise LookupError("bug")
            taken.append(sock)

        with Scene(accepted) as scene:
            scene.listener.start()
            scene.connect(2)
            await turns()
            assert scene.listener.failures == 1
            assert isinstance(scene.listener.last_failure, LookupError)
            assert taken[0].fileno() == -1
            assert scene.clients[0].recv(1) == b""
            assert taken[1].fileno() > 0
            taken[1].close()

    run(main())


@on_both_loops
def test_a_pause_leaves_connections_in_the_backlog_and_is_reported_once(run: Run) -> None:
    async def main() -> None:
        with Scene() as scene:
            scene.listener.start()
            scene.listener.pause("connection_limit")
            scene.listener.pause("drain")
            scene.connect(3)
            await turns()
            assert scene.taken == []
            assert not scene.listener.accepting
            scene.listener.resume()
            scene.listener.resume()
            await turns()
            assert len(scene.taken) == 3
            paused, resumed = scene.events
            assert paused == AcceptPaused("http://test", "connection_limit")
            assert isinstance(resumed, AcceptResumed)
            assert resumed.seconds > 0

    run(main())


@on_both_loops
def test_the_callback_can_pause_and_close_in_the_middle_of_a_batch(run: Run) -> None:
    async def main() -> None:
        def accepted(sock: socket.socket, address: Any) -> None:
            scene.taken.append((sock, address))
            if len(scene.taken) == 2:
                scene.listener.pause("connection_limit")
            if len(scene.taken) == 4:
                scene.listener.close()

        with Scene(accepted) as scene:
            scene.listener.start()
            scene.connect(6)
            await turns()
            assert len(scene.taken) == 2
            scene.listener.resume()
            await turns()
            assert len(scene.taken) == 4
            scene.listener.resume()
            scene.listener.pause("late")
            await turns()
            assert scene.server.fileno() == -1
            assert len(scene.events) == 2

    run(main())


@on_both_loops
def test_what_the_kernel_has_queued_can_be_taken_in_before_the_end(run: Run) -> None:
    async def main() -> None:
        with Scene() as scene:
            scene.listener.start()
            scene.listener.pause("drain")
            scene.connect(BATCH + 3)
            assert scene.listener.accept_pending() == BATCH + 3
            assert scene.listener.accept_pending() == 0
            scene.listener.close()
            assert scene.listener.accept_pending() == 0
            scene.taken[-1][0].sendall(b"served")
            port = scene.taken[-1][1]
            (client,) = [client for client in scene.clients if client.getsockname() == port]
            assert client.recv(10) == b"served"

    run(main())


@on_both_loops
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_before_the_end_nobody_begins_to_connect_and_who_is_connected_comes_in(
    run: Run, family: socket.AddressFamily, host: str
) -> None:
    async def main() -> None:
        server = socket.socket(family)
        server.bind((host, 0))
        server.listen()
        with Scene(server=server) as scene:
            scene.listener.start()
            scene.listener.pause("drain")
            address = server.getsockname()
            with socket.socket(family) as early, socket.socket(family) as late:
                early.connect(address)
                scene.listener.stop_handshakes()
                late.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    late.connect(address)
                assert scene.listener.accept_pending() == 1
                scene.listener.close()
                scene.taken[-1][0].sendall(b"served")
                assert early.recv(10) == b"served"

    run(main())


@on_both_loops
def test_who_is_ahead_lets_others_go_first(run: Run) -> None:
    async def main() -> None:
        with Scene(ahead=lambda: True) as first, Scene(server=first.server.dup()) as second:
            first.listener.start()
            second.listener.start()
            for _ in range(20):
                first.connect()
                await turns(1)
            assert (len(first.taken), len(second.taken)) == (0, 20)
            assert first.listener.accepting
            assert first.events == []

    run(main())


@on_both_loops
def test_who_is_ahead_takes_what_others_leave(run: Run) -> None:
    """As when all others hang: a short wait for each few connections, and nobody is left out."""

    async def main() -> None:
        taken_when_asked: list[int] = []

        def ahead() -> bool:
            taken_when_asked.append(len(scene.taken))
            return True

        with Scene(ahead=ahead) as scene:
            scene.connect(3 * LEFT)
            scene.listener.start()
            began = scene.now()
            while len(scene.taken) < 3 * LEFT and scene.now() < began + 5:
                await turns(1)
            assert scene.now() - began >= 3 * ASIDE / 2  # uvloop's timers have whole milliseconds
            await turns()
            assert len(scene.taken) == 3 * LEFT
            assert taken_when_asked == [0, LEFT, 2 * LEFT]

    run(main())


@on_both_loops
def test_a_batch_ends_when_others_are_to_go_on(run: Run) -> None:
    async def main() -> None:
        with Scene(ahead=lambda: len(scene.taken) >= 5) as scene:
            scene.connect(6)
            scene.listener.start()
            while not scene.taken:
                await turns(0)
            assert len(scene.taken) == 5
            await turns()
            assert len(scene.taken) == 6

    run(main())


@on_both_loops
def test_two_that_compare_themselves_share_a_burst(run: Run) -> None:
    async def main() -> None:
        with (
            Scene(ahead=lambda: len(first.taken) > len(second.taken)) as first,
            Scene(ahead=lambda: len(second.taken) > len(first.taken), server=first.server.dup()) as second,
        ):
            first.connect(200)
            first.listener.start()
            second.listener.start()
            for _ in range(2000):
                await turns(1)
                if len(first.taken) + len(second.taken) == 200:
                    break
            assert len(first.taken) + len(second.taken) == 200
            assert abs(len(first.taken) - len(second.taken)) <= 2 * LEFT

    run(main())


@on_both_loops
@pytest.mark.parametrize("what", ["pause", "close"])
def test_who_stands_aside_can_be_paused_and_closed(run: Run, what: str) -> None:
    async def main() -> None:
        asked = 0

        def ahead() -> bool:
            nonlocal asked
            asked += 1
            if what == "pause":
                asyncio.get_running_loop().call_soon(scene.listener.pause, "drain")
            else:
                asyncio.get_running_loop().call_soon(scene.listener.close)
            return True

        with Scene(ahead=ahead) as scene:
            scene.listener.start()
            scene.connect(3)
            await turns(20)
            assert (scene.taken, asked) == ([], 1)
            assert not scene.listener.accepting
            if what == "pause":
                assert scene.listener.accept_pending() == 3

    run(main())


@on_both_loops
def test_the_last_one_takes_in_all_also_while_it_stands_aside(run: Run) -> None:
    async def main() -> None:
        def ahead() -> bool:
            asyncio.get_running_loop().call_soon(scene.listener.accept_pending)
            return True

        with Scene(ahead=ahead) as scene:
            scene.connect(BATCH + 3)
            scene.listener.start()
            while not scene.taken:
                await turns(0)
            assert len(scene.taken) == BATCH + 3
            await turns()
            assert scene.listener.accepting

    run(main())


@on_both_loops
def test_a_pause_before_the_start_holds(run: Run) -> None:
    async def main() -> None:
        with Scene() as scene:
            scene.listener.pause("startup")
            assert scene.events == []
            scene.listener.start()
            scene.connect()
            await turns()
            assert scene.taken == []
            assert scene.events == [AcceptPaused("http://test", "startup")]
            with pytest.raises(RuntimeError, match="started before"):
                scene.listener.start()

    run(main())


@on_both_loops
def test_the_starters_context_is_not_kept_alive(run: Run) -> None:
    class Identity:
        """Something that a context refers to."""

    holder: ContextVar[Identity] = ContextVar("holder")

    def start(scene: Scene) -> weakref.ref[Identity]:
        identity = Identity()
        holder.set(identity)
        scene.listener.start()
        return weakref.ref(identity)

    async def main() -> None:
        with Scene() as scene:
            left = Context().run(start, scene)
            gc.collect()
            assert left() is None

    run(main())


# -- shortages, with a socket and a clock that do what they are told


class Shortage:
    """A listener whose accept() answers from a script, with timers that run when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = ManualClock()
        self.script: list[int] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.delays: list[float] = []
        self.events: list[AcceptPaused | AcceptResumed] = []
        self.watched: Callable[[], None] | None = None
        self.reserves: set[int] = set()
        self.reserve_fails = False
        self.family = socket.AF_UNIX
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(os, "close", self.reserves.remove)
        bus, fake = Bus(), _Untyped(self)
        bus.observe(AcceptPaused, self.events.append)
        bus.observe(AcceptResumed, self.events.append)
        self.listener = Listener(
            fake.loop, fake.sock, name="fake", settings=Bind(), bus=bus, now=self.clock.monotonic,
            accepted=lambda sock, address: sock.close(), call_later=self.call_later,
        )  # fmt: skip

    def open(self, *_: object) -> int:
        if self.reserve_fails:
            raise OSError(errno.EMFILE, "none left")
        number = 1000 + len(self.delays)
        self.reserves.add(number)
        return number

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.delays.append(delay)
        self.timers.append((self.clock.monotonic() + delay, callback))

    def advance(self, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        while self.timers and min(self.timers, key=lambda timer: timer[0])[0] <= end:
            timer = min(self.timers, key=lambda timer: timer[0])
            self.timers.remove(timer)
            self.clock.advance(max(0.0, timer[0] - self.clock.monotonic()))
            timer[1]()
        self.clock.advance(end - self.clock.monotonic())

    def watching(self) -> bool:
        """Whether the loop watches the socket."""
        return self.watched is not None

    def readable(self, *script: int) -> None:
        """The loop finds the socket readable; accept() answers with errnos, 0 for a connection, then nobody."""
        self.script = list(script)
        if self.watched is not None:
            self.watched()


class _Untyped:
    """The few methods a listener uses of a loop and a socket."""

    def __init__(self, scene: Shortage) -> None:
        class Loop:
            def add_reader(self, sock: object, callback: Callable[[], None]) -> None:
                scene.watched = callback

            def remove_reader(self, sock: object) -> None:
                scene.watched = None

        class Sock:
            family = socket.AF_UNIX

            def setblocking(self, flag: bool) -> None: ...
            def close(self) -> None: ...

            def accept(self) -> tuple[object, str]:
                number = scene.script.pop(0) if scene.script else errno.EAGAIN
                if number == 0:
                    return Sock(), ""
                raise OSError(number, os.strerror(number))

        self.loop: Any = Loop()
        self.sock: Any = Sock()


@pytest.fixture
def shortage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shortage]:
    scene = Shortage(monkeypatch)
    scene.listener.start()
    yield scene
    scene.listener.close()
    assert not scene.reserves, "the reserve descriptor leaks"
    assert not scene.watching()


TRANSIENT = sorted(listener_module.TRANSIENT)


@pytest.mark.parametrize("number", TRANSIENT, ids=[errno.errorcode[number] for number in TRANSIENT])
def test_an_error_of_one_connection_is_skipped(shortage: Shortage, number: int) -> None:
    shortage.readable(number, 0, number, 0)
    assert (shortage.listener.accepts, shortage.listener.aborted) == (2, 2)
    assert shortage.watching()
    assert shortage.events == []


def test_an_error_that_does_not_pass_is_no_busy_loop(shortage: Shortage) -> None:
    shortage.readable(*[errno.EPROTO] * 1000)
    assert shortage.events == [AcceptPaused("fake", "accept_failed")]
    assert not shortage.watching()


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.EMFILE, "fd_exhausted"),
        (errno.ENFILE, "fd_exhausted"),
        (errno.ENOBUFS, "memory_exhausted"),
        (errno.ENOMEM, "memory_exhausted"),
        (errno.EINVAL, "accept_failed"),
    ],
)
def test_a_shortage_tells_one_peer_and_pauses_with_one_report(shortage: Shortage, number: int, cause: str) -> None:
    shortage.readable(0, number, 0, 0, 0)
    assert shortage.listener.accepts == 1
    assert shortage.listener.dropped == 1
    assert shortage.script == [0, 0]  # they wait in the backlog
    assert not shortage.watching()
    assert shortage.events == [AcceptPaused("fake", cause)]
    assert len(shortage.reserves) == 1


def test_retries_double_up_to_one_second_and_stay_silent(shortage: Shortage) -> None:
    shortage.readable(errno.EMFILE)
    for _ in range(6):
        shortage.script = [errno.EMFILE]
        shortage.advance(shortage.delays[-1])
    assert shortage.delays == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    assert len(shortage.events) == 1
    assert len(shortage.timers) == 1


def test_it_is_over_when_it_worked_for_a_second(shortage: Shortage) -> None:
    shortage.readable(errno.EMFILE)
    shortage.advance(0.1)
    assert shortage.watching()
    shortage.readable(0, 0)
    assert shortage.listener.accepts == 2
    assert len(shortage.events) == 1
    shortage.advance(1.0)
    paused, resumed = shortage.events
    assert isinstance(resumed, AcceptResumed)
    assert resumed.seconds == pytest.approx(0.1)
    shortage.readable(errno.EMFILE)
    assert shortage.delays[-1] == 0.1
    assert shortage.events == [paused, resumed, paused]


def test_a_trickle_of_freed_descriptors_is_one_shortage(shortage: Shortage) -> None:
    shortage.readable(errno.EMFILE)
    for _ in range(20):
        shortage.advance(shortage.delays[-1] + 0.05)
        shortage.readable(0, errno.EMFILE)
    assert len(shortage.events) == 1
    assert shortage.listener.accepts == 20
    shortage.advance(10.0)
    assert len(shortage.events) == 2
    assert shortage.timers == []


def test_a_reserve_that_is_lost_is_looked_for_at_each_retry(shortage: Shortage) -> None:
    shortage.reserve_fails = True
    shortage.readable(errno.EMFILE)
    assert shortage.reserves == set()
    shortage.script = [errno.EMFILE]
    shortage.advance(0.1)
    assert shortage.reserves == set()
    shortage.reserve_fails = False
    shortage.advance(5.0)
    assert len(shortage.reserves) == 1
    assert len(shortage.events) == 2


def test_a_pause_of_the_caller_outlives_a_shortage(shortage: Shortage) -> None:
    shortage.readable(errno.EMFILE)
    shortage.listener.pause("drain")
    shortage.advance(10.0)
    assert not shortage.watching()
    assert shortage.events == [AcceptPaused("fake", "fd_exhausted")]
    shortage.listener.resume()
    assert shortage.watching()
    assert len(shortage.events) == 2
    resumed = shortage.events[1]
    assert isinstance(resumed, AcceptResumed)
    assert resumed.seconds == pytest.approx(10.0)


def test_a_shortage_outlives_a_pause_of_the_caller(shortage: Shortage) -> None:
    shortage.readable(errno.EMFILE)
    shortage.listener.pause("connection_limit")
    shortage.listener.resume()
    assert not shortage.watching()
    assert len(shortage.events) == 1
    shortage.advance(0.1)
    assert shortage.watching()
    shortage.advance(1.0)
    assert len(shortage.events) == 2


def test_closing_ends_the_retries(shortage: Shortage) -> None:
    shortage.readable(errno.EMFILE)
    shortage.listener.close()
    shortage.advance(10.0)
    assert not shortage.watching()
    assert shortage.timers == []


# -- a real process out of descriptors

SERVER = """
import asyncio, json, resource, socket, sys, time
import uvloop
from sojourn.bus import Bus
from sojourn.config import Bind
from sojourn.events import AcceptPaused, AcceptResumed
from sojourn.net.listener import Listener

def say(**fields):
    print(json.dumps(fields), flush=True)

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)

async def main():
    loop = asyncio.get_running_loop()
    opening = set()
    def accepted(sock, address):
        task = loop.create_task(loop.connect_accepted_socket(Echo, sock))
        opening.add(task)
        task.add_done_callback(opening.discard)
    def report(event):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        say(event=type(event).__name__, cause=getattr(event, "cause", ""), cpu=usage.ru_utime + usage.ru_stime)
    loop.set_exception_handler(lambda loop, context: say(event="error", cause=str(context)))
    bus = Bus()
    bus.observe(AcceptPaused, report)
    bus.observe(AcceptResumed, report)
    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener = Listener(loop, sock, name="test", settings=Bind(), accepted=accepted, bus=bus,
                        call_later=loop.call_later, now=time.monotonic)
    listener.start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    say(event="listening", port=sock.getsockname()[1])
    await loop.run_in_executor(None, sys.stdin.read)
    say(event="end", accepts=listener.accepts, dropped=listener.dropped)
    listener.close()

(uvloop.run if sys.argv[1] == "uvloop" else asyncio.run)(main())
"""


class Server:
    """The process above: what it said, and connections to it."""

    def __init__(self, loop: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, loop], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port: int = self.hear("listening")["port"]
        self.clients: list[socket.socket] = []

    def hear(self, event: str, within: float = 10.0) -> dict[str, Any]:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], within)
        assert ready, f"no {event} came"
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert said["event"] == event, said
        return said

    def silent(self, seconds: float) -> bool:
        assert self.process.stdout is not None
        return not select.select([self.process.stdout], [], [], seconds)[0]

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        self.clients.append(client)
        return client

    def end(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.hear("end")


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(request.param)
    yield server
    for client in server.clients:
        client.close()
    server.process.kill()
    server.process.wait()
    for pipe in (server.process.stdin, server.process.stdout):
        assert pipe is not None
        pipe.close()


def echoes(client: socket.socket) -> bool:
    try:
        client.sendall(b"ping")
        return client.recv(10) == b"ping"
    except OSError:
        return False


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("server", ["asyncio", "uvloop"], indirect=True)
def test_out_of_descriptors_the_open_connections_are_served_on(server: Server) -> None:
    first = server.connect()
    assert echoes(first)
    for _ in range(120):
        server.connect()
    assert server.hear("AcceptPaused")["cause"] == "fd_exhausted"

    before, began = cpu_seconds(server.process.pid), time.monotonic()
    assert server.silent(1.5), "a second report of the same shortage"
    busy = (cpu_seconds(server.process.pid) - before) / (time.monotonic() - began)
    assert busy < 0.2, "the accept loop spins"
    assert echoes(first)
    ended, _, _ = select.select(server.clients, [], [], 0)
    assert ended, "nobody was told"
    assert all(client.recv(1) == b"" for client in ended)

    # Half of them leave; those in the backlog get in.
    for client in server.clients[1:100]:
        client.close()
    server.hear("AcceptResumed")
    assert echoes(server.connect())
    assert echoes(first)
    assert sum(echoes(client) for client in server.clients[100:]) >= 20
    end = server.end()
    assert end["dropped"] >= len(ended)
    assert end["accepts"] + end["dropped"] == len(server.clients)
