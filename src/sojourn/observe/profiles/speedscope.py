"""The format of speedscope.app: JSON with a table of frames and one sampled profile for each kind.

Source: speedscope, ``src/lib/file-format-spec.ts``.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from sojourn.observe.profiles.model import Frame, Profile, joined
from sojourn.observe.profiles.text import one_line

__all__ = ["speedscope"]

_SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"
#: The units it knows; whatever else there is has none.
_UNITS: Final = frozenset({"nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"})


def speedscope(profile: Profile) -> bytes:
    """All kinds of a profile; labels are left out, and negative values are zero."""
    numbers: dict[Frame, int] = {}
    samples = joined(sample._replace(labels=()) for sample in profile.samples)
    stacks = [[numbers.setdefault(frame, len(numbers)) for frame in reversed(sample.stack)] for sample in samples]
    profiles: list[dict[str, Any]] = []
    for place, kind in enumerate(profile.kinds):
        weights = [max(0, sample.values[place]) for sample in samples]
        profiles.append(
            {
                "type": "sampled",
                "name": f"{profile.name} {kind.name}",
                "unit": kind.unit if kind.unit in _UNITS else "none",
                "startValue": 0,
                "endValue": sum(weights),
                "samples": stacks,
                "weights": weights,
            }
        )
    return msgspec.json.encode(
        {
            "$schema": _SCHEMA,
            "name": profile.name,
            "exporter": "sojourn",
            "activeProfileIndex": profile.default,
            "shared": {
                "frames": [
                    {"name": one_line(frame.function), "file": one_line(frame.file), "line": frame.line}
                    for frame in numbers
                ]
            },
            "profiles": profiles,
        }
    )
