"""A client of the admin listener, over a Unix socket or TCP: one connection and one deadline for each call."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from sojourn.clock import Clock, SystemClock
from sojourn.errors import ConfigError, SojournError
from sojourn.observe.log.text import message

__all__ = ["Admin", "Answer", "Refused", "Unreachable"]

#: Seconds for a call that takes no time of its own.
_QUICK: Final = 10.0
#: The longest answer that is read, in bytes: a profile of a large heap has tens of millions.
_LONGEST: Final = 512 * 1024 * 1024
_PIECE: Final = 1024 * 1024


class Unreachable(SojournError):
    """Nobody answers at the admin listener's place, or not in time."""


class Refused(SojournError):
    """The server said no.

    Args:
        message: What it said, with its place.
        status: HTTP status of its answer.
        reason: Its word for programs, such as ``actions_disabled``; "" when it gave none.
    """

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Answer(NamedTuple):
    """What came back.

    Attributes:
        status: HTTP status, below 300.
        kind: Its content type, without parameters.
        body: The bytes.
    """

    status: int
    kind: str
    body: bytes


class Admin:
    """Asks one server.

    Args:
        place: ``unix:PATH`` or ``HOST:PORT``.
        token: Bearer token; None sends none.
        seconds: How long a call may take when it does not say otherwise.
        clock: Where moments come from.

    Raises:
        ConfigError: The place can't be meant.
    """

    def __init__(
        self, place: str, *, token: str | None = None, seconds: float = _QUICK, clock: Clock | None = None
    ) -> None:
        self.place = place
        self.seconds = seconds
        self._token = token
        self._clock = clock or SystemClock()
        self._path = place.removeprefix("unix:") if place.startswith("unix:") else None
        host, _, port = place.rpartition(":")
        if self._path == "" or (self._path is None and not (host and port.isdecimal() and int(port) < 65536)):
            raise ConfigError(f"{place!r} is no place: write unix:PATH or HOST:PORT")
        self._address = (host.strip("[]"), int(port)) if self._path is None else ("localhost", 80)

    def get(self, path: str, seconds: float | None = None, **query: object) -> Any:
        """The JSON document at a path.

        Args:
            path: Where, such as ``/connections``.
            seconds: How long it may take; None takes that of all calls.
            query: Arguments; those that are None or False are left out, True is 1.

        Raises:
            Unreachable: Nobody answers, or not in time.
            Refused: The server said no.
        """
        return self._document(self.ask("GET", path, query=query, seconds=seconds))

    def post(self, path: str, body: object = None, seconds: float | None = None, **query: object) -> Any:
        """Send a command; the JSON document that answers it.

        Args:
            path: Which, such as ``/drain``.
            body: Goes as JSON; None sends nothing.
            seconds: How long it may take; None takes that of all calls.
            query: Arguments, as for ``get``.

        Raises:
            Unreachable: Nobody answers, or not in time.
            Refused: The server said no.
        """
        return self._document(self.ask("POST", path, query=query, body=body, seconds=seconds))

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        seconds: float | None = None,
    ) -> Answer:
        """Ask, and read the whole answer.

        Raises:
            Unreachable: Nobody answers, or not in time.
            Refused: The server said no.
        """
        allowed = self.seconds if seconds is None else seconds
        given = {name: "1" if value is True else value for name, value in (query or {}).items()}
        chosen = urlencode({name: value for name, value in given.items() if value is not None and value is not False})
        content = None if body is None else json.dumps(body).encode()
        try:
            answer = self._exchange(method, f"{path}?{chosen}" if chosen else path, content, allowed)
        except TimeoutError as error:
            raise Unreachable(f"{self.place} did not answer within {allowed:g} s") from error
        except OSError as error:
            raise Unreachable(f"nobody answers at {self.place}: {error.strerror or error}") from error
        except http.client.HTTPException as error:
            raise Unreachable(f"{self.place} does not speak HTTP: {str(error) or type(error).__name__}") from error
        if answer.status >= 300:
            raise self._refusal(answer)
        return answer

    def _exchange(self, method: str, target: str, content: bytes | None, seconds: float) -> Answer:
        end = self._clock.monotonic() + seconds
        connection = http.client.HTTPConnection(*self._address)
        try:
            connection.sock = self._connected(seconds, end)
            connection.request(method, target, content, self._headers(content))
            answer = connection.getresponse()
            pieces: list[bytes] = []
            while piece := answer.read(_PIECE):
                pieces.append(piece)
                if len(pieces) > _LONGEST // _PIECE:
                    raise http.client.HTTPException("the answer is too long")
            kind = answer.headers.get_content_type() if answer.headers["content-type"] else ""
            return Answer(answer.status, kind, b"".join(pieces))
        finally:
            connection.close()

    def _connected(self, seconds: float, end: float) -> socket.socket:
        if self._path is None:
            plain = socket.create_connection(self._address, timeout=seconds)
        else:
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                plain.settimeout(seconds)
                plain.connect(self._path)
            except OSError:
                plain.close()
                raise
        return _Hurried(plain, end, self._clock)

    def _headers(self, content: bytes | None) -> dict[str, str]:
        headers = {"connection": "close", "user-agent": "sojourn"}
        if self._path is not None:
            headers["host"] = "localhost"
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        if content is not None:
            headers["content-type"] = "application/json"
        return headers

    def _document(self, answer: Answer) -> Any:
        try:
            return json.loads(answer.body)
        except ValueError as error:
            raise Unreachable(f"{self.place} is no admin listener of Sojourn") from error

    def _refusal(self, answer: Answer) -> Refused:
        try:
            said = json.loads(answer.body)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            return Refused(f"{self.place} refused: status {answer.status}", answer.status, "")
        detail = str(said.get("detail") or said.get("title") or f"status {answer.status}")
        workers = said.get("workers")
        if isinstance(workers, dict) and any(problem != detail for problem in workers.values()):
            detail += f" ({'; '.join(f'worker {number}: {problem}' for number, problem in workers.items())})"
        return Refused(f"{self.place} refused: {message(detail)}", answer.status, str(said.get("reason", "")))


class _Hurried(socket.socket):
    """A socket whose reads end together by one moment, however slowly bytes trickle in."""

    def __init__(self, plain: socket.socket, end: float, clock: Clock) -> None:
        super().__init__(plain.family, plain.type, plain.proto, fileno=plain.detach())
        self._end = end
        self._clock = clock
        self.settimeout(self._left())

    def recv_into(self, *arguments: Any) -> int:
        """Read, for what is left of the time."""
        self.settimeout(self._left())
        return super().recv_into(*arguments)

    def _left(self) -> float:
        left = self._end - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError
        return left
