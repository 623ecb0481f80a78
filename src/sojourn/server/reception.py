"""From an accepted socket to a connection that speaks HTTP: admission, PROXY protocol, TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, Final

from sojourn.asgi.http import HttpHandler
from sojourn.asgi.problem import problem
from sojourn.asgi.site import Site
from sojourn.clock import NEVER
from sojourn.ending import Ending, How, Phase
from sojourn.errors import ProtocolError
from sojourn.net.connection import Connection, Handler
from sojourn.net.preface import read_proxy_header
from sojourn.net.tls import failure_reason
from sojourn.policy.admission import Connections
from sojourn.policy.trust import TrustList

__all__ = ["Reception"]

#: Refused connections that may be open at once, each for the second its answer needs. Above that they are just closed.
_REFUSED: Final = 256


class Reception:
    """Receives what the listeners accept.

    Args:
        site: What is served.
        tls: Speak TLS with this context; None for plain HTTP.
    """

    __slots__ = ("_admission", "_locals", "_proxy", "_refused", "_site", "_tls", "_trust")

    def __init__(self, site: Site, tls: ssl.SSLContext | None) -> None:
        self._site = site
        self._tls = tls
        limits, proxy = site.config.limits, site.config.proxy
        self._admission = Connections(limits.connections, limits.connections_per_ip)
        self._refused = 0
        self._proxy = proxy.protocol == "on"
        self._trust = TrustList(proxy.trusted)
        self._locals: dict[Any, tuple[str, int | None]] = {}
        site.runtime.registry.left = self._left

    def accepted(self, listener: str, sock: socket.socket, address: Any) -> None:
        """Take an accepted socket: it is registered, with a deadline armed, before its first byte is read."""
        site = self._site
        timeouts = site.config.timeouts
        peer = (address[0], address[1]) if isinstance(address, tuple) else None
        host = peer[0] if peer is not None else "unix"
        refusal = self._admission.admit(host)
        slot: str
        timeout: float | None
        if refusal is not None:
            slot, timeout = "accept", timeouts.linger
        elif self._proxy and self._trust.trusts(host):
            slot, timeout = "proxy", timeouts.proxy
        elif self._tls is not None:
            slot, timeout = "tls", timeouts.tls
        else:
            slot, timeout = "header", timeouts.header
        connection = Connection(
            site.runtime, peer, self._local(sock), listener, self._tls is not None, slot, timeout
        )
        if refusal is not None:
            connection.admitted = False
            self._refuse(connection, sock, refusal)
            return
        connection.handler = HttpHandler(connection, site)
        self._establish(connection, sock, slot)

    def _establish(self, connection: Connection, sock: socket.socket, slot: str) -> None:
        task = self._site.work.start(self._set_up(connection, sock, slot))
        connection.abandon = lambda: _abandon(task, sock)

    async def _set_up(self, connection: Connection, sock: socket.socket, slot: str) -> None:
        """Put a transport on the socket."""
        site, handler = self._site, connection.handler
        assert handler is not None
        loop = site.runtime.loop
        try:
            if slot == "proxy":
                await self._read_preface(connection, sock)
            tls = self._tls if slot != "accept" else None
            if tls is None:
                await loop.connect_accepted_socket(lambda: handler, sock)
            else:
                # The deadline is the connection's own; asyncio's is only there so that it is never the shorter one.
                longest = (site.config.timeouts.tls or 3600.0) + 60.0
                await loop.connect_accepted_socket(lambda: handler, sock, ssl=tls, ssl_handshake_timeout=longest)
        except ProtocolError as error:
            sock.close()
            connection.abandon = None
            connection.end(Ending(error.reason, Phase.TLS, None, error.detail))
        except OSError as error:  # ssl.SSLError is one
            sock.close()
            connection.abandon = None
            if connection.ending is None:
                reason, detail = failure_reason(error)
                how = How.RST if isinstance(error, ConnectionError) else How.TLS_ALERT
                connection.end(Ending(reason, Phase.TLS, how, detail))
        except asyncio.CancelledError:
            sock.close()
            raise
        else:
            connection.abandon = None

    async def _read_preface(self, connection: Connection, sock: socket.socket) -> None:
        proxied = await read_proxy_header(self._site.runtime.loop, sock)
        connection.due.proxy = NEVER
        if proxied.source is not None:
            before = connection.peer[0] if connection.peer is not None else "unix"
            refusal = self._admission.move(before, proxied.source[0])
            connection.peer = proxied.source
            if refusal is not None:
                connection.admitted = False
                self._admission_refused(connection, refusal)
        if proxied.destination is not None:
            connection.local = proxied.destination
        timeouts = self._site.config.timeouts
        if self._tls is not None:
            connection.arm("tls", timeouts.tls)
        else:
            connection.phase = Phase.HEAD
            connection.arm("header", timeouts.header)

    def _admission_refused(self, connection: Connection, reason: str) -> None:
        connection.handler = _Refusal(connection, self._site, reason)

    def _refuse(self, connection: Connection, sock: socket.socket, reason: str) -> None:
        """Over a limit: 503 where it can be said, else just the end."""
        if self._tls is not None or self._refused >= _REFUSED:
            # A TLS handshake is what an overloaded server can't afford.
            sock.close()
            connection.end(Ending(reason, Phase.ACCEPT, How.LOCAL_FIN))
            return
        self._refused += 1
        connection.handler = _Refusal(connection, self._site, reason)
        self._establish(connection, sock, "accept")

    def _left(self, connection: Connection) -> None:
        """A connection has ended."""
        if connection.admitted:
            self._admission.leave(connection.peer[0] if connection.peer is not None else "unix")
        elif isinstance(connection.handler, _Refusal):
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


class _Refusal(Handler):
    """Says 503 to whoever came over the limit, without reading the request."""

    __slots__ = ("_reason", "_site")

    def __init__(self, connection: Connection, site: Site, reason: str) -> None:
        super().__init__(connection)
        self._site = site
        self._reason = reason

    def opened(self) -> None:
        site = self._site
        headers, body = problem(
            503,
            self._reason,
            "there are too many connections",
            [(b"retry-after", b"%d" % site.config.limits.retry_after), (b"date", site.runtime.ticker.date[6:-2])],
        )
        head = site.renderer.render(503, headers).data
        self.connection.write(b"".join((head, b"connection: close\r\n\r\n", body)))
        self.connection.end(Ending(self._reason, Phase.ACCEPT, How.LOCAL_FIN), linger=True)

    def data_received(self, data: bytes) -> None:
        self.connection.bytes_in += len(data)

    def deadline_passed(self, slot: str, now: float) -> None:
        self.connection.end(Ending(self._reason, Phase.ACCEPT, How.LOCAL_ABORT), abort=True)


def _abandon(task: asyncio.Task[None], sock: socket.socket) -> None:
    if not task.cancel():
        sock.close()
