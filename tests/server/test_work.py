"""What runs tasks without serving: the right object, the right kinds, and a server that listens nowhere."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sojourn.config import App, Config, Work
from sojourn.errors import ConfigError, StartupError
from sojourn.server.server import Server
from sojourn.server.work import working
from sojourn.tasks.settings import Settings


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


class Service:
    """Of tasks what a process that runs them needs."""

    def __init__(self, *kinds: str, fails: Exception | None = None) -> None:
        self.kinds = [Named(kind) for kind in kinds]
        self.settings = Settings(work=False, concurrency=4)
        self.calls: list[str] = []
        self._fails = fails

    async def begin(self) -> None:
        self.calls.append("begin")
        if self._fails is not None:
            raise self._fails

    async def aclose(self) -> None:
        self.calls.append("aclose")


CONFIG = Config(app=App(interface="tasks", lifespan="on"))


def app_of(service: Any, **work: Any) -> Any:
    return working(service, "jobs:tasks", Work(**work))


@pytest.mark.parametrize(
    ("work", "concurrency", "kinds"),
    [({}, 4, None), ({"concurrency": 9}, 9, None), ({"kinds": ("mail",)}, 4, frozenset({"mail"}))],
)
def test_it_works_whatever_it_was_made_with(
    work: dict[str, Any], concurrency: int, kinds: frozenset[str] | None
) -> None:
    service = Service("mail", "sms")
    app_of(service, **work)
    settings = service.settings
    assert (settings.work, settings.polite, settings.concurrency, settings.kinds) == (True, False, concurrency, kinds)


def test_what_can_t_be_run_is_refused() -> None:
    with pytest.raises(StartupError, match="jobs:tasks has no tasks"):
        app_of(Service())
    with pytest.raises(ConfigError, match="no task 'mial'; did you mean mail"):
        app_of(Service("mail"), kinds=("mial",))


def test_a_server_without_sockets_begins_and_ends_the_tasks() -> None:
    service = Service("mail")

    async def main() -> None:
        async with asyncio.timeout(10), Server(app_of(service), CONFIG) as server:
            assert server.addresses == ()
            assert service.calls == ["begin"]

    asyncio.run(main())
    assert service.calls == ["begin", "aclose"]


def test_tasks_that_can_t_begin_are_an_error_of_the_start() -> None:
    async def main() -> None:
        async with asyncio.timeout(10), Server(app_of(Service("mail", fails=ConfigError("no journal"))), CONFIG):
            pass

    with pytest.raises(StartupError, match="startup failed: no journal"):
        asyncio.run(main())
