"""The request methods that have a name in metrics and traces; a client can't add one."""

from __future__ import annotations

from typing import Final

__all__ = ["METHODS"]

#: OpenTelemetry semantic conventions, ``http.request.method``; every other method is ``_OTHER`` or ``HTTP`` there.
METHODS: Final = frozenset("CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT QUERY TRACE".split())
