"""Tasks in a file of this host: no server needed, shared by all its processes."""

from sojourn.tasks.sqlite.journal import SqliteJournal

__all__ = ["SqliteJournal"]
