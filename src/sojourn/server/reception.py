"""From an accepted socket to a connection that speaks HTTP: admission, PROXY protocol, TLS.

    accepted -> [PROXY header] -> [TLS handshake] -> HttpHandler.opened
       |              |                |
       +--------------+----------------+--> a limit: 503, or just the end
       +--------------+----------------+--> Connection.end: the task is cancelled, the socket closed

The task that sets a connection up holds the socket until a transport has it; whatever ends the task closes it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from sojourn.asgi.http import HttpHandler
from sojourn.asgi.site import Site
from sojourn.clock import NEVER
from sojourn.config import Config, Proxy
from sojourn.ending import Ending, How, Phase
from sojourn.errors import ProtocolError
from sojourn.net.connection import Connection, Handler
from sojourn.net.preface import read_proxy_header
from sojourn.net.tls import failure_reason
from sojourn.policy.admission import Connections
from sojourn.policy.trust import TrustList
from sojourn.server.workers.siblings import Siblings
from sojourn.typing import Headers
from sojourn.wire.forwarded import Forwarded, forwarded

__all__ = ["Reception"]

#: Refused connections that may be open at once, each for the second its answer needs. Above that they are just closed.
_REFUSED: Final = 256
#: How many of them over TLS: these are only heard because they may be probes.
_REFUSED_TLS: Final = 16
#: The peer of a Unix socket: it has no address to be limited or believed by.
_UNIX: Final = "unix"
#: asyncio's own handshake timer must never be the one that rings; the deadline is the connection's. Seconds.
_NOT_OURS: Final = 24 * 3600.0


class Reception:
    """Receives what the listeners accept.

    Args:
        site: What is served.
        siblings: The other workers, with whom limits are shared; None for one process alone.
    """

    __slots__ = ("_admission", "_locals", "_proxy", "_refused", "_siblings", "_site", "_trust")

    def __init__(self, site: Site, siblings: Siblings | None = None) -> None:
        self._site = site
        limits = site.config.limits
        self._siblings = siblings
        if siblings is not None:
            self._admission = siblings.connections
        else:
            self._admission = Connections(limits.connections, limits.connections_per_ip)
        self._refused = 0
        self._believe(site.config.proxy)
        self._locals: dict[Any, tuple[str, int | None]] = {}
        site.runtime.registry.left = self._left
        site.followers.append(self._adopt)

    def _adopt(self, config: Config) -> None:
        """The settings have changed; who is in stays in."""
        limits = config.limits
        if self._siblings is not None:
            self._siblings.adopt(limits)
        else:
            self._admission.limit, self._admission.per_address = limits.connections, limits.connections_per_ip
        self._believe(config.proxy)
        self._site.forwarded = self.reads(config.proxy)

    def _believe(self, proxy: Proxy) -> None:
        self._proxy = proxy.protocol == "on"
        self._trust = TrustList(proxy.trusted)

    @staticmethod
    def reads(proxy: Proxy) -> Callable[[str, Headers], Forwarded | None] | None:
        """What reads the headers in which trusted proxies speak of their clients; None when nobody is trusted."""
        return partial(_believed, TrustList(proxy.trusted)) if proxy.headers and proxy.trusted else None

    def accepted(self, listener: str, tls: ssl.SSLContext | None, sock: socket.socket, address: Any) -> None:
        """Take an accepted socket: it is registered, with a deadline armed, before its first byte is read.

        Args:
            listener: Name of the listener.
            tls: Speak TLS with this context; None for plain HTTP.
            sock: The socket; from now on the reception's.
            address: Where it comes from, as accept() said.
        """
        local = self._local(sock)
        peer = (address[0], address[1]) if isinstance(address, tuple) else None
        host = _UNIX if peer is None else peer[0]
        timeouts = self._site.config.timeouts
        slot, timeout = ("header", timeouts.header) if tls is None else ("tls", timeouts.tls)
        counted = host
        if self._proxy and self._trust.trusts(host):
            slot, timeout = "proxy", timeouts.proxy
            counted = _UNIX  # whose connection it is will be told; the proxy itself is not limited by address
        refusal = self._admission.admit(counted)
        if refusal is not None:
            slot, timeout = "accept", timeouts.linger
        connection = Connection(self._site.runtime, peer, local, listener, tls is not None, slot, timeout)
        if refusal is None:
            connection.admitted = counted
            connection.handler = HttpHandler(connection, self._site)
        elif not self._refuse(connection, tls, refusal):
            sock.close()
            return
        task = self._site.work.start(self._set_up(connection, sock, slot, tls))
        connection.abandon = partial(_abandon, task)
        task.add_done_callback(partial(_set_up_ended, connection, sock))

    async def _set_up(self, connection: Connection, sock: socket.socket, slot: str, tls: ssl.SSLContext | None) -> None:
        """Put a transport on the socket."""
        loop = self._site.runtime.loop
        try:
            if slot == "proxy" and not await self._read_preface(connection, sock, tls):
                return
            handler = connection.handler
            if handler is None:  # it ended meanwhile
                return
            if tls is None:
                await loop.connect_accepted_socket(lambda: handler, sock)
            else:
                await loop.connect_accepted_socket(lambda: handler, sock, ssl=tls, ssl_handshake_timeout=_NOT_OURS)
        except ProtocolError as error:
            how = How.FIN if error.reason == "connected_no_data" else How.LOCAL_FIN
            connection.end(Ending(error.reason, Phase.TLS, how, error.detail))
        except OSError as error:  # ssl.SSLError is one
            in_handshake = tls is not None and connection.due.proxy == NEVER
            reason, detail = failure_reason(error) if in_handshake else ("client_reset", str(error))
            connection.end(Ending(reason, connection.phase, _how(error), detail))

    async def _read_preface(self, connection: Connection, sock: socket.socket, tls: ssl.SSLContext | None) -> bool:
        """Read the PROXY header and believe it; whether the connection goes on."""
        proxied = await read_proxy_header(self._site.runtime.loop, sock)
        connection.due.proxy = NEVER
        if proxied.destination is not None:
            connection.local = proxied.destination
        if proxied.source is not None:
            connection.peer = proxied.source
            refusal = self._admission.move(_UNIX, proxied.source[0])
            if refusal is not None:
                self._admission.leave(_UNIX)
                connection.admitted = None
                connection.arm("accept", self._site.config.timeouts.linger)
                return self._refuse(connection, tls, refusal)
            connection.admitted = proxied.source[0]
        timeouts = self._site.config.timeouts
        if tls is not None:
            connection.arm("tls", timeouts.tls)
        else:
            connection.phase = Phase.HEAD
            connection.arm("header", timeouts.header)
        return True

    def _refuse(self, connection: Connection, tls: ssl.SSLContext | None, reason: str) -> bool:
        """Over a limit: whether a 503 can be said; else it is over."""
        if self._refused >= (_REFUSED if tls is None else _REFUSED_TLS if self._site.probes is not None else 0):
            # A TLS handshake is what an overloaded server can't afford, except a few for probes.
            connection.end(Ending(reason, Phase.ACCEPT, How.LOCAL_FIN))
            return False
        self._refused += 1
        if tls is not None:
            connection.due.accept = NEVER
            connection.arm("tls", self._site.config.timeouts.linger)
        connection.handler = _Refusal(connection, self._site, reason)
        return True

    def _left(self, connection: Connection) -> None:
        """A connection has ended."""
        if connection.admitted is not None:
            self._admission.leave(connection.admitted)
        elif isinstance(connection.handler, _Refusal | _OverLimit):
            self._refused -= 1

    def _local(self, sock: socket.socket) -> tuple[str, int | None]:
        """Our end of the connection, as ASGI's ``server``; one tuple for all that came to the same address."""
        name = sock.getsockname()
        known = self._locals.get(name)
        if known is None:
            known = (name[0], name[1]) if isinstance(name, tuple) else (str(name), None)
            if len(self._locals) < 1024:
                self._locals[name] = known
        return known


