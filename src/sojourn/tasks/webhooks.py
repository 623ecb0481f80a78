"""Callbacks: somebody else's service is told of the end of a task, by a durable task of its own."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sojourn.clock import SystemClock
from sojourn.errors import AuthenticationError, ConfigError, DeadlineExceeded, WebhookFailed, WebhookRefused
from sojourn.policy.egress import Egress, Target
from sojourn.policy.retry import Backoff, retry_after_of
from sojourn.scopes.budget import budget
from sojourn.scopes.offload import offload
from sojourn.tasks.cancelling import LOOK, look_again
from sojourn.tasks.record import NewTask
from sojourn.tasks.spec import Problem, Spec
from sojourn.wire.webhook import headers_of, key_of, refusal

if TYPE_CHECKING:
    from httpx import AsyncClient

    from sojourn.tasks.tasks import Tasks

__all__ = ["WEBHOOK", "Webhooks", "verify_webhook"]

#: The kind of the tasks that deliver them, and the name of their budget.
WEBHOOK: Final = "sojourn.webhook"
BUDGET: Final = "webhook"
#: Seconds beside those of the request that a delivery has.
_MARGIN: Final = 5.0
#: Bytes of a result or an error that a webhook carries; who wants a longer one asks for the task.
_LARGEST: Final = 64 * 1024
_BACKOFF: Final = Backoff(10.0, 3600.0)
_GONE: Final = 410
_encode: Final = msgspec.json.Encoder().encode
_read_spec: Final = msgspec.json.Decoder(Spec).decode
_wall: Final = SystemClock.wall


class Webhooks:
    """Tells the ends of tasks that were started with ``callback=``, signed as Standard Webhooks has it.

    A delivery is written down in the same step as the end of its task, and is tried until it is taken. What is sent:
    ``{"type": "task.completed", "timestamp": ..., "data": {"id", "kind", "state", "location", "result" or "error"}}``.

    Args:
        secret: What signs them: ``whsec_`` and Base64, or 24 to 64 bytes. Several while one is replaced, newest first.
        allow: Hosts that may be called, ``*.example.com`` for all below one. None at all: any.
        plain: Whether http URLs may be called, too.
        private: Whether addresses inside may be: loopback, private networks, link-local ones. A name that leads there
            is refused as well, and the address that was looked at is the one that is called.
        timeout: Seconds of one try, unless ``deadlines.budgets`` has a ``webhook``.
        retries: How often it is tried again; what the receiver asks for by ``Retry-After`` is heeded.
        backoff: How long it waits before that.
        tls: How certificates are checked; None takes those of httpx.

    Raises:
        ConfigError: A secret that is none.

    Example:
        >>> webhooks = Webhooks("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", allow=("*.example.com",))
        >>> webhooks.check("https://hooks.example.com/tasks")
    """

    def __init__(  # noqa: PLR0913 - the options of webhooks, once
        self,
        secret: str | bytes | Sequence[str | bytes],
        *,
        allow: Sequence[str] = (),
        plain: bool = False,
        private: bool = False,
        timeout: float = 10.0,
        retries: int = 8,
        backoff: Backoff = _BACKOFF,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._keys = _keys(secret)
        self._egress = Egress(tuple(allow), plain, private)
        self._timeout = timeout
        self._retries = retries
        self._backoff = backoff
        self._tls = tls
        self._tasks: Tasks | None = None

    def join(self, tasks: Tasks) -> None:
        """Deliver for a service; called by ``Tasks(webhooks=...)``.

        Raises:
            ConfigError: httpx is missing, or it does so for another service.
        """
        _httpx()
        if self._tasks is not None:
            raise ConfigError("these webhooks are of another service of tasks: each has its own Webhooks(...)")
        self._tasks = tasks
        define = tasks.define(
            name=WEBHOOK,
            deadline=self._deadline,
            retries=self._retries,
            backoff=self._backoff,
            final=(WebhookRefused,),
        )
        define(self.deliver)
        tasks.define(name=LOOK)(self.look)

    def check(self, url: str) -> None:
        """Whether a URL may be called, as far as it can be told without asking where it leads.

        Raises:
            ConfigError: It may not; the message says why.
        """
        try:
            self._egress.target(url)
        except ValueError as error:
            raise ConfigError(f"a callback that can't be called: {error}") from None

    def delivery(  # noqa: PLR0913 - an end, as it is known where it comes about
        self, task_id: str, kind: str, state: str, result: bytes, error: bytes, url: str, run: str = ""
    ) -> NewTask:
        """The task that tells the end of another.

        Args:
            task_id: Of the task that has ended; so are the others.
            kind: Its kind.
            state: ``completed``, ``failed`` or ``cancelled``.
            result: JSON, when it is completed.
            error: JSON, when it has failed.
            url: Who is told.
            run: Which end of the task it is: told again, it is the same delivery. "" makes another one each time.
        """
        message = _message(task_id, run) if run else secrets.token_urlsafe(16)
        data: dict[str, Any] = {"id": task_id, "kind": kind, "state": state}
        if self._tasks is not None:
            data["location"] = self._tasks.location(task_id)
        if state == "completed":
            data |= {"result": msgspec.Raw(result or b"null")} if len(result) <= _LARGEST else {"omitted": True}
        elif state == "failed" and error:
            problem = msgspec.json.decode(error, type=Problem)
            data["error"] = {"type": problem.type, "detail": problem.detail, "attempt": problem.attempt}
        moment = datetime.fromtimestamp(_wall(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        body = _encode({"type": f"task.{state}", "timestamp": moment, "data": data})
        spec = Spec(
            deadline=self._deadline,
            attempts=self._retries + 1,
            first=self._backoff.first,
            most=self._backoff.most,
        )
        payload = _encode({"message": message, "url": url, "body": body.decode()})
        return NewTask(id=message, kind=WEBHOOK, payload=payload, spec=_encode(spec))

    async def look(self, task: str, name: str, times: int) -> None:
        """See whether a task that was to end was cancelled, and have its receiver told; a task of its own kind.

        Args:
            task: The task.
            name: What the looks of one cancellation have in common.
            times: How many there were before.

        Cancel: safe; it is told once, however often it is looked at.
        """
        assert self._tasks is not None  # who does this
        journal = self._tasks.journal
        found = await journal.get(task)
        if found is None or found.state in ("completed", "failed"):
            return
        if found.state != "cancelled":
            await look_again(journal, found, name, times)
            return
        url, run = _read_spec(found.spec).callback, str(found.epoch)
        before = await journal.get(_message(task, run))
        if before is not None and before.created < found.ended:  # that was an end before somebody had it tried again
            run += f".{found.ended:.6f}"
        await journal.submit([self.delivery(task, found.kind, found.state, b"", b"", url, run)])

    async def deliver(self, message: str, url: str, body: str) -> dict[str, int]:
        """Send one; a task of the kind ``sojourn.webhook``.

        Args:
            message: Its id, the same for each try.
            url: Where to.
            body: What.

        Returns:
            The status with which it was taken.

        Raises:
            WebhookFailed: It was not; says when to try again, if the receiver did.
            WebhookRefused: And it is not to be tried again.

        Cancel: safe; it may have been taken.
        """
        try:
            target = self._egress.target(url)
        except ValueError as error:
            raise WebhookRefused("its receiver", str(error)) from None
        try:
            async with budget(BUDGET, default=self._timeout):
                addresses = await self._addresses(target)
                status, later = await self._post(target, addresses, message, body.encode())
        except DeadlineExceeded as error:
            if error.deadline != BUDGET:
                raise
            raise WebhookFailed(target.host, f"no answer in {error.seconds:g} s") from error
        if 200 <= status < 300:
            return {"status": status}
        kind = WebhookRefused if status == _GONE else WebhookFailed
        raise kind(target.host, f"it answered {status}", status, later)

    @property
    def _deadline(self) -> float:
        return self._timeout + _MARGIN

    async def _addresses(self, target: Target) -> list[str]:
        """Where a host is; all of its addresses may be called."""
        try:
            found = await self._lookup(target.host, target.port)
        except OSError as error:
            raise WebhookFailed(target.host, f"its address can't be found: {error}") from error
        refused = [address for address in found if self._egress.refuses(address)]
        if refused or not found:
            raise WebhookRefused(target.host, "it leads to an address that is not public")
        return found

    async def _lookup(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(each[4][0]) for each in found))

    async def _post(self, target: Target, addresses: list[str], message: str, body: bytes) -> tuple[int, float | None]:
        """Send it to the first address that can be connected to."""
        httpx = _httpx()
        headers = {
            "host": target.authority,
            "content-type": "application/json",
            "user-agent": "sojourn-webhooks",
            **headers_of(self._keys, message, body, int(_wall())),
        }
        last: Exception | None = None
        if self._tls is None:  # some hundred certificates are read: once, and not in the loop
            self._tls = await offload(httpx.create_ssl_context, to="thread", deadline=None, name="webhook certificates")
        # No proxies: what they call is not what was looked at. The whole is bounded by the budget.
        async with httpx.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False, timeout=None) as client:
            for address in addresses:
                try:
                    return await _send(client, target, address, headers, body)
                except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                    last = error
                except (httpx.HTTPError, httpx.InvalidURL) as error:
                    raise WebhookFailed(target.host, f"{type(error).__name__}: {error}") from error
        raise WebhookFailed(target.host, f"it can't be connected to: {last}") from last


async def _send(
    client: AsyncClient, target: Target, address: str, headers: Mapping[str, str], body: bytes
) -> tuple[int, float | None]:
    """The status, and when to try again. What else is answered is not read."""
    numeric = f"[{address}]" if ":" in address else address
    # The address stands in the URL, so that nobody looks it up again; the name is what the certificate must be for.
    url = f"{target.scheme}://{numeric}:{target.port}{target.path}"
    extensions = {"sni_hostname": target.host} if target.scheme == "https" else {}
    async with client.stream("POST", url, content=body, headers=dict(headers), extensions=extensions) as answer:
        return answer.status_code, retry_after_of(answer, _wall())


def verify_webhook(
    headers: Mapping[str, str] | Iterable[tuple[bytes, bytes]],
    body: bytes,
    secret: str | bytes | Sequence[str | bytes],
    tolerance: float = 300.0,
) -> Any:
    """Whether a webhook comes from who knows the secret, for who gets one.

    A webhook may come twice: its ``webhook-id`` is the same then.

    Args:
        headers: Of the request, as a mapping or as ASGI has them.
        body: Of the request, byte for byte.
        secret: As for :class:`Webhooks`.
        tolerance: Seconds that its time may differ from ours.

    Returns:
        What it says: the JSON of its body.

    Raises:
        AuthenticationError: It is not believed: answer 401.
        ConfigError: A secret that is none.

    Example:
        >>> secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        >>> verify_webhook({"webhook-id": "1", "webhook-timestamp": "1", "webhook-signature": "v1,"}, b"{}", secret)
        Traceback (most recent call last):
        sojourn.errors.AuthenticationError: webhook_invalid: webhook-timestamp is more than 300 s away
    """
    pairs: Iterable[tuple[Any, Any]] = headers.items() if isinstance(headers, Mapping) else headers
    said = {_text(name).lower(): _text(value) for name, value in pairs}
    why = refusal(_keys(secret), said, body, _wall(), tolerance)
    if why is not None:
        raise AuthenticationError("webhook_invalid", why)
    return msgspec.json.decode(body)


def _message(task: str, run: str) -> str:
    """What the delivery of an end is called, wherever it is written down."""
    return f"{task}.{run}"


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _keys(secret: str | bytes | Sequence[str | bytes]) -> list[bytes]:
    given = [secret] if isinstance(secret, str | bytes) else list(secret)
    try:
        found = [key_of(each) for each in given]
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if not found:
        raise ConfigError("webhooks need a secret")
    return found


def _httpx() -> ModuleType:
    try:
        import httpx
    except ImportError:
        raise ConfigError("webhooks need httpx: pip install 'sojourn[httpx]'") from None
    return httpx
