"""The three formats of the access log: json for machines, combined for old tools, human for a terminal."""

from __future__ import annotations

from typing import Any, Final

from sojourn.ending import REASONS, Ending
from sojourn.events import ConnectionEnded, ConnectionGrewOld, RequestEnded, WebSocketOpened
from sojourn.observe.log.access import SEVERITY, AccessForm
from sojourn.observe.log.memo import Memo
from sojourn.observe.log.sink import Cause
from sojourn.observe.log.text import (
    apache_time,
    clip,
    clock_time,
    json_gap,
    json_line,
    json_text,
    quoted,
    raw,
    rfc3339,
    word,
)
from sojourn.wire.traceparent import trace_id_of

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


def _json_client(client: tuple[str, int] | None) -> str:
    return json_text(f"{client[0]}:{client[1]}" if client is not None else "unix")


def _json_asked(asked: tuple[str, bytes, str, str, str]) -> str:
    method, target, version, kind, route = asked
    path, query = _split(target)
    text = f'"method":{json_text(method)},"path":{json_text(path)},"query":{json_text(query)},'
    text += f'"version":{json_text(version)},"kind":{json_text(kind)}'
    return f'{text},"route":{json_text(route)}' if route else text


def _json_browser(browser: tuple[bytes, bytes]) -> str:
    agent, referer = (json_text(_text(field, _FIELD) or None) for field in browser)
    return f'"user_agent":{agent},"referer":{referer}'


def _combined_asked(asked: tuple[str, bytes, str]) -> str:
    method, target, version = asked
    method = "GET" if method == "WEBSOCKET" else quoted(raw(method))
    return f"{method} {quoted(clip(target, _TARGET))} HTTP/{quoted(raw(version))}" if method else "-"


def _combined_browser(browser: tuple[bytes, bytes]) -> str:
    referer, agent = (quoted(clip(field, _FIELD)) or "-" for field in browser)
    return f'"{referer}" "{agent}"'


class Json(AccessForm):
    """One object per line. A value that is not known is null; ``detail``, ``route`` and ``trace_id`` are left out then.

    ``time`` is when it ended (RFC 3339, UTC), durations are seconds, sizes bytes; ``bytes_out`` of a request counts its
    head and body, ``bytes_in`` the body of what was asked. ``trace_id`` is that of the request's span, or else the one
    that came with it.

    The line of a request is put together from texts that are made once, because the thread that writes shares the
    interpreter with the event loop: it costs a third of encoding an object.
    """

    def __init__(self, minimum: int = SEVERITY["info"]) -> None:
        super().__init__(minimum)
        self._time = rfc3339()
        self._ending: Ending | None = None
        self._cause: dict[str, Any] = {}
        self._cause_text = ""
        self._clients = Memo(_json_client)
        self._asked = Memo(_json_asked)
        self._browsers = Memo(_json_browser)

    def request(self, when: float, level: str, event: RequestEnded) -> bytes:
        (connection, client, method, target, version, status, ending, duration, bytes_in, bytes_out, headers,
         kind, route, trace_id) = event  # fmt: skip
        sent = dict(headers).get
        asked = self._asked[method, target, version, kind, route]
        browser = self._browsers[sent(b"user-agent", b""), sent(b"referer", b"")]
        if ending is not self._ending:
            self._cause_of(ending)
        trace = trace_id or trace_id_of(sent(b"traceparent", b""))
        traced = f',"trace_id":{json_text(trace)}' if trace else ""
        return (
            f'{{"time":"{self._time(when)}","level":"{level}","event":"request","connection":{connection},'
            f'"peer":{self._clients[client]},{asked},"status":{status},"duration":{duration:.6f},'
            f'"bytes_in":{bytes_in},"bytes_out":{bytes_out},{self._cause_text},{browser}{traced}}}\n'
        ).encode("ascii")

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
            self._cause = _cause(ending)
            self._cause_text = json_line(self._cause)[1:-2].decode("ascii")
        self._ending = ending
        return self._cause


class Combined(AccessForm):
    """Apache's combined format and five more fields: duration in seconds, two-letter code, reason, connection, trace.

    ::

        203.0.113.9 - - [31/Jan/2026:23:59:59 +0000] "GET /a?b HTTP/1.1" 200 532 "-" "curl/8" 0.012 -- completed 12 -

    Where it differs from Apache: the moment is that of the end, the size counts the head too, and a connection that
    never sent a whole request has ``"-"`` in its place, as with Apache, and status 000, as with nginx, when it got no
    answer. A WebSocket is the ``GET`` that opened it. A line about lost lines begins with ``#``, which analysers skip.
    """

    def __init__(self, minimum: int = SEVERITY["info"]) -> None:
        super().__init__(minimum)
        self._time = apache_time()
        self._asked = Memo(_combined_asked)
        self._browsers = Memo(_combined_browser)

    def request(self, when: float, level: str, event: RequestEnded) -> bytes:
        sent = dict(event.headers).get
        asked = self._asked[event.method, event.target, event.version]
        browser = self._browsers[sent(b"referer", b""), sent(b"user-agent", b"")]
        host = event.client[0] if event.client is not None else "unix"
        trace = event.trace_id or trace_id_of(sent(b"traceparent", b""))
        return self._line(when, event, host, f'"{asked}" {event.status:03d}', browser, trace)

    def ended(self, when: float, level: str, event: ConnectionEnded) -> bytes:
        host = event.peer.rpartition(":")[0] or event.peer
        status = REASONS[event.ending.reason].status or 0
        return self._line(when, event, host, f'"-" {status:03d}', '"-" "-"', "")

    def opened(self, when: float, event: WebSocketOpened | ConnectionGrewOld) -> bytes:
        return b""

    def gap(self, when: float, count: int, cause: Cause) -> bytes:
        return f"# [{self._time(when)}] {count} lines lost ({cause})\n".encode("ascii")

    def _line(
        self, when: float, event: RequestEnded | ConnectionEnded, host: str, asked: str, browser: str, trace: str
    ) -> bytes:
        ending = event.ending
        return (
            f"{word(raw(host.strip('[]')))} - - [{self._time(when)}] {asked} {event.bytes_out or '-'} {browser} "
            f"{event.duration:.3f} {ending.code} {ending.reason} {event.connection} {word(raw(trace))}\n"
        ).encode("ascii")


class Human(AccessForm):
    """Short lines for people: time, method, target, status, duration, bytes, the reason when it did not complete, and
    the ids: ``#`` and the connection, and the trace when there is one.

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
        trace = event.trace_id or trace_id_of(event.header(b"traceparent"))
        ids = f" #{event.connection} {word(raw(trace))}" if trace else f" #{event.connection}"
        return self._line(when, what, self._painted(f"{event.status}", paint), event, ids)

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

    def _line(self, when: float, what: str, status: str, event: RequestEnded | ConnectionEnded, ids: str = "") -> bytes:
        duration, size = _duration(event.duration), _size(event.bytes_out)
        tail = f"{status} {duration:>7} {size:>7}" if self._terminal else f"{status} {duration} {size}"
        ending = event.ending
        if ending.reason != "completed":
            how = f" {ending.how.value}" if ending.how else ""
            detail = f' "{quoted(raw(ending.detail[:_FIELD]))}"' if ending.detail else ""
            paint = "31" if REASONS[ending.reason].fault.value in ("app", "server", "overload") else "33"
            tail += " " + self._painted(f"{ending.reason} {ending.code}{how}{detail}", paint)
        return self._tail(when, what, tail + ids)

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
