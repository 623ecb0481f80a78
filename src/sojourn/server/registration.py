"""Telling a service registry that this instance serves, is about to stop, and is gone.

    start       register, again and again until it works
    beat        a sign of life each `registration.beat`
    set_state   `draining`, when the drain begins
    deregister  when it is over, or at its beginning

Nobody waits for a registry: `Registrar` does all of it in the background, one call at a time, each within its timeout.
It does not replay a history, it brings the registry to what is true now: a state that has changed again meanwhile is
not told any more, and after a failed call the next one registers anew, because the registry may have forgotten us.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import random
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from sojourn.bus import Bus
from sojourn.clock import Clock, SystemClock
from sojourn.config import Config, Registration
from sojourn.errors import ConfigError, SojournError
from sojourn.events import RegistrationFailed
from sojourn.net.ticker import Ticker
from sojourn.scopes.work import Work

__all__ = ["Instance", "Registrar", "RegistrationError", "ServiceRegistry", "Webhook", "from_config"]

#: Seconds before a call that failed is tried again: the first, doubled each time, up to the last.
_FIRST_RETRY: Final = 0.5
_LAST_RETRY: Final = 15.0
#: Tries to deregister: who asks for it is about to end.
_FAREWELLS: Final = 3
_KEY: Final = "registration.webhook"


class Instance(NamedTuple):
    """What a registry is told.

    Attributes:
        name: The instance, as in logs and probes.
        addresses: Where it listens, as URLs.
        pid: Process id of its supervisor.
        state: ``serving`` or ``draining``.
    """

    name: str
    addresses: tuple[str, ...]
    pid: int
    state: str = "serving"


class RegistrationError(SojournError):
    """A service registry did not do what it was asked."""


class ServiceRegistry(Protocol):
    """Keeps a list of instances. A call that fails raises; it is cancelled when it takes too long."""

    async def register(self, instance: Instance) -> None:
        """Put an instance on the list, or replace what is there of the same name."""

    async def set_state(self, instance: Instance) -> None:
        """The state of an instance has changed."""

    async def beat(self, instance: Instance) -> None:
        """An instance is alive."""

    async def deregister(self, instance: Instance) -> None:
        """Take an instance off the list; not an error when it is not on it."""


class Webhook:
    """A registry behind a URL: each call is a POST with a JSON document.

    ``{"event": "register", "instance": "a:8000", "addresses": ["http://10.0.0.1:8000"], "state": "serving",
    "pid": 12, "time": 1700000000.0}``; the events are ``register``, ``state``, ``beat`` and ``deregister``. Any answer
    2xx is a yes. Redirects are not followed: they could carry the token elsewhere. Proxies of the environment are not
    used.

    Args:
        url: http or https.
        token: Bearer token; None sends none.
        timeout: Seconds for one step of a call (connect, send, receive); the whole call is bounded by the caller.
        clock: Where ``time`` comes from.

    Raises:
        ConfigError: The URL or the token can't be used.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 3.0, clock: Clock | None = None) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(f"is no URL: {error}", key=_KEY) from error
        if parts.scheme not in ("http", "https") or not host:
            raise ConfigError("is no URL of http or https: write https://HOST/PATH", key=_KEY)
        if parts.username is not None or parts.password is not None:
            raise ConfigError("has a user or password in it: use registration.token", key=_KEY)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not target.isascii() or not target.isprintable() or " " in target:
            raise ConfigError("has a path that must be percent-encoded", key=_KEY)
        if token is not None and (not token.isascii() or not token.isprintable() or not token.strip()):
            raise ConfigError("is empty or has other characters than printable ASCII", key="registration.token")
        self._host, self._port, self._target = host, port, target
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._token = token
        self._timeout = timeout
        self._clock = clock or SystemClock()

    async def register(self, instance: Instance) -> None:
        """Send ``register``.

        Raises:
            RegistrationError: It did not work.
        """
        await self._post("register", instance)

    async def set_state(self, instance: Instance) -> None:
        """Send ``state``; raises as :meth:`register` does."""
        await self._post("state", instance)

    async def beat(self, instance: Instance) -> None:
        """Send ``beat``; raises as :meth:`register` does."""
        await self._post("beat", instance)

    async def deregister(self, instance: Instance) -> None:
        """Send ``deregister``; raises as :meth:`register` does."""
        await self._post("deregister", instance)

    async def _post(self, event: str, instance: Instance) -> None:
        """One call, in a thread of its own.

        Not in the loop's executor: the interpreter waits for the threads of an executor before it exits, and a name
        server or a registry that hangs must not hold that up.

        Cancel: safe; the thread is told to end, and its result thrown away.
        """
        document = {"event": event, "instance": instance.name, **instance._asdict(), "time": self._clock.wall()}
        del document["name"]
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        call = _Call(self._connection(), self._target, msgspec.json.encode(document), self._headers())

        def settle(error: BaseException | None) -> None:
            if done.cancelled():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        def finished(error: BaseException | None) -> None:
            try:
                loop.call_soon_threadsafe(settle, error)
            except RuntimeError:
                pass  # the loop has been closed: nobody waits any more

        threading.Thread(target=call.run, args=(finished,), name="sojourn-registration", daemon=True).start()
        try:
            await done
        finally:
            call.abandon()

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json", "connection": "close"}
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        return headers


