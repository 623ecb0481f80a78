"""What a client of a hub waits for, keeps and sends, at most."""

from __future__ import annotations

import msgspec

from sojourn.errors import ConfigError

__all__ = ["ClientRules"]


class ClientRules(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one client; all durations are in seconds.

    Args:
        connect: For the token, the connection and its handshake together.
        hello: From there to the server's greeting.
        reply: For the answer to a command, with the time it waits for a connection.
        write: For the server to take what is written to it.
        close: For the closing handshake.
        first: Ceiling of the wait before the first try; it doubles with each, and the wait is any moment below it.
        most: Ceiling of all of them.
        give_up_after: Without a connection for so long, the client gives up. None: never.
        buffer: Messages of one channel that wait for the application, and above which nothing is read any more.
        buffer_bytes: The same in bytes.
        queued: Commands that wait for a connection, or for their answer.
        queued_bytes: The same in bytes.
        in_flight: Commands that wait for their answer at the same time; the others wait behind them.
        rate: Commands in a second, on average: not above what the hub allows (``Limits.inbound_rate``).
        burst: Commands at once: not above what it allows (``Limits.inbound_burst``).
        frame: Bytes of one frame of the server.
    """

    connect: float = 10.0
    hello: float = 10.0
    reply: float = 10.0
    write: float = 10.0
    close: float = 2.0
    first: float = 0.5
    most: float = 20.0
    give_up_after: float | None = 3600.0
    buffer: int = 1000
    buffer_bytes: int = 1024 * 1024
    queued: int = 1000
    queued_bytes: int = 1024 * 1024
    in_flight: int = 16
    rate: float = 45.0
    burst: int = 90
    frame: int = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"ClientRules: {name} must be above zero, not {value!r}")
        if self.first > self.most:
            raise ConfigError(f"ClientRules: first ({self.first:g} s) must not be above most ({self.most:g} s)")
