"""What the tests of a hub put in place of an engine and of members: engines that lag, members that write all down."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from sojourn.errors import EngineUnavailable
from sojourn.hub.engine import Page, Publish, Published, Receiver, Wanted
from sojourn.hub.forms import V1_MESSAGES
from sojourn.hub.hub import Hub
from sojourn.hub.identity import Identity
from sojourn.hub.log import Log
from sojourn.hub.member import Member
from sojourn.hub.memory import MemoryEngine, new_epoch
from sojourn.hub.publication import Publication
from sojourn.hub.pulled import PulledMember
from sojourn.hub.resume import Joined
from sojourn.hub.rules import Channel, History
from sojourn.hub.topic import Topic
from sojourn.testing.leaks import assert_no_leaks
from sojourn.wire.hub.cursor import Cursor

__all__ = ["Engine", "Recording", "gone", "in_a_loop", "joined", "pulled", "started", "turn", "turns", "until"]

#: A test that takes longer hangs.
BOUND = 10.0
Test = Callable[..., Coroutine[Any, Any, None]]


def in_a_loop(test: Test) -> Callable[..., None]:
    """Run an async test on uvloop, within a bound, and look for tasks that it has left."""

    def run(**arguments: Any) -> None:
        async def bounded() -> None:
            broken: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: broken.append(context))
            async with asyncio.timeout(BOUND):
                await test(**arguments)
            assert not broken, broken

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, assert_no_leaks():
            runner.run(bounded())

    functools.update_wrapper(run, test)
    del run.__wrapped__  # type: ignore[attr-defined]
    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return run


async def turn() -> None:
    """Let the loop do what is due."""
    await turns(10)


async def turns(count: int) -> None:
    """Let the loop turn so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], Any]) -> Any:
    """Wait until something is true; the bound of the test ends a wait that is in vain."""
    while not (value := condition()):  # noqa: ASYNC110 - what it waits for has no event
        await asyncio.sleep(0.002)
    return value


