"""The gates: what Sojourn must reach against its peers, and whether it does."""

from __future__ import annotations

from dataclasses import dataclass

from bench.results import Results, Span


@dataclass(frozen=True)
class Gate:
    """`figure` of sojourn against `peer`: at least or at most `bound`. Without a peer, the figure itself.

    With `cost` it is the share of throughput that sojourn loses against `peer`, for what `cost` says.
    """

    figure: str
    peer: str
    sign: str
    bound: float
    cost: str = ""

    def span(self, results: Results) -> Span | None:
        """The measured ratio, or the measured cost."""
        if self.cost:
            return results.cost(self.figure, "sojourn", self.peer)
        if not self.peer:
            return results.span(self.figure, "sojourn")
        return results.ratio(self.figure, "sojourn", self.peer)

    def met(self, results: Results) -> bool | None:
        """None when it was not measured."""
        found = self.span(results)
        if found is None:
            return None
        return found.median >= self.bound if self.sign == ">=" else found.median <= self.bound


#: Messages of a call: peers, and how many times as much as theirs the processor time of a server must do. The bare loop
#: may be 1.3 times as fast.
FAN_OUT = {
    20: {"uvicorn": 2.0, "gorilla-hub": 3.0, "gorilla-loop": 3.0, "bare": 1 / 1.3},
    1: {"uvicorn": 1.25, "gorilla-hub": 1.2, "gorilla-loop": 1.2, "bare": 1 / 1.3},
}
#: Durable tasks: who else is on each store, and whether more or less is better.
DURABLE_PEERS = {"redis": ("saq", "streaq"), "postgres": ("procrastinate",), "sqlite": ("huey", "huey-thread")}
DURABLE_SIGNS = {"turn": ">=", "together": ">=", "done": ">=", "p50": "<=", "p99": "<=", "cpu": "<="}
GATES = (
    Gate("get", "uvicorn", ">=", 1.4),
    Gate("get", "gin", ">=", 1.0),
    Gate("get7", "uvicorn", ">=", 1.4),
    Gate("get7", "gin", ">=", 1.0),
    Gate("get1000", "uvicorn", ">=", 1.6),
    Gate("echo", "uvicorn", ">=", 1.5),
    Gate("get", "sojourn-unprotected", "<=", 0.05, cost="all protections"),
    Gate("echo", "sojourn-unprotected", "<=", 0.05, cost="all protections"),
    Gate("diagnostics", "sojourn-undiagnosed", "<=", 0.08, cost="all diagnostics"),
    Gate("idle_http", "uvicorn", "<=", 0.7),
    Gate("idle_ws", "uvicorn", "<=", 0.45),
    Gate("idle_cpu", "uvicorn", "<=", 0.6),
    Gate("overshoot", "asyncio", "<=", 1.0),
    Gate("overshoot_asyncio", "asyncio", "<=", 1.0),
    Gate("rearm", "", "<=", 0.2),
    Gate("goodput", "", ">=", 85.0),
    Gate("overload_p99", "", "<=", 3.0),
    Gate("route", "starlette", "<=", 0.1),
    Gate("route_flat", "", "<=", 1.5),
    *(
        Gate(f"fan{messages}{crowd}", peer, ">=", bound)
        for crowd in ("", "_5000")
        for messages, bounds in FAN_OUT.items()
        for peer, bound in bounds.items()
    ),
    Gate("fan_stalled", "", "<=", 1.1),
    *(
        Gate(f"durable_{store}_{key}", peer, sign, 1.0)
        for store, peers in DURABLE_PEERS.items()
        for key, sign in DURABLE_SIGNS.items()
        for peer in peers
        if (peer, key) != ("huey", "together")  # its callers wait in the event loop
    ),
)
