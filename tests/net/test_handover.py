"""Sockets of another process are taken once, checked, and not passed on by accident."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sojourn.errors import BindError
from sojourn.net import handover
from sojourn.net.handover import adopt, inherited


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def given_away(sock: socket.socket) -> int:
    """A copy of the descriptor that nothing in this process owns."""
    return os.dup(sock.fileno())


def test_a_listening_socket_is_adopted_and_not_inherited_by_children(listening: socket.socket) -> None:
    fd = given_away(listening)
    os.set_inheritable(fd, True)
    with adopt(fd, "bind.fd") as sock:
        assert sock.fileno() == fd
        assert sock.getsockname() == listening.getsockname()
        assert not sock.get_inheritable()


def test_a_unix_socket_is_adopted(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "a.sock"))
        unix.listen()
        with adopt(given_away(unix), "bind.fd") as sock:
            assert sock.family == socket.AF_UNIX


def test_what_is_no_listening_stream_socket_is_refused_and_left_open(tmp_path: Path) -> None:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    left, right = socket.socketpair()
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with bound, left, right, datagram, open(tmp_path / "file", "w") as file:
        for fd, problem in [
            (bound.fileno(), "does not listen"),
            (left.fileno(), "does not listen"),
            (datagram.fileno(), "INET dgram"),
            (file.fileno(), "not a socket"),
        ]:
            with pytest.raises(BindError, match=problem) as caught:
                adopt(fd, "bind.fd 5")
            assert str(caught.value).startswith("bind.fd 5: ")
            os.fstat(fd)
    with pytest.raises(BindError, match="not an open descriptor"):
        adopt(9999, "bind.fd 9999")


def variables(**changed: str) -> dict[str, str]:
    return {"LISTEN_PID": "77", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web", "HOME": "/root", **changed}


def test_systemds_sockets_are_taken_and_its_variables_removed(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = given_away(listening)
    monkeypatch.setattr(handover, "FIRST", fd)
    environ = variables(LISTEN_PIDFDID="4")
    (sock,) = inherited(environ, 77)
    assert sock.fileno() == fd
    assert environ == {"HOME": "/root"}
    assert inherited(environ, 77) == []
    sock.close()


def test_variables_for_another_process_are_not_ours_nor_our_childrens() -> None:
    environ = variables()
    assert inherited(environ, 78) == []
    assert environ == {"HOME": "/root"}


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_PID": "77"}, {"LISTEN_FDS": "", "LISTEN_PID": "77"}]
)
def test_without_both_variables_nothing_is_inherited(environ: dict[str, str]) -> None:
    assert inherited(environ, 77) == []


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"LISTEN_FDS": "x"}, "LISTEN_FDS='x'"),
        ({"LISTEN_FDS": "-1"}, "LISTEN_FDS"),
        ({"LISTEN_PID": "²"}, "LISTEN_PID"),
    ],
)
def test_a_variable_that_is_no_number_is_named(changed: dict[str, str], problem: str) -> None:
    with pytest.raises(BindError, match=problem):
        inherited(variables(**changed), 77)


def test_a_bad_descriptor_is_named_and_the_good_ones_stay_open(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = fcntl.fcntl(listening, fcntl.F_DUPFD, 400)  # with nothing of this process behind it
    with open(os.devnull) as file:
        os.dup2(file.fileno(), fd + 1)
    monkeypatch.setattr(handover, "FIRST", fd)
    with pytest.raises(BindError, match=rf"descriptor {fd + 1} \(admin\): is not a socket"):
        inherited(variables(LISTEN_FDS="2", LISTEN_FDNAMES="web:admin"), 77)
    os.fstat(fd)
    os.close(fd)
    os.close(fd + 1)


CHILD = """
import os, socket
from sojourn.config import Bind
from sojourn.net.bind import addresses, bind
sockets = bind(Bind())
print(*addresses(sockets), *[name for name in os.environ if name.startswith("LISTEN_")], flush=True)
sockets[0].accept()[0].sendall(b"hello")
"""


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd-socket-activate is not installed")
def test_real_socket_activation() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", "--fdname=web"]
    for name in ("PYTHONPATH", "PATH"):
        command += ["-E", f"{name}={os.environ.get(name, '')}"]
    command += [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert process.stdout is not None
            for line in process.stderr:
                if "Listening on" in line:
                    break
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                assert client.recv(10) == b"hello"
            assert process.stdout.read() == f"http://127.0.0.1:{port}\n"
        finally:
            process.kill()
