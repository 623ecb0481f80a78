"""The command line of the process, without its secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["command_line", "redacted"]

_HIDDEN: Final = "<hidden>"
#: Names of options and variables whose values are nobody's business.
_SECRET: Final = re.compile(
    r"pass(word|wd|phrase)?|secret|token|credential|(api|private|access)[-_]?key|auth|dsn", re.I
)
#: ``name=value``, with or without dashes in front.
_ASSIGNED: Final = re.compile(r"(?s)(-{0,2}[\w.\-]+)=(.*)")
#: User and password of a URL (RFC 3986 section 3.2.1).
_USER: Final = re.compile(r"(?i)\b([a-z][a-z0-9+.\-]*://)[^/\s@]+@")
#: A secret in the query of a URL.
_QUERY: Final = re.compile(r"([?&][^=&\s#]+)=([^&\s#]*)")


def redacted(arguments: Iterable[str]) -> list[str]:
    """Arguments with their secrets hidden: values of options with a telling name, users and passwords in URLs."""
    out: list[str] = []
    hide = False
    for argument in arguments:
        if hide and not argument.startswith("-"):
            out.append(_HIDDEN)
            hide = False
            continue
        assigned = _ASSIGNED.fullmatch(argument)
        if assigned is not None and _SECRET.search(assigned[1]):
            out.append(f"{assigned[1]}={_HIDDEN}")
            hide = False
            continue
        hide = argument.startswith("-") and assigned is None and _SECRET.search(argument) is not None
        cleaned = _USER.sub(rf"\1{_HIDDEN}@", argument)
        out.append(_QUERY.sub(lambda found: f"{found[1]}={_HIDDEN}" if _SECRET.search(found[1]) else found[0], cleaned))
    return out


def command_line(arguments: Iterable[str]) -> bytes:
    """The command line as Go's ``/debug/pprof/cmdline`` gives it: arguments separated by NUL.

    Args:
        arguments: Such as ``sys.orig_argv``.
    """
    return "\0".join(redacted(arguments)).encode("utf-8", "backslashreplace")