class Engine(MemoryEngine):
    """The engine in memory, with everything that a network does to one.

    Attributes:
        reading: What each call of ``history`` awaits before it reads; None: nothing.
        answering: What each awaits after it has read.
        lagging: Whether deliveries stay on their way, until they ``arrive``.
        away: Whether it can't be reached.
        asked: Channels whose history was asked for.
        most: Publications in a page at most.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.reading: Callable[[], Awaitable[object]] | None = None
        self.answering: Callable[[], Awaitable[object]] | None = None
        self.subscribing: Callable[[], Awaitable[object]] | None = None
        self.lagging = False
        self.away = False
        self.asked: list[str] = []
        self.most = 100_000
        self.on_way: deque[Publication] = deque()

    async def start(self, receiver: Receiver) -> None:
        self.hub = receiver
        await super().start(_Network(self, receiver))

    async def publish(self, publish: Publish) -> Published:
        self._reachable()
        return await super().publish(publish)

    async def subscribe(self, channel: str) -> Cursor:
        self._reachable()
        place = await super().subscribe(channel)
        if self.subscribing is not None:
            await self.subscribing()
        return place

    async def position(self) -> Cursor:
        self._reachable()
        return await super().position()

    async def history(self, wanted: Sequence[Wanted], limit: int) -> Page:
        self.asked.extend(each.channel for each in wanted)
        if self.reading is not None:
            await self.reading()
        self._reachable()
        page = await super().history(wanted, min(limit, self.most))
        if self.answering is not None:
            await self.answering()
        return page

    def arrive(self, count: int | None = None) -> None:
        """Let so many deliveries arrive; None: all."""
        for _ in range(len(self.on_way) if count is None else count):
            self.hub.deliver(self.on_way.popleft())

    def lose(self) -> None:
        """What is on its way gets lost, and nobody says so."""
        self.on_way.clear()

    def forget(self) -> None:
        """The store has lost everything: another epoch begins."""
        self._log = Log(new_epoch())

    @property
    def epoch(self) -> str:
        """The life of the store."""
        return self._log.epoch

    @property
    def seq(self) -> int:
        """Number of the last publication."""
        return self._log.seq

    @property
    def subscribed(self) -> set[str]:
        """Channels that are delivered."""
        return self._subscribed

    def _reachable(self) -> None:
        if self.away:
            raise EngineUnavailable("the network is down")


class _Network:
    """Between an engine and its receiver."""

    def __init__(self, engine: Engine, receiver: Receiver) -> None:
        self._engine = engine
        self._receiver = receiver

    def deliver(self, publication: Publication) -> None:
        self._engine.on_way.append(publication)
        if not self._engine.lagging:
            self._engine.arrive()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._receiver, name)


class Recording(Member):
    """A member that writes down what it gets.

    Attributes:
        told: The outcome of joining, publications, notices of gaps and states, in order: ``("pub", channel, seq)``,
            ``("gap", channel, seq)``, ``("state", channel, data)``.
        publications: What was delivered.
        writes: How many publications came in each call.
        closed: Code and reason; None while it is open.
    """

    transport = "websocket"

    def __init__(self, hub: Hub, user: str = "", address: str = "") -> None:
        super().__init__(hub.node, Identity(user), V1_MESSAGES, address)
        self.hub = hub
        self.told: list[tuple[Any, ...]] = []
        self.publications: list[Publication] = []
        self.writes: list[int] = []
        self.controls: list[bytes] = []
        self.places: list[Cursor] = []
        self.closed: tuple[int, str] | None = None

    @property
    def spoken_at(self) -> float:
        return self.since

    def deliver(self, publications: Sequence[Publication]) -> None:
        if self.over:
            return
        self.writes.append(len(publications))
        for publication in publications:
            self.publications.append(publication)
            self.told.append(("pub", publication.channel, publication.seq))

    def control(self, data: bytes) -> None:
        self.controls.append(data)

    def hold_gap(self, topic: Topic, cursor: Cursor) -> None:
        self.places.append(cursor)
        self.told.append(("gap", topic.channel, cursor.seq))

    def deliver_state(self, topic: Topic, state: Publication, cursor: Cursor) -> None:
        self.places.append(cursor)
        self.told.append(("state", topic.channel, state.data))

    def end(self, code: int, detail: str) -> None:
        if not self.over:
            self.closed = (code, detail)
            self.node.gone(self)

    def enter(self, topic: Topic) -> None:
        topic.pulled[self] = None  # type: ignore[index]  # it is written to in the same way

    def forsake(self, topic: Topic) -> None:
        topic.pulled.pop(self, None)  # type: ignore[call-overload]

    async def join(self, *channels: str, since: Cursor | None = None) -> list[Joined]:
        """Join channels."""

        def tell(joined: list[Joined]) -> None:
            self.told.append(("joined", *(each.recovered for each in joined)))

        return await self.hub.reception.let_in(self, dict.fromkeys(channels, since), tell, None)

    def seqs(self, channel: str | None = None) -> list[int]:
        """Numbers of what was delivered."""
        return [each.seq for each in self.publications if channel is None or each.channel == channel]


@asynccontextmanager
async def started(*channels: Channel, engine: MemoryEngine | None = None, **options: Any) -> AsyncIterator[Hub]:
    """A hub that runs; at the end nobody is in it, and nothing is left of those who were."""
    hub = Hub(engine or Engine(), channels or (Channel("{name}", History(size=100), public=True),), **options)
    async with hub:
        yield hub
        for member in list(hub.node.members.values()):
            hub.node.gone(member)
        gone(hub)


def gone(hub: Hub) -> None:
    """Nothing is left of members."""
    node, stats = hub.node, hub.counts
    assert not node.members
    assert not node.users
    for topic in node.topics.all():
        assert not topic.users, f"{topic.channel} is held by {topic.users}"
        left = [topic.groups, topic.pulled, topic.catching, topic.late, topic.full]
        assert not any(left), (topic.channel, left)
    assert not node.backlog.behind
    assert (stats.buffered, stats.slow, stats.suspect) == (0, 0, 0)
    assert not any(stats.members.values()), stats.members


async def joined(hub: Hub, *channels: str, since: Cursor | None = None, user: str = "") -> Recording:
    """A member that is in some channels."""
    member = Recording(hub, user)
    hub.reception.admit(member)
    await member.join(*channels, since=since)
    return member


def pulled(hub: Hub, user: str = "") -> PulledMember:
    """A member whose task would write, if it had one."""
    member = PulledMember(hub.node, Identity(user), V1_MESSAGES, "websocket")
    hub.reception.admit(member)
    return member
