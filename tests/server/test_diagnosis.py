"""All that watches a worker is put there as a whole, or not at all."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from sojourn.config import Bind, Config, Traces
from sojourn.errors import ConfigError
from sojourn.server.server import Server
from sojourn.typing import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotImplementedError


def test_when_a_part_can_not_be_made_nothing_of_the_others_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(site: object) -> object:
        raise ConfigError("needs OpenTelemetry", key="traces.enabled")

    monkeypatch.setattr("sojourn.server.diagnosis.open_traces", missing)

    async def main() -> None:
        callbacks, threads = list(gc.callbacks), threading.active_count()
        with pytest.raises(ConfigError):
            await Server(app, Config(bind=Bind(port=0), traces=Traces(enabled=True))).start()
        assert (gc.callbacks, threading.active_count()) == (callbacks, threads)
        assert asyncio.get_running_loop().get_task_factory() is None

    asyncio.run(main())
