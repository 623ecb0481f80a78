"""``python -m sojourn.ops.monitoring DIR`` writes dashboards and rules to a folder."""

from __future__ import annotations

import sys
from pathlib import Path

from sojourn.ops.monitoring.files import export


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    if len(arguments) != 1:
        print("usage: python -m sojourn.ops.monitoring DIR", file=sys.stderr)
        return 2
    try:
        written = export(Path(arguments[0]))
    except OSError as error:
        print(f"can't write to {arguments[0]}: {error.strerror}", file=sys.stderr)
        return 1
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
