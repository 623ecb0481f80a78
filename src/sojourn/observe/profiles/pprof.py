"""The format of pprof: a Protocol Buffers message, compressed by gzip.

Written by hand, because it is one message of seven kinds and needs no library.

Source: github.com/google/pprof, ``proto/profile.proto``; protobuf.dev, "Encoding".
"""

from __future__ import annotations

import gzip
from typing import Final

from sojourn.observe.profiles.model import Frame, Kind, Profile, joined

__all__ = ["encode"]

#: An int64 that is negative takes all of its 64 bits (Protocol Buffers, two's complement).
_BITS: Final = (1 << 64) - 1
#: Profile.mapping: one, and it has everything, so that pprof asks no binary for symbols.
_MAPPING: Final = 1
_FILE: Final = "python"


def encode(profile: Profile) -> bytes:
    """A profile as ``go tool pprof``, speedscope and Pyroscope read it; equal stacks with equal labels are one."""
    return gzip.compress(_Writer(profile).message(), 6, mtime=0)


class _Writer:
    """Writes one profile. Strings, functions and places get their number when they first appear."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._strings: dict[str, int] = {"": 0}  # the first is empty: proto's rule
        self._functions: dict[tuple[str, str], int] = {}
        self._places: dict[Frame, bytes] = {}
        self._function_table: list[bytes] = []
        self._place_table: list[bytes] = []

    def message(self) -> bytes:
        """The message Profile."""
        profile = self._profile
        out: list[bytes] = [_bytes(1, self._kind(kind)) for kind in profile.kinds]
        for stack, values, labels in joined(profile.samples):
            places = b"".join(map(self._place, stack))
            sample = [_bytes(1, places), _bytes(2, b"".join(map(_varint, values)))]
            sample += [_bytes(3, self._label(name, value)) for name, value in labels]
            out.append(_bytes(2, b"".join(sample)))
        flags = b"".join(_number(field, 1) for field in (7, 8, 9))  # functions, file names, line numbers
        out.append(_bytes(3, _number(1, _MAPPING) + _number(5, self._string(_FILE)) + flags))
        out += [_bytes(4, place) for place in self._place_table]
        out += [_bytes(5, function) for function in self._function_table]
        out.append(_number(9, round(profile.moment * 1e9)))
        out.append(_number(10, round(profile.seconds * 1e9)))
        if profile.period:
            out.append(_bytes(11, self._kind(profile.period_kind)))
            out.append(_number(12, profile.period))
        out += [_always(13, self._string(comment)) for comment in profile.comments]
        if profile.kinds:
            out.append(_number(14, self._string(profile.kinds[profile.default].name)))
        # Last, when all of them are known; the order of fields means nothing.
        out += [_bytes(6, text.encode("utf-8", "backslashreplace")) for text in self._strings]
        return b"".join(out)

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _kind(self, kind: Kind) -> bytes:
        return _number(1, self._string(kind.name)) + _number(2, self._string(kind.unit))

    def _label(self, name: str, value: str | int) -> bytes:
        key = _number(1, self._string(name))
        if isinstance(value, str):
            return key + _always(2, self._string(value))
        return key + _always(3, value) + _number(4, self._string(self._profile.units.get(name, "")))

    def _place(self, frame: Frame) -> bytes:
        """The number of a place, encoded."""
        known = self._places.get(frame)
        if known is None:
            number = len(self._places) + 1
            known = self._places[frame] = _varint(number)
            line = _number(1, self._function(frame)) + _number(2, frame.line)
            self._place_table.append(_number(1, number) + _number(2, _MAPPING) + _bytes(4, line))
        return known

    def _function(self, frame: Frame) -> int:
        key = (frame.function, frame.file)
        number = self._functions.get(key)
        if number is None:
            number = self._functions[key] = len(self._functions) + 1
            name = self._string(frame.function)
            self._function_table.append(
                _number(1, number) + _number(2, name) + _number(3, name) + _number(4, self._string(frame.file))
            )
        return number


def _varint(value: int) -> bytes:
    value &= _BITS
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _always(field: int, value: int) -> bytes:
    """A number, also where it is zero."""
    return _varint(field << 3) + _varint(value)


def _number(field: int, value: int) -> bytes:
    """A number; zero is what is absent."""
    return _always(field, value) if value else b""


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data
