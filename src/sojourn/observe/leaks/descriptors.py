"""Files and sockets: how many are open, of which kind, and whether connections and leases account for them."""

from __future__ import annotations

import os
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from sojourn.asgi.site import Site
from sojourn.net.connection import Connection
from sojourn.observe.leaks.ledger import Ledger, Signature
from sojourn.observe.leaks.openings import Opening, Openings
from sojourn.observe.leaks.places import frames, place
from sojourn.observe.turn import turn

__all__ = ["DescriptorCounts", "Descriptors"]

_FOLDER: Final = "/proc/self/fd"
#: Descriptors looked at in one turn of the loop: what one is costs 2 us, the state of a socket 8 us.
_SLICE: Final = 150
#: The kernel gives the lowest free number: behind so many free ones there are no others, but by somebody's choice.
_GAP: Final = 4096
#: Looks in a row at which the unexplained part must have grown before openings are noted, and by how many in all.
_LOOKS, _GROWTH = 3, 8
#: What was opened is unexplained once it is open for so many seconds, and has leaked once a place of the code has had
#: more of them at so many looks, none of which found fewer, or more connections that could be the reason. A pool that
#: fills up stops growing.
_SETTLED, _RISES = 30.0, 6
#: Looks without growth after which openings are noted no more.
_CALM: Final = 40
#: Of ``enum`` in Linux' net/tcp_states.h.
_STATES: Final = (
    "",
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "new_syn_recv",
)


class DescriptorCounts(msgspec.Struct, kw_only=True):
    """What is open.

    Attributes:
        open: Descriptors in all.
        limit: How many there may be.
        connections: Of them, those of connections in the registry.
        leases: Leases held; each is taken for a descriptor.
        before: What was open when the server began.
        unexplained: The rest. Pools, log files and the application's own connections are in it: its growth counts.
        noting: Whether it has grown so that openings are noted now.
        kinds: By kind: ``socket``, ``file``, ``pipe``, ``eventfd`` and so on; empty when that was not asked for.
        states: TCP sockets by state, such as ``close_wait``; ``unix``, ``udp`` and others by their kind.
    """

    open: int
    limit: int
    connections: int
    leases: int
    before: int
    unexplained: int
    noting: bool
    kinds: dict[str, int] = {}
    states: dict[str, int] = {}


