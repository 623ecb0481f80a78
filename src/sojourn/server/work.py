"""What a process runs: an ASGI application that is served, or a service of durable tasks that works without being."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from sojourn.config import Config, Work
from sojourn.errors import ConfigError, SojournError, StartupError
from sojourn.server.importer import load_app, load_object
from sojourn.server.settings.keys import closest
from sojourn.typing import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from sojourn.tasks.tasks import Tasks

__all__ = ["application", "working"]

#: Names listed where one is not among them.
_LISTED: Final = 10


def application(config: Config) -> ASGIApp:
    """Import what ``config.app`` names: an application, or tasks when that is its interface.

    Raises:
        ConfigError: The target, the environment file or a name of ``work.kinds`` can't be meant.
        StartupError: The import failed, or the object is something else.
    """
    if config.app.interface != "tasks":
        return load_app(config.app)
    from sojourn.tasks.tasks import Tasks

    found, name = load_object(config.app)
    if not isinstance(found, Tasks):
        raise StartupError(f"{name} is a {type(found).__name__}, not a Tasks object: sojourn serve runs applications")
    return working(found, name, config.work)


def working(tasks: Tasks, name: str, work: Work) -> ASGIApp:
    """An application that does nothing but run tasks: they begin and end with its lifespan.

    Args:
        tasks: Of which application; they work from now on, whatever they were made with.
        name: What messages call them.
        work: How many at the same time, and which.

    Raises:
        ConfigError: A kind is not among them.
        StartupError: There are none.
    """
    known = sorted(kind.name for kind in tasks.kinds)
    if not known:
        raise StartupError(f"{name} has no tasks: is the module imported that defines them?")
    for kind in work.kinds:
        if kind not in known:
            near = closest(kind, known)
            advice = f"did you mean {near}?" if near else f"there are {', '.join(known[:_LISTED])}"
            raise ConfigError(f"{name} has no task {kind!r}; {advice}", key="work.kinds")
    changes: dict[str, Any] = {"work": True, "polite": False}  # there is nobody whom it could hold up
    if work.concurrency is not None:
        changes["concurrency"] = work.concurrency
    if work.kinds:
        changes["kinds"] = frozenset(work.kinds)
    tasks.settings = msgspec.structs.replace(tasks.settings, **changes)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"  # nothing listens
        await receive()
        try:
            await tasks.begin()
        except SojournError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await tasks.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    return app
