"""The hubs of a worker, as its metrics and an operator see them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from sojourn.config import Config
from sojourn.errors import ErrandError
from sojourn.observe.hubs import HubWatch
from sojourn.scopes.hubs import ChannelInfo, HubInfo, MemberInfo, met
from sojourn.scopes.used import Figures, Key, Times
from sojourn.testing import MemoryServer
from sojourn.typing import Receive, Scope, Send
from tests.observe.metrics.samples import Counted, counting, numbers, run


class Shown:
    """A hub that is nothing but its numbers."""

    def __init__(self, name: str = "hub") -> None:
        self.name = name
        self.counts: dict[Key, float] = {}
        self.levels: dict[Key, float] = {}
        self.round_trips = [0] * 15
        self.round_trip_sum = 0.0
        self.users = {"m1": "ada", "m2": "ada", "m3": "bob"}
        self.codes: list[int] = []

    def figures(self) -> Figures:
        times = Times(tuple(self.round_trips), self.round_trip_sum)
        return Figures(dict(self.counts), dict(self.levels), {("hub_round_trip_seconds",): times})

    async def look(self, limit: int) -> HubInfo:
        members = {"direct": 3, "sse": 0}
        largest = [ChannelInfo(f"chat:{index}", 9 - index, f"k.{index}") for index in range(limit)]
        waiting = [MemberInfo("m1", "ada", "192.0.2.1:5", "direct", "normal", 2, 7, 4096, 3.5)]
        return HubInfo(self.name, "memory", None, 0.0, members, 2, 0, 1, limit, 0, 4096, largest, waiting)

    def disconnect_here(self, user: str, member: str, code: int) -> int:
        found = [each for each, of in self.users.items() if user in ("", of) and member in ("", each)]
        for each in found:
            del self.users[each]
            self.codes.append(code)
        return len(found)


class Hubs:
    """Is served, and uses its hubs when it is asked."""

    def __init__(self, *hubs: Shown) -> None:
        self.hubs = list(hubs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for hub in self.hubs:
            met(hub)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


def watched(*hubs: Shown) -> Callable[[Callable[[HubWatch], Coroutine[Any, Any, None]]], None]:
    """Runs a scene with what watches a server that has used these hubs."""

    def play(scene: Callable[[HubWatch], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with MemoryServer(Hubs(*hubs), Config()) as server:
                watch = HubWatch(server.site, None)
                server.connect().get("/")
                await server.settle()
                await scene(watch)
                watch.close()

        asyncio.run(main())

    return play


async def counted(scene: Callable[[Counted, HubWatch], Coroutine[Any, Any, None]], *hubs: Shown) -> None:
    """A scene with a server that counts what its hubs do, and has used them."""
    async with counting(Hubs(*hubs)) as it:
        watch = HubWatch(it.server.site, it.metrics.meter)
        it.server.connect().get("/")
        await it.server.settle()
        await scene(it, watch)
        watch.close()


def on_page(it: Counted, name: str, **labels: str) -> float | None:
    return numbers(it.page()).get((f"sojourn_hub_{name}", tuple(sorted(labels.items()))))


def test_what_a_hub_counts_is_on_the_page_a_second_later() -> None:
    hub = Shown()

    async def scene(it: Counted, watch: HubWatch) -> None:
        assert list(watch.hubs) == [hub]
        hub.levels["hub_members", "sse"] = 3.0
        hub.counts = {("hub_deliveries_total",): 7.0, ("hub_closes_total", "4008"): 1.0}
        hub.round_trips[5], hub.round_trip_sum = 1, 0.03
        await it.server.advance(1.1)
        assert on_page(it, "members", transport="sse") == 3.0
        assert on_page(it, "deliveries_total") == 7.0
        assert on_page(it, "closes_total", code="4008") == 1.0
        assert on_page(it, "round_trip_seconds_count") == 1.0
        assert on_page(it, "round_trip_seconds_sum") == pytest.approx(0.03)
        assert on_page(it, "round_trip_seconds_bucket", le="0.05") == 1.0
        assert on_page(it, "round_trip_seconds_bucket", le="0.025") == 0.0
        hub.counts["hub_deliveries_total",], hub.levels["hub_members", "sse"] = 8.0, 0.0
        hub.round_trips[5], hub.round_trip_sum = 2, 0.06
        await it.server.advance(1.1)
        assert on_page(it, "deliveries_total") == 8.0, "what was told is not counted again"
        assert on_page(it, "members", transport="sse") == 0.0
        assert on_page(it, "round_trip_seconds_count") == 2.0

    run(lambda: counted(scene, hub))


def test_hubs_of_a_process_are_added_up_and_of_what_is_highest_the_highest_is_shown() -> None:
    one, other = Shown("one"), Shown("other")

    async def scene(it: Counted, watch: HubWatch) -> None:
        for hub, waits, lag in ((one, 100.0, 0.5), (other, 300.0, 0.1)):
            hub.counts["hub_published_total",] = 2.0
            hub.levels["hub_buffered_bytes",] = hub.levels["hub_buffered_high_bytes",] = waits
            hub.levels["hub_engine_lag_seconds",] = lag
        await it.server.advance(1.1)
        assert on_page(it, "published_total") == 4.0
        assert on_page(it, "buffered_bytes") == 400.0
        assert on_page(it, "buffered_high_bytes") == 300.0
        assert on_page(it, "engine_lag_seconds") == 0.5

    run(lambda: counted(scene, one, other))


def test_a_hub_that_is_gone_leaves_its_counts_and_no_levels() -> None:
    hub = Shown()

    async def scene(it: Counted, watch: HubWatch) -> None:
        hub.counts["hub_published_total",], hub.levels["hub_channels",] = 5.0, 2.0
        await it.server.advance(1.1)
        watch.hubs.leave(hub)
        await it.server.advance(1.1)
        assert on_page(it, "published_total") == 5.0
        assert on_page(it, "channels") == 0.0

    run(lambda: counted(scene, hub))


def test_the_last_second_is_counted_when_it_ends() -> None:
    hub = Shown()

    async def scene(it: Counted, watch: HubWatch) -> None:
        hub.counts["hub_published_total",] = 5.0
        watch.close()
        hub.counts["hub_published_total",] = 6.0
        watch.close()
        assert on_page(it, "published_total") == 5.0

    run(lambda: counted(scene, hub))


def test_a_server_without_hubs_has_no_gauges_of_them_and_counters_of_zero() -> None:
    async def scene(it: Counted, watch: HubWatch) -> None:
        await it.server.advance(1.1)
        found = {key: value for key, value in numbers(it.page()).items() if key[0].startswith("sojourn_hub_")}
        assert set(found.values()) == {0.0}
        assert ("sojourn_hub_channels", ()) not in found
        assert ("sojourn_hub_resumes_total", (("outcome", "gap"),)) in found

    run(lambda: counted(scene))


# -- questions


def test_hubs_are_shown_by_name_with_as_much_as_is_asked_for() -> None:
    @watched(Shown("b"), Shown("a"))
    async def _(watch: HubWatch) -> None:
        assert [hub.name for hub in await watch.look({})] == ["a", "b"]
        (found,) = await watch.look({"name": "b", "limit": 3})
        assert [channel.channel for channel in found.largest] == ["chat:0", "chat:1", "chat:2"]
        assert await watch.look({"name": "c"}) == []


def test_all_members_of_a_user_are_ended_or_one_that_is_named() -> None:
    hub = Shown()

    @watched(hub)
    async def _(watch: HubWatch) -> None:
        assert await watch.disconnect({"user": "ada"}) == {"ended": 2}
        assert await watch.disconnect({"user": "ada"}) == {"ended": 0}
        assert await watch.disconnect({"member": "m3", "code": 4000, "name": "other"}) == {"ended": 0}
        assert await watch.disconnect({"member": "m3", "code": 4000}) == {"ended": 1}
        assert hub.codes == [4503, 4503, 4000]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [({}, "user or member"), ({"user": "ada", "code": 1005}, "can't be sent"), ({"users": "ada"}, "users")],
)
def test_nobody_is_ended_when_it_is_not_said_whom_or_how(arguments: dict[str, Any], told: str) -> None:
    hub = Shown()

    @watched(hub)
    async def _(watch: HubWatch) -> None:
        with pytest.raises(ErrandError, match=told) as caught:
            await watch.disconnect(arguments)
        assert caught.value.status == 400
        assert len(hub.users) == 3
