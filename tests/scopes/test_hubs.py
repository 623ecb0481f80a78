"""Which hubs there are in a context."""

from __future__ import annotations

from contextvars import copy_context

from sojourn.bus import Bus
from sojourn.scopes.hubs import HUBS, HubInfo, Hubs, met
from sojourn.scopes.used import Figures


class Hub:
    name = "hub"

    def figures(self) -> Figures:
        raise NotImplementedError

    async def look(self, limit: int) -> HubInfo:
        raise NotImplementedError

    def disconnect_here(self, user: str, member: str, code: int) -> int:
        raise NotImplementedError


def test_a_hub_is_known_to_the_server_in_whose_context_it_is_used() -> None:
    hubs, hub, context = Hubs(Bus()), Hub(), copy_context()
    context.run(HUBS.set, hubs)
    assert context.run(met, hub) is hubs
    assert context.run(met, hub) is hubs
    assert list(hubs) == [hub]
    hubs.leave(hub)
    hubs.leave(hub)
    assert len(hubs) == 0


def test_without_a_server_nobody_is_told() -> None:
    assert copy_context().run(met, Hub()) is None
