"""Settings: from defaults, a file, the environment and flags to one checked ``Config``.

    keys      the table of keys, read from ``sojourn.config``
    values    what a key accepts and how it is shown
    files     which file is read, and the line of each key
    routes    ``[[routes]]``
    layers    defaults < file < environment < flags, with the origin of each key
    checks    contradictions, warnings, waits without a deadline
    describe  the effective configuration as rows

Example:
    >>> from pathlib import Path
    >>> from sojourn.server.settings import load
    >>> loaded = load(file=None, environ={"SOJOURN_TIMEOUTS_HEADER": "500ms"}, flags={}, cwd=Path("/"))
    >>> loaded.config.timeouts.header, str(loaded.origins["timeouts.header"])
    (0.5, 'SOJOURN_TIMEOUTS_HEADER')
"""

from sojourn.server.settings.checks import waits_without_deadline
from sojourn.server.settings.describe import Row, describe
from sojourn.server.settings.keys import Key, group_docs, keys
from sojourn.server.settings.layers import Given, Loaded, Origin, Problems, load

__all__ = [
    "Given",
    "Key",
    "Loaded",
    "Origin",
    "Problems",
    "Row",
    "describe",
    "group_docs",
    "keys",
    "load",
    "waits_without_deadline",
]
