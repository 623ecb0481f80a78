"""The ``http.response.pathsend`` extension: the server reads the file."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from sojourn.typing import Send

__all__ = ["send_file"]

_PIECE: Final = 256 * 1024


async def send_file(send: Send, path: str) -> None:
    """Send a file as the body, or as the rest of it, in pieces read in a thread so that a slow disk holds nobody up.

    Args:
        send: ASGI send of the response.
        path: Absolute path.

    Raises:
        OSError: It can't be read.

    Cancel: safe; the file is closed.
    """
    loop = asyncio.get_running_loop()
    opening = loop.run_in_executor(None, open, path, "rb")
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)  # the thread can't be stopped, and what it opens is nobody's
        raise
    try:
        piece = await loop.run_in_executor(None, file.read, _PIECE)
        while piece:
            following = await loop.run_in_executor(None, file.read, _PIECE)
            await send({"type": "http.response.body", "body": piece, "more_body": bool(following)})
            if not following:
                break
            piece = following
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    except asyncio.CancelledError:
        loop.run_in_executor(None, file.close)  # a thread may still read in it, and would be waited for here
        raise
    except BaseException:
        file.close()
        raise
    file.close()


def _close(opening: asyncio.Future[Any]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
