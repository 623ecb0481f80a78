"""The three formats of the access log: json for machines, combined for old tools, human for a terminal."""

from __future__ import annotations

from typing import Any, Final

from sojourn.ending import REASONS, Ending
from sojourn.events import ConnectionEnded, ConnectionGrewOld, RequestEnded, WebSocketOpened
from sojourn.observe.log.access import SEVERITY, AccessForm
from sojourn.observe.log.sink import Cause
from sojourn.observe.log.text import apache_time, clip, clock_time, json_gap, json_line, quoted, raw, rfc3339, word

__all__ = ["Combined", "Human", "Json"]

#: Longest part of a target, and of a User-Agent or Referer, that is written. Chosen so that a line of ordinary text
#: fits the 4096 bytes that a pipe takes whole, and so that a client can't fill a disk with its headers.
_TARGET: Final = 2048
_FIELD: Final = 512

_WHO: Final = {row.who: row.who.name.lower() for row in REASONS.values()}


def _text(data: bytes, limit: int) -> str:
    """Client bytes as text: UTF-8 where it is, ``\\xhh`` where it is not."""
    return clip(data, limit).decode("utf-8", "backslashreplace")


def _split(target: bytes) -> tuple[str, str]:
    path, _, query = clip(target, _TARGET).partition(b"?")
    return path.decode("utf-8", "backslashreplace"), query.decode("utf-8", "backslashreplace")


def _cause(ending: Ending) -> dict[str, Any]:
    row = REASONS[ending.reason]
    cause: dict[str, Any] = {
        "term": ending.code,
        "reason": ending.reason,
        "who": _WHO[row.who],
        "phase": ending.phase.name.lower(),
        "how": None if ending.how is None else ending.how.value,
        "fault": row.fault.value,
    }
    if ending.detail:
        cause["detail"] = ending.detail[:_FIELD]
    return cause


class Json(AccessForm):
    """One object per line. A value that is not known is null; an unknown ``detail`` or ``trace_id`` is left out.

    ``time`` is when it ended (RFC 3339, UTC), durations are seconds, sizes bytes; ``bytes_out`` of a request counts its
    head and body, ``bytes_in`` the body of what was asked.
    """

    def __init__(self, minimum: int = SEVERITY["info"]) -> None:
        super().__init__(minimum)
        self._time = rfc3339()
        self._ending: Ending | None = None
        self._cause: dict[str, Any] = {}

    def request(self, when: float, level: str, event: RequestEnded) -> bytes:
        path, query = _split(event.target)
        record = {
            "time": self._time(when),
            "level": level,
            "event": "request",
            "connection": event.connection,
            "peer": event.peer,
            "method": event.method,
            "path": path,
            "query": query,
            "version": event.version,
            "status": event.status,
            "duration": round(event.duration, 6),
            "bytes_in": event.bytes_in,
            "bytes_out": event.bytes_out,
            **self._cause_of(event.ending),
            "user_agent": _text(event.header(b"user-agent"), _FIELD) or None,
            "referer": _text(event.header(b"referer"), _FIELD) or None,
        }
        if event.trace_id:
            record["trace_id"] = event.trace_id
        return json_line(record)

    def ended(self, when: float, level: str, event: ConnectionEnded) -> bytes:
        return json_line(
            {
                "time": self._time(when),
                "level": level,
                "event": "connection_ended",
                "connection": event.connection,
                "peer": event.peer,
                "protocol": event.protocol or None,
                "path": event.path[:_TARGET] or None,
                "duration": round(event.duration, 6),
                "bytes_in": event.bytes_in,
                "bytes_out": event.bytes_out,
                "unsent": event.unsent,
                "requests": event.requests,
                "ws_sent": event.ws_sent,
                "ws_received": event.ws_received,
                **self._cause_of(event.ending),
            }
        )

    def opened(self, when: float, event: WebSocketOpened | ConnectionGrewOld) -> bytes:
        record: dict[str, Any] = {"time": self._time(when), "level": "info"}
        if isinstance(event, WebSocketOpened):
            path, query = _split(event.target)
            record |= {"event": "websocket_opened", "connection": event.connection, "peer": event.peer}
            record |= {"path": path, "query": query, "subprotocol": event.subprotocol}
        else:
            record |= {"event": "connection_open", "connection": event.connection, "peer": event.peer}
            record |= {"protocol": event.protocol, "path": event.path[:_TARGET], "age": round(event.age, 6)}
            record |= {"bytes_in": event.bytes_in, "bytes_out": event.bytes_out}
        return json_line(record)

    def gap(self, when: float, count: int, cause: Cause) -> bytes:
        return json_gap(self._time(when), count, cause)

    def _cause_of(self, ending: Ending) -> dict[str, Any]:
        """The values of an ending; kept, because the next one is most often the same."""
        if ending != self._ending:
            self._ending, self._cause = ending, _cause(ending)
        return self._cause


