"""SystemExit in a task that the application or its framework made."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import httpx
import pytest

import sojourn
from sojourn.config import App, Bind, Drain


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_exit_in_a_task_of_the_application_costs_one_answer(loop: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def child() -> None:
            raise SystemExit(3)

        if scope["type"] == "http" and scope["path"] == "/exit":
            await asyncio.create_task(child())
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    def ask(address: str) -> None:
        with httpx.Client(base_url=address, trust_env=False) as client:
            seen.extend(client.get(path).status_code for path in ("/", "/exit", "/exit", "/"))
        os.kill(os.getpid(), signal.SIGTERM)

    seen: list[int] = []
    config = sojourn.Config(bind=Bind(port=0), app=App(loop=loop, lifespan="off"), drain=Drain(delay=0.0))
    code = sojourn.run(app, config, announce=lambda address: threading.Thread(target=ask, args=(address,)).start())
    assert (seen, code) == ([200, 500, 500, 200], 0)
