"""The client of the admin listener: one clear line for each way it can fail, and a deadline for each call."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sojourn.clock import SystemClock
from sojourn.errors import ConfigError
from sojourn.ops.asking import find, token
from sojourn.ops.client import Admin, Refused, Unreachable
from tests.ops.fake import Fake, problem, serving


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    with serving(tmp_path) as fake:
        yield fake


@contextmanager
def raw(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A TCP server for one connection that does whatever it likes; its place."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(65536)
            try:
                answer(peer)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client has seen enough

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        thread.join()
        listener.close()


# -- What is sent


def test_arguments_that_say_nothing_are_not_sent(fake: Fake) -> None:
    fake.says("/connections", {})
    Admin(fake.place).get("/connections", older=60.0, slow=True, suspicious=False, route=None, peer="::1")
    assert fake.asked[0].query == {"older": "60.0", "slow": "1", "peer": "::1"}


def test_a_command_carries_its_body_and_the_token(fake: Fake) -> None:
    fake.says("/config", {"version": 2}, method="POST")
    assert Admin(fake.place, token="abc").post("/config", {"timeouts.header": "5s"}) == {"version": 2}
    (asked,) = fake.asked
    assert (asked.method, asked.body) == ("POST", {"timeouts.header": "5s"})
    assert asked.headers["authorization"] == "Bearer abc"
    assert asked.headers["host"] == "localhost"


def test_without_a_token_none_is_sent(fake: Fake) -> None:
    Admin(fake.place).get("/status")
    assert "authorization" not in fake.asked[0].headers


def test_tcp_is_spoken_too() -> None:
    body = b'{"a": 1}'
    with raw(lambda peer: peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n" + body)) as place:
        assert Admin(place).get("/status") == {"a": 1}


# -- What goes wrong


def test_a_refusal_says_what_the_server_said(fake: Fake) -> None:
    fake.says("/drain", problem(403, "actions_off", "admin.actions is off"), method="POST", status=403)
    with pytest.raises(Refused, match=r"unix:.*admin\.sock refused: admin\.actions is off") as caught:
        Admin(fake.place).post("/drain")
    assert (caught.value.status, caught.value.reason, caught.value.exit_code) == (403, "actions_off", 1)


def test_a_refusal_names_each_worker_that_did_not_answer(fake: Fake) -> None:
    silent = problem(504, "no_answer", "there was no answer within 5 s") | {"workers": {"1": "is gone", "2": "hangs"}}
    fake.says("/tasks", silent, status=504)
    with pytest.raises(
        Refused, match=r"refused: there was no answer within 5 s \(worker 1: is gone; worker 2: hangs\)"
    ):
        Admin(fake.place).get("/tasks")


def test_a_refusal_that_all_workers_give_is_said_once(fake: Fake) -> None:
    unknown = problem(404, "unknown_errand", "it is off") | {"workers": {"1": "it is off", "2": "it is off"}}
    fake.says("/tasks", unknown, status=404)
    with pytest.raises(Refused, match=r"refused: it is off$"):
        Admin(fake.place).get("/tasks")


def test_a_refusal_without_a_document_says_the_status() -> None:
    bad = b"HTTP/1.1 502 Bad\r\ncontent-length: 2\r\n\r\nno"
    with raw(lambda peer: peer.sendall(bad)) as place, pytest.raises(Refused, match=r" refused: status 502$"):
        Admin(place).get("/status")


def test_nobody_there_is_told_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=rf"^nobody answers at unix:{tmp_path}/gone: No such file or directory$"):
        Admin(f"unix:{tmp_path}/gone").get("/status")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(Unreachable, match=f"^nobody answers at {place}: Connection refused$"):
        Admin(place).get("/status")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "is no admin listener of Sojourn"),
        (b"220 mail.example.org ESMTP\r\n", "does not speak HTTP"),
    ],
)
def test_somebody_else_who_answers_is_no_admin_listener(answer: bytes, message: str) -> None:
    with raw(lambda peer: peer.sendall(answer)) as place, pytest.raises(Unreachable, match=message):
        Admin(place).get("/status")


def test_bytes_that_trickle_in_do_not_prolong_the_deadline() -> None:
    over = threading.Event()

    def trickle(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while not over.wait(0.05):
            peer.sendall(b" ")

    clock = SystemClock()
    with raw(trickle) as place:
        begun = clock.monotonic()
        try:
            with pytest.raises(Unreachable, match=f"^{place} did not answer within 0.4 s$"):
                Admin(place, seconds=0.4).get("/status")
            assert 0.35 < clock.monotonic() - begun < 5.0
        finally:
            over.set()


@pytest.mark.parametrize("place", ["", "9000", ":9000", "host", "host:x", "host:70000", "unix:"])
def test_a_place_that_can_not_be_meant_is_refused_at_once(place: str) -> None:
    with pytest.raises(ConfigError, match=r"is no place: write unix:PATH or HOST:PORT"):
        Admin(place)


# -- Where it is


def test_the_place_comes_from_the_flag_then_the_environment_then_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sojourn.toml").write_text("[admin]\nbind = '127.0.0.1:9001'\ntoken = 'of-the-file'\n")
    environ = {"SOJOURN_ADMIN_BIND": "unix:/a"}
    assert find("unix:/b", None, None, 1.0, environ).place == "unix:/b"
    assert find(None, None, None, 1.0, environ).place == "unix:/a"
    assert find(None, None, None, 1.0, {}).place == "127.0.0.1:9001"


def test_no_place_anywhere_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"give --admin, or set SOJOURN_ADMIN_BIND, or admin\.bind") as caught:
        find(None, None, None, 1.0, {})
    assert caught.value.exit_code == 2


def test_the_token_of_the_settings_is_not_sent_to_another_server(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sojourn.toml").write_text(f"[admin]\nbind = '{fake.place}'\ntoken = 'of-the-file'\n")
    (tmp_path / "token").write_text("of-mine\n")
    for place, file, environ in (
        (None, None, {}),
        (None, None, {"SOJOURN_ADMIN_TOKEN": "of-the-environment"}),
        (fake.place, None, {}),
        (fake.place, None, {"SOJOURN_ADMIN_TOKEN": "of-the-environment"}),
        (fake.place, Path("token"), {"SOJOURN_ADMIN_TOKEN": "of-the-environment"}),
    ):
        find(place, file, None, 1.0, environ).get("/status")
    sent = [asked.headers.get("authorization", "").removeprefix("Bearer ") for asked in fake.asked]
    assert sent == ["of-the-file", "of-the-environment", "", "of-the-environment", "of-mine"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "holds no token"), (b"a\nb", "holds no token"), (b"\xff", "it is not ASCII"), (None, "No such file")],
)
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        token(file)
