"""A TCP proxy that does to connections what networks do: the toxics of toxiproxy, inside the test's own event loop.

It reads and acknowledges whatever comes, so with :meth:`FaultProxy.timeout` a peer behind it is the one that no
keep-alive finds: the connection is there, and nothing ever answers.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator

from sojourn.testing.channel import Address
from sojourn.testing.fault_links import Direction, Fault, Link

__all__ = ["FaultProxy", "Toxic"]


class Toxic:
    """A fault in force; made by the methods of :class:`FaultProxy`.

    Attributes:
        kind: Its name, which is toxiproxy's.
        direction: Which way it acts.
    """

    __slots__ = ("_proxy", "amount", "direction", "extra", "kind", "seconds")

    def __init__(self, proxy: FaultProxy, kind: str, direction: Direction) -> None:
        self._proxy = proxy
        self.kind = kind
        self.direction = direction
        self.seconds = 0.0
        self.amount = 0.0
        self.extra = 0.0

    def remove(self) -> None:
        """End it. Bytes that were held back flow on, those that were swallowed are lost."""
        self._proxy._forget(self)


class FaultProxy:
    """Listens on a port of its own and passes everything on to a server, as well as its toxics let it.

    Toxics act on connections that are open, too, and several act together.

    Args:
        upstream: The server: (host, port), or the path of a Unix socket.
        seed: Of the chance in jitter and slices.

    Attributes:
        accepted: How many connections there have been.

    Example:
        >>> import asyncio
        >>> async def main(port):
        ...     async with FaultProxy(("127.0.0.1", port)) as proxy:
        ...         host, port = proxy.address  # let the client connect here
        ...         lost = proxy.timeout()  # from now on nothing gets through, and nothing is closed
        ...         lost.remove()
        ...         proxy.latency(0.1, jitter=0.02)
    """

    loop: asyncio.AbstractEventLoop
    _listening: socket.socket

    def __init__(self, upstream: Address, *, seed: int = 0) -> None:
        self.upstream = upstream
        self.random = random.Random(seed)
        self.accepted = 0
        self._toxics: list[Toxic] = []
        self.links: set[Link] = set()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._listening.getsockname()
        return str(host), int(port)

    @property
    def open(self) -> int:
        """Connections that are open."""
        return len(self.links)

    async def __aenter__(self) -> FaultProxy:
        self.loop = asyncio.get_running_loop()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listening.setblocking(False)
        self.loop.add_reader(self._listening, self._accept)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.loop.remove_reader(self._listening)
        self._listening.close()
        self.cut()

    def _accept(self) -> None:
        try:
            client, _ = self._listening.accept()
        except (BlockingIOError, ConnectionError):
            return
        self.accepted += 1
        family = socket.AF_UNIX if isinstance(self.upstream, str) else socket.AF_INET
        server = socket.socket(family, socket.SOCK_STREAM)
        for sock in (client, server):
            sock.setblocking(False)
            if sock.family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.connect_ex(self.upstream)  # one that fails is reported to who reads it
        link = Link(self, client, server)
        self.links.add(link)
        for toxic in self._toxics:
            self._schedule(toxic, link)

    # -- toxics

    def latency(self, seconds: float, jitter: float = 0.0, direction: Direction = "down") -> Toxic:
        """Everything arrives ``seconds`` later, give or take ``jitter``, in its order."""
        return self._add("latency", direction, seconds=seconds, extra=jitter)

    def bandwidth(self, rate: float, direction: Direction = "down") -> Toxic:
        """At most ``rate`` bytes a second."""
        return self._add("bandwidth", direction, amount=rate)

    def slow_close(self, seconds: float, direction: Direction = "down") -> Toxic:
        """The end of a connection arrives ``seconds`` later."""
        return self._add("slow_close", direction, seconds=seconds)

    def timeout(self, seconds: float = 0.0, direction: Direction = "both") -> Toxic:
        """Nothing gets through, and after ``seconds`` the connection is closed; 0: never, the peer is half open."""
        return self._add("timeout", direction, seconds=seconds)

    def slicer(self, size: int, variation: int = 0, gap: float = 0.0, direction: Direction = "down") -> Toxic:
        """Bytes arrive in pieces of about ``size``, with ``gap`` seconds between two."""
        return self._add("slicer", direction, seconds=gap, amount=size, extra=variation)

    def limit_data(self, size: int, direction: Direction = "down") -> Toxic:
        """The connection is closed when ``size`` bytes have got through."""
        return self._add("limit_data", direction, amount=size)

    def reset_peer(self, seconds: float = 0.0, direction: Direction = "both") -> Toxic:
        """Nothing gets through, and after ``seconds`` the connection is reset."""
        return self._add("reset_peer", direction, seconds=seconds)

    def clear(self) -> None:
        """Remove all toxics."""
        while self._toxics:
            self._toxics[-1].remove()

    def cut(self) -> None:
        """Reset all connections that are open."""
        for link in list(self.links):
            link.close(reset=True)

    def _add(
        self, kind: str, direction: Direction, *, seconds: float = 0.0, amount: float = 0.0, extra: float = 0.0
    ) -> Toxic:
        if min(seconds, amount, extra) < 0.0 or (kind in ("bandwidth", "slicer") and amount < 1):
            raise ValueError(f"toxic {kind!r} can't have {seconds=:g} {amount=:g} {extra=:g}")
        toxic = Toxic(self, kind, direction)
        toxic.seconds, toxic.amount, toxic.extra = seconds, amount, extra
        self._toxics.append(toxic)
        for link in list(self.links):
            self._schedule(toxic, link)
        return toxic

    def _schedule(self, toxic: Toxic, link: Link) -> None:
        """Those that end connections have their own time."""
        if toxic.kind == "reset_peer" or (toxic.kind == "timeout" and toxic.seconds > 0.0):

            def end() -> None:
                if toxic in self._toxics:
                    link.close(reset=toxic.kind == "reset_peer")

            self.loop.call_later(toxic.seconds, end)

    def _forget(self, toxic: Toxic) -> None:
        if toxic in self._toxics:
            self._toxics.remove(toxic)
            for link in list(self.links):
                for pipe in link.pipes:
                    pipe.end()

    def of(self, kind: str, way: Direction) -> Iterator[Fault]:
        """The toxics of a kind that act one way."""
        return (toxic for toxic in self._toxics if toxic.kind == kind and toxic.direction in (way, "both"))

    def swallows(self, way: Direction) -> bool:
        """Whether nothing gets through that way."""
        return any(True for kind in ("timeout", "reset_peer") for _ in self.of(kind, way))