class _OverLimit(HttpHandler):
    """Answers a probe over the limit; its connection ends with the answer."""

    __slots__ = ()


class _Refusal(Handler):
    """Says 503 to whoever came over the limit, without reading the request; unless it may be a probe."""

    __slots__ = ("_head", "_reason", "_site")

    def __init__(self, connection: Connection, site: Site, reason: str) -> None:
        super().__init__(connection)
        self._site = site
        self._reason = reason
        self._head = b""

    def opened(self) -> None:
        if self._site.probes is None:
            self._refuse()
        elif self.connection.secure:
            self.connection.due.tls = NEVER
            self.connection.arm("accept", self._site.config.timeouts.linger)

    def _refuse(self) -> None:
        site = self._site
        retry_after = (b"retry-after", b"%d" % site.config.limits.retry_after)
        self.connection.write(site.refusal(503, self._reason, "there are too many connections", [retry_after]))
        self.connection.end(Ending(self._reason, Phase.ACCEPT, How.LOCAL_FIN), linger=True)

    def data_received(self, data: bytes) -> None:
        connection, probes = self.connection, self._site.probes
        connection.bytes_in += len(data)
        if connection.ending is not None or probes is None:
            return
        self._head += data
        probe = probes.recognise(self._head, self._site.config.limits.header_bytes)
        if probe:
            connection.bytes_in -= len(self._head)  # counted again
            connection.due.accept = NEVER
            handler = _OverLimit(connection, self._site)
            handler.closing = True
            connection.swap(handler)
            handler.data_received(self._head)
        elif probe is False:
            self._refuse()

    def deadline_passed(self, slot: str, now: float) -> None:
        self._refuse()  # it has said nothing, or not enough


def _believed(trust: TrustList, host: str, headers: Headers) -> Forwarded | None:
    return forwarded(headers, trust.trusts) if trust.trusts(host) else None


def _how(error: OSError) -> How:
    """What was seen on the wire."""
    if isinstance(error, ConnectionError):
        return How.FIN if error.errno is None else How.RST  # event loops raise one without errno for an end of stream
    return How.TLS_ALERT


def _abandon(task: asyncio.Task[None]) -> None:
    task.cancel()


def _set_up_ended(connection: Connection, sock: socket.socket, task: asyncio.Task[None]) -> None:
    """A transport has the socket, or nobody will have it."""
    connection.abandon = None
    if connection.transport is None:
        sock.close()
    if not task.cancelled() and (error := task.exception()) is not None:
        context = {"message": "a connection could not be set up", "exception": error}
        connection.runtime.loop.call_exception_handler(context)
        connection.end(Ending("internal_error", connection.phase, How.LOCAL_ABORT, repr(error)), abort=True)