class Combined(AccessForm):
    """Apache's combined format with three more fields: duration in seconds, two-letter code, reason.

    ::

        203.0.113.9 - - [31/Jan/2026:23:59:59 +0000] "GET /a?b HTTP/1.1" 200 532 "-" "curl/8" 0.012 -- completed

    Where it differs from Apache: the moment is that of the end, the size counts the head too, and a connection that
    never sent a whole request has ``"-"`` in its place, as with Apache, and status 000, as with nginx, when it got no
    answer. A WebSocket is the ``GET`` that opened it. A line about lost lines begins with ``#``, which analysers skip.
    """

    def __init__(self, minimum: int = SEVERITY["info"]) -> None:
        super().__init__(minimum)
        self._time = apache_time()

    def request(self, when: float, level: str, event: RequestEnded) -> bytes:
        method = "GET" if event.method == "WEBSOCKET" else quoted(raw(event.method))
        asked = f"{method} {quoted(clip(event.target, _TARGET))} HTTP/{quoted(raw(event.version))}" if method else "-"
        agent = quoted(clip(event.header(b"user-agent"), _FIELD)) or "-"
        referer = quoted(clip(event.header(b"referer"), _FIELD)) or "-"
        return self._line(when, event, asked, event.status, referer, agent)

    def ended(self, when: float, level: str, event: ConnectionEnded) -> bytes:
        return self._line(when, event, "-", REASONS[event.ending.reason].status or 0, "-", "-")

    def opened(self, when: float, event: WebSocketOpened | ConnectionGrewOld) -> bytes:
        return b""

    def gap(self, when: float, count: int, cause: Cause) -> bytes:
        return f"# [{self._time(when)}] {count} lines lost ({cause})\n".encode("ascii")

    def _line(
        self, when: float, event: RequestEnded | ConnectionEnded, asked: str, status: int, referer: str, agent: str
    ) -> bytes:
        host = event.peer.rpartition(":")[0].strip("[]") or event.peer
        return (
            f'{word(raw(host))} - - [{self._time(when)}] "{asked}" {status:03d} {event.bytes_out or "-"} "{referer}" '
            f'"{agent}" {event.duration:.3f} {event.ending.code} {event.ending.reason}\n'
        ).encode("ascii")


class Human(AccessForm):
    """Short lines for people: time, method, target, status, duration, bytes, and the reason when it did not complete.

    Args:
        minimum: Least severity written.
        terminal: Align the columns.
        colour: Colour the status and the reason.
    """

    def __init__(self, minimum: int = SEVERITY["info"], *, terminal: bool = False, colour: bool = False) -> None:
        super().__init__(minimum)
        self._time = clock_time()
        self._terminal = terminal
        self._colour = colour

    def request(self, when: float, level: str, event: RequestEnded) -> bytes:
        what = f"{word(raw(event.method))} {word(clip(event.target, _TARGET))}"
        paint = "32" if event.status < 300 else "36" if event.status < 400 else "33" if event.status < 500 else "31"
        return self._line(when, what, self._painted(f"{event.status}", paint), event)

    def ended(self, when: float, level: str, event: ConnectionEnded) -> bytes:
        what = f"{event.protocol or 'connection'} {word(raw(event.path[:_TARGET]))} {self._who(event)}"
        return self._line(when, what, "end", event)

    def opened(self, when: float, event: WebSocketOpened | ConnectionGrewOld) -> bytes:
        if isinstance(event, WebSocketOpened):
            what = f"websocket {word(clip(event.target, _TARGET))} {self._who(event)}"
            return self._tail(when, what, f"open {word(raw(event.subprotocol))}" if event.subprotocol else "open")
        what = f"{word(raw(event.protocol))} {word(raw(event.path[:_TARGET]))} {self._who(event)}"
        sizes = f"in {_size(event.bytes_in)} out {_size(event.bytes_out)}"
        return self._tail(when, what, f"still open {_duration(event.age)} {sizes}")

    def gap(self, when: float, count: int, cause: Cause) -> bytes:
        return f"{self._time(when)} {self._painted(f'{count} lines lost ({cause})', '31')}\n".encode("ascii")

    def _line(self, when: float, what: str, status: str, event: RequestEnded | ConnectionEnded) -> bytes:
        duration, size = _duration(event.duration), _size(event.bytes_out)
        tail = f"{status} {duration:>7} {size:>7}" if self._terminal else f"{status} {duration} {size}"
        ending = event.ending
        if ending.reason != "completed":
            how = f" {ending.how.value}" if ending.how else ""
            detail = f' "{quoted(raw(ending.detail[:_FIELD]))}"' if ending.detail else ""
            paint = "31" if REASONS[ending.reason].fault.value in ("app", "server", "overload") else "33"
            tail += " " + self._painted(f"{ending.reason} {ending.code}{how}{detail}", paint)
        return self._tail(when, what, tail)

    def _tail(self, when: float, what: str, tail: str) -> bytes:
        return f"{self._time(when)} {f'{what:<36}' if self._terminal else what} -> {tail}\n".encode("ascii")

    def _who(self, event: WebSocketOpened | ConnectionGrewOld | ConnectionEnded) -> str:
        return f"#{event.connection} {word(raw(event.peer))}"

    def _painted(self, text: str, paint: str) -> str:
        return f"\x1b[{paint}m{text}\x1b[0m" if self._colour else text


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.1f}ms"
    return f"{seconds:.2f}s" if seconds < 600 else f"{seconds / 60:.0f}min"


def _size(count: int) -> str:
    if count < 1000:
        return f"{count}B"
    return f"{count / 1e3:.1f}kB" if count < 1e6 else f"{count / 1e6:.1f}MB" if count < 1e9 else f"{count / 1e9:.1f}GB"
