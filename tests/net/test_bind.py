"""Settings become listening sockets, or one line that says what to do."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sojourn.config import App, Bind, Config
from sojourn.errors import BindError, ConfigError
from sojourn.net import bind as bind_module
from sojourn.net import handover
from sojourn.net.bind import addresses, bind, listening, release


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listen(opened: ExitStack, **settings: object) -> list[socket.socket]:
    sockets = bind(Bind(**settings), {})  # type: ignore[arg-type]
    for sock in sockets:
        opened.enter_context(sock)
    return sockets


def reachable(sock: socket.socket) -> bool:
    with socket.socket(sock.family) as client:
        try:
            client.connect(sock.getsockname())
        except OSError:
            return False
    sock.accept()[0].close()
    return True


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


def test_where_only_tasks_are_run_nothing_listens(opened: ExitStack) -> None:
    bound = Bind(port=0)
    assert listening(Config(app=App(interface="tasks"), bind=bound)) == []
    (sock,) = listening(Config(bind=bound))
    opened.enter_context(sock)
    assert reachable(sock)


def test_port_0_is_a_free_port(opened: ExitStack) -> None:
    (sock,) = listen(opened, port=0)
    host, port = sock.getsockname()
    assert host == "127.0.0.1"
    assert addresses([sock]) == (f"http://127.0.0.1:{port}",)
    assert addresses([sock], "https") == (f"https://127.0.0.1:{port}",)
    assert reachable(sock)
    assert not sock.get_inheritable()
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


@needs_ipv6
@pytest.mark.parametrize("host", ["127.0.0.1,::1", "0.0.0.0, ::", "[::1] ,127.0.0.1,127.0.0.2", "::1,::1,127.0.0.1"])
def test_several_hosts_share_one_free_port(opened: ExitStack, host: str) -> None:
    sockets = listen(opened, host=host, port=0)
    wanted = {part.strip().strip("[]") for part in host.split(",")}
    assert {sock.getsockname()[0] for sock in sockets} == wanted
    assert len(sockets) == len(wanted)
    assert len({sock.getsockname()[1] for sock in sockets}) == 1
    assert all(reachable(sock) for sock in sockets)


@needs_ipv6
def test_an_ipv6_socket_leaves_ipv4_alone(opened: ExitStack) -> None:
    (six,) = listen(opened, host="::", port=0)
    (four,) = listen(opened, host="0.0.0.0", port=six.getsockname()[1])
    assert reachable(six)
    assert reachable(four)
    assert addresses([six, four])[0].startswith("http://[::]:")


def test_a_name_is_resolved(opened: ExitStack) -> None:
    sockets = listen(opened, host="localhost", port=0)
    assert {sock.getsockname()[0] for sock in sockets} <= {"127.0.0.1", "::1"}
    assert sockets


def test_a_name_needs_only_one_address_that_is_there(opened: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    (sock,) = listen(opened, host="a.example", port=0)
    assert sock.getsockname()[0] == "127.0.0.1"
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found[:1])
    with pytest.raises(BindError, match="2001:db8::1"):
        listen(opened, host="a.example", port=0)


def test_a_free_port_that_is_taken_elsewhere_is_given_up_for_another(
    opened: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bind_module._listen
    tries: list[int] = []

    def flaky(place: bind_module.Place, port: int, backlog: int) -> socket.socket:
        if place.host == "127.0.0.2" and len(tries) < 3:
            tries.append(port)
            cause = OSError(errno.EADDRINUSE, "taken")
            raise BindError("taken") from cause
        return real(place, port, backlog)

    monkeypatch.setattr(bind_module, "_listen", flaky)
    first, second = listen(opened, host="127.0.0.1,127.0.0.2", port=0)
    assert first.getsockname()[1] == second.getsockname()[1]
    assert len(tries) == 3


def test_a_taken_port_says_which_and_what_to_do(opened: ExitStack) -> None:
    (sock,) = listen(opened, port=0)
    port = sock.getsockname()[1]
    with pytest.raises(BindError, match=rf"^127\.0\.0\.1:{port} is in use by another process; .*bind\.port$"):
        listen(opened, host="127.0.0.2,127.0.0.1", port=port)
    with socket.socket() as again:
        again.bind(("127.0.0.2", port))  # the first host was let go


def test_hosts_that_can_not_be_used_are_named(opened: ExitStack) -> None:
    with pytest.raises(BindError, match=r"^bind\.host 'nowhere\.invalid': "):
        listen(opened, host="nowhere.invalid", port=0)
    with pytest.raises(BindError, match=r"192\.0\.2\.7 is not an address of this machine"):
        listen(opened, host="192.0.2.7", port=0)
    with pytest.raises(BindError, match="not a host name"):
        listen(opened, host="a" * 70 + ".example", port=0)
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0 or ::"):
        listen(opened, host="127.0.0.1,", port=0)
    with pytest.raises(ConfigError, match="65535"):
        listen(opened, host="127.0.0.1", port=70000)


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.EACCES, "CAP_NET_BIND_SERVICE"), (errno.EAFNOSUPPORT, "has no IPv4"), (errno.EIO, "put")],
)
def test_errors_of_the_system_are_told_in_one_line(
    opened: ExitStack, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(BindError, match=advice) as caught:
        listen(opened, host="127.0.0.1", port=80)
    assert str(caught.value).startswith("127.0.0.1:80")
    assert "\n" not in str(caught.value)


# -- Unix sockets


def test_a_unix_socket_has_its_mode_and_is_removed_at_the_end(opened: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    settings = Bind(uds=str(path), uds_mode="600")
    (sock,) = sockets = bind(settings)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert addresses(sockets) == (f"unix:{path}",)
    assert reachable(sock)
    release(sockets, settings)
    assert not path.exists()
    assert sock.fileno() == -1
    release(sockets, settings)


def test_the_file_of_a_dead_server_is_replaced(opened: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.exists()
    (sock,) = listen(opened, uds=str(path))
    assert reachable(sock)


@pytest.mark.parametrize("full", [False, True], ids=["accepting", "backlog full"])
def test_the_file_of_a_live_server_is_not_touched(opened: ExitStack, tmp_path: Path, full: bool) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as client:
        live.bind(str(path))
        live.listen(0)
        if full:
            client.connect(str(path))
        with pytest.raises(BindError, match=rf"unix:{path} is in use by another process"):
            listen(opened, uds=str(path))
        assert path.exists()


def test_a_file_that_is_no_socket_is_not_touched(opened: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("precious")
    with pytest.raises(BindError, match="not a socket"):
        listen(opened, uds=str(path))
    assert path.read_text() == "precious"
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(BindError, match="not a socket"):
        listen(opened, uds=str(link))


def test_a_socket_file_that_a_successor_listens_on_stays(opened: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    settings = Bind(uds=str(path))
    sockets = bind(settings)
    path.unlink()
    (successor,) = listen(opened, uds=str(path))
    release(sockets, settings)
    assert path.exists()
    successor.accept()[0].close()  # the question whether someone is there


def test_unix_paths_that_can_not_be_used_are_named(opened: ExitStack, tmp_path: Path) -> None:
    with pytest.raises(BindError, match="its directory does not exist"):
        listen(opened, uds=str(tmp_path / "missing" / "a.sock"))
    with pytest.raises(BindError, match="too long"):
        listen(opened, uds=str(tmp_path / ("a" * 120)))
    with pytest.raises(BindError, match="unix:a"):
        listen(opened, uds="a\0b")
    for mode in ("rw", "999", "1777", "-1"):
        with pytest.raises(ConfigError, match=r"bind\.uds_mode"):
            listen(opened, uds=str(tmp_path / "a.sock"), uds_mode=mode)


def test_a_system_that_forbids_the_path_is_quoted(
    opened: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(BindError, match="must be able to write"):
        listen(opened, uds=str(tmp_path / "a.sock"))


# -- descriptors


def test_a_descriptor_wins_over_host_and_port(opened: ExitStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        (sock,) = listen(opened, fd=os.dup(given.fileno()))
        assert sock.getsockname() == given.getsockname()


def test_a_descriptor_and_a_path_contradict(opened: ExitStack) -> None:
    with pytest.raises(ConfigError, match=r"bind\.fd"):
        listen(opened, fd=3, uds="a.sock")


def test_systemds_sockets_are_taken_when_no_address_is_set(opened: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        fd = os.dup(given.fileno())
        monkeypatch.setattr(handover, "FIRST", fd)
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
        (own,) = bind(Bind(port=0), environ)
        opened.enter_context(own)
        assert own.fileno() != fd
        assert environ
        (sock,) = bind(Bind(), environ)
        opened.enter_context(sock)
        assert sock.fileno() == fd
        assert not environ
