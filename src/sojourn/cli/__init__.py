"""The command line: ``sojourn serve``, ``sojourn config``, ``sojourn version``. One file per command."""
