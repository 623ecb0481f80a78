"""What a caller gets for a task it has started: where to ask for it, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

import msgspec

from sojourn.routing.response import Response
from sojourn.tasks.record import ENDED, State
from sojourn.typing import Receive, Scope, Send

__all__ = ["Accepted", "Started"]

R = TypeVar("R")


class Accepted(Response):
    """A Response that is an ASGI application too, so that Starlette sends it as well."""

    __slots__ = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Cancel: as ``Response.send``."""
        await self.send(scope, send)


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A task that is written down; from here on it is finished, whatever happens.

    Attributes:
        id: Of the task.
        new: Whether this call has made it; False when its idempotency key was known.
        state: Where it was at that moment.
        kind: What is done.
        location: Path under which it can be asked for.
        retry_after: Seconds after which that makes sense.

    Example:
        >>> started = Started(id="t1", new=True, state="pending", kind="resize", location="/_tasks/t1")
        >>> started.status, started.headers["location"]
        (202, '/_tasks/t1')
    """

    id: str
    new: bool
    state: State
    kind: str
    location: str
    retry_after: float = 1.0

    @property
    def status(self) -> int:
        """202 while it has not ended, then 200."""
        return 200 if self.state in ENDED else 202

    @property
    def headers(self) -> Mapping[str, str]:
        """Location, and Retry-After while it has not ended."""
        found = {"location": self.location}
        if self.state not in ENDED:
            found["retry-after"] = str(max(1, round(self.retry_after)))
        return found

    def document(self) -> dict[str, Any]:
        """What is known of it, for the body of an answer."""
        return {"id": self.id, "kind": self.kind, "state": self.state, "location": self.location}

    @overload
    def response(self) -> Accepted: ...
    @overload
    def response(self, make: Callable[..., R]) -> R: ...
    def response(self, make: Callable[..., Any] = Accepted) -> Any:
        """The answer of a handler: the document, with 202, Location and Retry-After.

        Args:
            make: Called with the document, the status and the headers. What it is by itself serves plain ASGI,
                ``Router`` and Starlette; FastAPI wants a class of its own: ``started.response(JSONResponse)``.

        Example:
            >>> started = Started(id="t1", new=True, state="pending", kind="resize", location="/_tasks/t1")
            >>> started.response().status
            202
        """
        return make(self.document(), self.status, dict(self.headers))
