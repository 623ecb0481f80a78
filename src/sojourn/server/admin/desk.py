"""The admin listener's own server: it listens, pauses while the supervisor is replaced, and ends last."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from sojourn.config import Config
from sojourn.net.bind import release
from sojourn.server.admin.fleet import Fleet
from sojourn.server.admin.place import admin_config, bind_admin

if TYPE_CHECKING:
    from sojourn.server.server import Server

__all__ = ["Desk"]


class Desk:
    """Where one can ask. Does nothing when ``admin.bind`` is not set.

    Args:
        config: Settings of the whole, as they are at the start.
        fleet: Who answers.
        handed: The sockets of the supervisor before; None binds new ones.

    Raises:
        ConfigError: ``admin.bind`` or ``admin.token`` can't be meant.
        BindError: It can't be listened on.
    """

    def __init__(self, config: Config, fleet: Fleet, handed: list[socket.socket] | None = None) -> None:
        #: What it listens on; none when nobody can ask.
        self.sockets = bind_admin(config) if handed is None else handed
        self._settings = config.admin
        self._config = admin_config(config)
        self._fleet = fleet
        self._server: Server | None = None

    async def start(self) -> None:
        """Answer."""
        if self.sockets:
            from sojourn.server.admin.app import admin_app  # the heavy part, with parser and TLS
            from sojourn.server.server import Server

            self._server = Server(admin_app(self._fleet, self._settings), self._config, sockets=self.sockets)
            await self._server.start()

    async def pause(self) -> None:
        """Finish what was begun, and leave who comes now to the kernel until somebody answers again."""
        server, self._server = self._server, None
        if server is not None:
            server.drain(0.0, last=False)
            await server.wait_stopped()

    async def close(self) -> None:
        """Answer nobody any more."""
        await self.pause()
        if self.sockets:
            release(self.sockets, self._config.bind)
