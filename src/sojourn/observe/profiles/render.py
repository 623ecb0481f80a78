"""A profile in the format that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from sojourn.errors import ErrandError
from sojourn.observe.profiles.collapsed import collapsed
from sojourn.observe.profiles.model import Frame, Profile
from sojourn.observe.profiles.pprof import encode
from sojourn.observe.profiles.speedscope import speedscope
from sojourn.observe.profiles.text import full, grouped, one_line

__all__ = ["FORMATS", "format_of", "render"]

_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"


def _json(profile: Profile) -> bytes:
    def plain(kind: Any) -> dict[str, str]:
        return {"name": kind.name, "unit": kind.unit}

    return msgspec.json.encode(
        {
            "name": profile.name,
            "moment": profile.moment,
            "seconds": profile.seconds,
            "kinds": [plain(kind) for kind in profile.kinds],
            "default": profile.default,
            "period": profile.period,
            "period_kind": plain(profile.period_kind),
            "comments": profile.comments,
            "units": profile.units,
            "samples": [
                {
                    "values": sample.values,
                    "labels": {name: _fact(value) for name, value in sample.labels},
                    "stack": [_frame(frame) for frame in sample.stack],
                }
                for sample in profile.samples
            ],
        }
    )


def _fact(value: str | int) -> str | int:
    return one_line(value) if isinstance(value, str) else value


def _frame(frame: Frame) -> dict[str, str | int]:
    return {"function": one_line(frame.function), "file": one_line(frame.file), "line": frame.line}


def _text(write: Callable[[Profile], str]) -> Callable[[Profile], bytes]:
    # A file name may hold bytes that are no UTF-8; Python keeps them as surrogates.
    return lambda profile: write(profile).encode("utf-8", "backslashreplace")


#: By name: the content type, and what writes it.
FORMATS: Final[Mapping[str, tuple[str, Callable[[Profile], bytes]]]] = {
    "pprof": ("application/octet-stream", encode),
    "text": (_TEXT, _text(grouped)),
    "full": (_TEXT, _text(full)),
    "collapsed": (_TEXT, _text(collapsed)),
    "speedscope": (_JSON, speedscope),
    "json": (_JSON, _json),
}
#: What Go calls them, by the number of ``debug``.
_DEBUG: Final = {"0": "pprof", "1": "text", "2": "full"}


def format_of(arguments: Mapping[str, Any]) -> str:
    """The format that a query asks for: ``format=...``, or ``debug=0``, ``1`` or ``2`` as with Go; else pprof.

    Raises:
        ErrandError: There is no such format.
    """
    name = arguments.get("format")
    if name is None:
        debug = str(arguments.get("debug", "0"))
        name = _DEBUG.get(debug)
        if name is None:
            raise ErrandError(400, "unknown_format", f"debug is 0, 1 or 2, not {debug!r}")
    return _known(str(name))


def render(profile: Profile, format: str) -> tuple[str, bytes]:  # noqa: A002 - the word of the query
    """Write a profile.

    Args:
        profile: The profile.
        format: One of :data:`FORMATS`.

    Returns:
        The content type and the body.

    Raises:
        ErrandError: There is no such format.
    """
    content_type, write = FORMATS[_known(format)]
    return content_type, write(profile)


def _known(name: str) -> str:
    if name not in FORMATS:
        raise ErrandError(400, "unknown_format", f"there is no format {name!r}; there are {', '.join(FORMATS)}")
    return name
