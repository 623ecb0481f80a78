"""The hub as an ASGI application: one address for WebSocket, event streams, long poll and single commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from sojourn.asgi.problem import problem
from sojourn.errors import AuthenticationError, ClientDisconnected, EngineUnavailable
from sojourn.hub.access import Asker
from sojourn.hub.browser.files import BrowserFiles
from sojourn.hub.commands import Commands, place_of
from sojourn.hub.door import Refusal
from sojourn.hub.identity import Caller, Identity
from sojourn.hub.peer import peer_of
from sojourn.hub.poll import Poll
from sojourn.hub.socket import Socket
from sojourn.hub.stream import Stream
from sojourn.typing import Receive, Scope, Send
from sojourn.wire import hub as wire
from sojourn.wire.hub.cursor import Cursor

if TYPE_CHECKING:
    from sojourn.hub.hub import Hub

__all__ = ["HubApp"]

#: Seconds that a poll may wait at most: below the 60 of load balancers.
_LONGEST: Final = 55.0
_JSON: Final = (b"content-type", b"application/json")
_LATER: Final = ((b"retry-after", b"1"),)


class _No(Exception):
    """The request is refused."""

    def __init__(self, status: int, detail: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers


class HubApp:
    """Serves a hub at one address; made by ``Hub.app``. Mount it, or serve it alone.

    What clients may join is asked of the functions that ``Hub.authorize`` has, or said by rules that are public.
    Below its address are the files of the browser client, such as ``/hub/sojourn.js``.

    Args:
        hub: The hub.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._files = BrowserFiles()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            file = self._files.find(scope["path"]) if scope["method"] in ("GET", "HEAD") else None
            if file is not None:
                await self._files.send(file, scope, send)
                return
            try:
                await self._http(scope, receive, send)
            except _No as no:
                await _refuse(send, no)
            except EngineUnavailable:
                await _refuse(send, _No(503, "the hub can't do this now; try again", _LATER))
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Served alone, the hub lives as long as the application."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._hub.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._hub.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with Socket(self._hub, (scope, receive, send)) as connected:
                asker = Asker(connected.user, connected.id, connected.identity.info)
                try:
                    wanted = await self._wanted(scope, asker)
                except _No as no:
                    await connected.close(4501, str(no))
                    return
                try:
                    if wanted:
                        await connected.enter(wanted)
                except EngineUnavailable:
                    await connected.close(1013, "the hub can't do this now; try again")
                    return
                await connected.run()
        except ClientDisconnected:
            return  # refused, or gone: it is told, and counted
        except EngineUnavailable:  # it can't begin
            await peer_of((scope, receive, send)).deny(503, "the hub can't do this now; try again", 1.0)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        hub = self._hub
        await hub.start()
        caller = Caller(scope)
        if scope["method"] not in ("GET", "POST"):
            raise _No(405, "GET or POST", ((b"allow", b"GET, POST"),))
        self._require(hub.door.refuse(scope, member=scope["method"] == "GET"))
        try:
            identity = await hub.door.identify(caller)
        except AuthenticationError as error:
            challenge = ((b"www-authenticate", b"Bearer"),) if error.status == 401 else ()
            raise _No(error.status, error.detail, challenge) from error
        if scope["method"] == "POST":
            await self._post(identity, receive, send)
            return
        self._require(hub.door.refuse_user(identity.user))
        asker = Asker(identity.user, "", identity.info)
        wanted = await self._wanted(scope, asker)
        if b"text/event-stream" in dict(scope["headers"]).get(b"accept", b""):
            try:
                await Stream(hub, identity, caller.query.get("v") == "1", wanted).serve(scope, receive, send)
            except ClientDisconnected:
                return  # as above
        elif "wait" in caller.query:
            await self._poll(caller, identity, wanted, receive, send)
        else:
            raise _No(406, "ask for text/event-stream, or ?wait= for a long poll, or open a WebSocket")

    def _require(self, refusal: Refusal | None) -> None:
        if refusal is not None:
            retry = () if refusal.retry_after is None else ((b"retry-after", b"%d" % refusal.retry_after),)
            raise _No(refusal.status, refusal.detail, retry)

    async def _poll(
        self, caller: Caller, identity: Identity, wanted: dict[str, Cursor | None], receive: Receive, send: Send
    ) -> None:
        try:
            seconds = min(max(0.0, float(caller.query["wait"])), _LONGEST)
        except ValueError:
            raise _No(400, "wait is a number of seconds") from None
        try:
            polled = await Poll(self._hub, identity, wanted, seconds).answer(caller, receive)
        except ClientDisconnected as gone:  # others have taken the room meanwhile
            raise _No(503, str(gone), _LATER) from None
        no_store = (b"cache-control", b"no-store")
        await _answer(send, 200, [_JSON, no_store], wire.encode_polled(polled))

    async def _post(self, identity: Identity, receive: Receive, send: Send) -> None:
        """Commands, one a line; the answers in the same order."""
        body = await self._body(receive)
        commands = Commands(self._hub, identity)
        try:
            lines = wire.lines(body)
        except wire.HubWireError as error:
            raise _No(400, error.message) from None
        answers = [await self._carry_out(commands, line) for line in lines]
        await _answer(send, 200, [_JSON], b"\n".join(answer for answer in answers if answer))

    async def _carry_out(self, commands: Commands, line: str) -> bytes:
        try:
            reply = await commands.carry_out(wire.decode_command(line))
        except wire.HubWireError as error:
            reply = wire.Refused(error.id, error.code, error.message)
        return b"" if reply is None else wire.encode_object(reply)

    async def _body(self, receive: Receive) -> bytes:
        most = self._hub.limits.message
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _No(400, "the request is not complete")
            piece: bytes = message.get("body", b"")
            body += piece
            if len(body) > most:
                raise _No(413, f"a request has {most} bytes at most")
            if not message.get("more_body", False):
                return body

    async def _wanted(self, scope: Scope, asker: Asker) -> dict[str, Cursor | None]:
        """The channels that the URL names, each with the place the client was at."""
        pairs = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        said: dict[str, Any] = dict(pairs)
        since = dict(_ids(scope)).get("id") or said.get("since")
        place = place_of(since) if since else None
        wanted: dict[str, Cursor | None] = {}
        for name, value in pairs:
            if name in ("ch", "new"):
                wanted.setdefault(value, place if name == "ch" else None)
        if len(wanted) > self._hub.limits.channels:
            raise _No(400, f"{self._hub.limits.channels} channels at most")
        for channel in wanted:
            if not await self._hub.may(asker, channel, "join"):
                raise _No(403, f"join in {channel[:80]!r} is not allowed")
        return wanted


def _ids(scope: Scope) -> list[tuple[str, str]]:
    """Where an event stream was when it was cut: what a browser sends counts before what stands in the URL."""
    return [("id", value.decode("latin-1")) for name, value in scope["headers"] if name == b"last-event-id"]


async def _refuse(send: Send, no: _No) -> None:
    headers, body = problem(no.status, "hub_refused", str(no), no.headers)
    await _answer(send, no.status, headers, body)


async def _answer(send: Send, status: int, headers: Any, body: bytes) -> None:
    length = (b"content-length", b"%d" % len(body))
    kept = [(name, value) for name, value in headers if name.lower() != b"content-length"]
    await send({"type": "http.response.start", "status": status, "headers": [*kept, length]})
    await send({"type": "http.response.body", "body": body})
