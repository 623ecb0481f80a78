"""Puts observers on the bus and takes them off again: the one entry to this folder for the server."""

from __future__ import annotations

import logging
import sys
from typing import Literal, NamedTuple

from sojourn.bus import Bus
from sojourn.clock import Clock
from sojourn.config import Log
from sojourn.errors import ConfigError
from sojourn.observe.log.access import SEVERITY, Access, AccessForm
from sojourn.observe.log.console import RingHandler, is_coloured, is_terminal
from sojourn.observe.log.formats import Combined, Human, Json
from sojourn.observe.log.messages import LOGGER, Messages
from sojourn.observe.log.ring import Ring
from sojourn.observe.log.sink import Sink, complain

__all__ = ["Installed", "Losses", "install"]


class Losses(NamedTuple):
    """What is missing in the access log.

    Attributes:
        dropped: Lines that found the ring full.
        unwritten: Lines the output refused.
        failed: Lines that could not be formatted; each is a bug.
    """

    dropped: int
    unwritten: int
    failed: int


class _AccessLog(NamedTuple):
    """The parts of the access log. ``owned``: the ring ends with it, because no console shares it."""

    access: Access
    form: AccessForm
    sink: Sink
    ring: Ring
    owned: bool


class Installed:
    """What :func:`install` put in place."""

    __slots__ = ("_closed", "_log", "_messages")

    def __init__(self, messages: Messages, log: _AccessLog | None) -> None:
        self._messages = messages
        self._log = log
        self._closed = False

    @property
    def losses(self) -> Losses:
        """What is missing in the access log so far."""
        if self._log is None:
            return Losses(0, 0, 0)
        sink = self._log.sink
        return Losses(sink.dropped, sink.unwritten, sink.failed)

    def level(self, word: Literal["debug", "info", "warning", "error", "critical"]) -> None:
        """Apply a changed ``log.level`` to what comes from now on: in the access log, and on a configured console."""
        if self._log is not None:
            form = self._log.form
            self._log.ring.order(lambda: setattr(form, "minimum", SEVERITY[word]))
        console = _console()
        if console is not None:
            console.set_level(SEVERITY[word])

    def reopen(self) -> None:
        """Open ``log.file`` anew, because logrotate renamed it. Returns at once; the writer thread does it.

        Lines of events before this call go to the old file.
        """
        if self._log is not None and not self._closed:
            self._log.ring.order(self._log.sink.reopen)

    def close(self, timeout: float = 2.0) -> bool:
        """Take the observers off the bus and write what waits. Calling it twice does nothing more.

        Waits in the calling thread, so call it once the event loop has nobody left to serve.

        Args:
            timeout: Seconds after which a stuck reader is left behind; what is then lost is told on standard error.

        Returns:
            Whether every line was handed on.
        """
        log, closed = self._log, self._closed
        self._closed = True
        self._messages.close()
        if log is None or closed:
            return True
        log.access.close()
        log.ring.order(log.sink.close)
        written = log.ring.close(timeout) == 0 if log.owned else log.ring.flush(timeout)
        if not written:
            complain(f"access log: nobody took its last lines for {timeout:g} s; {len(log.ring)} are lost")
        return written


def install(bus: Bus, log: Log, clock: Clock, *, stdout: int = 1) -> Installed:
    """Observe the bus: server messages to the logger ``sojourn``, the access log to ``log.file`` or standard output.

    The access log shares the ring and the thread of the console when ``configure`` was called before, and has its own
    otherwise. With ``log.access`` off nothing is subscribed for it, so that its events are not even built.

    Args:
        bus: Where the events come from.
        log: Where and how to write.
        clock: Its ``wall`` stamps the lines.
        stdout: Descriptor used when ``log.file`` is None.

    Raises:
        ConfigError: ``log.file`` can't be opened, or standard output is closed.

    Example::

        installed = install(bus, config.log, SystemClock())
        ...
        installed.close()
    """
    console = _console()
    access = None if log.access == "off" else _access_log(bus, log, clock, stdout, console)
    return Installed(Messages(bus, enable=console is not None, clock=clock), access)


def _access_log(bus: Bus, log: Log, clock: Clock, stdout: int, console: RingHandler | None) -> _AccessLog:
    if log.file is None and stdout == 1 and sys.__stdout__ is None:
        raise ConfigError("standard output is closed; name a file, or set log.access to off", key="log.file")
    fd = stdout if log.file is None else None
    form = _form(log, fd)
    sink = Sink(form, "access log", fd=fd, path=log.file)
    ring = console.ring if console else Ring()
    access = Access(bus, ring, sink, clock, requests_only=isinstance(form, Combined))
    return _AccessLog(access, form, sink, ring, owned=console is None)


def _form(log: Log, fd: int | None) -> AccessForm:
    minimum = SEVERITY[log.level]
    terminal = fd is not None and is_terminal(fd)
    if log.access == "combined":
        return Combined(minimum)
    if log.access == "human" or (log.access == "auto" and terminal):
        return Human(minimum, terminal=terminal, colour=fd is not None and is_coloured(fd))
    return Json(minimum)


def _console() -> RingHandler | None:
    """The handler that ``configure`` installed, if it was called."""
    handlers = logging.getLogger(LOGGER).handlers
    return next((handler for handler in handlers if isinstance(handler, RingHandler)), None)