class _Call:
    """One POST in a thread, that another thread can give up."""

    def __init__(self, connection: http.client.HTTPConnection, target: str, body: bytes, headers: dict[str, str]):
        self._connection = connection
        self._target = target
        self._body = body
        self._headers = headers
        self._lock = threading.Lock()
        #: A second descriptor of the socket: it can't be closed, and its number given to another, while it is used.
        self._handle: socket.socket | None = None
        self._abandoned = False

    def run(self, finished: Callable[[BaseException | None], None]) -> None:
        """Send it and read the head of the answer; what came of it goes to ``finished``."""
        problem: BaseException | None = None
        try:
            self._connect()
            self._connection.request("POST", self._target, self._body, self._headers)
            status = self._connection.getresponse().status
            if not 200 <= status < 300:
                hint = "; redirects are not followed" if 300 <= status < 400 else ""
                problem = RegistrationError(f"it answered {status}{hint}")
        except (OSError, http.client.HTTPException) as error:  # ssl.SSLError is an OSError
            problem = RegistrationError(_words(error))
        except Exception as error:  # noqa: BLE001 - goes to who waits; a thread has nobody else to tell
            problem = error
        finally:
            self._connection.close()
            with self._lock:
                if self._handle is not None:
                    self._handle.close()
                    self._handle = None
            finished(problem)

    def _connect(self) -> None:
        self._connection.connect()
        with self._lock:
            if self._abandoned:
                raise RegistrationError("the call was given up")
            self._handle = socket.socket(fileno=os.dup(self._connection.sock.fileno()))

    def abandon(self) -> None:
        """Wake the thread, wherever it waits for the peer: each step has its timeout, many slow ones have none."""
        with self._lock:
            self._abandoned = True
            if self._handle is not None:
                try:
                    self._handle.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the peer has closed it already


class Registrar:
    """Keeps a registry informed of one instance, in the background.

    Args:
        registry: Whom to tell.
        instance: Of whom.
        work: Where its task is made; its ``work.run`` task is this object's.
        ticker: Where pauses come from.
        bus: Gets ``RegistrationFailed``, once for each run of failures.
        settings: ``registration.beat`` and ``registration.timeout``.
    """

    def __init__(
        self,
        registry: ServiceRegistry,
        instance: Instance,
        *,
        work: Work,
        ticker: Ticker,
        bus: Bus,
        settings: Registration,
    ) -> None:
        self._registry = registry
        self._work = work
        self._ticker = ticker
        self._bus = bus
        self._beat = settings.beat
        self._timeout = settings.timeout
        self._instance = instance
        #: What the registry knows; None when it does not know us, or we do not know whether it does.
        self._known: Instance | None = None
        self._leaving = False
        #: Whether it was asked to register at all: it may have heard a call that we saw fail.
        self._called = False
        self._failures = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to register, and to beat. Returns at once; only the first call does anything."""
        if self._task is None and not self._leaving:
            self._task = self._work.run(self._run(), "registration")

    def set_state(self, state: str) -> None:
        """Tell the registry a new state, such as ``draining``. Returns at once."""
        self._instance = self._instance._replace(state=state)
        self._changed.set()

    def deregister(self) -> None:
        """Take the instance off the list, and do nothing more. Returns at once."""
        self._leaving = True
        self._changed.set()

    async def close(self) -> None:
        """Deregister if that was not done, and wait for it: at most ``registration.timeout`` and a little more.

        Cancel: safe; gives up at once.
        """
        self.deregister()
        task = self._task
        if task is None:
            return
        try:
            # A call of another kind may be under way; then comes the one that is waited for.
            await asyncio.wait((task,), timeout=2 * self._timeout)
        finally:
            task.cancel()

    async def _run(self) -> None:
        while not self._leaving:
            self._changed.clear()
            instance, registry = self._instance, self._registry
            if self._known is None:
                self._called = True
                works = await self._call("register", registry.register(instance))
            elif self._known != instance:
                works = await self._call("set_state", registry.set_state(instance))
            else:
                works = await self._call("beat", registry.beat(instance))
            self._known = instance if works else None
            await self._pause(self._beat if works else self._retry())
        for attempt in range(_FAREWELLS if self._called else 0):
            if attempt:
                self._changed.clear()
                await self._pause(self._retry())
            if await self._call("deregister", self._registry.deregister(self._instance)):
                return

    async def _call(self, name: str, call: Awaitable[None]) -> bool:
        """Make one call; whether it worked."""
        try:
            async with asyncio.timeout(self._timeout):
                await call
        except TimeoutError:
            problem = f"no answer within {self._timeout:g} s"
        except Exception as error:  # noqa: BLE001 - whatever a registry raises: serving goes on, and it is told below
            problem = str(error) if isinstance(error, RegistrationError) else _words(error)
        else:
            self._failures = 0
            return True
        self._failures += 1
        if self._failures == 1:
            self._bus.emit(RegistrationFailed(name, problem))
        return False

    def _retry(self) -> float:
        """Seconds until the next try."""
        return min(_LAST_RETRY, _FIRST_RETRY * 2.0 ** min(self._failures - 1, 16))

    async def _pause(self, seconds: float | None) -> None:
        """Wait for so long, or until there is something to tell; None waits for that only."""
        if seconds is None:
            await self._changed.wait()
            return
        # Jitter, so that instances that came together do not call together.
        ringing = self._ticker.call_later(seconds * random.uniform(0.9, 1.1), self._changed.set)
        try:
            await self._changed.wait()
        finally:
            ringing.cancel()


def from_config(config: Config, clock: Clock | None = None) -> ServiceRegistry | None:
    """The registry that the configuration names; None when it names none.

    Args:
        config: All settings.
        clock: Where the time in what is sent comes from; None takes the machine's.

    Raises:
        ConfigError: ``registration.webhook`` or ``registration.token`` can't be used.
    """
    settings = config.registration
    if settings.webhook is None:
        return None
    return Webhook(settings.webhook, settings.token, timeout=settings.timeout, clock=clock)


def _words(error: Exception) -> str:
    """What went wrong, in a line."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
