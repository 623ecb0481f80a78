"""Who may do what how often: one limit, and how it knows whom it counts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sojourn.asgi.scope import route_of
from sojourn.policy.admission import client_key
from sojourn.policy.rate import Demand, Rate
from sojourn.typing import Scope

__all__ = ["Quota"]

#: Whom a quota counts: a word, a key of the scope, a function of the scope, or several of these together.
Part = str | Callable[[Scope], str | None]
#: Longer names of principals are kept as a hash.
_LONG: Final = 64
#: Clients whose key is remembered; working one out of an IPv6 address takes microseconds.
_REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True)
class Quota:
    """One limit: a rate, a burst, and whom it counts.

    Attributes:
        rate: Such as ``100/minute``, ``5/s``, ``1000/15m``.
        name: What headers, metrics and keys call it; printable ASCII without ``"``, ``\\`` and ``|``.
        per: ``client`` counts by address (after trusted proxies; IPv6 by /64), ``route`` by the pattern that the router
            matched, ``method`` by method, ``all`` everyone together. Any other word is a key of the scope, such as
            ``user``. A function of the scope gives a name, or None where nobody is named. A tuple counts by all of its
            parts. Who has no name is counted by address.
        burst: How many at once; None for what the rate gives in its time: 100 for ``100/minute``.
        path: Only requests for this path, or for a prefix that ends with ``*``; None for all.
        methods: Only these; all when empty. A WebSocket counts as GET.
        cost: Tokens that a request takes, or a function of the scope that tells.

    Raises:
        ValueError: The rate can't be read, the burst does not hold one request, or the name is none.

    Example:
        >>> Quota("100/minute", burst=20).demand({"type": "http", "client": ("192.0.2.1", 4711)})
        Demand(key='default|192.0.2.1', rate=1.6666666666666667, burst=20.0, cost=1.0)
    """

    rate: str | Rate
    name: str = "default"
    per: Part | tuple[Part, ...] = "client"
    burst: float | None = None
    path: str | None = None
    methods: tuple[str, ...] = ()
    cost: float | Callable[[Scope], float] = 1.0
    #: Tokens that flow in, each second, and how many a bucket holds.
    per_second: float = field(init=False)
    size: float = field(init=False)
    _parts: tuple[Callable[[Scope], str | None], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rate = Rate.parse(self.rate) if isinstance(self.rate, str) else self.rate
        size = float(rate.amount if self.burst is None else self.burst)
        least = 1.0 if callable(self.cost) else self.cost
        if not max(1.0, least) <= size < float("inf"):
            raise ValueError(f"quota {self.name!r} has room for {size:g}: a burst holds one request at least")
        if not self.name or not self.name.isascii() or not self.name.isprintable() or set(self.name) & set('"\\|'):
            raise ValueError(f'{self.name!r} is no name for a quota: printable ASCII without ", \\ and |')
        if not callable(self.cost) and not self.cost >= 0.0:
            raise ValueError(f"quota {self.name!r} has no cost: {self.cost!r}")
        parts = self.per if isinstance(self.per, tuple) else (self.per,)
        for name, value in (
            ("per_second", rate.per_second),
            ("size", size),
            ("methods", tuple(method.upper() for method in self.methods)),
            ("_parts", tuple(_part(part) for part in parts if part != "all")),
        ):
            object.__setattr__(self, name, value)

    def applies(self, scope: Scope) -> bool:
        """Whether a request is counted."""
        path = self.path
        if path is not None:
            asked: str = scope["path"]
            if not (asked.startswith(path[:-1]) if path.endswith("*") else asked == path):
                return False
        return not self.methods or scope.get("method", "GET") in self.methods

    def demand(self, scope: Scope, cost: float = 1.0) -> Demand | None:
        """What a request asks of which bucket.

        Args:
            scope: Of the request.
            cost: How many times what one request takes.

        Returns:
            None when it is not counted: another path or method, or the peer of a Unix socket, which has no address.
        """
        if not self.applies(scope):
            return None
        key = self.name + "|"
        parts = self._parts
        if len(parts) == 1:
            name = parts[0](scope)
            if name is None:
                return None
            key += name
        elif parts:
            names = [part(scope) for part in parts]
            if None in names:
                return None
            key += "|".join(filter(None, names))
        each = self.cost(scope) if callable(self.cost) else self.cost
        return Demand(key, self.per_second, self.size, each * cost)

    def asked_by(self, key: str, cost: float = 1.0) -> Demand:
        """The same where the caller names whom it counts."""
        each = 1.0 if callable(self.cost) else self.cost
        return Demand(f"{self.name}|{_kept(key)}", self.per_second, self.size, each * cost)


def _part(part: Part) -> Callable[[Scope], str | None]:
    if part == "client":
        return _Clients()
    if part == "route":
        return lambda scope: "r:" + _kept(route_of(scope))
    if part == "method":
        return lambda scope: "m:" + _kept(scope.get("method", "WEBSOCKET"))
    find = part if callable(part) else lambda scope: _named(part, scope.get(part))
    clients = _Clients()

    def principal(scope: Scope) -> str | None:
        name = find(scope)
        return clients(scope) if name is None else "u:" + _kept(str(name))

    return principal


class _Clients:
    """Gives a request the name of its client."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, str | None] = {}

    def __call__(self, scope: Scope) -> str | None:
        client = scope.get("client")
        if not client:
            return None
        host: str = client[0]
        try:
            return self._known[host]
        except KeyError:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[host] = client_key(host)
            return found


def _named(key: str, value: object) -> str | None:
    """The name of what stands in a scope: itself, or what Starlette and Django call it."""
    if value is None or getattr(value, "is_authenticated", True) is False:
        return None
    for each in (value, *(getattr(value, name, None) for name in ("pk", "username", "display_name"))):
        if isinstance(each, str | int):
            return str(each)
    raise TypeError(f"scope[{key!r}] is no name, but {type(value).__name__}: give a function of the scope")


def _kept(name: str) -> str:
    """A name as part of a key: short, and without what separates parts."""
    if len(name) > _LONG:
        return "#" + hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    if "|" in name or "%" in name:
        return name.replace("%", "%25").replace("|", "%7C")
    return name