class Descriptors:
    """Watches the descriptors of the process.

    Args:
        site: Its registry accounts for connections.
        ledger: Gets what has leaked.
        leases: How many leases are held.
        openings: Notes where they are opened, once that is needed.

    Attributes:
        open: How many were open at the last look.
    """

    def __init__(self, site: Site, ledger: Ledger, leases: Callable[[], int], openings: Openings | None = None) -> None:
        self._site = site
        self._ledger = ledger
        self._leases = leases
        self._openings = openings or Openings()
        self.open = 0
        self._count()
        self._before = self.open
        self._lowest: int | None = None
        self._last = 0
        self._rises = self._calm = 0
        #: Connections at the last look.
        self._load = 0
        #: By place of the code: how many it had at the last look, and how often that was more than before.
        self._places: dict[str, tuple[int, int]] = {}
        #: By descriptor: what it was, because numbers are used again, and what it was told as.
        self._told: dict[int, tuple[str, Signature]] = {}

    def close(self) -> None:
        """Note nothing any more. Idempotent."""
        self._openings.end()

    @property
    def unexplained(self) -> int:
        """Open at the last look, without what connections and leases account for and what was there before."""
        return self.open - self._before - len(self._site.runtime.registry) - self._leases()

    async def look(self) -> None:
        """Count, and see what the count means. To be called every 15 seconds or so.

        Cancel: safe.
        """
        self._count()
        self._openings.tell_time(self._site.ticker.now)
        unexplained = self.unexplained
        if self._lowest is None:  # what the application's start has opened
            self._lowest = self._last = unexplained
        grown = unexplained > self._last
        self._rises = self._rises + 1 if grown else 0
        self._last = unexplained
        self._lowest = min(self._lowest, unexplained)
        if not self._openings.on:
            if self._rises >= _LOOKS and unexplained - self._lowest >= _GROWTH:
                self._openings.begin()
                self._calm = 0
            return
        self._calm = 0 if grown else self._calm + 1
        if self._calm >= _CALM and not self._told:
            self._openings.end()
            self._places.clear()
            return
        await self._name()

    async def counts(self) -> DescriptorCounts:
        """Everything there is to say now. Cancel: safe."""
        kinds: Counter[str] = Counter()
        states: Counter[str] = Counter()
        async for fd, target in self._each():
            kinds[_kind(target)] += 1
            if target.startswith("socket:"):
                states[_state(fd)] += 1
        return DescriptorCounts(
            open=self.open,
            limit=int(os.sysconf("SC_OPEN_MAX")),
            connections=len(self._site.runtime.registry),
            leases=self._leases(),
            before=self._before,
            unexplained=self.unexplained,
            noting=self._openings.on,
            kinds=dict(kinds),
            states=dict(states),
        )

    def _count(self) -> None:
        """How many are open. Since Linux 6.2 the folder tells that as its size; before, it must be listed."""
        self.open = os.stat(_FOLDER).st_size or len(os.listdir(_FOLDER)) - 1

    async def _each(self) -> AsyncIterator[tuple[int, str]]:
        """Each descriptor, and what it is: a link such as ``socket:[4711]`` or a path. In slices, so never quite of one
        moment. The folder is not listed: the kernel makes 1300 entries in one call, and takes 3 ms for it.
        """
        self._count()
        found = last = 0
        for fd in range(os.sysconf("SC_OPEN_MAX")):
            target = _target(fd)
            if target:
                found, last = found + 1, fd
                yield fd, target
            if found == self.open or fd - last > _GAP:
                return
            if fd % _SLICE == _SLICE - 1:
                await turn(self._site.runtime.loop)

    async def _name(self) -> None:
        """Openings are noted: which places of the code have more and more that stay open?"""
        now = self._site.ticker.now
        connections = set(map(_descriptor, self._site.runtime.registry))
        sockets = dict(self._openings.sockets())
        found: dict[str, dict[int, tuple[str, Opening]]] = {}
        seen: dict[int, str] = {}
        async for fd, target in self._each():
            seen[fd] = target
            opening = sockets.get(fd) if target.startswith("socket:") else self._openings.file(target)
            if opening is not None and fd not in connections and now - opening.at >= _SETTLED:
                found.setdefault(place(opening.stack), {})[fd] = (target, opening)
        for fd in [fd for fd, (target, _) in self._told.items() if seen.get(fd) != target]:
            self._ledger.gone(self._told.pop(fd)[1])
        load, self._load = self._load, len(self._site.runtime.registry)
        self._judge(found, now, busier=self._load > load)

    def _judge(self, found: dict[str, dict[int, tuple[str, Opening]]], now: float, *, busier: bool) -> None:
        """Which places leak: by place, its descriptors with what they are."""
        for created in [created for created in self._places if created not in found]:
            del self._places[created]
        for created, opened in found.items():
            before, rises = self._places.get(created, (0, 0))
            if len(opened) < before:
                rises = 0
            elif len(opened) > before and not busier:
                rises += 1
            self._places[created] = (len(opened), rises)
            if rises >= _RISES and len(opened) >= _GROWTH:
                for fd, (target, opening) in opened.items():
                    if fd not in self._told:
                        # Files of one place often differ in their names only, and peers in their ports.
                        signature = Signature("fd", opening.what, created)
                        self._told[fd] = (target, signature)
                        self._tell(signature, fd, target, opening, now)

    def _tell(self, signature: Signature, fd: int, target: str, opening: Opening, now: float) -> None:
        owner = target if opening.what == "file" else f"socket {_peer(fd)}".rstrip()
        self._ledger.add(signature, owner=owner, age=now - opening.at, stack=frames(opening.stack))


def _descriptor(connection: Connection) -> int:
    """That of a connection; -1 when it has none."""
    transport = connection.transport
    sock = transport.get_extra_info("socket") if transport is not None else None
    return sock.fileno() if sock is not None else -1


def _target(fd: int) -> str:
    """What a descriptor is; "" when it is closed."""
    try:
        return os.readlink(f"{_FOLDER}/{fd}")
    except OSError:
        return ""


def _kind(target: str) -> str:
    """``socket``, ``pipe``, ``eventfd``, ... of a link in /proc/self/fd; ``file`` for a path."""
    if target.startswith("/"):
        return "device" if target.startswith("/dev/") else "file"
    kind, _, rest = target.partition(":")
    return rest.strip("[]") if kind == "anon_inode" else kind


def _borrowed(fd: int) -> socket.socket | None:
    """A socket object for a descriptor of somebody else; to be detached. None when it is no socket any more."""
    try:
        return socket.socket(fileno=fd)
    except OSError:
        return None


def _state(fd: int) -> str:
    """The state of a socket.

    Asked of the socket itself: /proc/net/tcp lists every connection of the machine to find these few.
    """
    sock = _borrowed(fd)
    if sock is None:
        return "closed"
    try:
        if sock.family == socket.AF_UNIX:
            return "unix"
        if sock.type != socket.SOCK_STREAM:
            return "udp" if sock.type == socket.SOCK_DGRAM else "other"
        (state,) = struct.unpack_from("B", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1))
        return _STATES[state] if state < len(_STATES) else "other"
    except OSError:
        return "closed"
    finally:
        sock.detach()


def _peer(fd: int) -> str:
    """Whom a socket is connected to, as ``host:port`` or a path; "" when it is not."""
    sock = _borrowed(fd)
    if sock is None:
        return ""
    try:
        peer = sock.getpeername()
        return f"to {peer[0]}:{peer[1]}" if isinstance(peer, tuple) else f"to {peer}"
    except OSError:
        return ""
    finally:
        sock.detach()
