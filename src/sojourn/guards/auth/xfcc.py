"""What a proxy says of its client's certificate: the header X-Forwarded-Client-Cert, as Envoy writes it."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote

__all__ = ["ForwardedCertificate", "read_xfcc"]


class ForwardedCertificate(NamedTuple):
    """One element of the header.

    Attributes:
        uri: URI in the subject's alternative names; "" without one.
        subject: Distinguished name; "" when it is not said.
        certificate: In PEM; "" when it is not said.
    """

    uri: str
    subject: str
    certificate: str


def read_xfcc(value: str) -> ForwardedCertificate:
    """The last element: what the proxy in front of us has seen itself. Those before it are hearsay.

    Raises:
        ValueError: It is not what Envoy writes, or has two URIs: then it is not clear who it is.

    Example:
        >>> read_xfcc('By=spiffe://a/server;URI=spiffe://a/web;Subject="CN=web,O=A"').uri
        'spiffe://a/web'
    """
    element = _split(value, ",")[-1]
    fields: dict[str, list[str]] = {}
    for pair in _split(element, ";"):
        key, equals, text = pair.partition("=")
        if not equals:
            raise ValueError("a field without =")
        fields.setdefault(key.strip().lower(), []).append(_plain(text.strip()))
    uris = fields.get("uri", [""])
    if len(uris) > 1:
        raise ValueError("more than one URI")
    return ForwardedCertificate(uris[0], fields.get("subject", [""])[0], unquote(fields.get("cert", [""])[0]))


def _split(value: str, separator: str) -> list[str]:
    """Parts between separators that do not stand in quotes."""
    parts, begin, at, quoted = [], 0, 0, False
    while at < len(value):
        char = value[at]
        if char == "\\" and quoted:
            at += 1
        elif char == '"':
            quoted = not quoted
        elif char == separator and not quoted:
            parts.append(value[begin:at])
            begin = at + 1
        at += 1
    if quoted:
        raise ValueError("a quote that does not end")
    return [*parts, value[begin:]]


def _plain(text: str) -> str:
    """Without its quotes, and without the backslashes in them."""
    if not (len(text) >= 2 and text[0] == text[-1] == '"'):
        return text
    plain, escaped = [], False
    for char in text[1:-1]:
        if char == "\\" and not escaped:
            escaped = True
            continue
        escaped = False
        plain.append(char)
    return "".join(plain)
