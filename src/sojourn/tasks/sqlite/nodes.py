"""Which nodes of this host live: each holds a lock on a file of its own, which ends with its process.

A node that was killed is known at once, and what it had need not wait for its leases. Locks of POSIX: a child that was
forked has none of its parent's, so it can't keep a dead node alive. Who holds a lock in this very process can't be
asked for; the names of files tell which are its own.
"""

from __future__ import annotations

import fcntl
import os
from hashlib import blake2b
from pathlib import Path
from typing import Final

__all__ = ["Nodes", "boot_of", "process_of"]

_LOCK: Final = ".lock"
_NEW: Final = ".new"


def boot_of() -> str:
    """Names this boot of the machine; "" where nobody tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def process_of() -> str:
    """Names this process: its number, and when it began, since numbers are used again."""
    try:
        began = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        began = "0"
    return f"{os.getpid()}.{began}"


class Nodes:
    """The folder of these files.

    Args:
        folder: Made if it is not there.
        node: Who asks.

    Attributes:
        folder: The folder.
        stem: How this node's files are called, without what comes after the last dot.

    Raises:
        OSError: It can't be made, or written to.
    """

    def __init__(self, folder: Path, node: str) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder = folder
        self._process = process_of()
        self.stem = f"{self._process}.{blake2b(node.encode(), digest_size=8).hexdigest()}"
        self._path = folder / f"{self.stem}{_LOCK}"
        # Locked before it has its name: nobody ever sees it without its lock, unless its node is dead.
        new = folder / f"{self.stem}{_NEW}"
        self._fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(self._fd, node.encode())
            os.rename(new, self._path)
        except BaseException:
            os.close(self._fd)
            raise

    def dead(self) -> dict[str, str]:
        """Nodes whose process is gone, by the stems of their files."""
        found = {}
        try:
            names = os.listdir(self.folder)
        except OSError:  # the folder was removed: leases tell then
            return {}
        for name in names:
            if name.endswith(_LOCK) and not name.startswith(f"{self._process}."):
                node = self._buried(name)
                if node is not None:
                    found[name.removesuffix(_LOCK)] = node
        return found

    def _buried(self, name: str) -> str | None:
        """Whose file that is, if it is dead."""
        try:
            fd = os.open(self.folder / name, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # somebody else was faster
            return None
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.read(fd, 4096).decode()
        except OSError:  # it lives
            return None
        finally:
            os.close(fd)

    def remove(self, stems: list[str]) -> None:
        """Remove the files of nodes that are dead, and that the journal knows of."""
        for stem in stems:
            for path in self.folder.glob(f"{stem}.*"):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """This node is no more."""
        self.remove([self.stem])
        os.close(self._fd)
