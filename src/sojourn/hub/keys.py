"""What a publication is the latest value of."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw
from msgspec.json import Decoder

from sojourn.hub.publication import Kind, Publication

__all__ = ["key_of"]

_OBJECT: Final[Decoder[dict[str, Raw]]] = Decoder(dict[str, Raw])


def key_of(publication: Publication, field: str | None) -> bytes:
    """The key of a publication, to be compared with those of its channel.

    Args:
        publication: Which. Its payload is read once, however many members it waits for.
        field: Field of a JSON object whose value is the key; where it is missing, and with None, the publication's own
            ``key`` counts.
    """
    name = ("key", field)
    try:
        return publication.forms[name]
    except KeyError:
        key = publication.forms[name] = _read(publication, field)
        return key


def _read(publication: Publication, field: str | None) -> bytes:
    if field is not None and publication.kind is Kind.JSON:
        try:
            value = _OBJECT.decode(publication.data).get(field)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            value = None  # no object, so it has no fields
        if value is not None:
            return bytes(value)
    return b"key " + publication.key.encode()  # no JSON begins like this
