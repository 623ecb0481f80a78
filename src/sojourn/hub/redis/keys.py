"""Names in Redis: of keys, and of what is published to."""

from __future__ import annotations

import re
from typing import Final

from sojourn.errors import ConfigError

__all__ = ["Keys"]

_PREFIX: Final = re.compile(r"[!-~]{1,64}")


class Keys:
    """The names of one hub. All begin with its prefix.

    Those of data that are lost together have the life of the store in them, so that what is left over from another life
    is never read as of this one. Scripts are told the life, and refuse another.

    Args:
        prefix: Such as ``{sojourn:hub}:``.

    Raises:
        ConfigError: It has other characters than visible ASCII, is longer than 64, or has no part in braces.

    Example:
        >>> keys = Keys("{hub}:")
        >>> keys.channel("chat:1"), keys.last("k3f9", "chat:1")
        (b'{hub}:c:chat:1', b'{hub}:k3f9:l:chat:1')
    """

    __slots__ = ("_channel", "all", "marks", "meta", "prefix")

    def __init__(self, prefix: str) -> None:
        if not _PREFIX.fullmatch(prefix) or not re.search(r"\{[^{}]+\}", prefix):
            raise ConfigError(
                f"no prefix of a hub's keys: {prefix!r}; up to 64 visible ASCII characters, with a part in braces (for "
                "one slot of a Redis Cluster), such as '{sojourn:hub}:'"
            )
        self.prefix = prefix
        #: Life, epoch, number of the last publication; where that number was, minute by minute.
        self.meta = f"{prefix}meta".encode()
        self.marks = f"{prefix}marks".encode()
        #: What is said to all nodes is published here.
        self.all = f"{prefix}all".encode()
        self._channel = f"{prefix}c:".encode()

    def channel(self, channel: str) -> bytes:
        """Where a channel's messages are published."""
        return self._channel + channel.encode()

    def node(self, life: str, node: str) -> bytes:
        """The last batch of a node, and its answer."""
        return f"{self.prefix}{life}:n:{node}".encode()

    def last(self, life: str, channel: str) -> bytes:
        """Number of a channel's last publication, or one that is not before it."""
        return f"{self.prefix}{life}:l:{channel}".encode()

    def stream(self, life: str, channel: str) -> bytes:
        """History of a channel: a stream."""
        return f"{self.prefix}{life}:h:{channel}".encode()

    def order(self, life: str, channel: str) -> bytes:
        """Latest by key: the keys by number."""
        return f"{self.prefix}{life}:o:{channel}".encode()

    def values(self, life: str, channel: str) -> bytes:
        """Latest by key: the values."""
        return f"{self.prefix}{life}:v:{channel}".encode()

    def id(self, life: str, channel: str, name: str) -> bytes:
        """That something was published, and its number. The channel has no spaces, the id may have."""
        return f"{self.prefix}{life}:i:{channel} {name}".encode()

    def due(self, life: str) -> bytes:
        """Channels by the moment from which on somebody in them may be late."""
        return f"{self.prefix}{life}:due".encode()

    def presence(self, life: str, channel: str) -> tuple[bytes, bytes, bytes]:
        """Members, until when they are there, and how often each user is."""
        return tuple(f"{self.prefix}{life}:{kind}:{channel}".encode() for kind in "mtu")  # type: ignore[return-value]
