"""What one node has of the host: the file, for who writes and who reads, and the folder of those who live."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sojourn.clock import Clock
from sojourn.errors import ConfigError, JournalUnavailable
from sojourn.tasks.sqlite.claims import bury
from sojourn.tasks.sqlite.file import File
from sojourn.tasks.sqlite.hints import Hint, Mouth
from sojourn.tasks.sqlite.nodes import Nodes, boot_of
from sojourn.tasks.sqlite.turn import Turn

__all__ = ["Host"]

#: What is wrong with the disk may be over soon, and is no mistake of the configuration.
_PASSING: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE})


class Host:
    """All but ``reading`` is used by the thread that writes.

    Args:
        path: Of the file.
        clock: The time that is written down.

    Attributes:
        writing: The file, for transactions that write.
        reading: The same for those that do not: a thread of its own uses it.
        nodes: Who lives; None before it is opened.
        on_hint: Called in the thread that writes with what a transaction has done.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        boot = boot_of()
        self._folder = Path(f"{path}-nodes")
        self.writing = File(str(path), clock, boot, True, self._told)
        self.reading = File(str(path), clock, boot, False)
        self.nodes: Nodes | None = None
        self.on_hint: Callable[[Hint], None] | None = None
        self._mouth: Mouth | None = None

    def open(self, node: str) -> None:
        """Make all of it.

        Raises:
            ConfigError: It can't be made here.
            JournalUnavailable: It can't be used at present.
        """
        self.writing.open()
        try:
            self.nodes = Nodes(self._folder, node)
        except OSError as error:
            if error.errno in _PASSING:
                raise JournalUnavailable(f"{self._folder}: {error.strerror}") from error
            raise ConfigError(f"the journal's folder {self._folder} can't be used: {error}") from error
        self._mouth = Mouth(self._folder, self.nodes.stem)
        self.look()

    def look(self) -> None:
        """End the leases of nodes that are dead, and tell those who could not be told.

        Raises:
            JournalUnavailable: The file can't be used.
        """
        if self.nodes is None or self._mouth is None:
            return
        dead = self.nodes.dead()
        if dead:
            self.writing.run(bury, list(dead.values()))
            self.nodes.remove(list(dead))
            # What they had not told any more.
            self._tell(Hint(missed=True))
        else:
            self.writing.open()  # says whether it can be used
        self._mouth.catch_up()
        self.writing.tidy()

    def close(self) -> None:
        """Give all back. What this node held waits for the end of its leases."""
        if self._mouth is not None:
            self._mouth.close()
            self._mouth = None
        if self.nodes is not None:
            self.nodes.close()
            self.nodes = None
        self.writing.close()

    def _told(self, turn: Turn) -> None:
        if turn.due or turn.changed or turn.cancelled:
            self._tell(Hint(turn.due, turn.changed, turn.cancelled))

    def _tell(self, hint: Hint) -> None:
        if self.on_hint is not None:
            self.on_hint(hint)
        if self._mouth is not None:
            self._mouth.tell(hint)
