"""The flags of uvicorn: those that mean the same are understood, the others are refused with one clear line.

Flags that both have by the same name (``--host``, ``--reload``, ``--ws-ping-interval``, ...) are in ``flags.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = ["ALIASES", "HINTS", "REFUSED", "SAME", "Alias"]


class Alias(NamedTuple):
    """Another name for a key's flag.

    Attributes:
        path: The key.
        constant: The value the flag stands for; None when the flag takes a value.
        words: Values with another spelling here; others pass as they are.
    """

    path: str
    constant: str | None = None
    words: Mapping[str, str] = MappingProxyType({})


ALIASES: Final = {
    "--no-access-log": Alias("log.access", constant="off"),
    "--forwarded-allow-ips": Alias("proxy.trusted"),
    "--limit-concurrency": Alias("limits.requests"),
    "--limit-max-requests": Alias("worker.max_requests"),
    "--timeout-worker-healthcheck": Alias("worker.heartbeat"),
    "--timeout-keep-alive": Alias("timeouts.keep_alive"),
    "--timeout-graceful-shutdown": Alias("drain.total"),
    "--ssl-keyfile": Alias("tls.key"),
    "--ssl-certfile": Alias("tls.cert"),
    "--ssl-keyfile-password": Alias("tls.key_password"),
    "--ssl-ca-certs": Alias("tls.ca"),
    "--ssl-cert-reqs": Alias("tls.client_cert", words={"0": "none", "1": "optional", "2": "required"}),
    "--ssl-ciphers": Alias("tls.ciphers"),
    "--ws-max-size": Alias("websocket.message"),
    "--ws-max-queue": Alias("websocket.queue"),
    "--ws-per-message-deflate": Alias("websocket.compression"),
    "--h11-max-incomplete-event-size": Alias("limits.header_bytes"),
}

#: Flags that ask for what Sojourn always does, with the values that do; None stands for a flag without a value.
SAME: Final[Mapping[str, tuple[str, ...] | None]] = {
    "--http": ("auto", "httptools"),
    "--ws": ("auto",),
    "--no-use-colors": None,
    "--reset-contextvars": None,
}

#: Flags that ask for what Sojourn does not do: whether they take a value, and what to do instead.
REFUSED: Final[Mapping[str, tuple[bool, str]]] = {
    "--http2": (False, "Sojourn speaks HTTP/1.1; let a proxy in front speak HTTP/2"),
    "--use-colors": (False, "Sojourn writes its log without colours"),
    "--log-config": (True, "use --log-level, --access-log and --access-log-file"),
    "--header": (True, "set headers in the application or in a proxy"),
    "--limit-max-requests-jitter": (True, "use --worker-jitter, a share of --worker-max-requests"),
    "--ssl-version": (True, "use --tls-min-version 1.2 or 1.3"),
    "--reload-include": (True, "reload watches *.py, the environment file and the configuration file"),
    "--reload-exclude": (True, "reload watches *.py below --reload-dir; hidden folders are skipped"),
    "--reload-delay": (True, "reload looks every 0.5 s"),
}

#: Values of shared flags that uvicorn knows and Sojourn refuses, with what to do instead.
HINTS: Final = {
    ("app.interface", "wsgi"): "wrap the application in asgiref.wsgi.WsgiToAsgi",
    ("app.interface", "asgi2"): "wrap the application in asgiref.compatibility.guarantee_single_callable",
    ("log.level", "trace"): "debug is the finest level",
}
