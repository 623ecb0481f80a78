"""Who is the broker: the supervisor for its workers, or the first process that finds nobody at a path."""

from __future__ import annotations

from collections.abc import MutableMapping

from sojourn.clock import Clock
from sojourn.hub.local.place import VARIABLE, Place, bound, from_environment, new_name
from sojourn.hub.local.serving import Serving

__all__ = ["Host", "host"]


async def host(environ: MutableMapping[str, str], *, again: bool) -> Serving:
    """Be the broker of all processes that are started from now on.

    Args:
        environ: Of this process; its children inherit the address.
        again: Whether this process was another program before that did the same, whose workers know its address.

    Returns:
        What is to be closed at the end.

    Raises:
        OSError: The socket can't be made.
    """
    name = (from_environment(environ) if again else None) or new_name()
    serving = Serving()
    await serving.start(bound(name))
    environ[VARIABLE] = name
    return serving


class Host:
    """The place of an engine's broker, and the broker itself if it is in this process.

    Args:
        path: Where it is; None until :meth:`settle` says so.
        size: Bytes that it would keep.
        clock: Times what it keeps.

    Attributes:
        name: Its address.

    Raises:
        ConfigError: The path is too long.
    """

    def __init__(self, path: str | None, *, size: int, clock: Clock) -> None:
        self.name = path
        self._place = Place(path) if path is not None else None
        self._alone = False
        self._size = size
        self._clock = clock
        self._serving: Serving | None = None

    @property
    def hosting(self) -> bool:
        """Whether this process is the broker."""
        return self._serving is not None

    def settle(self, name: str | None) -> None:
        """Take the broker at an address; None: this process is alone, and its own."""
        self._alone = name is None
        self.name = name or new_name()

    async def attend(self) -> None:
        """See that somebody is the broker: this process, if nobody else is.

        Raises:
            OSError: It would have to be, and can't.

        Cancel: safe.
        """
        if self._serving is not None or not (self._alone or self._place is not None):
            return
        sock = self._place.claim() if self._place is not None else bound(self.name or new_name())
        if sock is None:  # another process has the lock
            return
        serving = Serving(size=self._size, clock=self._clock)
        try:
            await serving.start(sock)
        except BaseException:
            serving.close()
            sock.close()
            if self._place is not None:
                self._place.release()
            raise
        self._serving = serving

    def close(self) -> None:
        """Be it no more."""
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.close()
            if self._place is not None:
                self._place.release()
