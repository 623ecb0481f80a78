"""Drives a RequestReader as a connection does, and writes down what it says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from sojourn.config import Limits
from sojourn.errors import ProtocolError
from sojourn.wire.http1.parser import ParserPool, RequestParser
from sojourn.wire.http1.reader import RequestReader

__all__ = ["Heard", "Read", "Refusal", "head", "pieces", "read"]


class Heard(NamedTuple):
    """One request as the sink was told of it."""

    method: bytes
    target: bytes
    http10: bool
    headers: tuple[tuple[bytes, bytes], ...]
    keep_alive: bool
    upgrade: bool
    body: bytes
    complete: bool


class Refusal(NamedTuple):
    """A ProtocolError."""

    status: int
    reason: str


class Read(NamedTuple):
    """What came of some bytes."""

    requests: tuple[Heard, ...]
    refusal: Refusal | None
    rest: bytes

    @property
    def verdict(self) -> tuple[int, str] | None:
        """Status and reason of the refusal."""
        return self.refusal and (self.refusal.status, self.refusal.reason)


class Sink:
    """Writes down."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.kept_alive = True

    def request_received(self, head: RequestParser) -> None:
        assert not self.heard or self.heard[-1].complete, "a head inside a request"
        self.kept_alive = head.keep_alive and not head.upgrade
        self.heard.append(
            Heard(
                head.method,
                head.target,
                head.http10,
                tuple(head.headers),
                head.keep_alive,
                head.upgrade,
                b"",
                complete=False,
            )
        )

    def body_received(self, data: bytes) -> None:
        last = self.heard[-1]
        assert data
        assert not last.complete, "a body after the end"
        self.heard[-1] = last._replace(body=last.body + data)

    def request_ended(self) -> None:
        assert not self.heard[-1].complete, "ended twice"
        self.heard[-1] = self.heard[-1]._replace(complete=True)


def read(
    data: Iterable[bytes], *, pool: ParserPool | None = None, limits: Limits | None = None, late: bool = False
) -> Read:
    """Feed pieces to a reader.

    Args:
        data: The pieces.
        pool: Where parsers come from.
        limits: Sizes.
        late: Answer requests only when everything has arrived, instead of each as soon as it is complete.
    """
    sink = Sink()
    reader = RequestReader(sink, pool or ParserPool(), limits or Limits())

    def answer() -> None:
        while reader.busy and not reader.in_body and sink.kept_alive and not reader.exhausted:
            reader.next()

    try:
        for piece in data:
            reader.feed(piece)
            if not late:
                answer()
        answer()
    except ProtocolError as error:
        return Read(tuple(sink.heard), Refusal(error.status, error.reason), b"")
    return Read(tuple(sink.heard), None, bytes(reader.rest))


def pieces(data: bytes, cuts: Sequence[int] | None) -> list[bytes]:
    """The bytes, cut at these places; None cuts everywhere."""
    places = sorted({0, len(data), *(cut for cut in cuts or () if 0 < cut < len(data))})
    if cuts is None:
        places = list(range(len(data) + 1))
    return [data[a:b] for a, b in pairwise(places)]


def head(*lines: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes | None = b"host: a.example") -> bytes:
    """A request head from its lines."""
    every = [line, *([host] if host is not None else []), *lines]
    return b"".join(each + b"\r\n" for each in every) + b"\r\n"
