"""The admin listener: what a server that runs says of itself, and the commands it takes.

    GET   /livez /readyz /startupz /status /metrics /config /debug/vars
          /connections /tasks /stacks /leaks /stalls /pressure /hub /journal /journal/tasks/{id} /eof
          /debug/pprof/ and its profiles
    POST  /drain /restart /upgrade /log-level /config /connections/{worker}-{id}/close /hub/disconnect
          /journal/tasks/{id}/cancel /journal/tasks/{id}/retry /journal/cancel /journal/retry

Who supervises answers, and asks the workers with a deadline: one that hangs makes its part missing, and is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from sojourn.asgi.probes import Answer, reply
from sojourn.clock import Clock, SystemClock
from sojourn.config import Admin
from sojourn.errors import ErrandError
from sojourn.server.admin import journal, lists, profiles, state
from sojourn.server.admin.answers import Question, Route, refusal
from sojourn.server.admin.audit import Audit
from sojourn.server.admin.commands import Commands
from sojourn.server.admin.fleet import Fleet
from sojourn.server.admin.gather import NoAnswer
from sojourn.server.admin.guard import Guard
from sojourn.typing import ASGIApp, Receive, Scope, Send

__all__ = ["admin_app", "routes"]

#: Largest body that is taken, in bytes; the listener's own limit comes first.
_BODY: Final = 64 * 1024
#: What stands in a path: a number, or the id of a durable task.
_NUMBER: Final = "([0-9]{1,15})"
_ID: Final = "([A-Za-z0-9._~-]{1,200})"


def admin_app(fleet: Fleet, settings: Admin, clock: Clock | None = None) -> ASGIApp:
    """The ASGI application of the admin listener.

    Args:
        fleet: Whom it shows, and to whom it hands commands.
        settings: ``token``, ``actions``, ``audit`` and ``bind`` of them.
        clock: Stamps what is recorded; None takes the system's.
    """
    admin = _Admin(fleet, settings, clock or SystemClock())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        elif scope["type"] == "http":
            await reply(send, await admin.answer(scope, receive))
        else:
            raise NotImplementedError(scope["type"])  # there is no lifespan

    return app


def routes(audit: Audit) -> tuple[Route, ...]:
    """All that is answered."""
    commands = Commands(audit)
    changes = journal.Changes(commands.recorded).routes
    return (*state.ROUTES, *lists.ROUTES, *journal.ROUTES, *profiles.ROUTES, *commands.routes, *changes)


class _Admin:
    def __init__(self, fleet: Fleet, settings: Admin, clock: Clock) -> None:
        self._fleet = fleet
        self._guard = Guard(settings)
        known = routes(Audit(settings.audit, clock))
        self._fixed: dict[str, dict[str, Route]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Route]]] = []
        for route in known:
            self._fixed.setdefault(route.path, {})[route.method] = route
        for path, methods in self._fixed.items():
            if "{" in path:
                self._patterns.append((re.compile(path.replace("{n}", _NUMBER).replace("{id}", _ID)), methods))
        self._list = "; ".join(
            f"{method} {' '.join(dict.fromkeys(route.path for route in known if route.method == method))}"
            for method in ("GET", "POST")
        )

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """One request."""
        try:
            self._guard.check(scope)
            methods, named = self._found(scope["path"])
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            route = methods.get(method)
            if route is None:
                return _wrong_method(methods)
            if route.action:
                self._guard.check_action()
            body = await _body(receive)
            return await route.handler(Question(scope, self._fleet, body, route.taken, named))
        except NoAnswer as error:
            return refusal(error, workers=error.workers)
        except ErrandError as error:
            return refusal(error)

    def _found(self, path: str) -> tuple[Mapping[str, Route], tuple[str, ...]]:
        methods = self._fixed.get(path)
        if methods is not None and "{" not in path:
            return methods, ()
        for pattern, patterned in self._patterns:
            if (match := pattern.fullmatch(path)) is not None:
                return patterned, match.groups()
        raise ErrandError(404, "not_found", f"there is nothing at this path; there are {self._list}")


def _wrong_method(methods: Iterable[str]) -> Answer:
    allowed = ", ".join("GET, HEAD" if method == "GET" else method for method in methods)
    detail = "a command is sent with POST" if allowed == "POST" else f"it takes {allowed}"
    return refusal(ErrandError(405, "method_not_allowed", detail), [(b"allow", allowed.encode())])


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ErrandError(400, "incomplete", "the request ended in the middle of its body: nothing was done")
        piece: bytes = message.get("body", b"")
        body += piece
        if len(body) > _BODY:
            raise ErrandError(413, "too_large", f"a body has at most {_BODY} bytes here")
        if not message.get("more_body", False):
            return body
