"""The only list of connections: accepted is open plus ended, always."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from sojourn.ending import Ending, How, Phase
from sojourn.events import ConnectionEnded, ConnectionOpened
from sojourn.net.connection import Connection
from tests.net.scene import Scene, play

END = Ending("completed", Phase.IDLE, How.FIN)


@given(st.lists(st.integers(-5, 20), max_size=60))
@settings(max_examples=50, deadline=None)
def test_accepted_is_open_plus_ended_after_any_sequence(steps: list[int]) -> None:
    async def main() -> None:
        stage = Scene()
        registry = stage.runtime.registry
        opened: list[Connection] = []
        for step in steps:
            if step < 0 or not opened:
                opened.append(stage.accept())
            else:
                opened.pop(step % len(opened)).end(END)
            assert registry.accepted == len(registry) + registry.ended
            assert {connection.id for connection in registry} == {connection.id for connection in opened}
            assert registry.ended == sum(registry.ended_by.values())
        kinds = [type(event) for event in stage.events]
        assert kinds.count(ConnectionOpened) == registry.accepted
        assert kinds.count(ConnectionEnded) == registry.ended

    asyncio.run(main())


def test_ids_are_never_used_twice() -> None:
    async def scene(stage: Scene) -> None:
        ids = []
        for _ in range(10):
            connection = stage.accept()
            ids.append(connection.id)
            connection.end(END)
        assert ids == list(range(1, 11))

    play(scene)


def test_connections_can_end_while_they_are_walked_over() -> None:
    async def scene(stage: Scene) -> None:
        for _ in range(10):
            stage.accept()
        for connection in stage.runtime.registry:
            connection.end(END)
        assert len(stage.runtime.registry) == 0

    play(scene)


def test_who_waits_for_the_last_one_is_told_once() -> None:
    async def scene(stage: Scene) -> None:
        told: list[int] = []
        left: list[int] = []
        first, second = stage.accept(), stage.accept()
        stage.runtime.registry.on_empty = lambda: told.append(1)
        stage.runtime.registry.left = lambda connection: left.append(connection.id)
        first.end(END)
        assert told == []
        second.end(END)
        second.lost(None)
        assert (told, left) == ([1], [first.id, second.id])

    play(scene)


def test_the_last_hundred_endings_are_kept() -> None:
    async def scene(stage: Scene) -> None:
        for _ in range(150):
            stage.accept().end(END)
        recent = stage.runtime.registry.recent
        assert [ended.connection for ended in recent] == list(range(51, 151))
        assert stage.runtime.registry.ended_by["completed"] == 150

    play(scene)
