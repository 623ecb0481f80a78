"""The application's own metrics: what it has registered with prometheus_client, as text.

They are made in a thread, because what a collector of the application does may take its time; and only when the
application has imported prometheus_client, because otherwise there are none.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final

from sojourn.observe.aside import aside

__all__ = ["LARGEST", "application_text"]

#: Bytes of the text; families that do not fit are left out.
LARGEST: Final = 4 * 1024 * 1024
#: Seconds that making it may take.
_PATIENCE: Final = 5.0
#: Name of the thread: while there is one, no other is begun.
_NAME: Final = "sojourn-application-metrics"
#: Seconds for which the interpreter lock is given away between two families, so that the event loop gets on.
_ASIDE: Final = 0.0002


class _One:
    """A registry that holds one family."""

    def __init__(self, family: Any) -> None:
        self._family = family

    def collect(self) -> Iterator[Any]:
        yield self._family


async def application_text(loop: asyncio.AbstractEventLoop, patience: float = _PATIENCE) -> str:
    """The metrics of prometheus_client's default registry, in Prometheus' text format.

    Args:
        loop: The running loop.
        patience: Seconds that it may take; then there is a comment in their place.

    Returns:
        The text; "" when the application does not use prometheus_client.

    Cancel: safe; the thread ends by itself.
    """
    client = sys.modules.get("prometheus_client")
    registry = getattr(client, "REGISTRY", None)
    render = getattr(client, "generate_latest", None)
    if registry is None or render is None:
        return ""
    if any(thread.name == _NAME for thread in threading.enumerate()):
        return "# the application's metrics are still being collected for an earlier request\n"
    try:
        async with asyncio.timeout(patience):
            return await aside(loop, _NAME, partial(_collect, registry, render))
    except TimeoutError:
        return f"# the application's metrics took longer than {patience:g} s to collect\n"


def _collect(registry: Any, render: Callable[[Any], bytes]) -> str:
    pieces: list[str] = []
    size = left_out = 0
    pause = threading.Event()
    try:
        families: Iterable[Any] = registry.collect()
        for family in families:
            piece = render(_One(family)).decode()
            if size + len(piece) > LARGEST:
                left_out += 1
                continue
            size += len(piece)
            pieces.append(piece)
            pause.wait(_ASIDE)
    except Exception as error:  # noqa: BLE001 - a collector is the application's code, and may raise anything
        pieces.append(f"# the application's metrics end here: {type(error).__name__} while collecting\n")
    if left_out:
        pieces.append(
            f"# {left_out} of the application's metrics are left out: together they have over {LARGEST} bytes\n"
        )
    return "".join(pieces)
