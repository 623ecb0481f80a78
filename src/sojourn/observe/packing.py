"""MessagePack of large answers, made in slices so that the event loop is never held for long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from sojourn.observe.turn import turn

__all__ = ["packed"]

#: Items of a list encoded in one turn of the loop: with their stacks about half a millisecond.
_SLICE: Final = 250
_ENCODER: Final = msgspec.msgpack.Encoder()


async def packed(loop: asyncio.AbstractEventLoop, value: object) -> bytes:
    """Encode a value; long lists, also those that are fields of a struct, in slices.

    Args:
        loop: The running loop.
        value: Anything msgspec encodes.

    Cancel: safe.

    Source:
        The MessagePack specification, formats array 32 and map 32.
    """
    if isinstance(value, list) and len(value) > _SLICE:
        return await _array(loop, value)
    if isinstance(value, msgspec.Struct):
        fields: dict[str, Any] = {name: getattr(value, name) for name in value.__struct_fields__}
    elif isinstance(value, dict):
        fields = value
    else:
        return _ENCODER.encode(value)
    if not any(isinstance(field, list) and len(field) > _SLICE for field in fields.values()):
        return _ENCODER.encode(value)
    pieces = [b"\xdf" + len(fields).to_bytes(4, "big")]
    for name, field in fields.items():
        pieces.append(_ENCODER.encode(name))
        pieces.append(await packed(loop, field))
    return b"".join(pieces)


async def _array(loop: asyncio.AbstractEventLoop, items: Sequence[object]) -> bytes:
    pieces = [b"\xdd" + len(items).to_bytes(4, "big")]
    for start in range(0, len(items), _SLICE):
        pieces.extend(_ENCODER.encode(item) for item in items[start : start + _SLICE])
        await turn(loop)
    return b"".join(pieces)
